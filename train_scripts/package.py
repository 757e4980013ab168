"""Puts three finished runs together as a pipeline folder, the form in which the default weights ship.

    python train_scripts/package.py --out pipeline/weights

Weights are stored as float16: half the size, and no visible difference (they are float32 again when loaded).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from pipeline import ColorPipeline
from stages.checkpoint import CheckpointError
from stages.kinds import load_stage


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs (default: %(default)s)")
    for number in (1, 2, 3):
        parser.add_argument(f"--stage{number}", type=Path, help=f"saved stage (default: RUNS/stage{number}/final)")
    parser.add_argument("--out", type=Path, required=True, help="pipeline folder to write or replace")
    options = parser.parse_args(arguments)
    try:
        folders = [getattr(options, f"stage{n}") or options.runs / f"stage{n}" / "final" for n in (1, 2, 3)]
        ColorPipeline(*(load_stage(folder) for folder in folders)).save_pretrained(options.out, dtype=torch.float16)
    except (CheckpointError, FileExistsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    size = sum(path.stat().st_size for path in options.out.rglob("*.safetensors"))
    print(f"{options.out}: {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
