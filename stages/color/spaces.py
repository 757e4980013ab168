"""Color of pixels: one meaning for gray, chroma and coarse colors, everywhere in the project.

All functions take float tensors whose third-last axis holds the channels, (..., C, H, W), sRGB gamma-encoded
in [0, 1] unless the name says otherwise. A photograph is split into `gray` (Rec. 601 luma) and `chroma`
(Cb, Cr, full range); `merge` puts them together again without ever changing the luma.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# ITU-R BT.601-7, section 2.5.1: luma weights of the gamma-encoded primaries.
LUMA_RED, LUMA_GREEN, LUMA_BLUE = 0.299, 0.587, 0.114
CB_SCALE = 2 * (1 - LUMA_BLUE)  # 1.772, so that Cb spans [-0.5, 0.5]
CR_SCALE = 2 * (1 - LUMA_RED)  # 1.402
COARSE_LEVELS = 8  # 3 bits per channel
COARSE_COLORS = COARSE_LEVELS**3  # 512 symbols
# Linear sRGB -> CIE XYZ, from the primaries and the D65 white point (0.95047, 1, 1.08883) of IEC 61966-2-1.
XYZ_FROM_RGB = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
RGB_FROM_XYZ = torch.tensor(XYZ_FROM_RGB, dtype=torch.float64).inverse().tolist()
WHITE = tuple(sum(row) for row in XYZ_FROM_RGB)  # the rows' own sums, so that every gray has a = b = 0


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
    up = (1 - gray) / offset.amax(-3, keepdim=True).clamp_min(1e-12)  # share at which a channel reaches 1
    down = gray / (-offset.amin(-3, keepdim=True)).clamp_min(1e-12)  # ... and 0
    share = torch.minimum(up, down).clamp(0, 1)
    return (gray + share * offset).clamp(0, 1)  # takes away float rounding only


def _color_offset(chroma: Tensor) -> Tensor:
    """rgb - gray of a chroma: (..., 2, H, W) -> (..., 3, H, W); its luma is zero."""
    cb, cr = chroma.unbind(-3)
    red, blue = CR_SCALE * cr, CB_SCALE * cb
    green = -(LUMA_RED * red + LUMA_BLUE * blue) / LUMA_GREEN
    return torch.stack([red, green, blue], dim=-3)


def coarse_from_rgb(rgb: Tensor) -> Tensor:
    """3-bit color symbols (ColTran, arXiv 2102.04432): (..., 3, H, W) in [0, 1] -> (..., H, W) in 0..511."""
    red, green, blue = (rgb * COARSE_LEVELS).long().clamp(0, COARSE_LEVELS - 1).unbind(-3)
    return (red * COARSE_LEVELS + green) * COARSE_LEVELS + blue


def levels_from_coarse(coarse: Tensor) -> Tensor:
    """The three 3-bit levels of each symbol: (..., H, W) in 0..511 -> (..., 3, H, W) int64 in 0..7."""
    red, rest = coarse // COARSE_LEVELS**2, coarse % COARSE_LEVELS**2
    return torch.stack([red, rest // COARSE_LEVELS, rest % COARSE_LEVELS], dim=-3)


def rgb_from_coarse(coarse: Tensor) -> Tensor:
    """Bin centers of coarse symbols: (..., H, W) int64 -> (..., 3, H, W) float32, (level + 1/2) / 8."""
    return (levels_from_coarse(coarse).float() + 0.5) / COARSE_LEVELS


def linear_rgb_from_rgb(rgb: Tensor) -> Tensor:
    """Light intensity of gamma-encoded values (IEC 61966-2-1), any shape; [0, 1] -> [0, 1].

    Continues smoothly outside [0, 1]: the straight part below 0, the power above 1.
    """
    # The clamp keeps the branch not taken, and with it the gradient, finite. Likewise below.
    power = ((rgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(rgb > 0.04045, power, rgb / 12.92)


def rgb_from_linear_rgb(linear_rgb: Tensor) -> Tensor:
    """Inverse of `linear_rgb_from_rgb`, any shape; [0, 1] -> [0, 1]."""
    power = 1.055 * linear_rgb.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear_rgb > 0.0031308, power, 12.92 * linear_rgb)


def xyz_from_linear_rgb(linear_rgb: Tensor) -> Tensor:
    """CIE 1931 XYZ of linear sRGB: (..., 3, H, W) in [0, 1] -> (..., 3, H, W); white: `WHITE`."""
    return _mix(linear_rgb, XYZ_FROM_RGB)


def linear_rgb_from_xyz(xyz: Tensor) -> Tensor:
    """Inverse of `xyz_from_linear_rgb`: (..., 3, H, W) -> (..., 3, H, W); outside [0, 1] when not in sRGB."""
    return _mix(xyz, RGB_FROM_XYZ)


def _mix(channels: Tensor, matrix: Sequence[Sequence[float]]) -> Tensor:
    """matrix @ channels. Written out: autocast and TF32 would round a matrix product to 8 or 11 bits."""
    first, second, third = channels.unbind(-3)
    return torch.stack([a * first + b * second + c * third for a, b, c in matrix], dim=-3)


def lab_from_xyz(xyz: Tensor) -> Tensor:
    """CIE L*a*b* (CIE 15:2004, 8.2.1), white point D65: (..., 3, H, W) -> (..., 3, H, W).

    In sRGB L is in [0, 100], a in [-87, 99], b in [-108, 95].
    """
    white = xyz.new_tensor(WHITE)[:, None, None]
    ratio = xyz / white
    edge = 6 / 29
    root = ratio.clamp_min(edge**3) ** (1 / 3)
    fx, fy, fz = torch.where(ratio > edge**3, root, ratio / (3 * edge**2) + 4 / 29).unbind(-3)
    return torch.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], dim=-3)


def xyz_from_lab(lab: Tensor) -> Tensor:
    """Inverse of `lab_from_xyz`: (..., 3, H, W) -> (..., 3, H, W)."""
    lightness, a, b = lab.unbind(-3)
    fy = (lightness + 16) / 116
    f = torch.stack([fy + a / 500, fy, fy - b / 200], dim=-3)
    edge = 6 / 29
    ratio = torch.where(f > edge, f**3, 3 * edge**2 * (f - 4 / 29))
    return ratio * lab.new_tensor(WHITE)[:, None, None]


def lab_from_rgb(rgb: Tensor) -> Tensor:
    """CIE L*a*b* of sRGB pixels, D65: (..., 3, H, W) in [0, 1] -> (..., 3, H, W); ranges: `lab_from_xyz`."""
    return lab_from_xyz(xyz_from_linear_rgb(linear_rgb_from_rgb(rgb)))


def rgb_from_lab(lab: Tensor) -> Tensor:
    """Inverse of `lab_from_rgb`: (..., 3, H, W) -> (..., 3, H, W); outside [0, 1] for colors not in sRGB."""
    return rgb_from_linear_rgb(linear_rgb_from_xyz(xyz_from_lab(lab)))
