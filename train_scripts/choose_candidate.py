"""How the default picture is best chosen among candidates: a table on photographs held out of training.

    python train_scripts/choose_candidate.py --photos 400

One row per size of the pool and per exponent of `central_order`, all from the same draws. Nothing is written into the
weights: the choice is made by reading (docs/results.md) and set as `pool` in the config of stage 1 and as
`EVENED_CHROMA`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from stages import color
from stages.metrics import picture_from_rgb
from stages.stage1_coarse.candidates import central_order
from train_scripts import evaluation
from train_scripts.evaluate_stage1 import BATCH, opened, sample

POOLS, EXPONENTS = (1, 4, 8), (0.0, 0.5, 0.75, 1.0, 1.25)


def parser() -> argparse.ArgumentParser:
    options = evaluation.arguments("candidate", "Choose the default among candidates, on photos64.")
    options.set_defaults(split=evaluation.HELD_OUT)
    options.add_argument("--weights", type=Path, metavar="FOLDER", help="stage 1 (default: the packaged one)")
    return options


@torch.inference_mode()
def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    photos, report, stage = opened(args)

    previews: list[Tensor] = []
    rows: dict[str, list[Tensor]] = {}
    for part in tqdm(evaluation.batches(len(photos), BATCH), desc="stage 1", unit="batch"):
        gray64 = color.gray_from_rgb(photos.rgb(slice(part.start, part.stop)))
        previews.append(picture_from_rgb(stage.preview(gray64)))
        made = sample(stage, gray64, evaluation.generators(args.seed, part, max(POOLS)), args.steps)
        pictures = picture_from_rgb(made.get("continuous", made["coarse (3 bit)"]))
        for pool in POOLS:
            for exponent in EXPONENTS if pool > 1 else (1.0,):
                first = central_order(gray64, made["symbols"][:, :pool], exponent)[:, 0]
                name = "one sample" if pool == 1 else f"central of {pool}, exponent {exponent}"
                rows.setdefault(name, []).append(pictures[torch.arange(len(part)), first])
    report.add(evaluation.PREVIEW, torch.cat(previews), sheet="preview")
    for name, parts in rows.items():
        report.add(name, torch.cat(parts), sheet="one sample" if name == "one sample" else None)
    return report.finish()


def main(argv: list[str] | None = None) -> int:
    return evaluation.run(evaluate, parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
