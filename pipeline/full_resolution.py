"""From a small colored picture to a photograph of any size, in bounded memory.

The small picture (64 or 256 pixels a side, whatever the photo's aspect) gives only its chroma. Where the
photo is larger, chroma is written locally as slope * gray + offset (guided filter, He & Sun, "Fast Guided
Filter", 2015): the two smooth maps are made once at the small size, enlarged bilinearly, and applied to the
photo's own gray, so that colors end where the photo's edges are. Then `merge` puts gray and chroma together
at constant luma.

The work goes in strips of rows. Every pixel takes the same sums in the same order whatever the strip it is
in, so the height of the strips never shows in the result: when memory runs out, they are halved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.images.write import quantize
from pipeline.kept import Kept
from stages.color.guided_filter import guided_coefficients
from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, gray_from_rgb, merge

__all__ = ["FullSize", "full_size_uncertainty", "full_size_rgb", "is_out_of_memory", "sharpened", "strengthened"]

STRIP_PIXELS = {"cpu": 2**18, "cuda": 2**23, "mps": 2**20}  # about 80 bytes of temporaries for each
SOFT_SIDE = 9  # of the window that `sharpened` averages: two pixels of the 64x64 stages, and their middle
UNCERTAINTY_WHITE = 25.0  # the difference in CIEDE2000 from which an 8-bit map is white
BLOCK_COLUMNS = 8192  # wider photos go in blocks of columns, so that one row of anything stays small


@dataclass(frozen=True)
class FullSize:
    """The colored photo, and how it was made.

    rgb: uint8 or uint16 array (H, W, 3), or float32 tensor (3, H, W) in [0, 1] on the CPU
    strip_rows: rows of one strip at the end
    halvings: how often a strip was too large for the memory and was cut in half
    """

    rgb: Any  # Any: array or tensor, by the depth that was asked for
    strip_rows: int
    halvings: int


def full_size_rgb(
    gray: np.ndarray,
    rgb_low: Tensor,
    depth: int | None,
    *,
    strength: float = 1.0,
    kept: Kept | None = None,
    device: torch.device | str = "cpu",
    strip_rows: int | None = None,
) -> FullSize:
    """The colors of `rgb_low` on the photo `gray`.

    gray: (H, W) float32 in [0, 1], any H, W >= 1
    rgb_low: (3, h, w) float32 in [0, 1], the same picture resized; its luma guides, its chroma is used
    depth: 8 or 16 for rounded levels, None for float32 before rounding
    strength: factor on the chroma, see `strengthened`; kept: colors of the photo that stay, whatever the strength
    device: where strips are computed
    strip_rows: rows at a time; by default what keeps the temporaries at some tens of megabytes
    returns: `FullSize`. Raises the out-of-memory error when not even one row fits.
    """
    height, width = gray.shape
    device = torch.device(device)
    columns = min(width, BLOCK_COLUMNS)
    rows = strip_rows or max(1, STRIP_PIXELS.get(device.type, 2**20) // columns)
    rows = min(rows, height)
    halvings = 0

    rgb: Any  # see `FullSize`
    if depth is None:
        rgb = torch.empty(3, height, width)
    else:
        rgb = np.empty((height, width, 3), np.uint8 if depth == 8 else np.uint16)
    coefficients = _coefficients(rgb_low, height, width).to(device)
    for left in range(0, width, columns):
        right = min(left + columns, width)
        wide = _enlarge(coefficients, -1, width, left, right)
        top = 0
        while top < height:
            bottom = min(top + rows, height)
            try:
                strip = _strip(wide, gray[top:bottom, left:right], height, top, device, strength)
                if kept is not None:
                    strip = kept.in_place(strip, top, left)
                if depth is None:
                    rgb[:, top:bottom, left:right] = strip
                else:
                    rgb[top:bottom, left:right] = quantize(strip.permute(1, 2, 0).numpy(force=True), depth)
            except (RuntimeError, MemoryError) as error:
                if rows == 1 or not is_out_of_memory(error):
                    raise
                rows, halvings = rows // 2, halvings + 1
            else:
                top = bottom
                continue
            # Outside the except block: the traceback held the strip's temporaries.
            if device.type == "cuda":
                torch.cuda.empty_cache()
    return FullSize(rgb, rows, halvings)


def strengthened(gray: Tensor, rgb: Tensor, strength: float) -> Tensor:
    """Colors with `strength` times their chroma, as far as they fit into the sRGB cube: 0 gray, 1 as they are.

    gray: (..., 1, H, W), the luma that stays; rgb: (..., 3, H, W), both in [0, 1] -> (..., 3, H, W)
    """
    return rgb if strength == 1 else merge(gray, strength * chroma_from_rgb(rgb))


def sharpened(gray: Tensor, rgb: Tensor, sharpness: float) -> Tensor:
    """Colors with the edges of their chroma made steeper by an unsharp mask: `sharpness` times their difference from
    the average around them is added.

    gray: (B, 1, H, W), the luma that stays; rgb: (B, 3, H, W), both in [0, 1] -> (B, 3, H, W)
    """
    if sharpness == 0:
        return rgb
    chroma = chroma_from_rgb(rgb)
    soft = F.avg_pool2d(chroma, SOFT_SIDE, 1, SOFT_SIDE // 2, count_include_pad=False)
    return merge(gray, chroma + sharpness * (chroma - soft))


def full_size_uncertainty(small: Tensor, shape: tuple[int, ...], *, levels: bool = False) -> np.ndarray:
    """A small map (h, w), 0 and more, at the size (H, W) of a photo: bilinear where it is larger, else averaged.

    levels: as uint8, black for no expected error, white from UNCERTAINTY_WHITE on, made strip by strip; else float32
    """
    height, width = shape
    averaged = resize(small[None, None].float(), (min(len(small), height), min(small.shape[1], width)))[0, 0]
    wide = _enlarge(averaged, -1, width, 0, width)
    full = np.empty(shape, np.uint8 if levels else np.float32)
    rows = max(1, STRIP_PIXELS["cpu"] // width)
    for top in range(0, height, rows):
        strip = _enlarge(wide, -2, height, top, min(top + rows, height))
        full[top : top + rows] = strip.mul_(255 / UNCERTAINTY_WHITE).round_().clamp_(max=255) if levels else strip
    return full


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out: CUDA, Apple GPU, torch's CPU allocator, or Python itself."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    phrases = ("not enough memory", "DefaultCPUAllocator", "out of memory")
    return isinstance(error, RuntimeError) and any(phrase in text for phrase in phrases)


def _coefficients(rgb_low: Tensor, height: int, width: int) -> Tensor:
    """Slope and offset of both chroma channels over gray: (3, h, w) -> (4, min(h, height), min(w, width))."""
    rgb_low = rgb_low.detach().float().cpu().unsqueeze(0)
    size = min(rgb_low.shape[-2], height), min(rgb_low.shape[-1], width)
    # A photo smaller than the small picture takes its colors directly, area-averaged along that axis.
    gray_low, chroma_low = (resize(x, size) for x in (gray_from_rgb(rgb_low), chroma_from_rgb(rgb_low)))
    if size == (height, width):
        slope, offset = torch.zeros_like(chroma_low), chroma_low
    else:
        slope, offset = guided_coefficients(gray_low, chroma_low)
    return torch.cat([slope, offset], dim=1).squeeze(0)


def _enlarge(x: Tensor, axis: int, size: int, start: int, stop: int) -> Tensor:
    """Entries start..stop of `x` enlarged bilinearly to `size` along `axis`; pixel centers at (i + 1/2) /
    size.

    Only plain elementwise sums: the result of an entry does not depend on which others are asked for.
    """
    length = x.shape[axis]
    position = (torch.arange(start, stop, dtype=torch.float64) + 0.5) * (length / size) - 0.5
    position = position.clamp(0, length - 1)
    low = position.floor()
    share = (position - low).float().to(x.device)
    first = low.long().to(x.device)
    second = (first + 1).clamp_max(length - 1)
    if axis == -2:
        share = share.unsqueeze(-1)
    a = x.index_select(axis, first)
    return x.index_select(axis, second).sub_(a).mul_(share).add_(a)


def _strip(
    wide: Tensor, gray: np.ndarray, height: int, top: int, device: torch.device, strength: float
) -> Tensor:
    """wide: (4, h, columns), gray: (rows, columns) -> rgb (3, rows, columns) in [0, 1]."""
    lines = torch.from_numpy(np.ascontiguousarray(gray, np.float32)).to(device).unsqueeze(0)
    maps = _enlarge(wide, -2, height, top, top + gray.shape[0])
    chroma = maps[:2].mul_(lines).add_(maps[2:])
    return strengthened(lines, merge(lines, chroma), strength)
