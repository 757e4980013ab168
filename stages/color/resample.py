"""Changing the size of pictures: `resize` whole ones, `crop_resize` their parts; area averages when shrinking."""

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


def upsample2x(x: Tensor) -> Tensor:
    """Picture of twice the size whose 2x2 averages give x back exactly: (B, C, H, W) -> (B, C, 2 H, 2 W).

    Each axis on its own: the two halves of a pixel lie on the slope between its neighbors.
    """
    return _upsample2x_rows(_upsample2x_rows(x).mT).mT


def _upsample2x_rows(x: Tensor) -> Tensor:
    padded = F.pad(x, (0, 0, 1, 1), mode="replicate")
    slope = (padded[..., 2:, :] - padded[..., :-2, :]) / 8
    return torch.stack([x - slope, x + slope], dim=-2).flatten(-3, -2)


def sharp_gray(gray: Tensor, side: int) -> Tensor:
    """A photograph at another size, as the backbone of stage 1 is used to it: gray (B, 1, H, W) -> (B, 1, side, side).

    Reduced where it is large enough; else, as small pictures are in training, enlarged from half of the side.
    """
    if min(gray.shape[-2:]) >= side:
        return resize(gray, (side, side))
    return upsample2x(resize(gray, (side // 2, side // 2))).clamp(0, 1)


def crop_resize(x: Tensor, box: tuple[float, float, float, float], size: tuple[int, int]) -> Tensor:
    """A part of a picture at another size, each axis on its own: area average when shrinking, linear when enlarging.

    x: (..., H, W), float; box: (top, left, height, width) in pixels, fractions too, inside of the picture; size: (h, w)
    returns: (..., h, w), in the range of x
    Of the whole picture, shrunk, the same as `resize`.
    """
    top, left, height, width = box
    rows = _box_weights(x, x.shape[-2], top, height, size[0])
    columns = _box_weights(x, x.shape[-1], left, width, size[1])
    return rows @ x @ columns.mT


def _box_weights(x: Tensor, count: int, begin: float, length: float, parts: int) -> Tensor:
    """How much of each of `count` pixels is in each of the parts of a stretch, (parts, count); rows sum to 1.

    A part that is narrower than a pixel is widened to one: the mean over a pixel's width is linear interpolation.
    """
    part, pixel = torch.arange(parts, device=x.device, dtype=x.dtype), torch.arange(count, device=x.device)
    center, half = begin + length / parts * (part + 0.5), max(length / parts, 1.0) / 2
    overlap = torch.minimum((center + half)[:, None], pixel + 1) - torch.maximum((center - half)[:, None], pixel)
    overlap = overlap.clamp_min(0)
    return overlap / overlap.sum(1, keepdim=True)
