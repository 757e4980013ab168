"""Stage 2, kind `coltran`: from 3 bits per channel to 8, all pixels in parallel.

The color upsampler of ColTran (arXiv 2102.04432, section 4.4 and the released code): each channel's 3-bit level and
the gray value of a pixel are embedded, joined, and read by an axial transformer that answers with a distribution
over 256 values. The same weights serve red, green and blue, one after another; training picks one channel per
picture at random.

What differs from the paper: in training the colors are disturbed before they are cut to 3 bits, so that sampled,
imperfect colors are repaired and not merely refined; the answer is the mean of the distribution (`decode =
"argmax"` for the paper's); and the luma of the result is replaced by the gray picture, which is known exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from stages.checkpoint import Stage
from stages.color import (
    COARSE_LEVELS,
    chroma_from_rgb,
    coarse_from_rgb,
    gray_from_rgb,
    levels_from_coarse,
    merge,
)  # fmt: skip
from stages.conditioning import disturbed_chroma
from stages.nn.axial_encoder import AxialEncoder

SIDE, VALUES = 64, 256


@dataclass(frozen=True)
class ColorUpsamplerConfig:
    channels: int = 96
    feed_forward: int = 96
    heads: int = 4
    layers: int = 2
    decode: str = "mean"  # of the 256-way distribution, or "argmax"
    disturb: float = 0.04  # strongest chroma noise of training inputs; 0 trains on exact 3-bit colors, as the paper


class ColorUpsampler(Stage):
    stage, kind, config_class = 2, "coltran", ColorUpsamplerConfig

    def __init__(self, config: ColorUpsamplerConfig | None = None):
        config = config or ColorUpsamplerConfig()
        super().__init__(config)
        if config.decode not in ("mean", "argmax"):
            raise ValueError(f'decode must be "mean" or "argmax"; got {config.decode!r}')
        width = config.channels
        # A bias-free dense layer on a one-hot code is an embedding; eight levels for each of three channels.
        self.level = nn.Embedding(3 * COARSE_LEVELS, width)
        self.gray = nn.Embedding(VALUES, width)
        self.join = nn.Linear(2 * width, width)
        self.encoder = AxialEncoder(width, config.feed_forward, config.heads, config.layers, SIDE)
        self.write = nn.Linear(width, VALUES)
        for table in (self.level, self.gray):
            nn.init.xavier_uniform_(table.weight)

    def forward(self, rgb: Tensor, label: Tensor | None = None) -> Tensor:
        """Bits per value of one random channel per picture: rgb (B, 3, 64, 64) in [0, 1] -> scalar."""
        if rgb.ndim != 4 or rgb.shape[1:] != (3, SIDE, SIDE):
            raise ValueError(f"rgb must be (B, 3, {SIDE}, {SIDE}) in [0, 1]; got {tuple(rgb.shape)}")
        gray = gray_from_rgb(rgb)
        shown = merge(gray, disturbed_chroma(chroma_from_rgb(rgb), self.config.disturb))
        channel = torch.randint(3, (len(rgb),)).to(rgb.device)
        picked = torch.arange(len(rgb), device=rgb.device)
        levels = levels_from_coarse(coarse_from_rgb(shown))[picked, channel]
        logits = self.logits(gray, levels, channel)
        target = (rgb[picked, channel] * 255).round().long()
        return F.cross_entropy(logits.float().flatten(0, 2), target.flatten()) / math.log(2)

    def logits(self, gray: Tensor, levels: Tensor, channel: Tensor) -> Tensor:
        """gray (B, 1, 64, 64), levels (B, 64, 64) int64 in 0..7, channel (B,) in 0..2 -> (B, 64, 64, 256)."""
        symbols = (gray.squeeze(1) * 255).round().long().clamp(0, VALUES - 1)
        x = torch.cat([self.level(levels + COARSE_LEVELS * channel[:, None, None]), self.gray(symbols)], dim=-1)
        return self.write(self.encoder(self.join(x)))

    @torch.no_grad()
    def sample(
        self, gray64: Tensor, coarse64: Tensor, generator: Generator | Sequence[Generator] | None = None
    ) -> Tensor:
        """Colors with 8 bits and the luma of gray64.

        gray64: (B, 1, 64, 64); coarse64: (B, 64, 64) int64; generator: not used, this kind is deterministic
        returns: rgb64 (B, 3, 64, 64)
        """
        if gray64.ndim != 4 or gray64.shape[1:] != (1, SIDE, SIDE) or coarse64.shape != gray64[:, 0].shape:
            raise ValueError(
                f"gray64 must be (B, 1, {SIDE}, {SIDE}) and coarse64 (B, {SIDE}, {SIDE}); "
                f"got {tuple(gray64.shape)} and {tuple(coarse64.shape)}"
            )
        levels = levels_from_coarse(coarse64)
        values = torch.arange(VALUES, device=gray64.device, dtype=torch.float32) / 255
        channels = []
        for number in range(3):
            logits = self.logits(gray64, levels[:, number], coarse64.new_full((len(gray64),), number)).float()
            channels.append(logits.softmax(-1) @ values if self.config.decode == "mean" else values[logits.argmax(-1)])
        return merge(gray64, chroma_from_rgb(torch.stack(channels, dim=1)))
