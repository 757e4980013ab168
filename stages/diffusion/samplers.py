"""Samplers: from noise to a clean picture, one function per algorithm.

A sampler knows a denoiser and falling noise levels, nothing of networks, pictures or stages. All three here
follow the same equation, dx/dsigma = (x - denoise(x, sigma)) / sigma, from sigmas[0] to sigmas[-1] without
adding noise, so the start alone decides the end. They differ in how far they look:

- `sample_ddim`: first order, one call of the denoiser per step
- `sample_heun`: second order, two calls per step (one in a last step to 0)
- `sample_dpmpp_2m`: second order, one call per step and the memory of the one before

Common to all:
    denoise(x, sigma) -> clean estimate in the shape of x; sigma is a 0-d float64 tensor on the CPU, never 0
    x: noise of spread sigmas[0] around the clean picture, any shape (also 0-d); its dtype and device are kept
    sigmas: falling levels, 1-d, two or more; the last is 0 for a clean picture, or where to stop
    callback(step, sigma, x, x0): after each step, counted from 0: the level reached (a float), x there, and
        the clean estimate the step began with
    returns: x at sigmas[-1]; at 0 that is the last clean estimate
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["SAMPLERS", "Callback", "Denoise", "falling", "sample_ddim", "sample_dpmpp_2m", "sample_heun"]

Denoise = Callable[[Tensor, Tensor], Tensor]
Callback = Callable[[int, float, Tensor, Tensor], object]
Sampler = Callable[[Denoise, Tensor, Tensor | Sequence[float], Callback | None], Tensor]


def sample_ddim(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor | Sequence[float],
    callback: Callback | None = None,
) -> Tensor:
    """DDIM without noise (Song et al. 2021, arXiv 2010.02502, eta = 0): in sigma it is Euler's method."""
    levels = falling(sigmas)
    for step, (sigma, lower) in enumerate(zip(levels, levels[1:], strict=False)):
        x0 = _clean(denoise, x, sigma)
        x = _toward(x0, x, sigma, lower)
        if callback is not None:
            callback(step, lower, x, x0)
    return x


def sample_heun(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor | Sequence[float],
    callback: Callback | None = None,
) -> Tensor:
    """Heun's method without added noise (Karras et al. 2022, arXiv 2206.00364, Algorithm 1, S_churn = 0)."""
    levels = falling(sigmas)
    for step, (sigma, lower) in enumerate(zip(levels, levels[1:], strict=False)):
        x0 = _clean(denoise, x, sigma)
        ahead = _toward(x0, x, sigma, lower)
        if lower > 0:
            slope = (x - x0) / sigma
            slope_ahead = (ahead - _clean(denoise, ahead, lower)) / lower
            ahead = x + (lower - sigma) / 2 * (slope + slope_ahead)
        x = ahead
        if callback is not None:
            callback(step, lower, x, x0)
    return x


def sample_dpmpp_2m(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor | Sequence[float],
    callback: Callback | None = None,
) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, Algorithm 2) in VE form, where lambda = -ln sigma.

    It runs the clean estimate on along lambda from the last two; the first step and a last step to 0, where
    lambda is infinite, are of first order.
    """
    levels = falling(sigmas)
    x0_before, width_before = None, math.nan
    for step, (sigma, lower) in enumerate(zip(levels, levels[1:], strict=False)):
        x0 = _clean(denoise, x, sigma)
        width = math.log(sigma / lower) if lower > 0 else math.inf
        target = x0
        if x0_before is not None and lower > 0:
            target = x0 + (x0 - x0_before) * (width / width_before / 2)
        x = _toward(target, x, sigma, lower)
        x0_before, width_before = x0, width
        if callback is not None:
            callback(step, lower, x, x0)
    return x


SAMPLERS: dict[str, Sampler] = {"ddim": sample_ddim, "heun": sample_heun, "dpmpp_2m": sample_dpmpp_2m}


def falling(sigmas: Tensor | Sequence[float]) -> list[float]:
    """The levels as floats: Python's are double, and do not change the dtype of what they multiply."""
    levels = torch.as_tensor(sigmas, dtype=torch.float64)
    good = levels.dim() == 1 and len(levels) > 1 and levels.isfinite().all() and levels[-1] >= 0
    if not good or not (levels.diff() < 0).all():
        raise ValueError(
            "sigmas must be two or more finite noise levels, falling, the last one 0 or where to stop; "
            f"got {levels.tolist()}"
        )
    return levels.tolist()


def _clean(denoise: Denoise, x: Tensor, sigma: float) -> Tensor:
    return denoise(x, torch.tensor(sigma, dtype=torch.float64)).to(x.dtype)


def _toward(x0: Tensor, x: Tensor, sigma: float, lower: float) -> Tensor:
    """x at level `lower` on the line from x at `sigma` to x0 at 0; written so that it is exactly x0 at 0."""
    return x0 + (lower / sigma) * (x - x0)
