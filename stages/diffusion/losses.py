"""Losses: how wrong a clean estimate is, from three parts that combine freely.

A denoiser answers with the clean picture whatever its network predicts. Given x, the other predictions are linear in
it, so an error of epsilon or v is that of the clean picture times a number:

    error of epsilon = error / sigma,    error of v = error · sqrt(1 + 1 / sigma²)        (up to sign)

What is predicted is therefore a weight of the squared error (`PREDICTED`, or a denoiser's own `loss_weight`). A norm
(`l2`, `l1`, `pseudo_huber`) measures the error so weighted, and a further weighting of levels may follow:

    loss = mean of weighting(sigma) · norm(sqrt(weight(sigma)) · (denoise(clean + sigma · epsilon, sigma) - clean))

Palette: PREDICTED["epsilon"] and `l2`; SR3 and GPIC: the same and `l1`; EDM: `loss_weight` and `l2`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from stages.diffusion.denoiser import Prediction
from stages.diffusion.noise import draw_noise, lognormal_sigmas, rows_like

__all__ = ["PREDICTED", "Norm", "Weight", "WeightedDenoiser", "denoising_loss", "diffusion_loss", "l1", "l2",
           "pseudo_huber"]  # fmt: skip

Weight = Callable[[Tensor], Tensor]
"""Noise levels (B,) -> weights (B,)."""

Norm = Callable[[Tensor, Tensor], Tensor]
"""Errors (B, ...), weight of their squares (B, 1, ...) -> how much each counts (B, ...)."""

PREDICTED: dict[Prediction, Weight] = {
    "clean": torch.ones_like,
    "epsilon": lambda sigma: sigma**-2,
    "v": lambda sigma: 1 + sigma**-2,
}


class WeightedDenoiser(Protocol):
    """A denoiser that says which weight makes its errors count the same at every noise level."""

    def __call__(self, x: Tensor, sigma: Tensor, /, **conditions: object) -> Tensor: ...

    def loss_weight(self, sigma: Tensor, /) -> Tensor: ...


def l2(error: Tensor, weight: Tensor) -> Tensor:
    """weight · error²; the best estimate is the mean."""
    return weight * error.square()


def l1(error: Tensor, weight: Tensor) -> Tensor:
    """sqrt(weight) · |error|; the best estimate is the median."""
    return weight.sqrt() * error.abs()


def pseudo_huber(width: float) -> Norm:
    """Weighted errors beyond `width` > 0 count by their size instead of their square: between `l2` and `l1`.

    Of each pixel; Song and Dhariwal 2023 (arXiv 2310.14189, section 3.3) take the norm of a whole picture instead.
    """
    if not width > 0:
        raise ValueError(f"the width of the pseudo-Huber norm must be positive; got {width}")

    def norm(error: Tensor, weight: Tensor) -> Tensor:
        return 2 * width * ((l2(error, weight) + width**2).sqrt() - width)

    return norm


def diffusion_loss(
    denoise: Callable[..., Tensor],
    clean: Tensor,
    sigma: Tensor,
    weight: Weight,
    norm: Norm = l2,
    weighting: Weight | None = None,
    importance: Tensor | None = None,
    **conditions: object,
) -> Tensor:
    """Mean error of the clean estimate at noise levels sigma.

    denoise: called as (noisy, sigma, **conditions); clean: (B, ...); sigma: (B,), positive, on its device
    weight: of squared errors; weighting: of what the norm makes of them, none: 1
    importance: factor of each error, broadcast to clean; none: 1. A mask of what is to be learned: then divide the
        result by its mean, or the rest dilutes the loss
    returns: scalar
    """
    noisy = clean + rows_like(sigma, clean) * draw_noise(clean.shape, device=clean.device)
    error = denoise(noisy, sigma, **conditions) - clean
    if importance is not None:
        error = importance * error
    loss = norm(error, rows_like(weight(sigma), error))
    if weighting is not None:
        loss = rows_like(weighting(sigma), loss) * loss
    return loss.mean()


def denoising_loss(
    denoiser: WeightedDenoiser,
    clean: Tensor,
    noise_mean: float,
    noise_std: float,
    huber: float = 0.0,
    importance: Tensor | None = None,
    **conditions: object,
) -> Tensor:
    """Mean weighted error of the clean estimate at random noise levels (Karras et al. 2022, eq. 2).

    clean: (B, ...); noise_mean, noise_std: of ln(sigma), in units of clean
    huber: width of `pseudo_huber`, of the network's output (of unit standard deviation): the estimate leans from the
        mean to the median; 0: `l2`
    importance: factor of each error, broadcast to clean; none: 1
    returns: scalar
    """
    sigma = lognormal_sigmas(len(clean), noise_mean, noise_std).to(clean.device)
    norm = pseudo_huber(huber) if huber else l2
    return diffusion_loss(denoiser, clean, sigma, denoiser.loss_weight, norm, None, importance, **conditions)
