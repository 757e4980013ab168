"""Colored pictures to files: rounded without losing luma, complete or not at all."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import pyvips  # type: ignore[import-untyped]
from numpy.typing import NDArray

from pipeline.images.alone import alone, together
from pipeline.images.containers import Blocks, put_blocks
from pipeline.images.luma import _LUMA
from pipeline.images.metadata import write_metadata
from pipeline.images.notes import collected, note, pass_on
from pipeline.images.partial import _appearing
from pipeline.images.photo import _PEAK, FORMATS, ImageError, Photo
from pipeline.images.vips import _UNKNOWN_DPI, _strips, _vips

Written = TypeVar("Written")
_KEEP = "icc"  # what libvips may write beside the pixels: it would make up EXIF of its own


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


def format_of(path: Path) -> str:
    """The format that the suffix chooses. Raises ImageError for an unknown one."""
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise ImageError(f"{path}: the suffix must be one of {', '.join(FORMATS)}")
    return kind


def written_as(path: str | os.PathLike[str], photo: Photo) -> Photo:
    """The photo with the depth that the file's format holds: JPEG and WebP 8 bits, which is a note where it had 16."""
    if FORMATS.get(Path(path).suffix.lower()) not in ("jpeg", "webp") or photo.depth == 8:
        return photo
    note("16 bits became 8, all that JPEG and WebP hold; PNG and TIFF keep them")
    return dataclasses.replace(photo, depth=8)


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
    kind = format_of(path)
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"rgb must be (H, W, 3) uint8 or uint16; got {rgb.shape} {rgb.dtype}")
    if rgb.shape[:2] != photo.gray.shape:
        raise ValueError(f"rgb is {rgb.shape[:2]}, its photo {photo.gray.shape}: they must have one size")
    longest = {"jpeg": 65500, "webp": 16383}.get(kind, 2**31)
    if max(rgb.shape) > longest:
        raise ImageError(f"{path}: {kind} holds at most {longest} pixels a side; write PNG or TIFF")

    def write(file: BinaryIO) -> bool:
        image = _output_image(path, kind, rgb, photo)
        _write(image, file, kind, quality)
        return _is_big(image)

    with collected() as notes, _appearing(path) as file:
        is_big = _heard(file, write)
        if kind == "tiff" and is_big:
            if photo.exif or photo.xmp or photo.iptc:
                note("BigTIFF, which a picture of 3.5 GB needs, is written without EXIF, XMP and IPTC")
        else:
            write_metadata(file, kind, photo)
    pass_on(notes)


def save_map(
    path: str | os.PathLike[str], levels: NDArray[np.uint8], dpi: tuple[float, float] | None = None,
    xmp: bytes | None = None,
) -> None:  # fmt: skip
    """Write a map as a PNG without a profile, complete or not at all; raises ImageError.

    levels: (H, W), or (H, W, 3); dpi: of its photo; xmp: a packet for the file
    """
    x, y = dpi or (_UNKNOWN_DPI, _UNKNOWN_DPI)

    def write(file: BinaryIO) -> None:
        image = _vips(levels if levels.ndim == 3 else levels[..., None]).copy(xres=x / 25.4, yres=y / 25.4)
        image.pngsave_target(pyvips.Target.new_to_descriptor(file.fileno()))

    with _appearing(Path(path)) as file:
        _heard(file, write)
        if xmp is not None:
            put_blocks(file, "png", Blocks(xmp=xmp))


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
    return image


def _is_big(image: pyvips.Image) -> bool:
    """Whether the pixels come near the 4 GB that an ordinary TIFF file can address."""
    return image.width * image.height * image.bands * (2 if image.format == "ushort" else 1) > 3_500_000_000


def _heard(file: BinaryIO, write: Callable[[BinaryIO], Written]) -> Written:
    """Writes an empty file; where that fails, once more, so that the error is told in words of its own."""
    try:
        with together():
            return write(file)
    except pyvips.Error:
        file.seek(0)
        file.truncate()
        with alone():
            return write(file)


def _write(image: pyvips.Image, file: BinaryIO, kind: str, quality: int) -> None:
    # By descriptor: libvips takes file names as UTF-8 only.
    target = pyvips.Target.new_to_descriptor(file.fileno())
    match kind:
        case "jpeg":
            options = {"subsample_mode": "off", "optimize_coding": True}
            image.jpegsave_target(target, Q=quality, keep=_KEEP, profile="srgb", **options)
        case "png":
            image.pngsave_target(target, compression=6, filter="all", keep=_KEEP, profile="srgb")
        case "tiff":
            options = {"compression": "deflate", "predictor": "horizontal", "bigtiff": _is_big(image)}
            image.tiffsave_target(target, keep=_KEEP, profile="srgb", **options)
        case "webp" if image.bands == 4:
            # Lossy coding blackens what is transparent and moves the luma of what is nearly so.
            image.webpsave_target(target, lossless=True, exact=True, effort=2, keep=_KEEP, profile="srgb")
            note("WebP with transparency is written without loss, to keep the luma; the quality is not used")
        case "webp":  # effort 4, the default, takes 4 times as long for the same size
            image.webpsave_target(target, Q=quality, smart_subsample=True, effort=2, keep=_KEEP, profile="srgb")
