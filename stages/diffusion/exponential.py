"""An exponential integrator of second order: what the spectrum decides is solved exactly, the rest along ln(sigma).

On the way that all samplers follow (`samplers`), a coefficient of a Gaussian field of variance lambda keeps
z = x / sqrt(lambda + sigma²). With a `WienerDenoiser`, what moves it is the network's answer a alone:

    dz / dsigma = -a · c_out(sigma) / (sigma sqrt(lambda + sigma²))

So a silent network is sampled exactly in one step. The factor beside a is known and integrated; a itself runs on along
ln(sigma) from its last two values (as exponential Adams-Bashforth methods have it: Hochbruck and Ostermann 2010,
section 2.5). At 0 only ln(sigma) is singular, and can be integrated, so the last step needs no other rule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from stages.diffusion.few_step import FewSteps
from stages.diffusion.samplers import Callback, Correct, Noise, corrected, falling
from stages.diffusion.wiener import WienerDenoiser

__all__ = ["sample_exponential"]

NODES = 16  # of the quadrature over a step: exact to 1e-9 even where there are four, and quick


def sample_exponential(
    denoiser: WienerDenoiser,
    white: Tensor,
    sigmas: Tensor | Sequence[float] | FewSteps,
    callback: Callback | None = None,
    *,
    noise: Noise | None = None,
    correct: Correct | None = None,
    **conditions: object,
) -> Tensor:
    """From white noise (B, C, H, W) of variance 1 to a clean field.

    sigmas: falling levels, the last one 0, or distilled steps, of which the network is then given the `modulation` of
        each, (M,)
    callback, noise, correct: as for the samplers. After a correction the answer's change is not known: the next step is
        of first order
    conditions: of the network
    Raises ValueError for levels that do not fall to 0, and for distilled steps with a correction.
    """
    few: FewSteps | None = None
    if isinstance(sigmas, FewSteps):
        if correct is not None:
            raise ValueError(
                "distilled steps know only the way they were learned on, and a correction leaves it: pass "
                "geometric_sigmas(...) to sample_exponential, or take sample_dpmpp_2m"
            )
        few, sigmas = sigmas, sigmas.sigmas
    levels = falling(sigmas)
    if levels[-1] != 0:
        raise ValueError(f"the last level must be 0; got {levels[-1]}")

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return denoiser(x, sigma, **conditions)

    spectrum = denoiser.spectrum.cpu().double()
    z = denoiser.coefficients(white)
    start = denoiser.noisy(z, levels[0])
    x = corrected(correct, start, denoise, levels[0], levels[0], noise)
    if x is not start:
        z = denoiser.whitened(x, levels[0])
    before: tuple[float, Tensor] | None = None
    for step, (sigma, lower) in enumerate(pairwise(levels)):
        modulation = {} if few is None else {"modulation": few.modulation[step]}
        guess, answer = denoiser.guess_and_answer(x, sigma, **conditions | modulation)
        a = denoiser.coefficients(answer)
        q, pull = _pull(spectrum, sigma, lower)
        gain, gain_of_change = (1.0, 1.0) if few is None else few.gains[step][:, denoiser.band]
        z = z + gain * pull.sum(0).to(z) * a
        if before is not None:
            ahead = torch.log(q / sigma) / math.log(sigma / before[0])
            z = z + gain_of_change * (pull * ahead).sum(0).to(z) * (a - before[1])
        reached = denoiser.noisy(z, lower)
        x, before = corrected(correct, reached, denoise, sigma, lower, noise), (sigma, a)
        if x is not reached:
            z, before = denoiser.whitened(x, lower), None
        if callback is not None:
            callback(step, lower, x, denoiser.combined(guess, answer, sigma))
    return x


def _pull(spectrum: Tensor, sigma: float, lower: float) -> tuple[Tensor, Tensor]:
    """Nodes between `lower` and `sigma`, (Q, 1, 1, 1), and how much an answer of one moves each z in the part of the
    step around each of them, (Q, C, H, W): Gauss's quadrature, in float64.
    """
    nodes, weights = (torch.from_numpy(one)[:, None, None, None] for one in np.polynomial.legendre.leggauss(NODES))
    t = (nodes + 1) / 2
    q = lower + (sigma - lower) * t**2  # denser toward `lower`, where 1 / q is steep
    error = (spectrum * q**2 / (spectrum + q**2)).mean((1, 2, 3), keepdim=True)
    return q, error.sqrt() / (q * (spectrum + q**2).sqrt()) * (sigma - lower) * t * weights
