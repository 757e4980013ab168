"""From a file, bytes, array or Pillow picture to a `Photo`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyvips  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline.images.exif import _ORIENTATION, _dpi_of, _dpi_of_exif, _neutral_exif, _photographic, _read_tiff_tags
from pipeline.images.icc import _color_space, _is_srgb, _srgb_from, _usable_profile
from pipeline.images.photo import MAX_PIXELS, ImageError, Photo
from pipeline.images.vips import _reason, _strips
from stages.color.spaces import LUMA_BLUE, LUMA_GREEN, LUMA_RED
from stages.color.tint import has_one_tint

_LUMA = np.array([LUMA_RED, LUMA_GREEN, LUMA_BLUE])


def load_photo(
    source: str | os.PathLike[str] | Image.Image | NDArray[Any], *, max_pixels: int = MAX_PIXELS, keep_rgb: bool = False
) -> Photo:
    """Read a picture: a file, a PIL image, or a numpy array.

    source: path of a JPEG, PNG, TIFF or WebP file (told by content, not by suffix); a PIL image; or an array
        (H, W) or (H, W, 1 | 2 | 3 | 4): gray, gray + alpha, RGB, RGBA; uint8, uint16 or float in [0, 1]
    max_pixels: refuse larger pictures before decoding them
    keep_rgb: keep the colors too, `Photo.rgb`
    raises ImageError with a one-line reason; TypeError for another kind of source
    """
    if isinstance(source, str | os.PathLike):
        return _load_file(Path(source), max_pixels, keep_rgb)
    if isinstance(source, Image.Image):
        return _load_pil(source, max_pixels, keep_rgb)
    if isinstance(source, np.ndarray):
        return _load_array(source, max_pixels, keep_rgb)
    raise TypeError(f"a picture is a path, a PIL image or a numpy array; got {type(source).__name__}")


def _load_file(path: Path, max_pixels: int, keep_rgb: bool) -> Photo:
    try:
        with open(path, "rb") as file:
            kind = _format_of(file.read(64))
            photo = _decode(file, kind, max_pixels, keep_rgb)
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


def _decode(file: BinaryIO, kind: str, max_pixels: int, keep_rgb: bool) -> Photo:
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
        keep_rgb=keep_rgb,
    )


def _load_pil(image: Image.Image, max_pixels: int, keep_rgb: bool) -> Photo:
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
        keep_rgb=keep_rgb,
    )


def _load_array(pixels: NDArray[Any], max_pixels: int, keep_rgb: bool) -> Photo:
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
    return _photo(pixels, "gray" if pixels.shape[2] < 3 else "rgb", keep_rgb=keep_rgb)


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
    keep_rgb: bool = False,
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
        rgb = gray[..., None].repeat(3, axis=2) if keep_rgb else color
    else:
        rgb = color
        if space == "cmyk" or (profile and not _is_srgb(profile)):
            rgb = _srgb_from(color, profile or "cmyk", "cmyk" if space == "cmyk" else "rgb")
        gray, is_color = _luma(rgb), _more_than_a_tint(rgb)

    if keep_rgb and rgb.dtype.kind != "f":
        rgb = rgb.astype(np.float32) / np.float32(np.iinfo(rgb.dtype).max)
    turned = orientation in (5, 6, 7, 8)
    return Photo(
        gray=_upright(gray, orientation),
        depth=depth,
        alpha=None if alpha is None else _upright(alpha, orientation),
        exif=_neutral_exif(exif),
        dpi=(dpi[1], dpi[0]) if dpi and turned else dpi,
        is_color=is_color,
        rgb=_upright(rgb.astype(np.float32), orientation) if keep_rgb else None,
    )


def _upright(plane: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply an EXIF orientation (tag 0x0112, 1..8; anything else counts as 1) to (H, W) or (H, W, C)."""
    if orientation in (5, 6, 7, 8):
        plane = plane.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        plane = plane[::-1]
    if orientation in (2, 3, 6, 7):
        plane = plane[:, ::-1]
    return np.ascontiguousarray(plane)


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
    """Whether (H, W, 3) is a picture in color: see `has_one_tint`."""
    peak = 1.0 if rgb.dtype.kind == "f" else float(np.iinfo(rgb.dtype).max)
    stride = -(-max(rgb.shape[:2]) // 1024)  # enough pixels to tell
    some = rgb[::stride, ::stride].astype(np.float32) / peak
    return not has_one_tint(torch.from_numpy(some.transpose(2, 0, 1).copy()))
