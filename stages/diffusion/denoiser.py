"""From a network to a denoiser: (x, sigma) -> the clean picture one expects, given the noisy one in VE form.

`Denoiser` keeps every scaling in one place: the network sees input of unit standard deviation and learns a target of
unit standard deviation at every noise level, so that one network serves them all (Karras et al. 2022, arXiv
2206.00364, section 5):

    denoise(x, sigma) = c_skip · x + c_out · network(c_in · x, c_noise)

`VPDenoiser` is the same face for networks trained in VP form, such as DDPM's, ADM's, Palette's and GPIC's. With
gamma = 1 / (1 + sigma²), what they predict says the same about x_vp = sqrt(gamma) · x as the clean picture x0:

    epsilon = (x - x0) / sigma,    v = sqrt(gamma) · epsilon - sqrt(1 - gamma) · x0
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from stages.diffusion.noise import Level, float64, gamma_from_sigma, rows_like, ve_from_vp, vp_from_sigma, vp_from_ve

__all__ = ["Denoiser", "Prediction", "VPDenoiser", "clamped", "knowing"]

Prediction = Literal["clean", "epsilon", "v"]
"""What a network predicts: the clean picture, the noise, or the velocity (Salimans and Ho 2022, arXiv 2202.00512)."""


class Denoiser(nn.Module):
    """A network with EDM preconditioning (Karras et al. 2022, Table 1):

        denoise(x, sigma) = c_skip · x + c_out · network(c_in · x, c_noise, **conditions)

    network: called with c_in · x (B, ...), c_noise = ln(sigma) / 4 as (B,) in the dtype of x, and the
        conditions as given; returns the shape of x. Other dtypes (under autocast) are brought back
    sigma_data: standard deviation of the clean data
    """

    def __init__(self, network: nn.Module, sigma_data: float) -> None:
        super().__init__()
        if not sigma_data > 0:
            raise ValueError(f"sigma_data is the standard deviation of the data and must be positive; got {sigma_data}")
        self.network = network
        self.sigma_data = float(sigma_data)

    def forward(self, x: Tensor, sigma: Level, **conditions: object) -> Tensor:
        """The clean estimate (B, ...) for x (B, ...) noisy at sigma > 0, one number or one per row (B,)."""
        c_skip, c_out, c_in, c_noise = self.scalings(sigma)
        scaled = rows_like(c_in, x) * x
        answer = self.network(scaled, c_noise.to(x.dtype).to(x.device).expand(x.shape[:1]), **conditions)
        return rows_like(c_skip, x) * x + rows_like(c_out, x) * answer.to(x.dtype)

    def scalings(self, sigma: Level) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """c_skip, c_out, c_in, c_noise of sigma, in its shape, float64."""
        sigma = float64(sigma)
        total = sigma**2 + self.sigma_data**2  # variance of x
        c_in = torch.rsqrt(total)
        return self.sigma_data**2 / total, sigma * self.sigma_data * c_in, c_in, sigma.log() / 4

    def loss_weight(self, sigma: Level) -> Tensor:
        """lambda(sigma), the weight of the squared error of the clean estimate: 1 / c_out².

        It makes every noise level count the same: the network's own output then has an error of weight 1.
        returns: the shape and dtype of sigma (float64 for a float)
        """
        level = float64(sigma)
        weight = (level**2 + self.sigma_data**2) / (level * self.sigma_data) ** 2
        return weight.to(sigma.dtype) if isinstance(sigma, Tensor) else weight


class VPDenoiser(nn.Module):
    """A network of the variance-preserving form:

        answer = network(x_vp, level(sigma), **conditions)
        denoise(x, sigma) = answer | x - sigma · answer | gamma · x - sqrt(1 - gamma) · answer

    for a network that predicts the clean picture, epsilon or v.

    network: called with x_vp (B, ...), the level as (B,) in the dtype of x, and the conditions as given; returns the
        shape of x. Other dtypes (under autocast) are brought back
    level: what the network is told, from sigma in float64: `gamma_from_sigma`, the `timestep` of a `LinearSchedule`,
        or any other function of sigma
    """

    def __init__(
        self, network: nn.Module, predicts: Prediction, level: Callable[[Tensor], Tensor] = gamma_from_sigma
    ) -> None:
        super().__init__()
        if predicts not in get_args(Prediction):
            raise ValueError(f"a network predicts one of {get_args(Prediction)}; got {predicts!r}")
        self.network = network
        self.predicts = predicts
        self.level = level

    def forward(self, x: Tensor, sigma: Level, **conditions: object) -> Tensor:
        """The clean estimate (B, ...) for x (B, ...) in VE form, noisy at sigma > 0, one number or one per row (B,)."""
        sigma = float64(sigma)
        told = self.level(sigma).to(x.device, x.dtype).expand(x.shape[:1])
        answer = self.network(vp_from_ve(x, sigma), told, **conditions).to(x.dtype)
        if self.predicts == "clean":
            return answer
        if self.predicts == "epsilon":
            return x - rows_like(sigma, x) * answer
        alpha, std = vp_from_sigma(sigma)
        return rows_like(alpha**2, x) * x - rows_like(std, x) * answer


def clamped(
    denoise: Callable[[Tensor, Tensor], Tensor], low: float = -1.0, high: float = 1.0
) -> Callable[[Tensor, Tensor], Tensor]:
    """The denoiser with its clean estimates held within the range of pictures, as DDPM and Palette sample.

    For samplers only: in training, clamped pixels would get no gradient. An infinite estimate becomes NaN: clamped, it
    would pass for a color.
    """

    def held(x: Tensor, sigma: Tensor) -> Tensor:
        clean = denoise(x, sigma)
        return clean.clamp(low, high) + (clean - clean)  # infinity less itself is NaN, all else 0

    return held


def knowing(denoise: Callable[..., Tensor], clean: Tensor, known: Tensor) -> Callable[..., Tensor]:
    """The denoiser of pictures that are known in part, as Palette is trained: it sees what is known without noise (in
    VP form), and answers with it.

    So any sampler ends with the known pixels, to the bit, and in training they have no loss.
    clean: (B, ...), known: bool, broadcast to it
    """
    if known.dtype != torch.bool:
        raise ValueError(f"known must be bool, true where pixels are known; got {known.dtype}")

    def told(x: Tensor, sigma: Level, **conditions: object) -> Tensor:
        answer = denoise(torch.where(known, ve_from_vp(clean, sigma), x), sigma, **conditions)
        return torch.where(known, clean, answer)

    return told
