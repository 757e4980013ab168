"""From decoded pixels to the exact gray of a `Photo`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.images.icc import _color_space, _is_srgb, _srgb_from, _usable_profile
from pipeline.images.metadata import Metadata
from pipeline.images.photo import MAX_PIXELS, MAX_RATIO, RATIO_FROM, ImageError, Photo
from pipeline.images.vips import _strips
from stages.color.spaces import LUMA_BLUE, LUMA_GREEN, LUMA_RED

_LUMA = np.array([LUMA_RED, LUMA_GREEN, LUMA_BLUE])


def check_size(width: int, height: int, max_pixels: int | None, file_size: int | None = None) -> None:
    """Raises ImageError for pictures that are empty, too large, or too large for the file they came in.

    max_pixels: None for MAX_PIXELS, and then a picture of more than RATIO_FROM pixels must have a byte in its file for
        every MAX_RATIO of them; whoever gives a number answers for both
    """
    if width < 1 or height < 1:
        raise ImageError(f"no pixels: {width} x {height}")
    pixels = width * height
    limit = MAX_PIXELS if max_pixels is None else max_pixels
    advice = "if it is not a decompression bomb, raise the limit: --max-megapixels, in Python max_pixels=…"
    if pixels > limit:
        raise ImageError(f"{width} x {height} is {pixels / 1e6:.0f} megapixels, more than the limit of "
                         f"{limit / 1e6:.0f}; {advice}")  # fmt: skip
    if max_pixels is None and file_size is not None and pixels > max(RATIO_FROM, MAX_RATIO * file_size):
        raise ImageError(f"{width} x {height} pixels in {file_size} bytes are {pixels // max(file_size, 1)} pixels to "
                         f"a byte, more than the limit of {MAX_RATIO}; {advice}")  # fmt: skip


def photo_of(
    pixels: NDArray[Any], space: str, metadata: Metadata, profile: bytes | None, keep_rgb: bool = False
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
    profile = _usable_profile(profile or metadata.profile, space)

    color = pixels[..., :bands]
    if space == "gray":
        gray, sample = _gray_from_levels(color[..., 0], profile), None
        rgb = gray[..., None].repeat(3, axis=2) if keep_rgb else color
    else:
        rgb = color
        if space == "cmyk" or (profile and not _is_srgb(profile)):
            rgb = _srgb_from(color, profile or "cmyk", "cmyk" if space == "cmyk" else "rgb")
        gray, sample = _luma(rgb), _sample(rgb)

    if keep_rgb and rgb.dtype.kind != "f":
        rgb = rgb.astype(np.float32) / np.float32(np.iinfo(rgb.dtype).max)
    orientation, dpi = metadata.orientation, metadata.dpi
    return Photo(
        gray=_upright(gray, orientation),
        depth=depth,
        alpha=None if alpha is None else _upright(alpha, orientation),
        exif=metadata.exif,
        xmp=metadata.xmp,
        iptc=metadata.iptc,
        dpi=(dpi[1], dpi[0]) if dpi and orientation in (5, 6, 7, 8) else dpi,
        sample=sample,
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


def _sample(rgb: NDArray[Any]) -> NDArray[Any]:
    """Enough pixels of (H, W, 3) to tell whether it is in color."""
    stride = -(-max(rgb.shape[:2]) // 1024)
    return rgb[::stride, ::stride].copy()
