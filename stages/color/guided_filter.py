"""Enlarging chroma along the edges of the luma.

`enlarge_chroma` is a fast guided filter (He and Sun, arXiv 1505.00996): around each low-resolution pixel the chroma is
fitted as a linear function of the gray value, and the fit is enlarged instead of the chroma, so that color edges follow
the edges of the gray picture. Unlike the original, which averages the fits over windows once more, each fit passes
through its own pixel: at the center of a low-resolution pixel, with its gray, the chroma is its chroma. Averages over
the area of a low-resolution pixel are not: from 64x64 to 256x256 they miss the chroma of photographs by 0.0035
(standard deviation; bicubic enlargement by 0.0024).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

GUIDE_RADIUS = 1  # windows of 3x3 low-resolution pixels
GUIDE_EPSILON = 1e-2  # gray variance below which a window counts as flat (gray in [0, 1])


def guided_coefficients(gray: Tensor, chroma: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and offset of the local fit chroma = slope * gray + offset (He and Sun 2015, equation 3; the offset instead
    of equation 4 such that the fit is exact at the window's center).

    gray: (B, 1, h, w) in [0, 1], chroma: (B, 2, h, w) -> two tensors (B, 2, h, w)
    """
    mean_gray, mean_chroma = _window_mean(gray), _window_mean(chroma)
    variance = (_window_mean(gray * gray) - mean_gray * mean_gray).clamp_min(0)
    covariance = _window_mean(gray * chroma) - mean_gray * mean_chroma
    slope = covariance / (variance + GUIDE_EPSILON)
    return slope, chroma - slope * gray


def enlarge_chroma(chroma: Tensor, gray_low: Tensor, gray: Tensor) -> Tensor:
    """Chroma at the size of `gray`, its edges where the gray picture has edges.

    chroma: (B, 2, h, w) and gray_low: (B, 1, h, w), the same picture at low resolution; gray: (B, 1, H, W) -> (B,
    2, H, W)
    """
    slope, offset = guided_coefficients(gray_low, chroma)
    size = gray.shape[-2:]
    slope = F.interpolate(slope, size, mode="bilinear", align_corners=False)
    offset = F.interpolate(offset, size, mode="bilinear", align_corners=False)
    return slope * gray + offset


def _window_mean(x: Tensor) -> Tensor:
    """Mean over the (2 r + 1)^2 window around each pixel; at the border over the part inside the picture."""
    return F.avg_pool2d(x, 2 * GUIDE_RADIUS + 1, 1, GUIDE_RADIUS, count_include_pad=False)
