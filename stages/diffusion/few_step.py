"""Few-step distillation: what long steps get wrong is much the same for all fields, so it can be learned.

It is learned from longer sampling by the same weights (train_scripts/tune_steps.py) and belongs to these weights alone.
Factors on a solver's steps are the idea of bespoke solvers (Shaul et al. 2023, arXiv 2310.19075); that the network,
too, may answer otherwise at each of its few steps is distillation (Salimans and Ho 2022, arXiv 2202.00512), here of its
modulations only. `sample_exponential` takes such steps in place of noise levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stages.diffusion.wiener import BANDS

__all__ = ["FewSteps"]


class FewSteps(nn.Module):
    """Distilled steps of the exponential integrator. Buffers: training of the stage has no part in them.

    levels: (S,), noise levels at which the steps begin, falling
    gains: (S, 2, len(BANDS)), factors on the pull of the last answer and on that of its change, by frequency
    modulation: (S, M), added to what the network's noise code makes of itself in all of its blocks
    """

    def __init__(self, levels: Tensor | Sequence[float], modulations: int) -> None:
        super().__init__()
        steps = len(levels)
        self.levels: Tensor
        self.gains: Tensor
        self.modulation: Tensor
        self.register_buffer("levels", torch.as_tensor(levels).float())
        self.register_buffer("gains", torch.ones(steps, 2, len(BANDS)))
        self.register_buffer("modulation", torch.zeros(steps, modulations))

    @property
    def sigmas(self) -> list[float]:
        """The levels, and 0 at the end."""
        return [*self.levels.tolist(), 0.0]
