"""Building blocks that two or more stages share: residual convolutions, axial attention layers, noise-level codes."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.nn.axial import AxialAttention

Layer = TypeVar("Layer", bound=nn.Module)


class NoiseEmbedding(nn.Module):
    """Code of a noise level: c_noise (B,) -> (B, channels), sines and cosines through a two-layer network."""

    def __init__(self, channels: int):
        super().__init__()
        # c_noise = ln(sigma) / 4 lies within about +-2: periods from 0.1 to 40 tell levels apart without aliasing.
        frequencies = 2 * math.pi / torch.logspace(math.log10(0.1), math.log10(40), channels // 4)
        self.frequencies: Tensor
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.layers = nn.Sequential(nn.Linear(channels // 2, channels), nn.SiLU(), nn.Linear(channels, channels))

    def forward(self, c_noise: Tensor) -> Tensor:
        angles = c_noise[:, None] * self.frequencies
        return self.layers(torch.cat([angles.sin(), angles.cos()], dim=-1))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a skip (BigGAN-type, as in ADM and SR3), starting as the identity.

    embedding: width of a noise code that scales and shifts the second normalization; None where there is none.
    forward: x (B, C, H, W), code (B, embedding), context (B, C, H, W) added between the convolutions, modulation (2 C,)
        added to the code's scale and shift -> (B, C, H, W)
    """

    def __init__(self, channels: int, embedding: int | None = None):
        super().__init__()
        self.norm1, self.norm2 = group_norm(channels), group_norm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = zero(nn.Conv2d(channels, channels, 3, padding=1))
        self.modulation = zero(nn.Linear(embedding, 2 * channels)) if embedding else None

    def forward(
        self, x: Tensor, code: Tensor | None = None, context: Tensor | None = None, modulation: Tensor | None = None
    ) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        if context is not None:
            y = y + context
        y = self.norm2(y)
        if self.modulation is not None and code is not None:
            factors = self.modulation(F.silu(code))
            if modulation is not None:
                factors = factors + modulation
            scale, shift = factors[:, :, None, None].chunk(2, dim=1)
            y = y * (1 + scale) + shift
        return x + self.conv2(F.silu(y))


class AxialBlock(nn.Module):
    """Row attention, column attention and a pointwise network, each behind a normalization and beside a skip.

    forward: (B, C, H, W) -> (B, C, H, W); starts as the identity
    """

    def __init__(self, channels: int, heads: int, length: int):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))
        self.row = AxialAttention(channels, heads, "row", length, relative_bias=True)
        self.column = AxialAttention(channels, heads, "column", length, relative_bias=True)
        self.mlp = nn.Sequential(nn.Linear(channels, 2 * channels), nn.SiLU(), nn.Linear(2 * channels, channels))
        for layer in (self.row.out, self.column.out, self.mlp[-1]):
            zero(layer)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        for norm, layer in zip(self.norms, (self.row, self.column, self.mlp), strict=True):
            x = x + layer(norm(x))
        return x.permute(0, 3, 1, 2)


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalization with groups of 16 channels (of all, where there are fewer)."""
    return nn.GroupNorm(max(1, channels // 16), channels)


def zero(layer: Layer) -> Layer:
    """The layer with all weights zero: a residual branch that starts silent."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
