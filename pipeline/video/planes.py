"""The planes of a video: its luma is the gray, and stays; what is written anew is its two planes of chroma.

A video stores Y, Cb and Cr of its own matrix. Of a black-and-white film Y is the gray under every matrix, so Y is taken
for the gray whatever the matrix says, and every Y is written as it was read. The colors of the pipeline keep Rec. 601
luma. In a video of another matrix their differences between channels stay, so hue and saturation, and a common amount
is added to all three so that the matrix of the video gives its own Y.

Source: ITU-T H.273 (2021), 8.3, equations 1 to 3 and 38 to 40: luma weights and the levels of both ranges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.color.spaces import LUMA_BLUE, LUMA_GREEN, LUMA_RED

__all__ = ["Coding", "WEIGHTS"]

WEIGHTS = {"bt601": (LUMA_RED, LUMA_GREEN, LUMA_BLUE), "bt709": (0.2126, 0.7152, 0.0722)}


@dataclass(frozen=True)
class Coding:
    """How a video writes colors as levels.

    matrix: "bt601" or "bt709"; depth: bits of a level, from 8; full: whether black and white are the lowest and highest
    level, or 16 and 235 of 8 bits
    """

    matrix: str
    depth: int
    full: bool

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        return np.uint8 if self.depth == 8 else np.uint16

    def gray(self, luma: NDArray[np.unsignedinteger]) -> NDArray[np.float32]:
        """Gray in [0, 1] of levels of Y, any shape; levels below black and above white count as these."""
        black, white = (0, self._peak) if self.full else (16 * self._unit, 235 * self._unit)
        gray = (luma.astype(np.float32) - black) / (white - black)
        return gray.clip(0, 1)

    def chroma(self, gray: Tensor, rgb: Tensor) -> NDArray[np.unsignedinteger]:
        """Levels of Cb and Cr, (2, h, w), of colors rgb (3, h, w) of the luma gray (1, h, w), both in [0, 1].

        What would leave the sRGB cube at this Y is drawn toward gray, as `stages.color.spaces.merge` does it.
        """
        red, green, blue = WEIGHTS[self.matrix]
        offset = rgb - (red * rgb[:1] + green * rgb[1:2] + blue * rgb[2:])  # of no luma in this matrix
        up = (1 - gray) / offset.amax(0, keepdim=True).clamp_min(1e-12)
        down = gray / (-offset.amin(0, keepdim=True)).clamp_min(1e-12)
        offset = torch.minimum(up, down).clamp(0, 1) * offset
        chroma = torch.stack([offset[2] / (2 * (1 - blue)), offset[0] / (2 * (1 - red))])
        scale = self._peak if self.full else 224 * self._unit
        levels = (chroma * scale).round_().add_(128 * self._unit).clamp_(0, self._peak)
        return levels.numpy(force=True).astype(self.dtype)

    @property
    def _unit(self) -> int:
        """One level of 8 bits."""
        return 2 ** (self.depth - 8)

    @property
    def _peak(self) -> int:
        return 2**self.depth - 1
