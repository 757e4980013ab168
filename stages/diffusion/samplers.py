"""Samplers: from noise to a clean picture, one function per algorithm.

A sampler knows a denoiser and falling noise levels, nothing of networks, pictures or stages. In VE form all follow

    dx / dsigma = (x - denoise(x, sigma)) / sigma

from sigmas[0] to sigmas[-1]. The first three add no noise, so the start alone decides the end; they are in `SAMPLERS`:

- `sample_ddim`: first order, one call of the denoiser per step; with eta > 0 it adds noise too
- `sample_heun`: second order, two calls per step (one in a last step to 0)
- `sample_dpmpp_2m`: second order, one call per step and the memory of the one before
- `sample_ancestral`: first order, one call per step, with the noise that DDPM adds at each

Common to all:
    denoise(x, sigma) -> clean estimate in the shape of x; sigma is a 0-d float64 tensor on the CPU, never 0
    x: noise of standard deviation sigmas[0] around the clean picture, any shape (also 0-d); its dtype and device are
        kept
    sigmas: falling levels, 1-d, two or more; the last is 0 for a clean picture, or where to stop
    callback(step, sigma, x, x0): after each step, counted from 0: the level reached (a float), x there (corrected),
        and the clean estimate the step began with
    noise(shape) -> standard normal noise, brought to the dtype and device of x: `partial(draw_noise, generator=...)`.
        A sampler that adds none hands it to `correct`, and without `correct` has no use for it
    correct(x, denoise, sigma_before, sigma, noise) -> x at the same level sigma: called once before the first step,
        with both levels sigmas[0], and after each step, also the one to 0; levels as for `denoise`. What a sampler
        remembers of earlier steps it forgets, unless the very same tensor comes back. See `corrections`
    returns: x at sigmas[-1]; at 0 that is the last clean estimate, corrected
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

__all__ = [
    "SAMPLERS", "Callback", "Correct", "Denoise", "Noise", "Sampler", "corrected", "falling", "sample_ancestral",
    "sample_ddim", "sample_dpmpp_2m", "sample_heun",
]  # fmt: skip

Denoise = Callable[[Tensor, Tensor], Tensor]
Callback = Callable[[int, float, Tensor, Tensor], object]
Noise = Callable[[Sequence[int]], Tensor]
Correct = Callable[[Tensor, Denoise, Tensor, Tensor, Noise], Tensor]


class Sampler(Protocol):
    """The face of all samplers."""

    def __call__(
        self,
        denoise: Denoise,
        x: Tensor,
        sigmas: Tensor | Sequence[float],
        callback: Callback | None = None,
        *,
        noise: Noise | None = None,
        correct: Correct | None = None,
    ) -> Tensor: ...


def sample_ddim(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor | Sequence[float],
    callback: Callback | None = None,
    *,
    eta: float = 0.0,
    noise: Noise | None = None,
    correct: Correct | None = None,
) -> Tensor:
    """DDIM (Song et al. 2021, arXiv 2010.02502, eq. 12 and 16), in sigma Euler's method.

    eta: from 0, no noise, to 1, the noise of the posterior of DDPM. More than 0 needs `noise`
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be in [0, 1]; got {eta}")
    if eta:
        noise = _needed(noise, "DDIM with eta > 0")
    levels = falling(sigmas)
    x = corrected(correct, x, denoise, levels[0], levels[0], noise)
    for step, (sigma, lower) in enumerate(pairwise(levels)):
        x0 = _clean(denoise, x, sigma)
        drawn = eta**2 * (1 - (lower / sigma) ** 2)  # share of the noise at `lower` that is new
        x = _toward(x0, x, sigma, lower * math.sqrt(1 - drawn))
        if noise is not None and lower * drawn > 0:
            x = x + lower * math.sqrt(drawn) * noise(x.shape).to(x)
        x = corrected(correct, x, denoise, sigma, lower, noise)
        if callback is not None:
            callback(step, lower, x, x0)
    return x


