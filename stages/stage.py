"""The faces: what stages of each family take, give and may be able to do."""

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


class Stage(nn.Module):
    """What all stages share: a dataclass config, and saving and loading.

    Subclasses set `stage` (1, 2 or 3), `kind` and `config_class`, and are built from the config alone.
    """

    stage: ClassVar[int]
    kind: ClassVar[str]
    config_class: ClassVar[type]
    # Beginnings of names, for training that starts from finished weights:
    new_parameters: ClassVar[tuple[str, ...]] = ()  # may be missing there, and start fresh
    finishing_parameters: ClassVar[tuple[str, ...]] = ()  # were added once training was finished, and are left out

    def __init__(self, config: Any):
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
    def frozen_parameters(self) -> tuple[str, ...]:
        """Beginnings of the names of parameters that training leaves as they were loaded: none, for most."""
        return ()

    def load_pretrained_backbone(self) -> None:
        """Starts a part of the stage from public weights. Raises CheckpointError where there are none for it."""
        raise CheckpointError(f"stage {self.stage} of kind {self.kind!r} has no pretrained backbone")

    def fit_to(self, batches: Iterable[Tensor]) -> None:
        """What a stage takes from photographs (B, 3, S, S) before it is trained: nothing, for most."""

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Writes config.json and model.safetensors; `folder` appears complete or not at all.

        dtype: of the stored floating-point weights, as they are by default
        Raises CheckpointError where the folder holds other files, or dtype cannot hold the weights.
        """
        folder = Path(folder)
        found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        if others := sorted(found - {CONFIG_NAME, WEIGHTS_NAME}):  # the folder is replaced: nobody's files go with it
            raise CheckpointError(f"{folder} also holds {others[:3]}; choose another, or one with a saved stage alone")
        weights = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        if dtype is not None:
            for name, value in weights.items():
                if value.is_floating_point():
                    weights[name] = value.to(dtype)
                    if not torch.equal(weights[name].isfinite(), value.isfinite()):
                        raise CheckpointError(f"{name} has values up to {value.abs().max():.3g}, too large for {dtype}")
        config = dataclasses.asdict(self.config)
        description = {"format": FORMAT, "stage": self.stage, "kind": self.kind, "config": config}
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
        if (description.get("stage"), description.get("kind")) != (cls.stage, cls.kind):
            raise CheckpointError(
                f"{folder} must hold a stage {cls.stage} of kind {cls.kind!r}; got stage {description.get('stage')} of "
                f"kind {description.get('kind')!r}. stages.kinds.load_stage opens any kind."
            )
        stage = cls(config_from_dict(cls.config_class, description["config"]))
        load_weights(stage, folder / WEIGHTS_NAME)
        stage.trained = description.get("trained")
        return stage.eval()

