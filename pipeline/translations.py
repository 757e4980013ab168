"""From a picture of any size to what an image-to-image network takes, and back, for each task.

    colorize, line_art, variation   the whole picture squeezed to the network's square, whatever its aspect
    inpaint                         the same; what is filled is enlarged again, all else stays as it was
    uncrop, one side                a window at that border, half known, half new: as high (or wide) as the picture, so
                                    the picture grows by half of that; by its own length where it is shorter
    uncrop, all                     a border, so that the picture is half of the new area; squeezed to the square
    jpeg                            tiles of the network's side at the picture's own size, on JPEG's grid of 8 pixels,
                                    blended where they overlap

What comes from a square has its resolution, however large the picture is; only colorization is guided by the luma of
all pixels (`full_resolution`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.color.resample import resize
from stages.corruptions.line_art import line_art
from stages.image_to_image.face import Condition

__all__ = [
    "JPEG_GRID", "Canvas", "Draw", "drawing", "extended", "filled", "restored", "small_canvas", "square", "surrounded",
]  # fmt: skip

JPEG_GRID = 8
Draw = Callable[[Condition, str], Tensor]
"""(condition of one picture, name of the part that it is: its noise is its own) -> draws (N, 3, H, W) in [0, 1]."""


@dataclass(frozen=True)
class Canvas:
    """A picture with a hole: rgb (1, 3, H, W) in [0, 1], hole (1, 1, H, W) bool."""

    rgb: Tensor
    hole: Tensor


def square(x: Tensor, side: int) -> Tensor:
    """(1, C, H, W) -> (1, C, side, side)."""
    return resize(x, (side, side))


def drawing(rgb: Tensor, side: int) -> Tensor:
    """Line art of a picture at the size of the network: (1, 3, H, W) -> (1, 3, side, side)."""
    return line_art(square(rgb, side)).expand(-1, 3, -1, -1)


def small_canvas(canvas: Canvas, side: int) -> Canvas:
    """At the network's side. A pixel that is a hole in part is one; all others are known entirely."""
    rgb, hole = canvas.rgb, canvas.hole.float()
    if min(rgb.shape[-2:]) < side:  # repeated: what enlarges smoothly would mix what is known with what is not
        times = math.ceil(side / min(rgb.shape[-2:]))
        rgb, hole = (one.repeat_interleave(times, -1).repeat_interleave(times, -2) for one in (rgb, hole))
    return Canvas(square(rgb, side), square(hole, side) > 1e-4)


def filled(canvas: Canvas, draws: Tensor) -> Tensor:
    """The canvas with draws (N, 3, S, S), enlarged, in its hole: (N, 3, H, W). All else stays, to the bit."""
    size = (canvas.rgb.shape[-2], canvas.rgb.shape[-1])
    return torch.where(canvas.hole, resize(draws, size), canvas.rgb)


def surrounded(rgb: Tensor) -> Canvas:
    """A picture (1, 3, H, W) in the middle of a canvas of twice its area and of its aspect."""
    height, width = rgb.shape[-2:]
    down, across = (max(2, round(length * (math.sqrt(2) - 1))) for length in (height, width))
    borders = (across // 2, across - across // 2, down // 2, down - down // 2)
    hole = F.pad(torch.zeros_like(rgb[:, :1], dtype=torch.bool), borders, value=True)
    return Canvas(F.pad(rgb, borders, value=0.5), hole)


def extended(rgb: Tensor, towards: str, side: int, draw: Draw) -> Tensor:
    """A picture (1, 3, H, W) continued at one side, "left", "right", "top" or "bottom": (N, 3, H', W')."""
    if towards in ("top", "bottom"):
        return extended(
            rgb.mT, "left" if towards == "top" else "right", side, lambda one, part: draw(_turned(one), part).mT
        ).mT
    flipped = towards == "left"
    rgb = rgb.flip(-1) if flipped else rgb
    height, width = rgb.shape[-2:]
    more = min(width, max(1, height // 2))
    known = resize(rgb[..., width - more :], (side, side - side // 2))
    source = F.pad(known, (0, side // 2), value=0.5)
    hole = F.pad(torch.zeros_like(known[:, :1], dtype=torch.bool), (0, side // 2), value=True)
    if flipped:
        source, hole = source.flip(-1), hole.flip(-1)
    draws = draw(Condition(source, hole), "")
    draws = draws.flip(-1) if flipped else draws
    added = resize(draws[..., side - side // 2 :], (height, more))
    whole = torch.cat([rgb.expand(len(added), -1, -1, -1), added], dim=-1)
    return whole.flip(-1) if flipped else whole


def restored(rgb: Tensor, side: int, draw: Draw) -> Tensor:
    """A picture (1, 3, H, W) tile by tile: (N, 3, H, W)."""
    height, width = rgb.shape[-2:]
    tops, lefts = _tiles(height, side), _tiles(width, side)
    bottom, right = max(tops[-1] + side - height, 0), max(lefts[-1] + side - width, 0)
    padded = F.pad(rgb, (0, right, 0, bottom), mode="replicate")
    ramp = torch.minimum(torch.arange(side) + 1.0, torch.arange(side, 0, -1.0)).clamp_max(side / 4)
    window = ramp[:, None] * ramp[None, :]
    total: Tensor | None = None
    weight = torch.zeros_like(padded[:, :1])
    for top in tops:
        for left in lefts:
            here = (..., slice(top, top + side), slice(left, left + side))
            draws = draw(Condition(padded[here]), f"tile {top} {left}")
            if total is None:
                total = torch.zeros(len(draws), *padded.shape[1:])
            total[here] += window * draws
            weight[here] += window
    assert total is not None
    return (total / weight)[..., :height, :width].clamp(0, 1)


def _tiles(length: int, side: int) -> list[int]:
    """Where tiles begin: multiples of JPEG_GRID that cover the length, overlapping by a quarter."""
    stride = max(JPEG_GRID, side * 3 // 4 // JPEG_GRID * JPEG_GRID)
    last = max(0, math.ceil((length - side) / JPEG_GRID) * JPEG_GRID)
    return [*range(0, last, stride), last]


def _turned(condition: Condition) -> Condition:
    return Condition(condition.source.mT, None if condition.hole is None else condition.hole.mT)
