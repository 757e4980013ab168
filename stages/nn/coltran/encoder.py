"""ColTran's axial transformer encoder: rows and columns in turn, every pixel sees every other after two layers.

Kumar, Weissenborn and Kalchbrenner 2021 (arXiv 2102.04432), `FactorizedAttention` of the released code: learned row and
column positions, then per layer [row attention, feed-forward, column attention, feed-forward], each with
x <- LayerNorm(x + f(x)) (the code is post-norm; the paper's figure draws it before).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from stages.nn.axial import AxialAttention

LAYER_NORM_EPS = 1e-3  # Keras' default, which the released models use


class AxialEncoder(nn.Module):
    """(B, H, W, D) -> (B, H, W, D); `feed_forward` is the width of the pointwise networks, `size` (H, W)."""

    def __init__(self, channels: int, feed_forward: int, heads: int, layers: int, size: tuple[int, int]):
        super().__init__()
        (height, width), std = size, channels**-0.5
        self.rows = nn.Parameter(torch.randn(height, 1, channels) * std)
        self.columns = nn.Parameter(torch.randn(width, channels) * std)
        self.layers = nn.ModuleList()
        for _ in range(layers):
            for axis, length in (("row", width), ("column", height)):
                attention = AxialAttention(channels, heads, axis, length, relative_bias=True)  # type: ignore[arg-type]
                start_as_released(attention)
                self.layers.append(PostNorm(channels, attention))
                self.layers.append(PostNorm(channels, nn.Sequential(
                    dense(channels, feed_forward), nn.ReLU(), dense(feed_forward, channels)
                )))  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.rows + self.columns
        for layer in self.layers:
            x = layer(x)
        return x


class PostNorm(nn.Module):
    """x <- LayerNorm(x + f(x))."""

    def __init__(self, channels: int, layer: nn.Module):
        super().__init__()
        self.layer = layer
        self.norm = nn.LayerNorm(channels, eps=LAYER_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.layer(x))


def start_as_released(attention: AxialAttention) -> None:
    """Weights as in the released code, whose kernels have three axes: (C, heads, dim) for q, k and v, (heads, dim, C)
    for the output. So attention starts nearly uniform, and its branch nearly silent.
    """
    channels, heads = attention.out.in_features, attention.heads
    for weight in attention.qkv.weight.chunk(3):
        keras_uniform(weight, (channels, heads, channels // heads))
    keras_uniform(attention.out.weight, (heads, channels // heads, channels))


@torch.no_grad()
def keras_uniform(weight: Tensor, kernel: tuple[int, int, int]) -> None:
    """Glorot-uniform with the fans that Keras reads from a kernel's shape: as of a convolution, whatever it is for."""
    positions, inputs, outputs = kernel
    limit = math.sqrt(6 / (positions * (inputs + outputs)))
    weight.uniform_(-limit, limit)


def dense(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer as Keras starts it: Glorot-uniform weights, biases at zero."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
