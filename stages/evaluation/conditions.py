"""What image-to-image networks are shown in an evaluation: fixed corruptions, by Palette's protocol.

Palette (arXiv 2111.05826, section 5) evaluates inpainting with free-form holes of 10-20, 20-30 and 30-40 % of the area
and with a central square of half the side, uncropping with the right half, JPEG restoration at qualities 5, 10 and 20.
What is drawn belongs to the photograph and the seed, not to its place in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from stages.color.spaces import gray_from_rgb
from stages.corruptions.jpeg import jpeg_compressed
from stages.corruptions.line_art import METHODS, line_art
from stages.corruptions.masks import SIDES, Side, free_form_hole, uncropping_hole
from stages.evaluation.photos import EvaluationError
from stages.image_to_image.face import Condition, Task
from stages.seeds import NoiseSource, seed_of

__all__ = ["HOLES", "Setting", "shown"]

HOLES = {"center": (0.25, 0.25), "10-20": (0.1, 0.2), "20-30": (0.2, 0.3), "30-40": (0.3, 0.4)}
"""Shares of the area."""


@dataclass(frozen=True)
class Setting:
    """hole: of inpaint, one of `HOLES`; side: of uncrop; quality: of jpeg; lines: of line_art, how they are drawn"""

    hole: str = "center"
    side: Side = "right"
    quality: int = 5
    lines: str = "xdog"

    BELONGS: ClassVar = {"hole": "inpaint", "side": "uncrop", "quality": "jpeg", "lines": "line_art"}

    def __post_init__(self) -> None:
        if self.hole not in HOLES or self.side not in SIDES or self.lines not in METHODS or not 1 <= self.quality <= 95:
            raise EvaluationError(
                f"hole must be one of {', '.join(HOLES)}, side of {', '.join(SIDES)}, lines of {', '.join(METHODS)}, "
                f"quality 1 to 95; got {self}"
            )

    def condition(self, task: Task, rgb: Tensor, noise: Sequence[NoiseSource]) -> Condition:
        """Of photographs (B, 3, S, S) in [0, 1] and where their randomness comes from."""
        side = rgb.shape[-1]
        if task == "colorize":
            gray = (255 * gray_from_rgb(rgb)).round() / 255  # as it comes from a file
            return Condition(gray.expand(-1, 3, -1, -1))
        if task == "jpeg":
            return Condition(jpeg_compressed(rgb, [self.quality] * len(rgb)))
        if task == "line_art":
            return Condition(line_art(rgb, self.lines).expand(-1, 3, -1, -1))
        if task == "variation":
            return Condition(rgb)
        if task == "uncrop":
            return Condition(rgb, uncropping_hole(side, side, self.side).expand(len(rgb), 1, -1, -1))
        return Condition(rgb, torch.stack([self._hole(side, source) for source in noise])[:, None])

    def faults(self, task: Task, condition: Condition, rgb: Tensor) -> dict[str, Tensor]:
        """How far results (B, 3, S, S) are from what their condition says exactly, each (B,) in levels of 255: the luma
        of a colored picture from the gray one, the lines of a colored drawing from the drawing.
        """
        if task == "colorize":
            error = gray_from_rgb(rgb) - condition.source[:, :1]
            return {"luma_error": 255 * error.abs().mean((1, 2, 3))}
        if task == "line_art":
            return {"line_error": 255 * (line_art(rgb, self.lines) - condition.source[:, :1]).abs().mean((1, 2, 3))}
        return {}

    def _hole(self, side: int, source: NoiseSource) -> Tensor:
        if self.hole == "center":
            hole = torch.zeros(side, side, dtype=torch.bool)
            hole[side // 4 : side // 4 + side // 2, side // 4 : side // 4 + side // 2] = True
            return hole
        low, high = HOLES[self.hole]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(source.seed, source.key, "hole"))
            while True:
                hole = free_form_hole(side)
                if low <= float(hole.float().mean()) <= high:
                    return hole


def shown(condition: Condition) -> Tensor:
    """The condition as a picture, holes in mid-gray: (B, 3, S, S) in [0, 1]."""
    return condition.source if condition.hole is None else condition.source.masked_fill(condition.hole, 0.5)
