"""Configs: a TOML file says which stage and kind, its network, its data, its training."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.checkpoint import FAMILY_OF_STAGE, CheckpointError, config_from_dict

OPTIMIZERS, SCHEDULES = ("adamw", "rmsprop"), ("cosine", "constant")


@dataclass(frozen=True)
class SetConfig:
    """One `[[data.sets]]` of a config. A folder of pictures that holds no sets is taken for the first one."""

    name: str = "photos64"  # in the data folder
    share: float = 1.0  # of the pictures that are seen, relative to the shares of the other sets
    holdout: int = 1000  # last pictures of `train`, never trained on: for choices, those of the first set for the log
    upsample2x: bool = False  # take pictures that are smaller than `side` too, down to half of it, enlarged


@dataclass(frozen=True)
class DataConfig:
    side: int = 64  # of the squares that a stage learns from
    limit: int = 0  # take only the first pictures of each set (0: all)
    sets: tuple[SetConfig, ...] = (SetConfig(),)


@dataclass(frozen=True)
class TrainingConfig:
    start_from: str = ""  # first weights: "package:stage1", a folder, or a config, trained first where it is not
    pretrained_backbone: bool = False  # start the encoder from public ImageNet weights
    freeze: tuple[str, ...] = ()  # prefixes of parameters that stay as they are, beside those that the stage freezes
    samples: int = 100_000  # pictures to see in all, over all devices
    batch_size: int = 48  # pictures per optimizer step, over all devices
    accumulation: int = 1  # parts a device cuts its share of the batch into
    optimizer: str = "adamw"  # or "rmsprop" with Keras' defaults, as ColTran
    schedule: str = "cosine"  # after the warm-up half a cosine down to zero; or "constant"
    decay_from: int = 0  # pictures after which a constant rate falls, in a straight line; 0: it does not
    decay: int = 0  # pictures that this takes, to zero
    learning_rate: float = 4e-4
    backbone_learning_rate: float = 0.0  # of parameters under `encoder.backbone`; 0: as all others
    discriminator_learning_rate: float = 0.0  # of the player of this name (TTUR); 0: as all others
    betas: tuple[float, float] = (0.9, 0.99)  # of adamw: decay of the gradient's mean and of its square's
    warmup: int = 5_000  # pictures until the full learning rate
    weight_decay: float = 0.01
    gradient_clip: float = 1.0  # of the gradient's norm; 0: none
    average_half_life: int = 10_000  # pictures; of the exponential average of the weights
    average_widths: tuple[float, ...] = ()  # of further averages, power functions, relative to the run's length
    compile: bool = False  # the training pass, by torch.compile: a minute or more at the start
    recompute: bool = False  # the insides of blocks in the backward pass: less memory, more time
    workers: int = 0  # processes that cut pictures ahead of the steps, for a device that would wait; 0: none
    precision: str = "auto"  # bf16 where the hardware has it; "no", "bf16", "fp16"
    seed: int = 0
    report_every: int = 10_000  # pictures
    save_every: int = 20_000  # pictures
    save_minutes: float = 10.0  # save also where the last checkpoint is as old as this; 0: never


def check_options(options: TrainingConfig) -> None:
    """Raises CheckpointError where values make no sense, alone or together."""
    lengths = {
        "samples": options.samples, "batch_size": options.batch_size, "accumulation": options.accumulation,
        "average_half_life": options.average_half_life, "report_every": options.report_every,
        "save_every": options.save_every,
    }  # fmt: skip
    for name, value in lengths.items():
        if value < 1:
            raise CheckpointError(f"training.{name} must be at least 1; got {value}")
    for name, choice, known in (
        ("optimizer", options.optimizer, OPTIMIZERS), ("schedule", options.schedule, SCHEDULES)
    ):  # fmt: skip
        if choice not in known:
            raise CheckpointError(f"training.{name} must be one of {known}; got {choice!r}")
    if not all(0 <= beta < 1 for beta in options.betas):
        raise CheckpointError(f"training.betas must be at least 0 and less than 1; got {options.betas}")
    if options.optimizer != "adamw" and options.betas != TrainingConfig.betas:
        raise CheckpointError(f"training.betas are of adamw; leave them out with {options.optimizer}")
    if min(options.decay_from, options.decay, options.save_minutes, options.workers) < 0:
        raise CheckpointError("training.decay_from, decay, save_minutes and workers must not be negative")
    if (options.decay_from > 0) != (options.decay > 0):
        raise CheckpointError(
            f"training.decay_from and decay need each other; got {options.decay_from} and {options.decay}"
        )
    if options.decay_from:
        if options.schedule != "constant":
            raise CheckpointError(f'training.decay_from needs schedule = "constant"; got {options.schedule!r}')
        if options.samples > options.decay_from + options.decay:
            raise CheckpointError(
                f"training.samples must be at most decay_from + decay = {options.decay_from + options.decay}, where "
                f"the learning rate is zero; got {options.samples}"
            )


@dataclass(frozen=True)
class Config:
    """A TOML file of configs/: which stage and kind, its network, its data, its training."""

    name: str
    family: str
    kind: str
    network: Any  # Any: each kind has a config class of its own
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    @staticmethod
    def read(path: str | Path) -> Config:
        """Raises CheckpointError for unknown keys, unknown kinds and values of the wrong type."""
        from stages.registry import kind_of

        path = Path(path)
        try:
            table = tomllib.loads(path.read_text())
        except OSError as error:
            raise CheckpointError(f"no config {path}; those that ship are in configs/") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{path} is not TOML: {error}") from error
        if "stage" in table:
            family = FAMILY_OF_STAGE.get(table["stage"], "coarse")
            raise CheckpointError(f'{path}: families have names now: family = "{family}" in place of stage')
        unknown = sorted(table.keys() - {"family", "kind", "network", "data", "training"})
        if unknown:
            raise CheckpointError(f"unknown keys {unknown} in {path}; known: family, kind, network, data, training")
        if type(table.get("family")) is not str or type(table.get("kind")) is not str:
            raise CheckpointError(f'{path} must begin with family and kind: family = "coarse", kind = "diffusion"')
        network_class, stage_class = kind_of(table["family"], table["kind"])
        for old, new in stage_class.renamed_keys.items():
            if old in table.get("network", {}):
                raise CheckpointError(f"{path}: {old} is called {new} now")
        if "tuned" in table.get("network", {}):
            raise CheckpointError(f"{path}: steps are tuned once training is finished (train_scripts/tune_steps.py); "
                                  "leave out `tuned`")
        return Config(
            path.stem, table["family"], table["kind"],
            config_from_dict(network_class, table.get("network", {})),
            config_from_dict(DataConfig, table.get("data", {})),
            config_from_dict(TrainingConfig, table.get("training", {})),
        )  # fmt: skip

