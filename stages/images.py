"""Photographs in and out of files: everything between pixels on disk and the float gray the stages see.

A picture becomes a `Photo`: its upright gray (Rec. 601 luma, exact) with what must survive to the output (bit
depth, alpha, EXIF, resolution). The stages color the gray, `quantize` rounds the result, `save_photo` writes
it back with the same accompaniment and an sRGB profile. Pixels of files go through libvips, which Pillow
cannot replace: it has no 16-bit RGB. docs/files.md says what is read, kept and refused.
"""

from __future__ import annotations

import io
import os
import secrets
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyvips  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms, TiffImagePlugin

from stages.color import LUMA_BLUE, LUMA_GREEN, LUMA_RED, lab_from_rgb

__all__ = [
    "FORMATS", "MAX_PIXELS", "ImageError", "Photo", "load_photo", "quantize", "save_gray", "save_photo", "srgb_profile",
]  # fmt: skip

MAX_PIXELS = 300_000_000  # read from the header, before anything is decoded
FORMATS = {  # suffix -> format of the file written
    ".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".tif": "tiff", ".tiff": "tiff", ".webp": "webp",
}  # fmt: skip

_LUMA = np.array([LUMA_RED, LUMA_GREEN, LUMA_BLUE])
_PEAK = {8: 255, 16: 65535}
_STRIP = 1 << 20  # pixels worked on at a time: bounds the memory of temporaries
_UNKNOWN_DPI = 72.0  # the files libvips writes always state a resolution; 72 is the customary "none"

_ORIENTATION, _EXIF_IFD, _GPS_IFD, _INTEROP_IFD = 0x0112, 0x8769, 0x8825, 0xA005
# What a TIFF's own directory says about the photograph; its other tags describe the file.
_SUBFILE_TYPE, _DNG_VERSION = 0x00FE, 0xC612
_TIFF_STRIPS, _TIFF_TILES = (0x0111, 0x0117), (0x0144, 0x0145)  # offsets, byte counts
_TIFF_TEXTS = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)

# A picture has only a tint when its a*, b* are a smooth function of its lightness: what a parabola leaves is
# below 1.6 CIELAB units, or below an eighth of a strong tint. Scans of one-color prints reach 0.8 and 0.10;
# of 2200 color photographs 14 lie below.
_TINT_RESIDUAL, _TINT_SHARE = 1.6, 0.12


class ImageError(ValueError):
    """A picture that cannot be read or written; the message is one line: which picture, what is wrong."""


@dataclass(eq=False)
class Photo:
    """A picture ready to be colored.

    gray: (H, W) float32 in [0, 1], Rec. 601 luma of the sRGB picture, upright
    depth: bits per channel of the input, 8 or 16
    alpha: (H, W) uint8 or uint16 (by depth), upright, None without an alpha channel
    exif: the EXIF block, starting with b"Exif\\0\\0", its orientation reset to 1 and its thumbnail unlinked
    dpi: horizontal and vertical pixels per inch of the upright picture, None where the input does not say
    is_color: the input shows more than one tint; the stages use its luma all the same
    format: "jpeg", "png", "tiff", "webp", or "" for a picture that was not a file
    """

    gray: NDArray[np.float32]
    depth: int
    alpha: NDArray[Any] | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    is_color: bool = False
    format: str = ""


# ---------------------------------------------------------------------------------------------------- reading


def load_photo(
    source: str | os.PathLike[str] | Image.Image | NDArray[Any], *, max_pixels: int = MAX_PIXELS
) -> Photo:
    """Read a picture: a file, a PIL image, or a numpy array.

    source: path of a JPEG, PNG, TIFF or WebP file (told by content, not by suffix); a PIL image; or an array
        (H, W) or (H, W, 1 | 2 | 3 | 4): gray, gray + alpha, RGB, RGBA; uint8, uint16 or float in [0, 1]
    max_pixels: refuse larger pictures before decoding them
    raises ImageError with a one-line reason; TypeError for another kind of source
    """
    if isinstance(source, str | os.PathLike):
        return _load_file(Path(source), max_pixels)
    if isinstance(source, Image.Image):
        return _load_pil(source, max_pixels)
    if isinstance(source, np.ndarray):
        return _load_array(source, max_pixels)
    raise TypeError(f"a picture is a path, a PIL image or a numpy array; got {type(source).__name__}")


