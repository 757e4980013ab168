"""A run on disk: checkpoints that appear complete or not at all, the log, sample grids."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from stages.checkpoint import CheckpointError, replaced_folder, sha256_of
from stages.stage import Stage
from stages.training.adversarial import named
from stages.training.config import Config
from stages.training.ema import Averaged


def save_checkpoint(
    run: Path, state: dict, config: Config, stage: Stage, averages: dict[str, Averaged],
    optimizers: dict[str, Optimizer], scaler: GradScaler | None, pictures: str,
) -> None:  # fmt: skip
    """All that continuing needs, in a folder that appears complete, with the hash of each file; keeps the newest two.

    optimizers: by player; scaler: of gradients in fp16, else None; pictures: digest of the pictures that the run
        learns from
    """
    folder = run / f"checkpoint-{state['step']:08d}"
    with replaced_folder(folder) as fresh:
        averaged = {f"averaged{name}": average.stage for name, average in averages.items()}
        for name, module in ({"weights": stage} | averaged).items():
            tensors = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
            save_file(tensors, fresh / f"{name}.safetensors")
        for player, optimizer in optimizers.items():
            torch.save(optimizer.state_dict(), fresh / f"{named('optimizer', player, '-')}.pt")
        record = {"state": state, "config": dataclasses.asdict(config), "pictures_sha256": pictures,
                  "scaler": None if scaler is None else scaler.state_dict(),
                  "sha256": {path.name: sha256_of(path) for path in sorted(fresh.iterdir())}}
        (fresh / "state.json").write_text(json.dumps(record, indent=1))
    for old in sorted(run.glob("checkpoint-*"))[:-2]:
        shutil.rmtree(old)


def newest_checkpoint(run: Path) -> Path | None:
    complete = sorted(path for path in run.glob("checkpoint-*") if (path / "state.json").is_file())
    return complete[-1] if complete else None


def load_checkpoint(
    folder: Path, config: Config, stage: Stage, averages: dict[str, Averaged],
    optimizers: dict[str, Optimizer], scaler: GradScaler | None, pictures: str,
) -> dict:  # fmt: skip
    """Restores what `save_checkpoint` wrote, after every hash has matched; returns the loop's state."""
    try:
        record = json.loads((folder / "state.json").read_text())
        saved, digests = record["config"], record["sha256"]
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{folder}/state.json is damaged; delete {folder} to use the one before it") from error
    if identity(saved, config) != identity(dataclasses.asdict(config), config):
        raise CheckpointError(f"{folder} belongs to a run with another config; choose other --runs or delete it")
    if record["pictures_sha256"] != pictures:
        raise CheckpointError(f"{folder} belongs to a run on other pictures; choose other --runs or delete it")
    averaged = [f"averaged{name}.safetensors" for name in averages]
    steppers = {f"{named('optimizer', player, '-')}.pt": optimizer for player, optimizer in optimizers.items()}
    for name in ("weights.safetensors", *averaged, *steppers):
        if not (folder / name).is_file() or sha256_of(folder / name) != digests.get(name):
            raise CheckpointError(
                f"{folder / name} is damaged (its hash differs); delete {folder} to use the one before it"
            )
    stage.load_state_dict(load_file(folder / "weights.safetensors"))
    for name, average in zip(averaged, averages.values(), strict=True):
        average.stage.load_state_dict(load_file(folder / name))
    for name, optimizer in steppers.items():
        optimizer.load_state_dict(torch.load(folder / name, weights_only=True, map_location="cpu"))
    if scaler is not None and record.get("scaler"):
        scaler.load_state_dict(record["scaler"])
    return record["state"]


def identity(values: dict[str, Any], config: Config) -> dict[str, Any]:
    """The part of a config that a run must keep: its length and the decay of its learning rate may change, how often it
    reports and saves, its memory and its workers.

    What has its default is left out: a run from before a key existed goes on.
    values: a config of the kind of `config`, as a dict
    """
    free = {"samples", "decay_from", "decay", "report_every", "save_every", "save_minutes", "recompute", "workers"}
    values = json.loads(json.dumps(values))
    for part in ("network", "data", "training"):
        defaults = json.loads(json.dumps(dataclasses.asdict(type(getattr(config, part))())))
        values[part] = {key: value for key, value in values[part].items()
                        if key not in free and value != defaults.get(key)}  # fmt: skip
    return values


def write_log(run: Path, entry: dict[str, Any]) -> None:
    with open(run / "log.jsonl", "a") as file:
        file.write(json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S"), **entry}) + "\n")


def save_grid(grid: Tensor, path: Path) -> None:
    pixels = (grid.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    Image.fromarray(pixels).save(path)
