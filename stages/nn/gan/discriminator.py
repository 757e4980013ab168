"""Discriminators that judge patches: PatchGAN (pix2pix, arXiv 1611.07004), at several scales (pix2pixHD, 1711.11585).

A column of convolutions says of each patch whether it is real. The patch is its receptive field:

    kernel 4, strides (2, 2, 2, 1)       70 pixels: pix2pix, pix2pixHD and the hybrid
    kernel 4, strides (2, 2, 1)          34
    kernel 4, strides (2, 1)             16
    kernel 4, strides (2, 2, 2, 2, 1)    142
    kernel 3, strides (1, 2)              9
    kernel 1, strides (1, 1)              1

Attention in a column lets every patch know of the whole picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from stages.nn.gan.attention import SelfAttention
from stages.nn.gan.layers import Convolution, check_norm, initialize, normalization, spectrally_normalized

__all__ = ["Discriminator", "DiscriminatorConfig", "Judgement", "PatchDiscriminator"]

SLOPE = 0.2  # of leaky ReLU
WIDEST = 8  # times the first width


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The hybrid's sizes. pix2pix: scales = 1, spectral_norm = false, norm = "batch", padding = 1, attention = [];
    pix2pixHD: spectral_norm = false, norm = "instance", padding = 2, attention = [].
    """

    channels: int = 64  # of the first convolution; the others have twice as many in turn, up to 8 times
    strides: tuple[int, ...] = (2, 2, 2, 1)  # of all convolutions but the last, which answers
    kernel: int = 4
    padding: int | None = None  # zeros on each side; None: as many as keep the side, but for the strides
    scales: int = 3  # discriminators; each sees the pictures at half the side of the one before
    pooling: int = 2  # side of the averages that halve the pictures; pix2pixHD: 3, overlapping
    norm: str = "none"  # after all convolutions but the first and the last: "batch", "instance"
    spectral_norm: bool = True
    attention: tuple[int, ...] = (2, 1, 1)  # of each scale: after which convolution it stands; 0, or none: nowhere
    pooled_keys: bool = False

    def __post_init__(self) -> None:
        check_norm(self.norm)
        if not self.strides or min(*self.strides, self.channels, self.kernel, self.scales) < 1:
            raise ValueError(f"a discriminator needs strides, channels, kernel and scales from 1; got {self}")
        if self.padding is not None and self.padding < 0:
            raise ValueError(f"padding must be 0 or more; got {self.padding}")
        if self.pooling not in (2, 3):
            raise ValueError(f"pooling must be 2 or 3; got {self.pooling}")
        if self.scales == 1 and self.pooling != type(self).pooling:
            raise ValueError("pooling is between scales, and there is one: leave it out")
        if self.pooled_keys and not any(self.attention):
            raise ValueError("pooled_keys are of attention, and there is none: leave them out")
        if self.attention and len(self.attention) != self.scales:
            raise ValueError(f"attention must have an entry for each of {self.scales} scales; got {self.attention}")
        if any(not 0 <= place <= len(self.strides) for place in self.attention):
            raise ValueError(f"attention must be from 0 to {len(self.strides)}; got {self.attention}")

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(self.channels * min(2**level, WIDEST) for level in range(len(self.strides)))

    @property
    def patch(self) -> int:
        """Side of the patch that an answer is about, but for attention."""
        side = self.kernel
        for stride in reversed(self.strides):
            side = (side - 1) * stride + self.kernel
        return side


class Judgement(NamedTuple):
    """What a discriminator says.

    logits: (B, 1, h, w), of each patch
    before, after: of each convolution but the last, before and after its leaky ReLU, (B, C, h, w) each
    """

    logits: Tensor
    before: list[Tensor]
    after: list[Tensor]


class PatchDiscriminator(nn.Module):
    """(B, inputs, H, W) -> Judgement. attention: after which convolution, 0: nowhere."""

    def __init__(self, config: DiscriminatorConfig, inputs: int, attention: int = 0) -> None:
        super().__init__()
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        for place, (width, stride) in enumerate(zip(config.widths, config.strides, strict=True)):
            norm = config.norm if place else "none"
            # A bias before batch normalization would do nothing.
            self.convolutions.append(
                Convolution(inputs, width, config.kernel, stride, config.padding, bias=norm != "batch")
            )
            self.norms.append(normalization(norm, width))
            inputs = width
        self.place = attention
        self.attention = SelfAttention(config.widths[attention - 1], config.pooled_keys) if attention else None
        self.answer = Convolution(inputs, 1, config.kernel, 1, config.padding)

    def forward(self, x: Tensor) -> Judgement:
        before: list[Tensor] = []
        after: list[Tensor] = []
        for place, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True), 1):
            before.append(norm(convolution(x)))
            x = F.leaky_relu(before[-1], SLOPE)
            after.append(x)
            if self.attention is not None and place == self.place:
                x = self.attention(x)
        return Judgement(self.answer(x), before, after)


class Discriminator(nn.Module):
    """One or several of them, on smaller and smaller pictures: (B, inputs, H, W) -> a Judgement of each scale."""

    def __init__(self, config: DiscriminatorConfig, inputs: int) -> None:
        super().__init__()
        self.config = config
        places = config.attention or (0,) * config.scales
        self.scales = nn.ModuleList(PatchDiscriminator(config, inputs, place) for place in places)
        initialize(self)
        if config.spectral_norm:
            spectrally_normalized(self)

    def forward(self, x: Tensor) -> list[Judgement]:
        return [scale(one) for scale, one in zip(self.scales, self.pyramid(x), strict=True)]

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """The picture as each scale sees it."""
        pictures = [x]
        for _ in self.scales[1:]:
            pictures.append(halved(pictures[-1], self.config.pooling))
        return pictures


def halved(x: Tensor, pooling: int = 3) -> Tensor:
    """(B, C, H, W) at half its side, averages of 2x2 or overlapping 3x3 pixels; beyond the border there is nothing."""
    return F.avg_pool2d(x, pooling, 2, pooling // 2 if pooling == 3 else 0, count_include_pad=False)
