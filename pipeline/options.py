"""What a call is told and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.images.photo import Photo

Source = str | Path | Image.Image | np.ndarray | Tensor | Photo
Seed = int | torch.Generator | None
Rows = list[tuple[int | None, Tensor, float | None]]  # of one photo: candidate number, small rgb, bits
StepCallback = Callable[[Any, int, float, dict[str, Any]], Any]


@dataclass(frozen=True)
class ImageInfo:
    """How one picture came about.

    photo: index of its photo in the call
    candidate: number k of the draw (the pool is ordered afterwards, so the first picture may be any k);
        None for a preview, which draws nothing
    seed: of its photo: the same photo, seed and settings give this picture again, and its map of doubt; None for a
        preview without such a map
    notes: what went another way than planned, in words (memory ran out, smaller strips were used)
    bits: what its coarse colors cost the model that candidates are ranked with (see `rank_with`); None without one
    """

    photo: int
    candidate: int | None
    seed: int | None
    notes: tuple[str, ...] = ()
    bits: float | None = None


@dataclass(frozen=True)
class SmallPicture:
    """rgb: (3, 256, 256) float32 on the CPU (64 for a preview), not yet at the photo's size; its `info`."""

    rgb: Tensor
    info: ImageInfo


@dataclass(frozen=True)
class ColorPipelineOutput:
    """images: flat list, all candidates of the first photo first, in their order; info: one for each.

    doubt: where it was asked for, one map per photo at its size: how wrong its first picture is to be expected there,
        as the mean CIEDE2000 difference of 32 draws at temperature 1, and of gray, from it. "np" and "pt": float32
        (H, W); "pil": 8-bit gray, see `full_size_doubt`
    """

    images: list[Any]
    info: list[ImageInfo]
    doubt: list[Any] | None = None

