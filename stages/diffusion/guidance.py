"""Guidance: away from what a weaker denoiser believes.

    D(x, sigma) = strong + (weight - 1) · (strong - weak)

With a conditional denoiser and the same one without its condition this is classifier-free guidance (Ho and Salimans
2022, arXiv 2207.12598, whose w is weight - 1); with a model and a smaller or less trained one of the same task it is
autoguidance (Karras et al. 2024, arXiv 2406.02507). It helps at middling noise and harms at high noise, so it may be
limited to an interval of sigma (Kynkäänniemi et al. 2024, arXiv 2404.07724).
"""

from __future__ import annotations

import math

from torch import Tensor

from stages.diffusion.samplers import Denoise

__all__ = ["guided"]


def guided(strong: Denoise, weak: Denoise, weight: float, interval: tuple[float, float] = (0.0, math.inf)) -> Denoise:
    """The two denoisers as one, for any sampler.

    weight: 1: `strong` alone; 0: `weak` alone; more than 1: guidance
    interval: (low, high): guidance where low < sigma <= high, else `strong` alone. Where `weak` has no say it is not
        called
    """
    low, high = interval
    if not (math.isfinite(weight) and 0 <= low < high):
        raise ValueError(f"guidance needs a finite weight and 0 <= low < high; got {weight} and {interval}")

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        clean = strong(x, sigma)
        if weight == 1 or not low < float(sigma) <= high:
            return clean
        return clean + (weight - 1) * (clean - weak(x, sigma))

    return denoise
