"""Optimizers and the schedule of their learning rates; what is frozen, what is computed again."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stages.checkpoint import CheckpointError
from stages.stage import Stage
from stages.training.config import TrainingConfig


def freeze(stage: Stage, prefixes: tuple[str, ...]) -> None:
    """Parameters whose names begin with a prefix get no gradient; a prefix that fits nothing is an error."""
    for prefix in prefixes:
        hit = [p for name, p in stage.named_parameters() if name.startswith(prefix)]
        if not hit:
            raise CheckpointError(f"freeze: no parameter begins with {prefix!r}")
        for parameter in hit:
            parameter.requires_grad_(False)


def recompute_blocks(module: nn.Module) -> None:
    """Lets the members of every list of blocks compute their insides again in the backward pass instead of keeping them
    (Chen et al. 2016, arXiv 1604.06174).
    """
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            for block in child:
                block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
        else:
            recompute_blocks(child)


def build_optimizer(stage: Stage, options: TrainingConfig, player: str = "") -> torch.optim.Optimizer:
    """Weight decay on matrices and kernels only, a learning rate of its own for a pretrained backbone and for the
    player `discriminator`.

    player: of `Stage.players`, whose parameters it steps; "": all parameters
    """
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    rate = options.learning_rate
    if player == "discriminator" and options.discriminator_learning_rate > 0:
        rate = options.discriminator_learning_rate
    for name, parameter in stage.named_parameters():
        if parameter.requires_grad and name.startswith(f"{player}." if player else ""):
            backbone = options.backbone_learning_rate > 0 and name.startswith("encoder.backbone")
            groups.setdefault((backbone, parameter.ndim > 1), []).append(parameter)
    settings = [
        {"params": parameters, "weight_decay": options.weight_decay if matrix else 0.0,
         "peak": options.backbone_learning_rate if backbone else rate}
        for (backbone, matrix), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]  # fmt: skip
    if options.optimizer == "rmsprop":
        return torch.optim.RMSprop(settings, lr=rate, alpha=0.9, eps=1e-7)
    return torch.optim.AdamW(settings, lr=rate, betas=options.betas, eps=1e-8, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, options: TrainingConfig, seen: int) -> None:
    """Linear warm-up, then the schedule, as a function of pictures seen (not of steps or processes)."""
    factor = min(1.0, (seen + options.batch_size) / max(options.warmup, 1))
    if options.schedule == "cosine":
        factor *= 0.5 * (1 + math.cos(math.pi * min(seen / options.samples, 1.0)))
    elif options.decay_from:
        factor *= min(1.0, max(0.0, 1 - (seen - options.decay_from) / options.decay))
    for group in optimizer.param_groups:
        group["lr"] = factor * group["peak"]
