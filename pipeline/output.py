"""What a call answers: pictures, how each came about, and maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["ColorPipelineOutput", "ImageInfo", "SmallPhoto", "SmallPicture"]


@dataclass(frozen=True)
class ImageInfo:
    """How one picture came about.

    photo: index of its photo in the call
    candidate: number k of the draw (the pool is ordered afterwards, so the first picture may be any k);
        None for a preview, which draws nothing
    seed: of its photo: the same photo, seed and settings give this picture again, and its uncertainty map; None for a
        preview without such a map
    noise_key: whose noise the draws are made of, see `stages.seeds`: by default the SHA-256 of the photo's gray levels
    notes: what went another way than planned, in words (memory ran out, smaller strips were used)
    score: what its coarse colors are worth to the model that candidates are ranked with, more is better; None without
    """

    photo: int
    candidate: int | None
    seed: int | None
    noise_key: str
    notes: tuple[str, ...] = ()
    score: float | None = None


@dataclass(frozen=True)
class SmallPicture:
    """rgb: (3, 256, 256) float32 on the CPU (64 for a preview), not yet at the photo's size; its `info`."""

    rgb: Tensor
    info: ImageInfo


@dataclass(frozen=True)
class SmallPhoto:
    """What the networks have to say of one photo: its pictures, and the uncertainty map (256, 256) of the first."""

    pictures: list[SmallPicture]
    uncertainty: Tensor | None = None


@dataclass(frozen=True)
class ColorPipelineOutput:
    """images: flat list, all candidates of the first photo first, in their order; info: one for each.

    uncertainty: where it was asked for, one map per photo at its size: how wrong its first picture is to be expected
        there, as the mean CIEDE2000 difference of 32 draws at temperature 1, and of gray, from it. "np" and "pt":
        float32 (H, W); "pil": 8-bit gray, see `full_size_uncertainty`
    """

    images: list[Any]  # Any: PIL images, arrays or tensors, by `output_type`
    info: list[ImageInfo]
    uncertainty: list[Any] | None = None
