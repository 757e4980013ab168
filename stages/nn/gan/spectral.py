"""Spectral normalization (Miyato et al. 2018, arXiv 1802.05957): W / sigma, sigma the largest singular value of W.

    v <- W' u / |W' u|,  u <- W v / |W v|,  sigma = u' W v

W is a kernel as a matrix, a row for each output channel. u and v are buffers. One power iteration is a call of its own,
`power_iteration`, which a stage makes once in each step of the weights' player. The forward pass only divides: passes
over real and drawn pictures see the same weights, and whoever looks at a frozen network leaves it as it was.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

__all__ = ["SpectralNorm", "power_iteration"]

FIRST_ITERATIONS = 15


class SpectralNorm(nn.Module):
    """A parametrization for torch.nn.utils.parametrize: weight -> weight / sigma.

    outputs: the axis of the output channels, 1 for transposed convolutions
    """

    left: Tensor
    right: Tensor

    def __init__(self, weight: Tensor, outputs: int = 0) -> None:
        super().__init__()
        self.outputs = outputs
        matrix = self.matrix(weight)
        self.register_buffer("left", F.normalize(torch.randn(len(matrix)).to(matrix), dim=0))
        self.register_buffer("right", torch.zeros_like(matrix[0]))
        self.iterate(weight, FIRST_ITERATIONS)

    def matrix(self, weight: Tensor) -> Tensor:
        return weight.movedim(self.outputs, 0).flatten(1)

    @torch.no_grad()
    def iterate(self, weight: Tensor, times: int = 1) -> None:
        matrix = self.matrix(weight)
        for _ in range(times):
            self.right.copy_(F.normalize(matrix.T @ self.left, dim=0))
            self.left.copy_(F.normalize(matrix @ self.right, dim=0))

    def forward(self, weight: Tensor) -> Tensor:
        # Written out: autocast would round matrix products to 8 bits.
        sigma = ((self.matrix(weight) * self.right).sum(1) * self.left).sum()
        return weight / sigma


def power_iteration(module: nn.Module) -> None:
    """One power iteration of every spectral normalization in a module."""
    for layer in module.modules():
        if isinstance(layer, ParametrizationList) and isinstance(layer[0], SpectralNorm):
            weight = layer.original
            with torch.autocast(weight.device.type, enabled=False):
                layer[0].iterate(weight)