def _load_file(path: Path, max_pixels: int) -> Photo:
    try:
        with open(path, "rb") as file:
            kind = _format_of(file.read(64))
            photo = _decode(file, kind, max_pixels)
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}") from error
    except pyvips.Error as error:
        raise ImageError(f"{path}: damaged or truncated: {_reason(error)}") from error
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    photo.format = kind
    return photo


def _format_of(head: bytes) -> str:
    """The format that the first bytes of a file announce; only the four formats are let near a decoder."""
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if not head:
        raise ImageError("the file is empty")
    others = {
        "GIF": head[:4] == b"GIF8", "BMP": head[:2] == b"BM", "PDF": head[:4] == b"%PDF",
        "HEIF or AVIF": head[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1", b"ftypavif"),
        "JPEG 2000": head[:12] == b"\0\0\0\x0cjP  \r\n\x87\n" or head[:4] == b"\xff\x4f\xff\x51",
        "JPEG XL": head[:2] == b"\xff\x0a" or head[:12] == b"\0\0\0\x0cJXL \r\n\x87\n",
        "PSD": head[:4] == b"8BPS", "SVG": head.lstrip()[:4] == b"<svg",
    }  # fmt: skip
    name = next((name for name, found in others.items() if found), None)
    wanted = "JPEG, PNG, TIFF and WebP files are read"
    raise ImageError(f"a {name} file; {wanted}" if name else f"not an image; {wanted}")


def _decode(file: BinaryIO, kind: str, max_pixels: int) -> Photo:
    # By descriptor, not by name: libvips would answer from its cache although the file has changed since.
    file.seek(0)
    source = pyvips.Source.new_from_descriptor(file.fileno())
    load = getattr(pyvips.Image, f"{kind}load_source")
    image = load(source, access="sequential", fail_on="truncated")
    fields = set(image.get_fields())

    _check_size(image.width, image.height, max_pixels)
    if "n-pages" in fields and image.get("n-pages") > 1:
        raise ImageError(f"holds {image.get('n-pages')} pages or frames; one picture per file is read")
    if image.format not in ("uchar", "ushort"):
        raise ImageError(f"pixels of type {image.format}; 8 and 16 bits per channel are read")
    spaces = {"b-w": "gray", "grey16": "gray", "srgb": "rgb", "rgb": "rgb", "rgb16": "rgb", "cmyk": "cmyk"}
    space = spaces.get(image.interpretation)
    if space is None:
        raise ImageError(f"color space {image.interpretation}; gray, RGB and CMYK are read")

    exif = image.get("exif-data") if "exif-data" in fields else None
    if kind == "tiff":
        exif = _read_tiff_tags(file)
    pixels = image.numpy().reshape(image.height, image.width, image.bands)
    return _photo(
        pixels,
        space,
        profile=image.get("icc-profile-data") if "icc-profile-data" in fields else None,
        orientation=image.get("orientation") if "orientation" in fields else 1,
        exif=exif,
        dpi=_dpi_of(image, fields, kind) or _dpi_of_exif(exif),
    )


def _load_pil(image: Image.Image, max_pixels: int) -> Photo:
    _check_size(*image.size, max_pixels)
    try:
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"PIL image: damaged or truncated: {error}") from error
    exif = image.getexif()
    orientation = exif.get(_ORIENTATION, 1)
    if image.format == "TIFF":  # Pillow mixes the tags that describe the file with those of the photograph
        exif = _photographic(exif)

    space, transparent = "gray", "transparency" in image.info
    match image.mode:
        case "1" | "L":
            plain = image.convert("LA") if transparent else image.convert("L")
        case "LA" | "La":
            plain = image.convert("LA")
        case "RGB" | "RGBA" | "P" | "PA" | "RGBX" | "RGBa" | "YCbCr" | "HSV":
            with_alpha = transparent or image.mode in ("RGBA", "PA", "RGBa")
            space, plain = "rgb", image.convert("RGBA" if with_alpha else "RGB")
        case "CMYK":
            space, plain = "cmyk", image
        case "I;16" | "I;16L" | "I;16B" | "I;16N" | "I":
            plain = image
        case _:
            raise ImageError(
                f"PIL image of mode {image.mode}; 1, L, LA, P, RGB, RGBA, CMYK and I;16 are read "
                "(float pictures as numpy arrays in [0, 1])"
            )
    pixels = np.asarray(plain)
    if image.mode.startswith("I"):
        if pixels.min() < 0 or pixels.max() > 65535:
            levels = f"{pixels.min()}..{pixels.max()}"
            raise ImageError(f"PIL image of mode I with levels {levels}; 0..65535 is read")
        pixels = pixels.astype(np.uint16)[..., None]
        if isinstance(clear := image.info.get("transparency"), int):
            alpha = np.where(pixels == clear, 0, 65535).astype(np.uint16)
            pixels = np.concatenate([pixels, alpha], axis=2)
    dpi = image.info.get("dpi")
    block = exif.tobytes() if len(exif) else None
    return _photo(
        pixels.reshape(image.height, image.width, -1),
        space,
        profile=image.info.get("icc_profile"),
        orientation=orientation,
        exif=block,
        dpi=(float(dpi[0]), float(dpi[1])) if dpi else _dpi_of_exif(block),
    )


