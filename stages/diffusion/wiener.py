"""A denoiser that already knows the power spectrum of its data: Wiener's filter, and a network for the rest.

Fields such as the chroma of a photograph hang together: most of their energy sits in the lowest frequencies, where it
outlasts noise that has long drowned all detail. A network that sees single noisy pixels learns this slowly, and until
it has, the tints of its samples are washed out. For Gaussian fields with independent cosine coefficients of variance
lambda the best denoiser is known in closed form: each coefficient shrunk by its share of the energy,

    W = lambda / (lambda + sigma²)

so it is computed, and the network learns only what it leaves over. `exponential` samples in the same terms.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from stages.diffusion.noise import Level, rows_like
from stages.precision import full_precision

__all__ = ["BANDS", "WienerDenoiser", "cosine_basis"]

BANDS = (0.5, 2.0, 4.0, 8.0, 16.0, math.inf)  # frequencies up to which bands reach, in half waves per side; first: tint


class WienerDenoiser(nn.Module):
    """A network beside Wiener's filter, in the cosine basis:

        denoise(x, sigma) = W x + c_out · network([c_in · x, c_guess · W x], c_noise, **conditions)

    with W = lambda / (lambda + sigma²) on each coefficient of variance lambda, and c_out² the mean squared error of W.
    As in Karras et al. 2022 (arXiv 2206.00364, section 5), whose scalings these are for a flat spectrum, the network
    sees inputs and learns a target of unit standard deviation at every noise level. With a silent network, samples that
    begin at `start` are Gaussian fields of that spectrum.

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

    def forward(self, x: Tensor, sigma: Level, **conditions: object) -> Tensor:
        """The clean estimate for x (B, C, H, W) float32, noisy at sigma > 0, one number or one per row (B,)."""
        return self.combined(*self.guess_and_answer(x, sigma, **conditions), sigma)

    def guess_and_answer(self, x: Tensor, sigma: Level, **conditions: object) -> tuple[Tensor, Tensor]:
        """Wiener's guess W x, and the network's answer to it, both in the shape of x (B, C, H, W)."""
        level = self._rows(sigma, x)
        kept = self.spectrum / (self.spectrum + level[:, None, None, None] ** 2)
        guess = self.fields(kept * self.coefficients(x))
        c_in = torch.rsqrt(self.spectrum.mean() + level**2)
        c_guess = torch.rsqrt((kept * self.spectrum).mean((1, 2, 3)))
        seen = torch.cat([rows_like(c_in, x) * x, rows_like(c_guess, x) * guess], dim=1)
        return guess, self.network(seen, level.log() / 4, **conditions).to(x.dtype)

    def combined(self, guess: Tensor, answer: Tensor, sigma: Level) -> Tensor:
        """The clean estimate that the two make, guess + c_out · answer."""
        return guess + rows_like(self._error(self._rows(sigma, guess)).sqrt(), guess) * answer

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """Weight of the squared error of the clean estimate at levels (B,), 1 / c_out²: all levels count the same."""
        return 1 / self._error(sigma)

    def start(self, white: Tensor, sigma: float) -> Tensor:
        """Where sampling begins: white noise (B, C, H, W) of variance 1 as Gaussian fields noisy at sigma."""
        return self.noisy(self.coefficients(white), sigma)

    def noisy(self, z: Tensor, sigma: float) -> Tensor:
        """The field (B, C, H, W) whose coefficients are z sqrt(lambda + sigma²)."""
        return self.fields((self.spectrum + sigma**2).sqrt() * z)

    def whitened(self, x: Tensor, sigma: float) -> Tensor:
        """Inverse of `noisy`."""
        return self.coefficients(x) / (self.spectrum + sigma**2).sqrt()

    def coefficients(self, x: Tensor) -> Tensor:
        """Of fields (B, C, H, W) in the cosine basis; `band` (H, W) is the number of the band each belongs to."""
        with full_precision(x.device):
            return self.row_basis @ x @ self.column_basis.mT

    def fields(self, coefficients: Tensor) -> Tensor:
        """Inverse of `coefficients`."""
        with full_precision(coefficients.device):
            return self.row_basis.mT @ coefficients @ self.column_basis

    def _error(self, level: Tensor) -> Tensor:
        """Mean squared error of Wiener's filter at noise levels (B,)."""
        square = level[:, None, None, None] ** 2
        return (self.spectrum * square / (self.spectrum + square)).mean((1, 2, 3))

    @staticmethod
    def _rows(sigma: Level, x: Tensor) -> Tensor:
        return torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(x.shape[:1])


def cosine_basis(length: int) -> Tensor:
    """The orthonormal discrete cosine transform, DCT-II, as a matrix (length, length): coefficients = basis @ x."""
    order = torch.arange(length, dtype=torch.float64)
    basis = torch.cos(math.pi / length * order[:, None] * (order[None, :] + 0.5)) * math.sqrt(2 / length)
    basis[0] /= math.sqrt(2)
    return basis.float()
