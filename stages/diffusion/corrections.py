"""Corrections: what is done to x between the steps of any sampler (its `correct`).

A correction leaves x at its noise level sigma and moves it there: nearer to what the model believes (`langevin`, the
corrector of a predictor-corrector sampler), or to what is known of the picture (`ilvr`, `keep_known`). In VE form:

    langevin:    x + step · score + sqrt(2 · step) · z,    score = (denoise(x, sigma) - x) / sigma²
    ilvr:        x + low_pass(reference + sigma · z - x)
    keep_known:  known + sigma · z, or known in VP form, where `mask` says so
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from stages.diffusion.noise import ve_from_vp
from stages.diffusion.samplers import Correct, Denoise, Noise

__all__ = ["Order", "chained", "ilvr", "keep_known", "langevin"]

Order = Literal["predictor-corrector", "corrector-predictor"]


def langevin(
    snr: float = 0.16, steps: int = 1, order: Order = "predictor-corrector", annealed: bool = False
) -> Correct:
    """Langevin dynamics at constant noise (Song et al. 2021, arXiv 2011.13456, Algorithms 4 and 5; GPIC).

    snr: r in step = 2 (r |z| / |score|)², norms of each row of x (B, ...) for itself, so that a picture does not depend
        on its batch (Song et al. average over it). The factor alpha, near 1, that they have in VP form is left out
    steps: at each level; each calls the denoiser once
    order: "predictor-corrector": after each step, as in the paper; "corrector-predictor": also before the first, as in
        their code. Neither corrects at 0. Where the levels end above 0, both correct there
    annealed: step = 2 (r sigma)², without norms
    """
    if not snr > 0 or steps < 1:
        raise ValueError(f"langevin needs snr > 0 and steps >= 1; got {snr} and {steps}")
    if order not in get_args(Order):
        raise ValueError(f"order must be one of {get_args(Order)}; got {order!r}")

    def correct(x: Tensor, denoise: Denoise, sigma_before: Tensor, sigma: Tensor, noise: Noise) -> Tensor:
        if sigma == 0 or (order == "predictor-corrector" and _is_start(sigma_before, sigma)):
            return x
        level = float(sigma)
        for _ in range(steps):
            score = (denoise(x, sigma).to(x.dtype) - x) / level**2
            z = noise(x.shape).to(x)
            root = snr * (level if annealed else _norms(z) / _norms(score))  # sqrt(step / 2)
            x = x + 2 * root**2 * score + 2 * root * z
        return x

    return correct


def ilvr(
    reference: Tensor, low_pass: Callable[[Tensor], Tensor], until: float = 0.0, lagging: bool = False,
    since: float = math.inf,
) -> Correct:  # fmt: skip
    """Iterative latent variable refinement (Choi et al. 2021, arXiv 2108.02938, Algorithm 1): after each step, what
    `low_pass` keeps of x becomes what it keeps of the reference, at the same noise level.

    reference: broadcast to x
    low_pass: any linear map from x to its shape: down- and upsampling, or the luma of a picture
    since, until: the model is left free in steps that begin above `since` or end below `until`, the range of the paper.
        With until = 0 the low pass of the result is that of the reference, where low_pass is a projection
    lagging: the reference as noisy as x was before the step, as in the authors' code
    """
    if not 0 <= until <= since:
        raise ValueError(f"until and since are noise levels, 0 <= until <= since; got {until} and {since}")

    def correct(x: Tensor, denoise: Denoise, sigma_before: Tensor, sigma: Tensor, noise: Noise) -> Tensor:
        if _is_start(sigma_before, sigma) or sigma < until or sigma_before > since:
            return x
        noisy = reference.to(x)
        level = float(sigma_before if lagging else sigma)
        if level:
            noisy = noisy + level * noise(x.shape).to(x)
        if lagging:  # their pictures are in VP form, so a noisier one is also a fainter one
            noisy = noisy * ((1 + sigma**2) / (1 + sigma_before**2)).sqrt().item()
        return x + low_pass(noisy - x)

    return correct


def keep_known(known: Tensor, mask: Tensor, noised: bool = True) -> Correct:
    """Pixels that are known stay as they are: exactly, at the end.

    known: broadcast to x; mask: bool, broadcast to x, true where known
    noised: at the noise level of x (GPIC's completion; Lugmayr et al. 2022, arXiv 2201.09865). False: without noise in
        VP form, as Palette is trained
    """
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool, true where pixels are known; got {mask.dtype}")

    def correct(x: Tensor, denoise: Denoise, sigma_before: Tensor, sigma: Tensor, noise: Noise) -> Tensor:
        value = known.to(x)
        if not noised:
            value = ve_from_vp(value, sigma)
        elif sigma > 0:
            value = value + float(sigma) * noise(x.shape).to(x)
        return torch.where(mask.to(x.device), value, x)

    return correct


def chained(*corrections: Correct) -> Correct:
    """One correction after the other."""

    def correct(x: Tensor, denoise: Denoise, sigma_before: Tensor, sigma: Tensor, noise: Noise) -> Tensor:
        for one in corrections:
            x = one(x, denoise, sigma_before, sigma, noise)
        return x

    return correct


def _is_start(sigma_before: Tensor, sigma: Tensor) -> bool:
    return bool(sigma == sigma_before)


def _norms(x: Tensor) -> Tensor:
    """Of each row of x (B, ...), shaped to multiply it."""
    return x.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.dim() - 1))
