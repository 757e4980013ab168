"""Stage 2, kind `coltran`: from 3 bits per channel to 8, all pixels in parallel.

The color upsampler of ColTran (arXiv 2102.04432; `stages/nn/coltran/upsampler.py` is its network), shown the
3-bit level of each channel.

What differs from the paper: in training the colors are disturbed before they are cut to 3 bits, so that sampled,
imperfect colors are repaired and not merely refined; the answer is the mean of the distribution (`decode =
"argmax"` for the paper's); and the luma of the result is replaced by the gray picture, which is known exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stages.color.spaces import (
    COARSE_COLORS,
    COARSE_LEVELS,
    chroma_from_rgb,
    coarse_from_rgb,
    gray_from_rgb,
    levels_from_coarse,
    merge,
)
from stages.corruptions.conditioning import disturbed_chroma
from stages.faces import ColorUpsampler, HasLikelihood
from stages.graphs import Exports, Graph
from stages.nn.coltran.upsampler import ParallelUpsampler, rounded8

SIDE = 64


@dataclass(frozen=True)
class ColTranColorUpsamplerConfig:
    channels: int = 96
    feed_forward: int = 96
    heads: int = 4
    layers: int = 2
    decode: str = "mean"  # of the 256-way distribution, or "argmax"
    rounded: bool = False  # pictures to 8 bits before they are cut to 3, as in the released training
    disturb: float = 0.04  # strongest chroma noise of training inputs; 0 trains on exact 3-bit colors, as the paper


class ColTranColorUpsampler(ColorUpsampler, HasLikelihood, Exports, ParallelUpsampler):
    kind, config_class = "coltran", ColTranColorUpsamplerConfig
    training_side = SIDE

    def __init__(self, config: ColTranColorUpsamplerConfig | None = None):
        config = config or ColTranColorUpsamplerConfig()
        super().__init__(config)
        self.build(
            COARSE_LEVELS, config.channels, config.feed_forward, config.heads, config.layers, SIDE, config.decode
        )

    def forward(self, rgb: Tensor, label: Tensor | None = None) -> Tensor:
        """Bits per value of one random channel per picture: rgb (B, 3, 64, 64) in [0, 1] -> scalar."""
        if rgb.ndim != 4 or rgb.shape[1:] != (3, SIDE, SIDE):
            raise ValueError(f"rgb must be (B, 3, {SIDE}, {SIDE}) in [0, 1]; got {tuple(rgb.shape)}")
        rgb = rounded8(rgb) if self.config.rounded else rgb
        gray = gray_from_rgb(rgb)
        shown = merge(gray, disturbed_chroma(chroma_from_rgb(rgb), self.config.disturb))
        channel = torch.randint(3, (len(rgb),)).to(rgb.device)
        return self.bits_of(rgb, gray, levels_from_coarse(coarse_from_rgb(shown)), channel).mean()

    @torch.no_grad()
    def bits(self, rgb: Tensor) -> Tensor:
        """Bits per dimension of pictures given their gray and exact 3-bit colors: rgb (B, 3, 64, 64) -> (B,)."""
        rgb = rounded8(rgb) if self.config.rounded else rgb
        gray, levels = gray_from_rgb(rgb), levels_from_coarse(coarse_from_rgb(rgb))
        each = [self.bits_of(rgb, gray, levels, levels.new_full((len(rgb),), channel)) for channel in range(3)]
        return torch.stack(each).mean(0)

    @torch.no_grad()
    def upsample(self, gray64: Tensor, coarse64: Tensor) -> Tensor:
        if gray64.ndim != 4 or gray64.shape[1:] != (1, SIDE, SIDE) or coarse64.shape != gray64[:, 0].shape:
            raise ValueError(
                f"gray64 must be (B, 1, {SIDE}, {SIDE}) and coarse64 (B, {SIDE}, {SIDE}); "
                f"got {tuple(gray64.shape)} and {tuple(coarse64.shape)}"
            )
        return merge(gray64, chroma_from_rgb(self.decoded(gray64, levels_from_coarse(coarse64))))

    def graphs(self) -> list[Graph]:
        generator = torch.Generator().manual_seed(0)
        inputs = {
            "gray64": torch.rand((1, 1, SIDE, SIDE), generator=generator),
            "coarse64": torch.randint(COARSE_COLORS, (1, SIDE, SIDE), generator=generator),
        }
        return [Graph("stage2", Upsample(self), inputs, ("rgb64",))]


class Upsample(nn.Module):
    """`upsample`, as a graph."""

    def __init__(self, stage: ColTranColorUpsampler) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, gray64: Tensor, coarse64: Tensor) -> Tensor:
        return self.stage.upsample(gray64, coarse64)
