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
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from stages.diffusion.few_step import FewSteps
from stages.diffusion.samplers import Callback, Correct, Noise, corrected, falling
from stages.diffusion.wiener import WienerDenoiser

__all__ = ["ExponentialStep", "exponential_steps", "integrated", "sample_exponential"]

NODES = 16  # of the quadrature over a step: exact to 1e-9 even where there are four, and quick


@dataclass(frozen=True)
class ExponentialStep:
    """A step from one noise level to a lower one: all of it that is known before the network answers.

    pull: how much an answer of one moves each z, (C, H, W) or to broadcast to it
    pull_of_change: how much a change of one since the answer before does; None in the first step
    modulation: of the network, (M,), where the step is distilled
    """

    sigma: float
    lower: float
    pull: Tensor
    pull_of_change: Tensor | None
    modulation: Tensor | None = None


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
    if isinstance(sigmas, FewSteps) and correct is not None:
        raise ValueError(
            "distilled steps know only the way they were learned on, and a correction leaves it: pass "
            "geometric_sigmas(...) to sample_exponential, or take sample_dpmpp_2m"
        )
    steps = exponential_steps(denoiser, sigmas)
    return integrated(denoiser, white, steps, callback, noise=noise, correct=correct, **conditions)


def exponential_steps(
    denoiser: WienerDenoiser, sigmas: Tensor | Sequence[float] | FewSteps
) -> list[ExponentialStep]:
    """The steps of `sample_exponential`; they depend on the spectrum and the levels alone."""
    few = sigmas if isinstance(sigmas, FewSteps) else None
    levels = falling(sigmas.sigmas if isinstance(sigmas, FewSteps) else sigmas)
    if levels[-1] != 0:
        raise ValueError(f"the last level must be 0; got {levels[-1]}")
    spectrum = denoiser.spectrum.cpu().double()
    steps: list[ExponentialStep] = []
    for number, (sigma, lower) in enumerate(pairwise(levels)):
        q, pull = _pull(spectrum, sigma, lower)
        gain, gain_of_change = (1.0, 1.0) if few is None else few.gains[number][:, denoiser.band]
        of_change = None
        if steps:
            ahead = torch.log(q / sigma) / math.log(sigma / steps[-1].sigma)
            of_change = gain_of_change * (pull * ahead).sum(0).to(denoiser.spectrum)
        modulation = None if few is None else few.modulation[number]
        steps.append(
            ExponentialStep(sigma, lower, gain * pull.sum(0).to(denoiser.spectrum), of_change, modulation)
        )
    return steps


def integrated(
    denoiser: WienerDenoiser,
    white: Tensor,
    steps: Sequence[ExponentialStep],
    callback: Callback | None = None,
    *,
    noise: Noise | None = None,
    correct: Correct | None = None,
    **conditions: object,
) -> Tensor:
    """`sample_exponential` by steps that are there already."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return denoiser(x, sigma, **conditions)

    first = steps[0].sigma
    z = denoiser.coefficients(white)
    start = denoiser.noisy(z, first)
    x = corrected(correct, start, denoise, first, first, noise)
    if x is not start:
        z = denoiser.whitened(x, first)
    before: Tensor | None = None
    for number, step in enumerate(steps):
        modulation = {} if step.modulation is None else {"modulation": step.modulation}
        guess, answer = denoiser.guess_and_answer(x, step.sigma, **conditions | modulation)
        a = denoiser.coefficients(answer)
        z = z + step.pull * a
        if before is not None and step.pull_of_change is not None:
            z = z + step.pull_of_change * (a - before)
        reached = denoiser.noisy(z, step.lower)
        x, before = corrected(correct, reached, denoise, step.sigma, step.lower, noise), a
        if x is not reached:
            z, before = denoiser.whitened(x, step.lower), None
        if callback is not None:
            callback(number, step.lower, x, denoiser.combined(guess, answer, step.sigma))
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
