"""Puts three finished runs together as a pipeline folder, the form in which the default weights ship.

    python train_scripts/package.py --out pipeline/weights

Which runs: configs/pipeline.toml, or another such file (`--config`), says for each stage the config it was trained by,
and what of its settings is to be different in use, like the size of the pool; `saved` is the folder of the run that is
taken, if it is not `final`, and where that holds tuned steps, they must be of the run's weights; `sharpness` is the
pipeline's own.
Weights are stored as float16: half the size, and no visible difference (they are float32 again when loaded).
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tomllib
from pathlib import Path
from typing import Any

import torch

from pipeline import ColorPipeline
from pipeline.folder import FAMILIES
from stages.checkpoint import CheckpointError, config_from_dict
from stages.evaluation.few_steps import same_but_tuned
from stages.faces import CoarseColorizer, ColorUpsampler, SuperResolver
from stages.provenance import ROOT
from stages.registry import load_stage
from stages.stage import Stage
from stages.stage1_coarse.diffusion import DiffusionColorizer


def named(path: Path) -> tuple[dict[str, dict[str, Any]], float]:
    """By stage, the run that a pipeline's config names (`run`, `saved`) and settings that differ from it in use; the
    sharpness.

    Raises CheckpointError where the file is no such config.
    """
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is no config of a pipeline: {error}") from error
    sharpness = table.pop("sharpness", 0.0)
    if type(sharpness) not in (int, float):
        raise CheckpointError(f"{path}: sharpness must be a number; got {sharpness!r}")
    table = {stage: {"run": entry} if isinstance(entry, str) else entry for stage, entry in table.items()}
    if set(table) != set(FAMILIES) or not all(
        isinstance(entry, dict) and isinstance(entry.get("run"), str) and isinstance(entry.get("saved", ""), str)
        for entry in table.values()
    ):
        raise CheckpointError(
            f"{path} must name a run for each of {', '.join(FAMILIES)}, a folder in it where `saved` is given, and "
            f"nothing else but `sharpness`; got {table}"
        )
    return {stage: table[stage] for stage in FAMILIES}, sharpness


def opened(folder: Path, family: str, changes: dict[str, Any]) -> Stage:
    """The saved stage with some settings changed; such as change shapes of the network raise CheckpointError, and so
    does another family.
    """
    stage = load_stage(folder)
    if stage.family != family:
        raise CheckpointError(f"{folder} holds weights of the family {stage.family}; expected {family}")
    config = config_from_dict(type(stage.config), {**dataclasses.asdict(stage.config), **changes})
    changed = type(stage)(config)
    try:
        changed.load_state_dict(stage.state_dict())
    except RuntimeError as error:
        raise CheckpointError(f"{changes} would make another network than that of {folder}: {error}") from error
    changed.trained = stage.trained
    return changed


def check_tuned(stage: Stage, folder: Path) -> None:
    """Raises CheckpointError where a stage from a run's `folder` holds tuned steps of other weights than the run's."""
    finals = sorted(folder.parent.glob("final*"))
    tuned = isinstance(stage, DiffusionColorizer) and stage.tuned is not None
    if tuned and not any(same_but_tuned(stage, load_stage(final)) for final in finals):
        raise CheckpointError(f"{folder} holds tuned steps of weights that are none of {[one.name for one in finals]} "
                              "beside it: tune the run's own again (train_scripts/tune_steps.py)")  # fmt: skip


def taken(folder: Path | None, runs: Path, entry: dict[str, Any], family: str) -> Stage:
    """The stage saved in `folder`, as it is, or else that of the run that an entry of the config names."""
    if folder is not None:
        return opened(folder, family, {})
    folder = runs / entry["run"] / entry.get("saved", "final")
    if "saved" in entry and not folder.is_dir():
        raise CheckpointError(f"there is no {folder}. A finished run has `final`, and `tuned` once "
                              "train_scripts/tune_steps.py has learned its few steps.")  # fmt: skip
    stage = opened(folder, family, {key: value for key, value in entry.items() if key not in ("run", "saved")})
    check_tuned(stage, folder)
    return stage


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs (default: %(default)s)")
    for name in FAMILIES:
        parser.add_argument(
            f"--{name}", type=Path, help="saved stage, taken as it is (default: the run that the config names)"
        )
    parser.add_argument(
        "--config", type=Path, default=ROOT / "configs" / "pipeline.toml", help="default: configs/pipeline.toml"
    )
    parser.add_argument("--out", type=Path, required=True, help="pipeline folder to write or replace")
    options = parser.parse_args(arguments)
    try:
        runs, sharpness = named(options.config)
        stages = [taken(vars(options)[name], options.runs, runs[name], family) for name, family in FAMILIES.items()]
        coarse, color, superres = stages
        assert isinstance(coarse, CoarseColorizer)  # by their families
        assert isinstance(color, ColorUpsampler) and isinstance(superres, SuperResolver)
        ColorPipeline(coarse, color, superres, sharpness).save_pretrained(options.out, dtype=torch.float16)
    except (ValueError, FileExistsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    size = sum(path.stat().st_size for path in options.out.rglob("*.safetensors"))
    print(f"{options.out}: {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