def _load_array(pixels: NDArray[Any], max_pixels: int) -> Photo:
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 2, 3, 4):
        raise ImageError(f"an array must be (H, W) or (H, W, 1 | 2 | 3 | 4); got {pixels.shape}")
    _check_size(pixels.shape[1], pixels.shape[0], max_pixels)
    if pixels.dtype.kind == "f":
        if not (pixels.min() >= 0 and pixels.max() <= 1):  # also where either is NaN
            got = f"[{pixels.min():.3g}, {pixels.max():.3g}]"
            raise ImageError(f"a float array must be in [0, 1]; got {got}. Divide 8-bit levels by 255.")
    elif pixels.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"an array must be uint8, uint16 or float; got {pixels.dtype}")
    return _photo(pixels, "gray" if pixels.shape[2] < 3 else "rgb")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"no pixels: {width} x {height}")
    if width * height > max_pixels:
        raise ImageError(
            f"{width} x {height} is {width * height / 1e6:.0f} megapixels, more than the limit of "
            f"{max_pixels / 1e6:.0f}; if it is not a decompression bomb, give load_photo(…, max_pixels=…)"
        )


def _photo(
    pixels: NDArray[Any],
    space: str,
    *,
    profile: bytes | None = None,
    orientation: int = 1,
    exif: bytes | None = None,
    dpi: tuple[float, float] | None = None,
) -> Photo:
    """The photo of decoded pixels (H, W, bands) in `space` "gray", "rgb" or "cmyk", with or without alpha."""
    bands = {"gray": 1, "rgb": 3, "cmyk": 4}[space]
    if pixels.shape[2] not in (bands, bands + 1):
        raise ImageError(f"{pixels.shape[2]} channels of {space}; {bands}, with alpha {bands + 1}, are read")
    depth = 8 if pixels.dtype == np.uint8 else 16
    alpha = None
    if pixels.shape[2] > bands:
        alpha = pixels[..., bands]
        if alpha.dtype.kind == "f":
            alpha = np.rint(alpha * 65535.0).astype(np.uint16)
    profile = _usable_profile(profile, space)

    color = pixels[..., :bands]
    if space == "gray":
        gray, is_color = _gray_from_levels(color[..., 0], profile), False
    else:
        rgb = color
        if space == "cmyk" or (profile and not _is_srgb(profile)):
            rgb = _srgb_from(color, profile or "cmyk", "cmyk" if space == "cmyk" else "rgb")
        gray, is_color = _luma(rgb), _more_than_a_tint(rgb)

    turned = orientation in (5, 6, 7, 8)
    return Photo(
        gray=_upright(gray, orientation),
        depth=depth,
        alpha=None if alpha is None else _upright(alpha, orientation),
        exif=_neutral_exif(exif),
        dpi=(dpi[1], dpi[0]) if dpi and turned else dpi,
        is_color=is_color,
    )


