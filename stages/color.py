"""Color of pixels: one meaning for gray, chroma and coarse colors, everywhere in the project.

All functions take tensors whose third-last axis holds the channels, (..., C, H, W), sRGB gamma-encoded in [0, 1]
unless the name says otherwise. A photograph is split into `gray` (Rec. 601 luma) and `chroma` (Cb, Cr, full range);
`merge` puts them together again without ever changing the luma.
"""

from __future__ import annotations

import torch
from torch import Tensor

# ITU-R BT.601-7, section 2.5.1: luma weights of the gamma-encoded primaries.
LUMA_RED, LUMA_GREEN, LUMA_BLUE = 0.299, 0.587, 0.114
CB_SCALE = 2 * (1 - LUMA_BLUE)  # 1.772, so that Cb spans [-0.5, 0.5]
CR_SCALE = 2 * (1 - LUMA_RED)  # 1.402

COARSE_LEVELS = 8  # 3 bits per channel
COARSE_COLORS = COARSE_LEVELS**3  # 512 symbols


def gray_from_rgb(rgb: Tensor) -> Tensor:
    """Rec. 601 luma of gamma-encoded pixels: (..., 3, H, W) in [0, 1] -> (..., 1, H, W) in [0, 1]."""
    red, green, blue = rgb.unbind(-3)
    return (LUMA_RED * red + LUMA_GREEN * green + LUMA_BLUE * blue).unsqueeze(-3)


def chroma_from_rgb(rgb: Tensor) -> Tensor:
    """Cb and Cr of Rec. 601, full range: (..., 3, H, W) -> (..., 2, H, W), each in [-0.5, 0.5]."""
    gray = gray_from_rgb(rgb).squeeze(-3)
    red, _, blue = rgb.unbind(-3)
    return torch.stack([(blue - gray) / CB_SCALE, (red - gray) / CR_SCALE], dim=-3)


def rgb_from_gray_chroma(gray: Tensor, chroma: Tensor) -> Tensor:
    """Inverse of `gray_from_rgb` and `chroma_from_rgb`; may leave [0, 1]: see `merge`.

    gray: (..., 1, H, W), chroma: (..., 2, H, W) -> (..., 3, H, W)
    """
    return gray + _color_offset(chroma)


def merge(gray: Tensor, chroma: Tensor) -> Tensor:
    """The pixel of luma `gray` and the largest share of `chroma` that fits the sRGB cube.

    Out-of-gamut colors move straight toward the gray of the same luma (one factor per pixel), so
    gray_from_rgb(merge(gray, chroma)) = gray to rounding. Clipping channels would change the luma.

    gray: (..., 1, H, W) in [0, 1], chroma: (..., 2, H, W) -> rgb (..., 3, H, W) in [0, 1]
    """
    offset = _color_offset(chroma)
    room = torch.where(offset > 0, 1 - gray, gray)
    share = (room / offset.abs().clamp_min(1e-12)).amin(-3, keepdim=True).clamp(0, 1)
    return (gray + share * offset).clamp(0, 1)


def _color_offset(chroma: Tensor) -> Tensor:
    """rgb - gray of a chroma: (..., 2, H, W) -> (..., 3, H, W); its luma is zero."""
    cb, cr = chroma.unbind(-3)
    red, blue = CR_SCALE * cr, CB_SCALE * cb
    green = -(LUMA_RED * red + LUMA_BLUE * blue) / LUMA_GREEN
    return torch.stack([red, green, blue], dim=-3)


def coarse_from_rgb(rgb: Tensor) -> Tensor:
    """3-bit color symbols (ColTran, arXiv 2102.04432): (..., 3, H, W) in [0, 1] -> (..., H, W) int64 in 0..511."""
    red, green, blue = (rgb * COARSE_LEVELS).long().clamp(0, COARSE_LEVELS - 1).unbind(-3)
    return (red * COARSE_LEVELS + green) * COARSE_LEVELS + blue


def levels_from_coarse(coarse: Tensor) -> Tensor:
    """The three 3-bit levels of each symbol: (..., H, W) in 0..511 -> (..., 3, H, W) int64 in 0..7."""
    red, rest = coarse // COARSE_LEVELS**2, coarse % COARSE_LEVELS**2
    return torch.stack([red, rest // COARSE_LEVELS, rest % COARSE_LEVELS], dim=-3)


def rgb_from_coarse(coarse: Tensor) -> Tensor:
    """Bin centers of coarse symbols: (..., H, W) int64 -> (..., 3, H, W) float32, (level + 1/2) / 8."""
    return (levels_from_coarse(coarse).float() + 0.5) / COARSE_LEVELS
