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

__all__ = ["BANDS", "SpectralDenoiser", "TunedSteps", "cosine_basis"]

BANDS = (0.5, 2.0, 4.0, 8.0, 16.0, math.inf)  # frequencies up to which bands reach, in half waves per side; first: tint
NODES = 16  # of the quadrature over a step: exact to 1e-9 even where there are four, and quick


class TunedSteps(nn.Module):
    """What makes up for few steps: what long steps get wrong is much the same for all fields.

    It is learned from longer sampling by the same weights (train_scripts/tune_steps.py) and belongs to these weights
    alone. Factors on a solver's steps are the idea of bespoke solvers (Shaul et al. 2023, arXiv 2310.19075); that the
    network, too, may answer otherwise at each of its few steps is distillation (Salimans and Ho 2022, arXiv
    2202.00512), here of its modulations only.

    levels: (S,), noise levels at which the steps begin, falling
    gains: (S, 2, len(BANDS)), factors on the pull of the last answer and on that of its change, by frequency
    modulation: (S, M), added to what the network's noise code makes of itself in all of its blocks
    """

    def __init__(self, levels: Tensor | Sequence[float], modulations: int) -> None:
        super().__init__()
        steps = len(levels)
        self.levels: Tensor
        self.gains: Tensor
        self.modulation: Tensor
        # Buffers: training has no part in them.
        self.register_buffer("levels", torch.as_tensor(levels).float())
        self.register_buffer("gains", torch.ones(steps, 2, len(BANDS)))
        self.register_buffer("modulation", torch.zeros(steps, modulations))

    @property
    def sigmas(self) -> list[float]:
        """The levels, and 0 at the end."""
        return [*self.levels.tolist(), 0.0]


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
        frequency = torch.hypot(*torch.meshgrid(torch.arange(1.0 * height), torch.arange(1.0 * width), indexing="ij"))
        self.band: Tensor
        self.register_buffer("band", torch.bucketize(frequency, torch.tensor(BANDS)), persistent=False)

    @torch.no_grad()
    def fit(self, clean: Tensor) -> None:
        """Sets the spectrum to that of clean fields (N, C, H, W)."""
        energy = self.coefficients(clean.float()).square().mean(0)
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
            guess = self._field(kept * self.coefficients(x))
        c_in = torch.rsqrt(self.spectrum.mean() + level**2)
        c_guess = torch.rsqrt((kept * self.spectrum).mean((1, 2, 3)))
        seen = torch.cat([rows_like(c_in, x) * x, rows_like(c_guess, x) * guess], dim=1)
        return guess, self.network(seen, level.log() / 4, **conditions).to(x.dtype)

    def start(self, noise: Tensor, sigma: float) -> Tensor:
        """Where sampling begins: white noise (B, C, H, W) of unit spread as Gaussian fields noisy at sigma."""
        with torch.autocast(noise.device.type, enabled=False):
            return self._noisy(self.coefficients(noise), sigma)

    def sample(
        self,
        noise: Tensor,
        sigmas: Tensor | Sequence[float] | TunedSteps,
        callback: Callback | None = None,
        **conditions: Any,
    ) -> Tensor:
        """From white noise (B, C, H, W) of unit spread to a clean field, by an exponential integrator of second order.

        On the way that all samplers follow (`stages.diffusion.samplers`), a coefficient of a Gaussian field keeps
        z = x / sqrt(lambda + sigma²). What moves it is the network's answer a alone:

            dz / dsigma = -a · c_out(sigma) / (sigma sqrt(lambda + sigma²))

        So a silent network is sampled exactly in one step. The factor beside a is known and integrated; a itself runs
        on along ln(sigma) from its last two values (as exponential Adams-Bashforth methods have it: Hochbruck and
        Ostermann 2010, section 2.5). At 0 only ln(sigma) is singular, and can be integrated, so the last step needs no
        other rule.

        sigmas: falling levels, the last one 0, or tuned steps, of which the network is then given the `modulation` of
            each, (M,); callback: as for the samplers
        Raises ValueError for levels that do not fall to 0.
        """
        tuned: TunedSteps | None = None
        if isinstance(sigmas, TunedSteps):
            tuned, sigmas = sigmas, sigmas.sigmas
        levels = falling(sigmas)
        if levels[-1] != 0:
            raise ValueError(f"the last level must be 0; got {levels[-1]}")
        with torch.autocast(noise.device.type, enabled=False):
            z = self.coefficients(noise)
        x = self._noisy(z, levels[0])
        spectrum = self.spectrum.cpu().double()
        before: tuple[float, Tensor] | None = None
        for step, (sigma, lower) in enumerate(zip(levels, levels[1:], strict=False)):
            own = {} if tuned is None else {"modulation": tuned.modulation[step]}
            guess, answer = self._parts(x, self._level(sigma, x), conditions | own)
            with torch.autocast(noise.device.type, enabled=False):
                a = self.coefficients(answer)
            q, pull = _pull(spectrum, sigma, lower)
            gain, gain_of_change = (1.0, 1.0) if tuned is None else tuned.gains[step][:, self.band]
            z = z + gain * pull.sum(0).to(z) * a
            if before is not None:
                ahead = torch.log(q / sigma) / math.log(sigma / before[0])
                z = z + gain_of_change * (pull * ahead).sum(0).to(z) * (a - before[1])
            x, before = self._noisy(z, lower), (sigma, a)
            if callback is not None:
                callback(step, lower, x, guess + self._error(self._level(sigma, x))[0].sqrt() * answer)
        return x

    def _noisy(self, z: Tensor, sigma: float) -> Tensor:
        """The field whose coefficients are z sqrt(lambda + sigma²)."""
        with torch.autocast(z.device.type, enabled=False):
            return self._field((self.spectrum + sigma**2).sqrt() * z)

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

    def coefficients(self, x: Tensor) -> Tensor:
        """Of fields (B, C, H, W) in the cosine basis; `band` (H, W) is the number of the band each belongs to."""
        return self.row_basis @ x @ self.column_basis.mT

    def _field(self, coefficients: Tensor) -> Tensor:
        return self.row_basis.mT @ coefficients @ self.column_basis


def _pull(spectrum: Tensor, sigma: float, lower: float) -> tuple[Tensor, Tensor]:
    """Nodes between `lower` and `sigma`, (Q, 1, 1, 1), and how much an answer of one moves each z in the part of the
    step around each of them, (Q, C, H, W): Gauss's quadrature, in float64.
    """
    nodes, weights = (torch.from_numpy(one)[:, None, None, None] for one in np.polynomial.legendre.leggauss(NODES))
    t = (nodes + 1) / 2
    q = lower + (sigma - lower) * t**2  # denser toward `lower`, where 1 / q is steep
    error = (spectrum * q**2 / (spectrum + q**2)).mean((1, 2, 3), keepdim=True)
    return q, error.sqrt() / (q * (spectrum + q**2).sqrt()) * (sigma - lower) * t * weights


def cosine_basis(length: int) -> Tensor:
    """The orthonormal discrete cosine transform, DCT-II, as a matrix (length, length): coefficients = basis @ x."""
    order = torch.arange(length, dtype=torch.float64)
    basis = torch.cos(math.pi / length * order[:, None] * (order[None, :] + 0.5)) * math.sqrt(2 / length)
    basis[0] /= math.sqrt(2)
    return basis.float()