def _upright(plane: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply an EXIF orientation (tag 0x0112, 1..8; anything else counts as 1) to (H, W)."""
    if orientation in (5, 6, 7, 8):
        plane = plane.T
    if orientation in (3, 4, 7, 8):
        plane = plane[::-1]
    if orientation in (2, 3, 6, 7):
        plane = plane[:, ::-1]
    return np.ascontiguousarray(plane)


# ---------------------------------------------------------------------------------------------- color to gray


def _strips(height: int, width: int) -> Iterator[slice]:
    rows = max(1, _STRIP // width)
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def _gray_from_levels(levels: NDArray[Any], profile: bytes | None) -> NDArray[np.float32]:
    """Gray levels (H, W) to [0, 1]: exactly level / 255 or / 65535, unless a profile says otherwise."""
    if levels.dtype.kind == "f":
        return levels.astype(np.float32)
    peak = np.iinfo(levels.dtype).max
    table = np.arange(peak + 1) / peak
    if profile:
        ramp = np.rint(table * 65535).astype(np.uint16)[None, :, None]
        if _color_space(profile) == "gray":
            converted = _srgb_from(ramp, profile, "gray")
        else:
            converted = _srgb_from(ramp.repeat(3, axis=2), profile, "rgb")
        converted = (converted[0] / 65535.0) @ _LUMA
        if np.abs(converted - table).max() > 1.5 / 255:
            table = converted
    return table.astype(np.float32)[levels]


def _luma(rgb: NDArray[Any]) -> NDArray[np.float32]:
    """Rec. 601 luma of (H, W, 3), in float64 until the last step -> (H, W) in [0, 1]."""
    peak = 1 if rgb.dtype.kind == "f" else np.iinfo(rgb.dtype).max
    gray = np.empty(rgb.shape[:2], np.float32)
    for rows in _strips(rgb.shape[0], rgb.shape[1]):
        gray[rows] = np.minimum(rgb[rows].astype(np.float64) @ _LUMA / peak, 1)
    return gray


def _more_than_a_tint(rgb: NDArray[Any]) -> bool:
    """Whether a*, b* of (H, W, 3) vary by more than a smooth function of lightness does."""
    peak = 1.0 if rgb.dtype.kind == "f" else float(np.iinfo(rgb.dtype).max)
    stride = -(-max(rgb.shape[:2]) // 1024)
    some = rgb[::stride, ::stride].astype(np.float32) / peak
    block = -(-max(some.shape[:2]) // 128)  # averaging removes grain and the noise of JPEG
    if block <= min(some.shape[:2]):
        height, width = some.shape[0] // block, some.shape[1] // block
        some = some[: height * block, : width * block].reshape(height, block, width, block, 3).mean((1, 3))
    lab = lab_from_rgb(torch.from_numpy(some.transpose(2, 0, 1).copy())).double().numpy().reshape(3, -1)
    lightness, ab = lab[0] / 100, lab[1:].T
    powers = np.stack([np.ones_like(lightness), lightness, lightness**2], axis=1)
    fit = powers @ np.linalg.lstsq(powers, ab, rcond=None)[0]
    residual = np.sqrt(((ab - fit) ** 2).sum(1).mean())
    tint = np.hypot(*ab.mean(0))
    return bool(residual > max(_TINT_RESIDUAL, _TINT_SHARE * tint))


def srgb_profile() -> bytes:
    """The sRGB ICC profile that outputs carry (480 bytes, bundled with libvips)."""
    return bytes(pyvips.Operation.call("profile_load", "srgb"))


def _color_space(profile: bytes) -> str:
    space = ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space.strip()
    return {"GRAY": "gray", "RGB": "rgb", "CMYK": "cmyk"}.get(space, space)


def _usable_profile(profile: bytes | None, space: str) -> bytes | None:
    """The profile, or None with a warning where it is broken or belongs to other channels."""
    if not profile:
        return None
    try:
        found = _color_space(profile)
    except (OSError, ImageCms.PyCMSError):
        found = "broken"
    if found == space or (found, space) == ("rgb", "gray"):  # gray under an RGB profile means R = G = B
        return profile
    warnings.warn(f"the embedded ICC profile is for {found}, the pixels are {space}: ignored", stacklevel=2)
    return None


def _is_srgb(profile: bytes) -> bool:
    """Whether an RGB profile says the same as sRGB (it comes in many wordings), tried on a grid of colors."""
    steps = np.linspace(0, 65535, 9).astype(np.uint16)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    return bool(np.abs(_srgb_from(grid, profile, "rgb").astype(int) - grid).max() <= 1.5 * 257)


def _srgb_from(pixels: NDArray[Any], profile: bytes | str, space: str) -> NDArray[np.uint16]:
    """Pixels (H, W, bands) of a profile to sRGB (H, W, 3) in 16 bits, relative colorimetric (LittleCMS).

    profile: an ICC profile, or the name of one that libvips brings along
    """
    wide = pixels.dtype != np.uint8
    spaces = {"gray": "grey16" if wide else "b-w", "rgb": "rgb16" if wide else "srgb", "cmyk": "cmyk"}
    image = _vips(pixels).copy(interpretation=spaces[space])
    named = {"input_profile": profile} if isinstance(profile, str) else {"embedded": True}
    if isinstance(profile, bytes):
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    result = image.icc_transform("srgb", intent="relative", black_point_compensation=True, depth=16, **named)
    return result.numpy()


def _vips(pixels: NDArray[Any]) -> pyvips.Image:
    """A libvips image over the memory of (H, W, bands) uint8 or uint16."""
    height, width, bands = pixels.shape
    kind = {"uint8": "uchar", "uint16": "ushort"}[pixels.dtype.name]
    return pyvips.Image.new_from_memory(np.ascontiguousarray(pixels).data, width, height, bands, kind)


def _reason(error: pyvips.Error) -> str:
    """The first line of libvips' own words: a broken file often brings dozens."""
    lines = [line.strip() for line in str(error.detail).splitlines() if line.strip()]
    return lines[0] if lines else str(error.message)


# --------------------------------------------------------------------------------------------------- metadata


def _dpi_of(image: pyvips.Image, fields: set[str], kind: str) -> tuple[float, float] | None:
    if kind == "webp":  # libvips reports a unit, but no figure
        return None
    stated = image.xres != 2.834 if kind == "png" else "resolution-unit" in fields  # 2.834: PNG without pHYs
    return (image.xres * 25.4, image.yres * 25.4) if stated else None


def _parsed_exif(block: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(block)
    return exif


def _dpi_of_exif(block: bytes | None) -> tuple[float, float] | None:
    if not block:
        return None
    try:
        exif = _parsed_exif(block)
        scale = 2.54 if exif.get(0x0128, 2) == 3 else 1.0
        x, y = float(exif[0x011A]) * scale, float(exif[0x011B]) * scale
    except Exception:  # Pillow raises whatever a broken tag makes it stumble over
        return None
    return (x, y) if x > 0 and y > 0 else None


def _neutral_exif(block: bytes | None) -> bytes | None:
    """The block with orientation 1 and without its thumbnail; everything else stays byte by byte.

    Maker notes hold offsets into the block: parsing and writing it anew would break them. Without the
    thumbnail, because that shows the old, uncolored, unturned picture.
    Source: TIFF 6.0, section 2; Exif 2.32, section 4.6.
    """
    if not block:
        return None
    start = 6 if block[:6] == b"Exif\0\0" else 0
    data = bytearray(block[start:])
    try:
        order = {b"II": "<", b"MM": ">"}[bytes(data[:2])]
        (directory,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            if struct.unpack_from(order + "H", data, entry)[0] == _ORIENTATION:
                struct.pack_into(order + "HIHH", data, entry + 2, 3, 1, 1, 0)  # one SHORT of value 1
        struct.pack_into(order + "I", data, directory + 2 + 12 * count, 0)  # no second directory
    except (KeyError, struct.error):
        warnings.warn("the EXIF block is broken: dropped", stacklevel=2)
        return None
    return b"Exif\0\0" + bytes(data)


def _photographic(tags: Image.Exif) -> Image.Exif:
    """The EXIF of a TIFF directory, without the tags that describe the file's own layout."""
    exif = Image.Exif()
    for tag in _TIFF_TEXTS:
        if isinstance(tags.get(tag), str):
            exif[tag] = tags[tag]
    for tag in (_EXIF_IFD, _GPS_IFD):
        if values := {key: value for key, value in tags.get_ifd(tag).items() if key != _INTEROP_IFD}:
            exif.get_ifd(tag).update(values)
    return exif


def _read_tiff_tags(file: BinaryIO) -> bytes | None:
    """The EXIF of a TIFF file, which libvips does not read.

    Refuses what libvips would take for a picture: camera raw files (it would read their preview), and files
    that end before their pixels (it would leave them black).
    """
    tags = Image.Exif()
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    try:
        tags.load_from_fp(file)
        if tags.get(_DNG_VERSION) or tags.get(_SUBFILE_TYPE, 0) & 1:
            raise ImageError("a camera raw file, or a TIFF that begins with a preview; develop it first")
        for starts, sizes in (_TIFF_STRIPS, _TIFF_TILES):
            if starts in tags and np.max(np.add(tags[starts], tags[sizes])) > length:
                raise ImageError("damaged or truncated: the file ends before its pixels")
        exif = _photographic(tags)
        return exif.tobytes() if len(exif) or exif.get_ifd(_EXIF_IFD) or exif.get_ifd(_GPS_IFD) else None
    except ImageError:
        raise
    except Exception as error:  # Pillow raises whatever a broken tag makes it stumble over
        warnings.warn(f"the EXIF of the TIFF file is broken: dropped ({error})", stacklevel=2)
        return None


def _add_exif_to_tiff(file: BinaryIO, block: bytes) -> None:
    """Put EXIF into a TIFF file that libvips has written without it.

    A copy of the directory, with the EXIF entries, goes to the end of the file, and the header, changed last,
    points to it; the pixels stay where they are. Source: TIFF 6.0, section 2; Exif 2.32, section 4.6.
    """
    exif = _parsed_exif(block)
    file.seek(0)
    head = file.read(8)
    order = "<" if head[:2] == b"II" else ">"
    file.seek(struct.unpack(order + "I", head[4:])[0])
    (count,) = struct.unpack(order + "H", file.read(2))
    entries = {}
    for _ in range(count):
        entry = file.read(12)
        entries[struct.unpack_from(order + "H", entry)[0]] = entry

    def append(data: bytes) -> int:
        offset = file.seek(0, os.SEEK_END)
        file.write(data + b"\0" * (len(data) % 2))  # directories and values start at even offsets
        return offset

    for tag in _TIFF_TEXTS:
        if isinstance(exif.get(tag), str):
            text = exif[tag].encode() + b"\0"
            value = text.ljust(4, b"\0") if len(text) <= 4 else struct.pack(order + "I", append(text))
            entries[tag] = struct.pack(order + "HHI", tag, 2, len(text)) + value
    for tag in (_EXIF_IFD, _GPS_IFD):
        directory = TiffImagePlugin.ImageFileDirectory_v2(ifh=head)
        for key, value in exif.get_ifd(tag).items():
            if key != _INTEROP_IFD:
                directory[key] = value
        if len(directory):
            offset = file.seek(0, os.SEEK_END)
            append(directory.tobytes(offset))
            entries[tag] = struct.pack(order + "HHII", tag, 4, 1, offset)
    table = b"".join(entries[tag] for tag in sorted(entries))
    offset = append(struct.pack(order + "H", len(entries)) + table + bytes(4))
    file.seek(4)
    file.write(struct.pack(order + "I", offset))


# ---------------------------------------------------------------------------------------------------- writing


def quantize(rgb: NDArray[Any], depth: int) -> NDArray[Any]:
    """Round a float picture to levels without losing its luma.

    Three channels rounded the same way can add up to half a level of luma, and float rounding takes it over.
    Where they come within 0.02 of it, green moves one level the other way, which leaves less than 0.11. A
    neutral pixel stays neutral.

    rgb: (H, W, 3) float in [0, 1]; depth: 8 or 16
    returns: (H, W, 3) uint8 or uint16
    """
    if depth not in _PEAK:
        raise ValueError(f"depth is 8 or 16; got {depth}")
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype.kind != "f":
        raise ValueError(f"rgb must be (H, W, 3) float in [0, 1]; got {rgb.shape} {rgb.dtype}")
    result = np.empty(rgb.shape, np.uint8 if depth == 8 else np.uint16)
    for rows in _strips(rgb.shape[0], rgb.shape[1]):
        levels = np.clip(rgb[rows].astype(np.float32) * _PEAK[depth], 0, _PEAK[depth])
        if np.isnan(levels).any():
            raise ValueError("rgb holds NaN")
        whole = np.rint(levels)
        error = (levels - whole) @ _LUMA.astype(np.float32)
        y, x = np.nonzero(np.abs(error) > 0.48)
        red, green, blue = levels[y, x].T
        whole[y, x, 1] += np.where((red == green) & (green == blue), 0, np.sign(error[y, x]))
        result[rows] = whole
    return result


def save_photo(path: str | os.PathLike[str], rgb: NDArray[Any], photo: Photo, *, quality: int = 95) -> None:
    """Write a colored picture with the alpha, EXIF and resolution of its photo, and an sRGB profile.

    The file appears under its name complete or not at all: it is written beside it and renamed. JPEG (4:4:4)
    and WebP (lossy) hold 8 bits, so 16-bit pixels are rounded to 8; PNG and TIFF keep every level of `rgb`.

    path: its suffix chooses the format, see FORMATS; an existing file is replaced
    rgb: (H, W, 3) uint8 or uint16
    photo: of the same size
    quality: of JPEG and WebP, 1..100
    raises ImageError: unknown suffix, transparency into JPEG, picture too large for the format, disk errors
    """
    path = Path(path)
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise ImageError(f"{path}: the suffix must be one of {', '.join(FORMATS)}")
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"rgb must be (H, W, 3) uint8 or uint16; got {rgb.shape} {rgb.dtype}")
    if rgb.shape[:2] != photo.gray.shape:
        raise ValueError(f"rgb is {rgb.shape[:2]}, its photo {photo.gray.shape}: they must have one size")
    longest = {"jpeg": 65500, "webp": 16383}.get(kind, 2**31)
    if max(rgb.shape) > longest:
        raise ImageError(f"{path}: {kind} holds at most {longest} pixels a side; write PNG or TIFF")

    image = _output_image(path, kind, rgb, photo)
    with _appearing(path) as file:
        _write(image, file, kind, quality)
        if kind == "tiff" and photo.exif and not _is_big(image):
            try:
                _add_exif_to_tiff(file, photo.exif)
            except OSError:
                raise
            except Exception as error:  # Pillow's, over a tag it cannot write; the file is whole without
                warnings.warn(f"{path}: written without EXIF, which is broken ({error})", stacklevel=2)


def save_gray(
    path: str | os.PathLike[str], levels: NDArray[np.uint8], dpi: tuple[float, float] | None = None
) -> None:
    """Write a map (H, W) uint8 as a gray PNG without a profile, complete or not at all; raises ImageError.

    dpi: of its photo
    """
    x, y = dpi or (_UNKNOWN_DPI, _UNKNOWN_DPI)
    image = _vips(levels[..., None]).copy(xres=x / 25.4, yres=y / 25.4)
    with _appearing(Path(path)) as file:
        image.pngsave_target(pyvips.Target.new_to_descriptor(file.fileno()))


@contextmanager
def _appearing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that gets the name `path` when all of it is on the disk, and none if that fails."""
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise ImageError(f"{path}: could not be written: {error.strerror or error}") from error
    except pyvips.Error as error:
        raise ImageError(f"{path}: could not be written: {_reason(error)}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _output_image(path: Path, kind: str, rgb: NDArray[Any], photo: Photo) -> pyvips.Image:
    """The picture as libvips writes it: nothing is computed yet, libvips reads the arrays while it writes."""
    image, alpha, narrow = _vips(rgb), photo.alpha, kind in ("jpeg", "webp")
    if kind == "jpeg" and alpha is not None:
        if alpha.min() < np.iinfo(alpha.dtype).max:
            raise ImageError(f"{path}: JPEG holds no transparency, this picture has; write PNG, TIFF or WebP")
        alpha = None
    if alpha is not None:
        plane = _vips(alpha[..., None])
        if rgb.dtype == np.uint16 and alpha.dtype == np.uint8:
            plane = (plane * 257).cast("ushort")
        elif rgb.dtype == np.uint8 and alpha.dtype == np.uint16:
            plane = (plane / 257).rint().cast("uchar")
        image = image.bandjoin(plane)
    if narrow and rgb.dtype == np.uint16:
        image = (image / 257).rint().cast("uchar")
    x, y = photo.dpi or (_UNKNOWN_DPI, _UNKNOWN_DPI)
    wide = image.format == "ushort"
    image = image.copy(interpretation="rgb16" if wide else "srgb", xres=x / 25.4, yres=y / 25.4)
    image.set_type(pyvips.GValue.gstr_type, "resolution-unit", "in")
    if photo.exif:
        image.set_type(pyvips.GValue.blob_type, "exif-data", photo.exif)
    return image


def _is_big(image: pyvips.Image) -> bool:
    """Whether the pixels come near the 4 GB that an ordinary TIFF file can address."""
    return image.width * image.height * image.bands * (2 if image.format == "ushort" else 1) > 3_500_000_000


def _write(image: pyvips.Image, file: BinaryIO, kind: str, quality: int) -> None:
    # By descriptor: libvips takes file names as UTF-8 only.
    target = pyvips.Target.new_to_descriptor(file.fileno())
    match kind:
        case "jpeg":
            options = {"subsample_mode": "off", "optimize_coding": True}
            image.jpegsave_target(target, Q=quality, profile="srgb", **options)
        case "png":
            image.pngsave_target(target, compression=6, filter="all", profile="srgb")
        case "tiff":
            options = {"compression": "deflate", "predictor": "horizontal", "bigtiff": _is_big(image)}
            image.tiffsave_target(target, profile="srgb", **options)
        case "webp":  # effort 4, the default, takes 4 times as long for the same size
            image.webpsave_target(target, Q=quality, smart_subsample=True, effort=2, profile="srgb")
