"""Averages of the weights over a run, several at once: how far back they should reach is known only afterwards.

The averaged weights are what a run is for: they color better than the last ones, and evaluations and `final/` use them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch

from stages.checkpoint import CheckpointError
from stages.stage import Stage

Keep = Callable[[int, int], float]
"""(pictures of this step, pictures seen after it) -> the share of the average that stays."""


def half_life(pictures: int) -> Keep:
    """An exponential average: a weight's share halves in so many pictures, at the start in a tenth of what was seen."""
    return lambda batch, seen: 0.5 ** (batch / max(min(pictures, seen / 10), 1e-8))


def power(width: float) -> Keep:
    """A power function of time, the same shape at every length of a run (Karras et al. 2024, EDM2, arXiv 2312.02696,
    section 3.1): weights of time t count as t^gamma.

    width: standard deviation of the shape, relative to the run's length
    """
    exponent = exponent_of(width) + 1
    return lambda batch, seen: (1 - batch / seen) ** exponent


def exponent_of(width: float) -> float:
    """gamma of a power function of this width (EDM2, eq. 126): width² = (gamma + 1) / ((gamma + 2)² (gamma + 3))."""
    if not 0 < width < 12**-0.5:
        raise CheckpointError(f"the width of an average must be between 0 and {12**-0.5:.3f} of the run; got {width}")
    roots = np.roots([1, 7, 16 - width**-2, 12 - width**-2])
    return float(roots.real.max())


class Averaged:
    """An average of a stage's weights, updated after each optimizer step; `stage` is a stage for use."""

    def __init__(self, stage: Stage, keep: Keep):
        self.keep = keep
        self.stage = copy.deepcopy(stage).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, stage: Stage, batch_size: int, seen: int) -> None:
        """stage: after a step of `batch_size` pictures, the last of `seen` in all"""
        keep = self.keep(batch_size, seen)
        for mean, parameter in zip(self.stage.parameters(), stage.parameters(), strict=True):
            mean.lerp_(parameter, 1 - keep)
        self.stage.average_buffers(stage)
