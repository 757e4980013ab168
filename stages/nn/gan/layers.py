"""What the networks of adversarial training are built of: convolutions, normalizations, dropout, first weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from stages.nn.gan.spectral import SpectralNorm

__all__ = ["BatchNorm", "Convolution", "Dropout", "Norm", "Uniform", "check_norm", "initialize", "normalization",
           "spectrally_normalized"]  # fmt: skip

Norm = Literal["none", "batch", "instance"]
Uniform = Callable[[Sequence[int]], Tensor]
"""shape -> numbers from [0, 1)."""
INITIAL_STD = 0.02  # of all first weights (Radford et al. 2016, arXiv 1511.06434; pix2pix and pix2pixHD)


class Convolution(nn.Conv2d):
    """padding: zeros on each side; None: "same", the output has the side of the input divided by the stride."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int | None = None, bias: bool = True
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, bias=bias)
        total = max(kernel - stride, 0)
        before, after = (total // 2, total - total // 2) if padding is None else (padding, padding)
        self.margins = (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.margins) if any(self.margins) else x)


class BatchNorm(nn.BatchNorm2d):
    """Statistics of the batch in training; in use those of each picture, as pix2pix has it with a batch of one.

    So a picture does not depend on its batch, and no running statistics are kept.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return super().forward(x)
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)


class Dropout(nn.Module):
    """Drops half of the values in training and in use: the only noise of pix2pix."""

    def forward(self, x: Tensor, uniform: Uniform) -> Tensor:
        return x * (2 * (uniform(x.shape) < 0.5)).to(x)


def normalization(norm: str, channels: int) -> nn.Module:
    """Instance normalization has no parameters, as in pix2pixHD."""
    if norm == "none":
        return nn.Identity()
    return BatchNorm(channels) if norm == "batch" else nn.InstanceNorm2d(channels)


def check_norm(norm: str) -> None:
    """Raises ValueError for a name that is none of `Norm`."""
    if norm not in get_args(Norm):
        raise ValueError(f"norm must be one of {', '.join(get_args(Norm))}; got {norm!r}")


def spectrally_normalized(module: nn.Module) -> None:
    """Divides the weight of every convolution in a module by its largest singular value, from now on."""
    for layer in list(module.modules()):
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            outputs = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
            register_parametrization(layer, "weight", SpectralNorm(layer.weight, outputs), unsafe=True)


@torch.no_grad()
def initialize(module: nn.Module) -> None:
    """First weights: N(0, 0.02²) of convolutions, N(1, 0.02²) of batch normalizations; biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.weight.normal_(0, INITIAL_STD)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.weight.normal_(1, INITIAL_STD)
        else:
            continue
        if layer.bias is not None:
            layer.bias.zero_()
