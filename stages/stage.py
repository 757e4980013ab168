"""What all stages share: a dataclass config beside the network, a loss, and a folder that holds both."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from stages.checkpoint import (
    CONFIG_NAME,
    FORMAT,
    WEIGHTS_NAME,
    CheckpointError,
    config_from_dict,
    load_weights,
    local_folder,
    read_description,
    replaced_folder,
)
from stages.options import OptionError, SampleOptions

__all__ = ["Stage"]


class Stage(nn.Module):
    """What all stages share: a dataclass config, a loss, saving and loading. Built from the config alone."""

    family: ClassVar[str]
    kind: ClassVar[str]
    config_class: ClassVar[type]
    honors: ClassVar[frozenset[str]] = frozenset()
    """The fields of `SampleOptions` that this kind can honor, of those that its family may."""
    renamed_keys: ClassVar[dict[str, str]] = {}
    """Keys of configs stored by earlier versions: the old name and the present one."""
    players: ClassVar[tuple[str, ...]] = ()
    """Parts that learn in turns, in this order, each by an optimizer of its own while the others are frozen; a player
    is the attribute of this name, and `forward(rgb, label, player)` is its loss. None: all learns together."""
    # Beginnings of names, for training that starts from finished weights:
    new_parameters: tuple[str, ...] = ()  # may be missing there, and start fresh
    finishing_parameters: tuple[str, ...] = ()  # are left out, such as those added once training was finished

    def __init__(self, config: Any):  # Any: each kind has a config class of its own, `config_class`
        super().__init__()
        self.config = config
        self.trained: dict[str, Any] | None = None  # where the weights come from, kept beside them: `train` fills it

    @property
    def training_side(self) -> int | None:
        """Side of the pictures that `forward` takes; None: any."""
        return None

    @property
    def label_classes(self) -> int:
        """How many classes of labels `forward` learns beside color; 0: none, labels are not looked at."""
        return 0

    @property
    def needs_labels(self) -> bool:
        """Whether `forward` must be given the label of every picture."""
        return False

    @property
    def frozen_parameters(self) -> tuple[str, ...]:
        """Beginnings of the names of parameters that training leaves as they were loaded: none, for most."""
        return ()

    @property
    def sampling(self) -> dict[str, str | int] | None:
        """Sampler and steps, as evaluations record them; None where nothing is sampled in steps."""
        return None

    def fit_to(self, batches: Iterable[Tensor]) -> None:
        """What a stage takes from photographs (B, 3, S, S) before it is trained: nothing, for most."""

    @torch.no_grad()
    def average_buffers(self, latest: Stage) -> None:
        """What becomes of buffers where weights have just been averaged: those of the latest stage, for most."""
        for kept, buffer in zip(self.buffers(), latest.buffers(), strict=True):
            kept.copy_(buffer)

    def load_pretrained_backbone(self) -> None:
        """Starts from public weights of another task. Raises CheckpointError where the kind has none."""
        raise CheckpointError(f"kind {self.kind!r} of the family {self.family} has no pretrained backbone")

    def check_honored(self, options: SampleOptions, asked: Iterable[str]) -> None:
        """Raises OptionError for an option among `asked` that is given and that this kind can not honor."""
        for name in asked:
            if getattr(options, name) is not None and name not in self.honors:
                known = ", ".join(sorted(self.honors)) or "none"
                raise OptionError(
                    f"{name} can not be honored by kind {self.kind!r} of the family {self.family}, which knows of "
                    f"these options: {known}. Leave it out."
                )

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Writes config.json and model.safetensors; `folder` appears complete or not at all.

        dtype: of the stored floating-point weights, as they are by default
        Raises CheckpointError where the folder holds other files, or dtype cannot hold the weights.
        """
        folder = Path(folder)
        names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        if others := sorted(names - {CONFIG_NAME, WEIGHTS_NAME}):  # the folder is replaced: nobody's files go with it
            raise CheckpointError(f"{folder} also holds {others[:3]}; choose another, or one with a saved stage alone")
        weights = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        if dtype is not None:
            for name, value in weights.items():
                if value.is_floating_point():
                    weights[name] = value.to(dtype)
                    if not torch.equal(weights[name].isfinite(), value.isfinite()):
                        raise CheckpointError(f"{name} has values up to {value.abs().max():.3g}, too large for {dtype}")
        config = dataclasses.asdict(self.config)
        description = {"format": FORMAT, "family": self.family, "kind": self.kind, "config": config}
        if self.trained is not None:
            description["trained"] = self.trained
        with replaced_folder(folder) as fresh:
            save_file(weights, fresh / WEIGHTS_NAME)
            (fresh / WEIGHTS_NAME).chmod(0o644)  # safetensors makes it the user's own
            (fresh / CONFIG_NAME).write_text(json.dumps(description, indent=1) + "\n")

    @classmethod
    def from_pretrained(cls, source: str | Path) -> Self:
        """The stage saved in a folder or on the hub ("owner/name"), in evaluation mode, float32.

        Raises CheckpointError where a file is missing or damaged, the kind is another one, or a name or shape does
        not fit.
        """
        folder = local_folder(source)
        description = read_description(folder)
        if (description["family"], description["kind"]) != (cls.family, cls.kind):
            raise CheckpointError(
                f"{folder} must hold kind {cls.kind!r} of the family {cls.family}; got kind {description['kind']!r} of "
                f"the family {description['family']}. stages.registry.load_stage opens any kind."
            )
        values = {cls.renamed_keys.get(key, key): value for key, value in description["config"].items()}
        stage = cls(config_from_dict(cls.config_class, values))
        load_weights(stage, folder / WEIGHTS_NAME)
        stage.trained = description.get("trained")
        return stage.eval()
