"""A denoiser that already knows the power spectrum of its data.

Fields such as the chroma of a photograph hang together: most of their energy sits in the lowest frequencies, where it
outlasts noise that has long drowned all detail. A network that sees single noisy pixels learns this slowly, and until
it has, the tints of its samples are washed out. For Gaussian fields with independent cosine coefficients the best
denoiser is known in closed form (Wiener's filter: each coefficient shrunk by its share of the energy), so it is
computed, and the network learns only what it leaves over. Sampling, too, leaves the known part to mathematics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stages.diffusion.noise import Level, rows_like
from stages.diffusion.samplers import Callback, falling

__all__ = ["SpectralDenoiser", "cosine_basis"]

NODES = 48  # of the quadrature over a step


class SpectralDenoiser(nn.Module):
    """A network beside Wiener's filter, in the cosine basis:

        denoise(x, sigma) = W x + c_out · network([c_in · x, c_guess · W x], c_noise, **conditions)

    with W = lambda / (lambda + sigma²) on each coefficient of variance lambda, and c_out² the mean squared error of W.
    As in Karras et al. 2022 (arXiv 2206.00364, section 5), whose scalings these are for a flat spectrum, the network
    sees inputs of unit spread and learns a target of unit spread at every noise level. With a silent network, samples
    that begin at `start` are Gaussian fields of that spectrum.

    network: called with (B, 2 C, H, W), c_noise = ln(sigma) / 4 as (B,), and the conditions as given; returns
        (B, C, H, W). Other dtypes (under autocast) are brought back
    spectrum: (C, H, W) mean squares of the coefficients, a buffer; one until `fit` has been called
    """

    def __init__(self, network: nn.Module, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.network = network
        self.spectrum: Tensor
        self.row_basis: Tensor
        self.column_basis: Tensor
        self.register_buffer("spectrum", torch.ones(channels, height, width))
        self.register_buffer("row_basis", cosine_basis(height), persistent=False)
        self.register_buffer("column_basis", cosine_basis(width), persistent=False)

    @torch.no_grad()
    def fit(self, clean: Tensor) -> None:
        """Sets the spectrum to that of clean fields (N, C, H, W)."""
        energy = self._coefficients(clean.float()).square().mean(0)
        # A coefficient that was zero in these fields need not be in others, and zeros would be divided by.
        self.spectrum.copy_(energy.clamp_min(1e-4 * energy.mean()))

    def forward(self, x: Tensor, sigma: Level, **conditions: Any) -> Tensor:
        """The clean estimate for x (B, C, H, W) float32, noisy at sigma > 0, one number or one per row (B,)."""
        level = self._level(sigma, x)
        guess, answer = self._parts(x, level, conditions)
        return guess + rows_like(self._error(level).sqrt(), x) * answer

    def _parts(self, x: Tensor, level: Tensor, conditions: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Wiener's guess, and the network's answer to it in units of its spread."""
        kept = self.spectrum / (self.spectrum + level[:, None, None, None] ** 2)
        with torch.autocast(x.device.type, enabled=False):
            guess = self._field(kept * self._coefficients(x))
        c_in = torch.rsqrt(self.spectrum.mean() + level**2)
        c_guess = torch.rsqrt((kept * self.spectrum).mean((1, 2, 3)))
        seen = torch.cat([rows_like(c_in, x) * x, rows_like(c_guess, x) * guess], dim=1)
        return guess, self.network(seen, level.log() / 4, **conditions).to(x.dtype)

    def start(self, noise: Tensor, sigma: float) -> Tensor:
        """Where sampling begins: white noise (B, C, H, W) of unit spread as Gaussian fields noisy at sigma."""
        with torch.autocast(noise.device.type, enabled=False):
            return self._field((self.spectrum + sigma**2).sqrt() * self._coefficients(noise))

    def sample(
        self, noise: Tensor, sigmas: Tensor | Sequence[float], callback: Callback | None = None, **conditions: Any
    ) -> Tensor:
        """From white noise (B, C, H, W) of unit spread to a clean field, by an exponential integrator of second order.

        On the way that all samplers follow (`stages.diffusion.samplers`), a coefficient of a Gaussian field keeps
        z = x / sqrt(lambda + sigma²). What moves it is the network's answer a alone:

            dz / dsigma = -a · c_out(sigma) / (sigma sqrt(lambda + sigma²))

        So a silent network is sampled exactly in one step. The factor beside a is known and integrated; a itself runs
        on along ln(sigma) from its last two values (as exponential Adams-Bashforth methods have it: Hochbruck and
        Ostermann 2010, section 2.5). Nothing is singular at 0, so the last step is of second order as well.

        sigmas: falling levels, the last one 0; callback: as for the samplers
        """
        levels = falling(sigmas)
        if levels[-1] != 0:
            raise ValueError(f"the last level must be 0; got {levels[-1]}")
        with torch.autocast(noise.device.type, enabled=False):
            z = self._coefficients(noise)
        answer_before, before = None, math.nan
        for step, (sigma, lower) in enumerate(zip(levels, levels[1:], strict=False)):
            with torch.autocast(noise.device.type, enabled=False):
                x = self._field((self.spectrum + sigma**2).sqrt() * z)
            guess, answer = self._parts(x, self._level(sigma, x), conditions)
            with torch.autocast(noise.device.type, enabled=False):
                flat, slope = self._pull(sigma, lower, before)
                a = self._coefficients(answer)
                z = z + flat * a
                if answer_before is not None:
                    z = z + slope * (a - answer_before)
            answer_before, before = a, sigma
            if callback is not None:
                x = self._field((self.spectrum + lower**2).sqrt() * z)
                callback(step, lower, x, guess + self._error(self._level(sigma, x))[0].sqrt() * answer)
        return self._field(self.spectrum.sqrt() * z)

    def _pull(self, sigma: float, lower: float, before: float) -> tuple[Tensor, Tensor]:
        """How far an answer of one moves each z (C, H, W) from `sigma` to `lower`, and one that grows from 0 at
        `sigma` by 1 on the stretch of ln(sigma) that the step from `before` took.
        """
        spectrum = self.spectrum.cpu().double()
        nodes, weights = (torch.from_numpy(one) for one in np.polynomial.legendre.leggauss(NODES))
        t = (nodes + 1) / 2
        q = (lower + (sigma - lower) * t**2)[:, None, None, None]  # denser toward `lower`, where 1 / q is steep
        width = ((sigma - lower) * t * weights)[:, None, None, None]
        error = (spectrum * q**2 / (spectrum + q**2)).mean((1, 2, 3), keepdim=True)
        pull = error.sqrt() / (q * (spectrum + q**2).sqrt()) * width
        slope = pull * torch.log(q / sigma) / math.log(sigma / before)
        return pull.sum(0).to(self.spectrum), slope.sum(0).to(self.spectrum)

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """Weight of the squared error of the clean estimate at levels (B,), 1 / c_out²: all levels count the same."""
        return 1 / self._error(sigma)

    def _error(self, level: Tensor) -> Tensor:
        """Mean squared error of Wiener's filter at noise levels (B,)."""
        square = level[:, None, None, None] ** 2
        return (self.spectrum * square / (self.spectrum + square)).mean((1, 2, 3))

    @staticmethod
    def _level(sigma: Level, x: Tensor) -> Tensor:
        return torch.as_tensor(sigma).to(x.device, x.dtype).expand(x.shape[:1])

    def _coefficients(self, x: Tensor) -> Tensor:
        return self.row_basis @ x @ self.column_basis.mT

    def _field(self, coefficients: Tensor) -> Tensor:
        return self.row_basis.mT @ coefficients @ self.column_basis


def cosine_basis(length: int) -> Tensor:
    """The orthonormal discrete cosine transform, DCT-II, as a matrix (length, length): coefficients = basis @ x."""
    order = torch.arange(length, dtype=torch.float64)
    basis = torch.cos(math.pi / length * order[:, None] * (order[None, :] + 0.5)) * math.sqrt(2 / length)
    basis[0] /= math.sqrt(2)
    return basis.float()
