"""What the command lines of the evaluation scripts share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from stages.checkpoint import CheckpointError
from stages.evaluation.photos import PHOTOGRAPHS, EvaluationError
from stages.evaluation.pixel import MetricsError
from stages.options import OptionError
from stages.photographs import DataError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def arguments(
    name: str, description: str, photos: str, where: str, sets: Iterable[str] = PHOTOGRAPHS
) -> argparse.ArgumentParser:
    """The options every evaluation script has; `name` is also the default folder of its results.

    photos: the default set, of `sets`; where: at which size they are scored, for the help
    """
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
    parser.add_argument(
        "--set",
        choices=list(sets),
        default=photos,
        help=f"photographs in --data, {where}; of those that are not square the center square (default: %(default)s)",
    )
    parser.add_argument("--photos", type=positive, metavar="N", help="only the first N photographs of the split")
    parser.add_argument(
        "--seed", type=int, default=0, help="of all photographs; each has noise of its own, as in the pipeline "
        "(default: %(default)s)",
    )
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


def add_steps(parser: argparse.ArgumentParser, stage: str) -> None:
    parser.add_argument("--steps", type=positive, help=f"of {stage}'s sampler (default: what the weights ask for)")


def add_dtype(parser: argparse.ArgumentParser, networks: str) -> None:
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help=f"of {networks}' insides (default: float32)")


def add_best_of(parser: argparse.ArgumentParser, photos: int) -> None:
    """The options of rows of best of K."""
    parser.add_argument(
        "--best-photos", type=positive, default=photos, metavar="N",
        help="photographs of the best-of-K rows: the first N (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--candidates", type=several, default=8, metavar="K", help="K of best of K (default: %(default)s)"
    )


def positive(text: str, least: int = 1) -> int:
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}, got {value}")
    return value


def several(text: str) -> int:
    return positive(text, 2)


def run(
    evaluate: Callable[[argparse.Namespace], object], parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> int:
    """Parse, evaluate, and turn what a user can cause into one line and exit status 2."""
    args = parser.parse_args(argv)
    try:
        evaluate(args)
    except (EvaluationError, DataError, MetricsError, CheckpointError, OptionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def batches(count: int, size: int) -> list[range]:
    """0 .. count - 1 in ranges of at most `size`."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]
