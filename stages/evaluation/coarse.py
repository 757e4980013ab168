"""What the scripts that evaluate stage 1 share: photographs as it sees them, its draws, and pictures of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, gray_from_rgb, merge, rgb_from_coarse
from stages.evaluation.photos import Photos
from stages.evaluation.pixel import picture_from_rgb
from stages.faces import ColorUpsampler, Draws, GrayView
from stages.seeds import NoiseSource
from stages.stage1_coarse.candidates import spread_order

BATCH = 16  # photographs that stage 1 sees at once


def view_of(photos: Photos, part: range | slice) -> GrayView:
    """Photographs of one size as stage 1 sees them."""
    return GrayView.of(gray_from_rgb(photos.rgb(part)))


def streams(noise: Sequence[NoiseSource], candidates: int, purpose: str = "stage1") -> list[Generator]:
    """The generators of the pipeline's own draws, photo-major."""
    return [one.generator(candidate, purpose) for one in noise for candidate in range(candidates)]


def central(gray64: Tensor, coarse64: Tensor, pool: int) -> Tensor:
    """The draw that the pipeline gives by default, of the first `pool`: (B, 1, 64, 64), (B, N, 64, 64) -> (B,)."""
    if pool == 1:
        return torch.zeros(len(gray64), dtype=torch.int64)
    return spread_order(gray64, coarse64[:, :pool])[:, 0]


def bin_centers(gray64: Tensor, coarse64: Tensor) -> Tensor:
    """Coarse colors as they are, at the luma of the gray: (B, 1, 64, 64), (B, N, 64, 64) -> rgb (B, N, 3, 64, 64)."""
    return merge(gray64[:, None], chroma_from_rgb(rgb_from_coarse(coarse64)))


def upsampled(stage: ColorUpsampler, gray64: Tensor, coarse64: Tensor) -> Tensor:
    """What stage 2 makes of coarse colors: (B, 1, 64, 64), (B, N, 64, 64) -> rgb (B, N, 3, 64, 64)."""
    count = coarse64.shape[1]
    return stage.upsample(gray64.repeat_interleave(count, 0), coarse64.flatten(0, 1)).unflatten(0, (-1, count))


def forms(gray64: Tensor, draws: Draws, color: ColorUpsampler | None) -> dict[str, Tensor]:
    """Draws as pictures, form by form, each rgb (B, N, 3, 64, 64): before rounding to 3 bits where it is known
    ("continuous"), as stage 2 gets them ("coarse (3 bit)"), and, with a stage 2, "after stage 2".
    """
    pictures: dict[str, Tensor] = {}
    if draws.chroma64 is not None:
        pictures["continuous"] = merge(gray64[:, None], draws.chroma64)
    pictures["coarse (3 bit)"] = bin_centers(gray64, draws.coarse64)
    if color is not None:
        pictures["after stage 2"] = upsampled(color, gray64, draws.coarse64)
    return pictures


def pictures_with(gray: Tensor, chroma: Tensor) -> Tensor:
    """Photographs with small chroma on them: (B, 1, H, W), (B, N, 2, 64, 64) -> uint8 (B, N, 3, H, W)."""
    size = (gray.shape[-2], gray.shape[-1])
    large = resize(chroma.flatten(0, 1), size).unflatten(0, chroma.shape[:2])
    return picture_from_rgb(merge(gray[:, None], large))
