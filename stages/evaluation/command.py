"""What the command lines of the evaluation scripts share."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages.checkpoint import CheckpointError, read_description
from stages.color.resample import resize, sharp_gray
from stages.evaluation.photos import EvaluationError
from stages.evaluation.pixel import MetricsError
from stages.evaluation.provenance import ROOT
from stages.photographs import DataError

DEFAULT_WEIGHTS = ROOT / "pipeline" / "weights"


def arguments(name: str, description: str) -> argparse.ArgumentParser:
    """The options every evaluation script has; `name` is also the default folder of its results."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="folder of the photographs (default: $TRICHROME_DATA, else data/)",
    )
    parser.add_argument(
        "--features",
        type=Path,
        metavar="FILE",
        help="SqueezeNet 1.1, safetensors (default: features/squeezenet1_1.safetensors in --data)",
    )
    parser.add_argument(
        "--split",
        default="validation",
        help='split of the photographs; "held-out" is the part of train that training leaves out, for choices '
        "(default: %(default)s)",
    )
    parser.add_argument("--photos", type=positive, metavar="N", help="only the first N photographs of the split")
    parser.add_argument("--seed", type=int, default=0, help="photograph i is sampled with seed + i (default: 0)")
    parser.add_argument("--steps", type=positive, help="sampling steps (default: what the weights ask for)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/eval") / name,
        metavar="FOLDER",
        help="where results.json and sheet.png go (default: %(default)s)",
    )
    parser.add_argument(
        "--sheet-photos",
        type=positive,
        default=8,
        metavar="N",
        help="photographs on the sheet: the first N of the list (default: %(default)s)",
    )
    return parser


def positive(text: str, least: int = 1) -> int:
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}, got {value}")
    return value


def several(text: str) -> int:
    return positive(text, 2)


def run(evaluate: Callable[[argparse.Namespace], Any], parser: argparse.ArgumentParser, argv=None) -> int:
    """Parse, evaluate, and turn what a user can cause into one line and exit status 2."""
    args = parser.parse_args(argv)
    try:
        evaluate(args)
    except (EvaluationError, DataError, MetricsError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def seen_by_stage1(stage: Any, gray: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """gray (B, 1, H, W) as the pipeline shows it to stage 1: gray64, and `sharp` where the stage can use it."""
    side = getattr(stage, "gray_side", 64)
    return resize(gray, (64, 64)), {"sharp": sharp_gray(gray, side)} if side > 64 else {}


def generators(seed: int, photos: range, candidates: int, purpose: str = "colors") -> list[torch.Generator]:
    """One generator per (photograph, candidate), photo-major: photograph i has the seed `seed + i`.

    Candidate k is drawn from SHA-256 of "purpose,seed + i,k", so that no number of candidates, photographs or
    batches changes any of them, and two stages never share their noise.
    """
    made = []
    for photo in photos:
        for candidate in range(candidates):
            digest = hashlib.sha256(f"{purpose},{seed + photo},{candidate}".encode()).digest()
            made.append(torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1))
    return made


def batches(count: int, size: int) -> list[range]:
    """0 .. count - 1 in ranges of at most `size`."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def stage_weights(named: Path | None, number: int) -> Path:
    """Folder of a stage's weights, the named or the packaged one; raises EvaluationError."""
    folder = named or DEFAULT_WEIGHTS / f"stage{number}"
    if not (folder / "config.json").is_file():
        raise EvaluationError(f"no stage-{number} weights in {folder}: give a folder written by save_pretrained")
    if (found := read_description(folder)["stage"]) != number:
        raise EvaluationError(f"{folder} holds weights of stage {found}; expected stage {number}")
    return folder


def optional_weights(named: Path | None, number: int) -> Path | None:
    """As `stage_weights`, but None where none was named and none is packaged."""
    if named is None and not (DEFAULT_WEIGHTS / f"stage{number}" / "config.json").is_file():
        return None
    return stage_weights(named, number)
