"""Distilled steps of stage 1 and the weights they belong to."""

from __future__ import annotations

import dataclasses

import torch

from stages.diffusion import FewSteps
from stages.diffusion.samplers import falling
from stages.evaluation.photos import EvaluationError
from stages.stage import Stage
from stages.stage1_coarse.diffusion import DiffusionColorizer


def diffusion_colorizer(stage: Stage) -> DiffusionColorizer:
    """The stage itself; raises EvaluationError where it is of another kind, which takes no steps."""
    if not isinstance(stage, DiffusionColorizer):
        raise EvaluationError(
            f"kind 'diffusion' of the family coarse is expected, which is drawn in steps; got kind {stage.kind!r} of "
            f"the family {stage.family}"
        )
    return stage


def same_but_tuned(stage: Stage, other: Stage) -> bool:
    """Whether two stages have the same weights but for tuned steps; one of the two may have been through float16."""
    first, second = (
        {name: value for name, value in one.state_dict().items() if not name.startswith("tuned.")}
        for one in (stage, other)
    )
    same = first.keys() == second.keys() and all(second[name].shape == first[name].shape for name in first)
    return same and all(torch.allclose(second[name], first[name], 2e-3, 1e-5) for name in first)


def with_levels(stage: DiffusionColorizer, levels: list[float]) -> DiffusionColorizer:
    """The stage with steps to be tuned at these noise levels, instead of any that it holds."""
    try:
        falling([*levels, 0.0])
    except ValueError as error:
        raise EvaluationError(f"--levels: {error}") from error
    steps = len(levels)
    stage.config = dataclasses.replace(stage.config, sampler="spectral", steps=steps, tuned=steps)
    stage.tuned = FewSteps(levels, sum(stage.network.modulations))
    stage.eval().requires_grad_(False)
    return stage
