"""Changing the size of pictures: `resize` is the one way, in training and in use."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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


def sharp_gray(gray: Tensor, side: int) -> Tensor:
    """A photograph at another size, as the backbone of stage 1 is used to it: gray (B, 1, H, W) -> (B, 1, side, side).

    Reduced where it is large enough; else, as small pictures are in training, enlarged from half of the side.
    """
    if min(gray.shape[-2:]) >= side:
        return resize(gray, (side, side))
    return doubled(resize(gray, (side // 2, side // 2))).clamp(0, 1)
