"""Holes in pictures, for inpainting and uncropping, after Palette's laws (arXiv 2111.05826, section 5 and appendix B).

Inpainting: 60 % free-form strokes (Yu et al. 2019, arXiv 1806.03589, Algorithm 1, as MMEditing has its numbers), 40 %
one to five rectangles that cover 10 to 40 % of the picture together. Uncropping: half of the picture, at one of the
four sides or all around. Numbers are drawn from torch's global stream.

Not published, and chosen here: how rectangles are placed; that the five ways of uncropping are equally likely; that
the strokes' width, given for 256 pixels, goes with the side.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

__all__ = ["SIDES", "Side", "free_form_hole", "inpainting_holes", "rectangular_hole", "uncropping_hole",
           "uncropping_holes"]  # fmt: skip

Side = Literal["left", "right", "top", "bottom", "all"]
SIDES: tuple[Side, ...] = get_args(Side)
FREE_FORM_SHARE = 0.6
LEAST, MOST = 0.1, 0.4  # of the picture, that rectangles cover
MOST_RECTANGLES = 5
LONGEST_ASPECT = 2.0  # of one rectangle
MEAN_ANGLE, ANGLE_RANGE = 2 * math.pi / 5, 2 * math.pi / 15
BRUSH = (12, 39)  # width in pixels, where the side is 256


def inpainting_holes(count: int, side: int) -> Tensor:
    """Holes of `count` pictures: (count, 1, side, side) bool, true where a picture is to be filled."""
    free = torch.rand(count) < FREE_FORM_SHARE
    return torch.stack([free_form_hole(side) if one else rectangular_hole(side) for one in free.tolist()])[:, None]


def uncropping_holes(count: int, side: int) -> Tensor:
    """Half of each of `count` pictures, where it is to be continued: (count, 1, side, side) bool."""
    sides = torch.randint(len(SIDES), (count,)).tolist()
    return torch.stack([uncropping_hole(side, side, SIDES[one]) for one in sides])[:, None]


def free_form_hole(side: int) -> Tensor:
    """One to three zigzag strokes with round joints: (side, side) bool."""
    hole = torch.zeros(side, side, dtype=torch.bool)
    radius = side * math.sqrt(2) / 8
    for _ in range(_whole(1, 3)):
        turns = _whole(4, 11)
        low, high = MEAN_ANGLE - ANGLE_RANGE * _uniform(), MEAN_ANGLE + ANGLE_RANGE * _uniform()
        angles = low + (high - low) * torch.rand(turns)
        angles[::2] = 2 * math.pi - angles[::2]
        lengths = (radius + radius / 2 * torch.randn(turns)).clamp(0, 2 * radius)
        points = [torch.rand(2) * side]
        for angle, length in zip(angles, lengths, strict=True):
            move = length * torch.stack([angle.sin(), angle.cos()])
            points.append((points[-1] + move).clamp(0, side))
        hole |= _stroke(torch.stack(points), _whole(*BRUSH) * side / 256, side)
    return hole


def rectangular_hole(side: int) -> Tensor:
    """One to five rectangles that cover 10 to 40 % of the picture together: (side, side) bool."""
    number = _whole(1, MOST_RECTANGLES)
    while True:
        hole = torch.zeros(side, side, dtype=torch.bool)
        total = LEAST + (MOST - LEAST) * _uniform()
        shares = 0.5 + torch.rand(number)
        for area in (total * side**2 * shares / shares.sum()).tolist():
            aspect = LONGEST_ASPECT ** (2 * _uniform() - 1)
            height, width = (min(side, max(1, round(math.sqrt(area * one)))) for one in (aspect, 1 / aspect))
            top, left = _whole(0, side - height), _whole(0, side - width)
            hole[top : top + height, left : left + width] = True
        if LEAST * side**2 <= int(hole.sum()) <= MOST * side**2:  # rectangles overlap, and sides are rounded
            return hole


def uncropping_hole(height: int, width: int, side: Side) -> Tensor:
    """The half of a picture that is to be continued, (height, width) bool; of an odd number of pixels, all but the
    smaller half. "all": a border; the known part in the middle has the picture's aspect, to a row of pixels.
    """
    if side not in SIDES:
        raise ValueError(f"side must be one of {', '.join(SIDES)}; got {side!r}")
    y, x = ((torch.arange(length, dtype=torch.float64) + 0.5) / length for length in (height, width))
    y, x = y[:, None].expand(height, width), x[None, :].expand(height, width)
    known = {
        "left": 1 - x, "right": x, "top": 1 - y, "bottom": y,
        "all": torch.maximum((y - 0.5).abs(), (x - 0.5).abs()),
    }[side].flatten().argsort(stable=True)[: height * width // 2]  # fmt: skip
    hole = torch.ones(height * width, dtype=torch.bool)
    hole[known] = False
    return hole.view(height, width)


def _stroke(points: Tensor, width: float, side: int) -> Tensor:
    """Pixels within half a width of a line through points (N, 2) of y and x: (side, side) bool."""
    center = torch.arange(side) + 0.5
    pixels = torch.stack(torch.meshgrid(center, center, indexing="ij"), dim=-1)[None]  # (1, S, S, 2)
    begin, along = points[:-1, None, None], points.diff(dim=0)[:, None, None]
    share = ((pixels - begin) * along).sum(-1, keepdim=True) / along.square().sum(-1, keepdim=True).clamp_min(1e-12)
    nearest = begin + share.clamp(0, 1) * along
    return ((pixels - nearest).square().sum(-1) <= (width / 2) ** 2).any(0)


def _uniform() -> float:
    return float(torch.rand(()))


def _whole(low: int, high: int) -> int:
    """Uniform, both ends included."""
    return int(torch.randint(low, high + 1, ()))
