"""Puts three finished runs together as a pipeline folder, the form in which the default weights ship.

    python train_scripts/package.py --out pipeline/weights

Which runs: configs/pipeline.toml, or another such file (`--config`), says for each stage the config it was trained by.
Weights are stored as float16: half the size, and no visible difference (they are float32 again when loaded).
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from pathlib import Path

import torch

from pipeline import ColorPipeline
from stages.checkpoint import CheckpointError
from stages.kinds import load_stage
from train_scripts.launch import CONFIGS

STAGES = ("stage1", "stage2", "stage3")


def named(path: Path) -> dict[str, str]:
    """The runs of a pipeline's config, by stage; raises CheckpointError where it is not one."""
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is no config of a pipeline: {error}") from error
    if set(table) != set(STAGES) or not all(isinstance(name, str) for name in table.values()):
        raise CheckpointError(f"{path} must name a run for each of {', '.join(STAGES)}, and nothing else; got {table}")
    return {stage: table[stage] for stage in STAGES}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs (default: %(default)s)")
    for number in (1, 2, 3):
        parser.add_argument(f"--stage{number}", type=Path, help="saved stage (default: the run that the config names)")
    parser.add_argument("--config", type=Path, default=CONFIGS / "pipeline.toml", help="default: %(default)s")
    parser.add_argument("--out", type=Path, required=True, help="pipeline folder to write or replace")
    options = parser.parse_args(arguments)
    try:
        names = named(options.config)
        folders = [getattr(options, stage) or options.runs / name / "final" for stage, name in names.items()]
        ColorPipeline(*(load_stage(folder) for folder in folders)).save_pretrained(options.out, dtype=torch.float16)
    except (CheckpointError, FileExistsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    size = sum(path.stat().st_size for path in options.out.rglob("*.safetensors"))
    print(f"{options.out}: {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
