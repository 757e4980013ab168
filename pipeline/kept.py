"""Colors that a photograph has already and keeps: the input's own, where a mask is white."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.color.spaces import chroma_from_rgb
from stages.hints.hints import area_averages

__all__ = ["Kept"]


@dataclass(frozen=True, eq=False)
class Kept:
    """mask: (H, W) float32, 1 where the color is kept, 0 where the photograph is colored, between them the chroma is
    mixed; rgb: (H, W, 3) float32 in [0, 1], the photograph's own colors, upright
    """

    mask: NDArray[np.float32]
    rgb: NDArray[np.float32]

    def in_place(self, rgb: Tensor, top: int, left: int) -> Tensor:
        """A strip of the colored photograph with what is kept: rgb (3, h, w), its corner at (top, left) -> (3, h, w).

        Both colors have the luma of the photograph, so every mixture of them has it too, and lies in the sRGB cube.
        """
        rows, columns = slice(top, top + rgb.shape[1]), slice(left, left + rgb.shape[2])
        mask, own = (torch.from_numpy(plane[rows, columns]).to(rgb.device) for plane in (self.mask, self.rgb))
        return torch.lerp(rgb, own.permute(2, 0, 1), mask)  # exactly one of both where the mask is 0 or 1

    def rasterized(self, side: int) -> Tensor:
        """As the tensor `hints` of a square: (3, side, side), weight and chroma * weight, averaged by area."""

        def layers(top: int, bottom: int) -> Tensor:
            mask = torch.from_numpy(self.mask[top:bottom]).double()[None]
            chroma = chroma_from_rgb(torch.from_numpy(self.rgb[top:bottom]).permute(2, 0, 1).double())
            return torch.cat([mask, mask * chroma])

        height, width = self.mask.shape
        return area_averages(layers, height, width, side).float()
