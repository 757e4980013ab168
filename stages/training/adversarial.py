"""Players: the parts of a stage that learn in turns, each by an optimizer of its own, while the others are frozen.

An adversarial stage says `players = ("discriminator", "generator")`. A stage that says nothing is one player, named "".
"""

from __future__ import annotations

from torch import nn
from torch.optim import Optimizer

from stages.checkpoint import CheckpointError
from stages.stage import Stage
from stages.training.config import TrainingConfig
from stages.training.optimizers import build_optimizer

__all__ = ["Turns", "build_optimizers", "named"]


class Turns:
    """Whose turn it is. Made once what is never trained is frozen."""

    def __init__(self, stage: Stage) -> None:
        self.trained: dict[str, list[nn.Parameter]] = {player: [] for player in stage.players or ("",)}
        for name, parameter in stage.named_parameters():
            if parameter.requires_grad:
                owner = name.split(".")[0] if stage.players else ""
                assert owner in self.trained, f"{name} belongs to none of the players {stage.players}"
                self.trained[owner].append(parameter)
        for player, parameters in self.trained.items():
            if not parameters:
                raise CheckpointError(f"nothing{of(player)} is trained: freeze less")

    def begin(self, player: str) -> list[nn.Parameter]:
        """Lets only this player's parameters have gradients; returns them."""
        for name, parameters in self.trained.items():
            for parameter in parameters:
                parameter.requires_grad_(name == player)
        return self.trained[player]


def build_optimizers(stage: Stage, options: TrainingConfig) -> dict[str, Optimizer]:
    """An optimizer for each player, in their order.

    Raises CheckpointError for a rate below 0, or of a player that is not there.
    """
    if options.discriminator_learning_rate < 0:
        raise CheckpointError(f"discriminator_learning_rate must not be negative; got "
                              f"{options.discriminator_learning_rate}")  # fmt: skip
    if options.discriminator_learning_rate > 0 and "discriminator" not in stage.players:
        raise CheckpointError(f"kind {stage.kind!r} has no discriminator: leave out discriminator_learning_rate")
    return {player: build_optimizer(stage, options, player) for player in stage.players or ("",)}


def named(what: str, player: str, joint: str) -> str:
    """The name of something of each player: "optimizer-generator"; of a stage that is one player, `what` alone."""
    return f"{what}{joint}{player}" if player else what


def of(player: str) -> str:
    """For messages."""
    return f" of the {player}" if player else ""