def sample_ancestral(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor | Sequence[float],
    callback: Callback | None = None,
    *,
    variance: float | Callable[[Tensor, Tensor], Tensor] = 0.0,
    noise: Noise | None = None,
    correct: Correct | None = None,
) -> Tensor:
    """DDPM's sampler (Ho et al. 2020, arXiv 2006.11239, eq. 6 and 7): draws from q(x_lower | x, x0) with x0 estimated.

    With sigma_t and l = sigma_(t-1), in VE form, the posterior has

        mean x0 + (l / sigma)² (x - x0),    variance l² (1 - l² / sigma²)

    noise: needed; none is drawn in a step to 0
    variance: 0: that variance ("fixed small"); 1: beta_t of the VP form ("fixed large", Palette's Algorithm 2); else
        geometrically between the two. A function (x, sigma) -> the same by pixel, broadcast to x, serves networks that
        learn it (Nichol and Dhariwal 2021, arXiv 2102.09672, eq. 15); called after denoise(x, sigma), with the same x
    """
    noise = _needed(noise, "ancestral sampling")
    if not callable(variance) and not 0 <= variance <= 1:
        raise ValueError(f"variance must be from 0 (fixed small) to 1 (fixed large), or a function; got {variance}")
    levels = falling(sigmas)
    x = corrected(correct, x, denoise, levels[0], levels[0], noise)
    for step, (sigma, lower) in enumerate(pairwise(levels)):
        x0 = _clean(denoise, x, sigma)
        ahead = _toward(x0, x, sigma, lower**2 / sigma)
        if lower > 0:
            small = lower * math.sqrt(1 - (lower / sigma) ** 2)
            wider = math.sqrt((1 + lower**2) / (1 + sigma**2)) * (sigma / lower)  # sqrt(large / small), the variances'
            share = variance(x, _level(sigma)) if callable(variance) else variance
            ahead = ahead + small * wider**share * noise(x.shape).to(x)
        x = corrected(correct, ahead, denoise, sigma, lower, noise)
        if callback is not None:
            callback(step, lower, x, x0)
    return x


def sample_heun(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor | Sequence[float],
    callback: Callback | None = None,
    *,
    noise: Noise | None = None,
    correct: Correct | None = None,
) -> Tensor:
    """Heun's method without added noise (Karras et al. 2022, arXiv 2206.00364, Algorithm 1, S_churn = 0)."""
    levels = falling(sigmas)
    x = corrected(correct, x, denoise, levels[0], levels[0], noise)
    for step, (sigma, lower) in enumerate(pairwise(levels)):
        x0 = _clean(denoise, x, sigma)
        ahead = _toward(x0, x, sigma, lower)
        if lower > 0:
            slope = (x - x0) / sigma
            slope_ahead = (ahead - _clean(denoise, ahead, lower)) / lower
            ahead = x + (lower - sigma) / 2 * (slope + slope_ahead)
        x = corrected(correct, ahead, denoise, sigma, lower, noise)
        if callback is not None:
            callback(step, lower, x, x0)
    return x


def sample_dpmpp_2m(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor | Sequence[float],
    callback: Callback | None = None,
    *,
    noise: Noise | None = None,
    correct: Correct | None = None,
) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, Algorithm 2) in VE form, where lambda = -ln sigma.

    It runs the clean estimate on along lambda from the last two. A first step, one after a correction, and a last step
    to 0, where lambda is infinite, are of first order.
    """
    levels = falling(sigmas)
    x = corrected(correct, x, denoise, levels[0], levels[0], noise)
    x0_before, width_before = None, math.nan
    for step, (sigma, lower) in enumerate(pairwise(levels)):
        x0 = _clean(denoise, x, sigma)
        width = math.log(sigma / lower) if lower > 0 else math.inf
        target = x0
        if x0_before is not None and lower > 0:
            target = x0 + (x0 - x0_before) * (width / width_before / 2)
        ahead = _toward(target, x, sigma, lower)
        x = corrected(correct, ahead, denoise, sigma, lower, noise)
        # From another place the last estimate would have been another.
        x0_before, width_before = x0 if x is ahead else None, width
        if callback is not None:
            callback(step, lower, x, x0)
    return x


SAMPLERS: dict[str, Sampler] = {"ddim": sample_ddim, "heun": sample_heun, "dpmpp_2m": sample_dpmpp_2m}
"""Those that need no `noise`."""


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


def corrected(
    correct: Correct | None, x: Tensor, denoise: Denoise, before: float, sigma: float, noise: Noise | None
) -> Tensor:
    """x after the correction, in its dtype; the same tensor where there is none, or none that changes it."""
    if correct is None:
        return x
    return correct(x, denoise, _level(before), _level(sigma), noise or _no_noise).to(x.dtype)


def _no_noise(shape: Sequence[int]) -> Tensor:
    raise ValueError("this correction draws noise: give the sampler noise=partial(draw_noise, generator=...)")


def _needed(noise: Noise | None, name: str) -> Noise:
    if noise is None:
        raise ValueError(f"{name} draws noise: give it noise=partial(draw_noise, generator=...)")
    return noise


def _level(sigma: float) -> Tensor:
    return torch.tensor(sigma, dtype=torch.float64)


def _clean(denoise: Denoise, x: Tensor, sigma: float) -> Tensor:
    return denoise(x, _level(sigma)).to(x.dtype)


def _toward(x0: Tensor, x: Tensor, sigma: float, lower: float) -> Tensor:
    """x at level `lower` on the line from x at `sigma` to x0 at 0; written so that it is exactly x0 at 0."""
    return x0 + (lower / sigma) * (x - x0)
