"""From a network to a denoiser: (x, sigma) -> the clean picture one expects, given the noisy one.

`Denoiser` keeps every scaling in one place: the network sees input of unit spread and learns a target of unit
spread at every noise level, which is what lets one network serve them all (Karras et al. 2022, arXiv
2206.00364, section 5).

Networks trained to say something else join through the exact conversions below. With x = alpha · x0 + sigma ·
epsilon, where (alpha, sigma) = (1, sigma) in VE form and `vp_from_sigma(sigma)` in VP form, the clean picture
x0, the noise epsilon and the velocity v = alpha · epsilon - sigma · x0 (Salimans and Ho 2022, VP only) say
the same about x.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stages.diffusion.noise import Level, draw_noise, lognormal_sigmas, rows_like

__all__ = [
    "Denoiser", "denoising_loss", "epsilon_from_v", "epsilon_from_x0", "v_from_epsilon", "v_from_x0", "x0_from_epsilon",
    "x0_from_v",
]  # fmt: skip


class Denoiser(nn.Module):
    """A network with EDM preconditioning (Karras et al. 2022, Table 1):

        denoise(x, sigma) = c_skip · x + c_out · network(c_in · x, c_noise, **conditions)

    network: called with c_in · x (B, ...), c_noise = ln(sigma) / 4 as (B,) in the dtype of x, and the
        conditions as given; returns the shape of x. Other dtypes (under autocast) are brought back
    sigma_data: spread (standard deviation) of the clean data
    """

    def __init__(self, network: nn.Module, sigma_data: float) -> None:
        super().__init__()
        if not sigma_data > 0:
            raise ValueError(f"sigma_data is the spread of the data and must be positive; got {sigma_data}")
        self.network = network
        self.sigma_data = float(sigma_data)

    def forward(self, x: Tensor, sigma: Level, **conditions: Any) -> Tensor:
        """The clean estimate (B, ...) for x (B, ...) noisy at sigma > 0, one number or one per row (B,)."""
        c_skip, c_out, c_in, c_noise = self.scalings(sigma)
        scaled = rows_like(c_in, x) * x
        answer = self.network(scaled, c_noise.to(x.device, x.dtype).expand(x.shape[:1]), **conditions)
        return rows_like(c_skip, x) * x + rows_like(c_out, x) * answer.to(x.dtype)

    def scalings(self, sigma: Level) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """c_skip, c_out, c_in, c_noise of sigma, in its shape, float64."""
        sigma = torch.as_tensor(sigma, dtype=torch.float64)
        total = sigma**2 + self.sigma_data**2  # variance of x
        c_in = torch.rsqrt(total)
        return self.sigma_data**2 / total, sigma * self.sigma_data * c_in, c_in, sigma.log() / 4

    def loss_weight(self, sigma: Level) -> Tensor:
        """lambda(sigma), the weight of the squared error of the clean estimate: 1 / c_out².

        It makes every noise level count the same: the network's own output then has an error of weight 1.
        returns: the shape and dtype of sigma (float64 for a float)
        """
        level = torch.as_tensor(sigma, dtype=torch.float64)
        weight = (level**2 + self.sigma_data**2) / (level * self.sigma_data) ** 2
        return weight.to(sigma.dtype) if isinstance(sigma, Tensor) else weight


def denoising_loss(
    denoiser: Any,
    clean: Tensor,
    noise_mean: float,
    noise_std: float,
    huber: float = 0.0,
    importance: Tensor | None = None,
    **conditions: Any,
) -> Tensor:
    """Mean weighted error of the clean estimate at random noise levels (Karras et al. 2022, eq. 2).

    denoiser: called as (noisy, sigma, **conditions) and asked for `loss_weight(sigma)`
    clean: (B, ...); noise_mean, noise_std: of ln(sigma), in units of clean
    huber: each error of the network's output (of unit spread) beyond this counts by its size instead of its square, and
        the estimate leans from the mean to the median (Song and Dhariwal 2023, arXiv 2310.14189, section 3.3, take the
        norm of a whole picture instead); 0: squared
    importance: factor of each error, broadcast to clean; none: 1
    returns: scalar
    """
    sigma = lognormal_sigmas(len(clean), noise_mean, noise_std).to(clean.device)
    noisy = clean + rows_like(sigma, clean) * draw_noise(clean.shape, device=clean.device)
    error = denoiser(noisy, sigma, **conditions) - clean
    if importance is not None:
        error = importance * error
    square = rows_like(denoiser.loss_weight(sigma), error) * error.square()
    if huber:
        square = 2 * huber * ((square + huber**2).sqrt() - huber)
    return square.mean()


def x0_from_epsilon(x: Tensor, epsilon: Tensor, alpha: Level, sigma: Level) -> Tensor:
    """Clean picture, (x - sigma · epsilon) / alpha; alpha > 0. Coefficients are numbers or (B,)."""
    return (x - rows_like(sigma, x) * epsilon) / rows_like(alpha, x)


def epsilon_from_x0(x: Tensor, x0: Tensor, alpha: Level, sigma: Level) -> Tensor:
    """Noise, (x - alpha · x0) / sigma; sigma > 0."""
    return (x - rows_like(alpha, x) * x0) / rows_like(sigma, x)


def x0_from_v(x: Tensor, v: Tensor, alpha: Level, sigma: Level) -> Tensor:
    """Clean picture, alpha · x - sigma · v, from the velocity; VP: alpha² + sigma² = 1."""
    return rows_like(alpha, x) * x - rows_like(sigma, x) * v


def v_from_x0(x: Tensor, x0: Tensor, alpha: Level, sigma: Level) -> Tensor:
    """Velocity, (alpha · x - x0) / sigma; VP: alpha² + sigma² = 1, sigma > 0."""
    return (rows_like(alpha, x) * x - x0) / rows_like(sigma, x)


def epsilon_from_v(x: Tensor, v: Tensor, alpha: Level, sigma: Level) -> Tensor:
    """Noise, sigma · x + alpha · v, from the velocity; VP: alpha² + sigma² = 1."""
    return rows_like(sigma, x) * x + rows_like(alpha, x) * v


def v_from_epsilon(x: Tensor, epsilon: Tensor, alpha: Level, sigma: Level) -> Tensor:
    """Velocity, (epsilon - sigma · x) / alpha; VP: alpha² + sigma² = 1, alpha > 0."""
    return (epsilon - rows_like(sigma, x) * x) / rows_like(alpha, x)
