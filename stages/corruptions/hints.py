"""Hints as people give them, made of true colors: what a colorizer is told in training.

Points, short strokes, a region, or a soft version of all colors; few or many, a tenth of them slightly wrong.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["drawn_hints"]

MOST_POINTS = 256
WRONG_SHARE, WRONG_BY = 0.1, 0.4  # share of the pictures, and standard deviation in units of `scale`
SOFT = 0.3  # the share of points that are not known for sure, as at the rim of a brush


def drawn_hints(chroma: Tensor, share: float, scale: float = 1.0) -> Tensor:
    """Hints on the grid of true chroma: (B, 2, S, S) -> (B, 3, S, S), weight and chroma · weight.

    share: of the pictures that get any; scale: standard deviation of chroma over photographs, its unit here
    """
    batch, _, side, _ = chroma.shape
    weight = torch.zeros(batch, 1, side, side)
    soft_chroma = torch.zeros(batch, dtype=torch.bool)
    for picture, (given, form) in enumerate(torch.rand(batch, 2).tolist()):
        if given >= share:
            continue
        if form < 0.60:
            weight[picture, 0] = _points(side)
        elif form < 0.82:
            weight[picture, 0] = _strokes(side)
        elif form < 0.94:
            weight[picture, 0] = _region(side)
        else:
            weight[picture, 0] = 0.1 + 0.4 * torch.rand(())
            soft_chroma[picture] = True
    weight, soft_chroma = weight.to(chroma.device), soft_chroma.to(chroma.device)
    wrong = (torch.rand(batch, 1, 1, 1) < WRONG_SHARE).to(chroma.device)
    error = F.interpolate(torch.randn(batch, 2, side // 4, side // 4), (side, side), mode="nearest").to(chroma.device)
    blurred = F.interpolate(F.avg_pool2d(chroma, side // 8), (side, side), mode="bilinear", align_corners=False)
    shown = torch.where(soft_chroma[:, None, None, None], blurred, chroma) + wrong * WRONG_BY * scale * error
    return torch.cat([weight, weight * shown], dim=1)


def _count() -> int:
    """1 to MOST_POINTS, log-uniform."""
    return round(math.exp(float(torch.rand(())) * math.log(MOST_POINTS)))


def _points(side: int) -> Tensor:
    weight = torch.zeros(side * side)
    count = min(_count(), side * side)
    sure = (torch.rand(count) >= SOFT).float()
    weight[torch.randperm(side * side)[:count]] = sure + (1 - sure) * (0.2 + 0.8 * torch.rand(count))
    return weight.view(side, side)


def _strokes(side: int) -> Tensor:
    """Lines of three to ten cells."""
    weight = torch.zeros(side, side)
    for _ in range(max(1, _count() // 8)):
        start, angle, length = torch.rand(2) * side, 2 * math.pi * torch.rand(()), 3 + 7 * torch.rand(())
        along = torch.arange(0, float(length), 0.5)
        y = (start[0] + along * angle.sin()).long().clamp(0, side - 1)
        x = (start[1] + along * angle.cos()).long().clamp(0, side - 1)
        weight[y, x] = 1.0
    return weight


def _region(side: int) -> Tensor:
    """A rectangle of an eighth to all of each side, or all but a rectangle."""
    weight = torch.zeros(side, side)
    height, width = (side * (0.125 + 0.875 * torch.rand(2))).long().tolist()
    top, left = int(torch.randint(side - height + 1, ())), int(torch.randint(side - width + 1, ()))
    weight[top : top + height, left : left + width] = 1.0
    return 1 - weight if float(torch.rand(())) < 0.3 else weight
