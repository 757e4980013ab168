"""Weights between those of two stages, of which one was trained on from the other: often better than both.

    python train_scripts/mix_weights.py --weights runs/stage1_hints/final --with runs/stage1/final --share 0.5 \
        --out runs/stage1_hints/final-mixed

Training on with other pictures forgets some of what the first have taught; a mean of the weights forgets less (Wortsman
et al. 2022, "Robust fine-tuning of zero-shot models"). Parameters that only --weights has are taken as they are, and so
are its settings. Tuned steps belong to the weights that they were tuned for, so there are none.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TypeVar

import torch

from stages.checkpoint import WEIGHTS_NAME, CheckpointError, sha256_of
from stages.registry import load_stage
from stages.stage import Stage

AStage = TypeVar("AStage", bound=Stage)


def mixed(stage: AStage, other: Stage, share: float) -> AStage:
    """`stage` with share * its weights + (1 - share) * those of `other`.

    Raises CheckpointError where these are not of one network, but for what `stage` alone has, where it has steps of its
    own, and for a share outside of 0 to 1.
    """
    if not 0 <= share <= 1:
        raise CheckpointError(f"a share must be a number from 0 to 1; got {share}")
    finishing = stage.finishing_parameters
    ours = stage.state_dict()
    theirs = {name: value for name, value in other.state_dict().items() if not name.startswith(finishing)}
    if any(name.startswith(finishing) for name in ours):
        raise CheckpointError("--weights has tuned steps; take the folder without them")
    odd = [name for name in theirs if name not in ours or theirs[name].shape != ours[name].shape]
    if (stage.family, stage.kind) != (other.family, other.kind) or odd:
        raise CheckpointError(
            f"--with must be what --weights was trained on from, kind {stage.kind!r} of the family {stage.family}; got "
            f"kind {other.kind!r} of the family {other.family}, of whose parameters {len(odd)} do not fit {odd[:3]}"
        )
    stage.load_state_dict({
        name: torch.lerp(theirs[name].float(), value.float(), share).to(value.dtype)
        if name in theirs and value.is_floating_point() else value for name, value in ours.items()
    })  # fmt: skip
    return stage


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, metavar="FOLDER", help="saved stage")
    parser.add_argument("--with", dest="other", type=Path, required=True, metavar="FOLDER",
                        help="saved stage that the first was trained on from")  # fmt: skip
    parser.add_argument("--share", type=float, default=0.5, help="of the first, 0 to 1 (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder to write or replace")
    options = parser.parse_args(arguments)
    try:
        stage = mixed(load_stage(options.weights), load_stage(options.other), options.share)
        parts = ((options.weights, options.share), (options.other, 1 - options.share))
        shares = [{"sha256": sha256_of(folder / WEIGHTS_NAME), "share": share} for folder, share in parts]
        stage.trained = {**(stage.trained or {}), "mixed_from": shares}
        stage.save_pretrained(options.out)
    except (CheckpointError, FileExistsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: {options.share:g} of {options.weights}, {1 - options.share:g} of {options.other}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
