"""Changing the size of pictures, and enlarging chroma along the edges of the luma.

`resize` is the one way pictures change size, in training and in use. `enlarge_chroma` is a fast guided filter (He
and Sun, arXiv 1505.00996): around each low-resolution pixel the chroma is fitted as a linear function of the gray
value, and the fit is enlarged instead of the chroma, so that color edges follow the edges of the gray picture.
Unlike the original it reproduces the low-resolution chroma exactly where it is known, instead of smoothing it
twice.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

GUIDE_RADIUS = 1  # windows of 3x3 low-resolution pixels
GUIDE_EPSILON = 1e-2  # gray variance below which a window counts as flat (gray in [0, 1])


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Picture at another size, each axis on its own: area average when shrinking, bicubic when enlarging.

    x: (B, C, H, W), float -> (B, C, *size); values stay in the range of x (bicubic overshoot is cut off).
    """
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"size must be positive; got {size}")
    shrunk = (min(height, x.shape[-2]), min(width, x.shape[-1]))
    x = _box_average(_box_average(x.mT, shrunk[1]).mT, shrunk[0])
    if (height, width) != x.shape[-2:]:
        low, high = x.amin((-2, -1), keepdim=True), x.amax((-2, -1), keepdim=True)
        x = F.interpolate(x, (height, width), mode="bicubic", align_corners=False)
        x = torch.minimum(torch.maximum(x, low), high)
    return x


def _box_average(x: Tensor, length: int) -> Tensor:
    """Mean over `length` equal parts of the rows: (B, C, n, w) -> (B, C, length, w).

    A row cut by a border counts in both parts by its share; torch's pooling counts it fully in both, so the rest is
    taken off again.
    """
    count = x.shape[-2]
    if count == length:
        return x
    mean = F.adaptive_avg_pool2d(x, (length, x.shape[-1]))
    if count % length == 0:
        return mean
    part = torch.arange(length, device=x.device)
    begin, end = part * count, (part + 1) * count  # of each part, in units of 1 / length of a row
    first, last = begin // length, (end - 1) // length
    before, after = (begin - first * length).to(x) / length, ((last + 1) * length - end).to(x) / length
    total = mean * (last - first + 1)[:, None] - before[:, None] * x[..., first, :] - after[:, None] * x[..., last, :]
    return total * (length / count)


def doubled(x: Tensor) -> Tensor:
    """Picture of twice the size whose 2x2 averages give x back exactly: (B, C, H, W) -> (B, C, 2 H, 2 W).

    Each axis on its own: the two halves of a pixel lie on the slope between its neighbors.
    """
    return _doubled_rows(_doubled_rows(x).mT).mT


def _doubled_rows(x: Tensor) -> Tensor:
    padded = F.pad(x, (0, 0, 1, 1), mode="replicate")
    slope = (padded[..., 2:, :] - padded[..., :-2, :]) / 8
    return torch.stack([x - slope, x + slope], dim=-2).flatten(-3, -2)


def guided_coefficients(gray: Tensor, chroma: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and offset of the local fit chroma = slope * gray + offset (He and Sun 2015, equations 3 and 4).

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
