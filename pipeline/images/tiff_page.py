"""What the directory of a TIFF page says about its pixels: what is refused, by its right name, and what libvips leaves
to be done: YCbCr to RGB, channels that are no transparency.

Source: TIFF 6.0, sections 18 (extra samples), 19 (sample formats), 21 (YCbCr); TIFF/EP and DNG for raw files.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.images.notes import note
from pipeline.images.photo import ImageError
from pipeline.images.tiff import Directory, TiffFile, Value
from pipeline.images.vips import _strips

_SUBFILE, _WIDTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES = 0x00FE, 0x0100, 0x0102, 0x0103, 0x0106, 0x0115
_PLANAR, _TILE_WIDTH, _EXTRA, _SAMPLE_FORMAT, _DNG = 0x011C, 0x0142, 0x0152, 0x0153, 0xC612
_COEFFICIENTS, _REFERENCES = 0x0211, 0x0214
_PIXELS = ((0x0111, 0x0117), (0x0144, 0x0145))  # offsets and byte counts, of strips and of tiles
_YCBCR, _JPEG = 6, (6, 7)
_CHANNELS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}  # of pixels, by photometric interpretation
_OTHER_SPACES = {
    4: "transparency mask", 8: "CIELAB", 9: "ICCLAB", 10: "ITULAB", 32803: "color filter array", 32844: "LogL",
    32845: "LogLuv", 34892: "linear raw",
}  # fmt: skip
_FORMATS = {2: "signed", 3: "float", 4: "undefined", 5: "complex", 6: "complex"}
_ALPHA = (1, 2)  # premultiplied, which libvips undoes, or not


def page_directory(tiff: TiffFile, page: int) -> Directory:
    """The directory of a page, counted from 0. Raises ImageError where there is none."""
    offsets = tiff.pages(page + 1)
    if page >= len(offsets):
        raise ImageError(f"there is no page {page + 1}: it holds {len(offsets)}")
    return tiff.directory(offsets[page])


def check_page(directory: Directory, length: int, page: int) -> None:
    """Refuses what libvips would take for a picture: camera raw files (it would read their preview), numbers and color
    spaces that it takes for others, and files that end before their pixels (it would leave them black).

    length: of the file in bytes
    """
    if _DNG in directory or (page == 0 and _number(directory, _SUBFILE, 0) & 1):
        raise ImageError("a camera raw file, or a TIFF that begins with a preview; develop it first")
    space = _number(directory, _PHOTOMETRIC, -1)
    if space in _OTHER_SPACES:
        raise ImageError(f"color space {_OTHER_SPACES[space]}; gray, RGB, YCbCr and CMYK are read")
    bits, form = _number(directory, _BITS, 1), _number(directory, _SAMPLE_FORMAT, 1)
    if form in _FORMATS or bits > 16:
        kind = _FORMATS.get(form, "unsigned")
        raise ImageError(f"pixels of type {kind}, {bits} bits; 8 and 16 bits per channel are read, unsigned")
    if _number(directory, _PLANAR, 1) == 2 and _TILE_WIDTH in directory:
        raise ImageError("channels in separate planes of tiles; planes of strips, and tiles of pixels, are read")
    for starts, sizes in _PIXELS:
        first, size = directory.get(starts), directory.get(sizes)
        if isinstance(first, Value) and isinstance(size, Value):
            offsets, counts = first.numbers().astype(np.uint64), size.numbers().astype(np.uint64)
            shared = min(len(offsets), len(counts))
            if shared and (offsets[:shared] + counts[:shared]).max() > length:
                raise ImageError("damaged or truncated: the file ends before its pixels")


def corrected(pixels: NDArray[Any], directory: Directory) -> NDArray[Any]:
    """Pixels (H, W, bands) of libvips as gray, RGB or CMYK, with transparency last if there is any."""
    space = _number(directory, _PHOTOMETRIC, -1)
    samples = _number(directory, _SAMPLES, 1)
    raw_ycbcr = space == _YCBCR and _number(directory, _COMPRESSION, 1) not in _JPEG
    if raw_ycbcr and pixels.shape[2] == 4 and samples == 3:
        return pixels[..., :3]  # shared Cb and Cr: libvips has made RGB, and an opaque channel
    if raw_ycbcr and pixels.shape[2] == 3:
        return _rgb_from_ycbcr(pixels, directory)
    base = _CHANNELS.get(space, 0)
    extra = samples - base
    if extra <= 0 or pixels.shape[2] != samples or space == 3:
        return pixels
    value = directory.get(_EXTRA)
    kinds = list(value.numbers()) if isinstance(value, Value) else []
    kinds = [int(kind) for kind in kinds] + [0] * (extra - len(kinds))
    alpha = next((base + place for place, kind in enumerate(kinds[:extra]) if kind in _ALPHA), None)
    left_out = extra - (alpha is not None)
    if left_out:
        channels = "an extra channel that is" if left_out == 1 else f"{left_out} extra channels that are"
        note(f"{channels} not transparency: left out")
    return pixels[..., :base] if alpha is None else pixels[..., [*range(base), alpha]]


def _rgb_from_ycbcr(pixels: NDArray[Any], directory: Directory) -> NDArray[Any]:
    """Source: TIFF 6.0, section 20 (reference black and white) and 21."""
    peak = float(np.iinfo(pixels.dtype).max)
    half = (peak + 1) / 2
    red, green, blue = _fractions(directory, _COEFFICIENTS, [0.299, 0.587, 0.114])
    references = _fractions(directory, _REFERENCES, [0, peak, half, peak, half, peak])
    black, white = np.array(references[0::2]), np.array(references[1::2])
    scale = np.array([peak, peak - half, peak - half]) / np.where(white == black, 1, white - black)
    result = np.empty_like(pixels)
    for rows in _strips(*pixels.shape[:2]):
        y, cb, cr = np.moveaxis((pixels[rows].astype(np.float64) - black) * scale, -1, 0)
        r, b = y + (2 - 2 * red) * cr, y + (2 - 2 * blue) * cb
        g = (y - red * r - blue * b) / green
        result[rows] = np.clip(np.rint(np.stack([r, g, b], axis=-1)), 0, peak)
    return result


def _number(directory: Directory, tag: int, default: int) -> int:
    value = directory.get(tag)
    number = value.number() if isinstance(value, Value) else None
    return default if number is None else number


def _fractions(directory: Directory, tag: int, default: list[float]) -> list[float]:
    value = directory.get(tag)
    found = value.fractions() if isinstance(value, Value) else []
    return found if len(found) == len(default) and (tag != _COEFFICIENTS or found[1] > 0) else default
