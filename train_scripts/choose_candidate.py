"""How the default picture is best chosen among candidates: a table on photographs held out of training.

    python train_scripts/choose_candidate.py --set photos256

One row per vividness, size of the pool and exponent of `spread_order`, all from the same draws, before rounding to 3
bits; chroma is enlarged bicubically where photographs have more than 64x64 pixels. Nothing is written into the
weights: the choice is made by reading (docs/results.md) and set as `pool` and `vividness` of stage 1 in
configs/pipeline.toml and as `EVENED_CHROMA`.
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
from stages.resize import resize
from stages.stage1_coarse.candidates import spread_order
from train_scripts import evaluation
from train_scripts.evaluate_stage1 import BATCH, opened

POOLS, EXPONENTS, VIVIDNESS = (1, 4, 8), (0.5, 0.75, 1.0), (1.0, 1.1, 1.2)


def parser() -> argparse.ArgumentParser:
    options = evaluation.arguments("candidate", "Choose the default among candidates.")
    options.set_defaults(split=evaluation.HELD_OUT)
    options.add_argument("--weights", type=Path, metavar="FOLDER", help="stage 1 (default: the packaged one)")
    options.add_argument("--set", default="photos64", help="photographs in --data (default: %(default)s)")
    return options


@torch.inference_mode()
def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    photos, report, stage = opened(args)
    if not hasattr(stage, "sample_chroma"):
        raise evaluation.EvaluationError(f"stage 1 of kind {stage.kind!r} offers no chroma before rounding")

    previews: list[Tensor] = []
    rows: dict[str, list[Tensor]] = {}
    for part in tqdm(evaluation.batches(len(photos), BATCH), desc="stage 1", unit="batch"):
        gray = color.gray_from_rgb(photos.rgb(slice(part.start, part.stop)))
        size = (gray.shape[-2], gray.shape[-1])
        gray64, sharp = evaluation.seen_by_stage1(stage, gray)
        preview = color.chroma_from_rgb(stage.preview(gray64, **sharp))
        previews.append(picture_from_rgb(color.merge(gray, resize(preview, size))))
        drawn = stage.sample_chroma(
            gray64, max(POOLS), evaluation.generators(args.seed, part, max(POOLS)), args.steps, **sharp
        ) / getattr(stage.config, "vividness", 1.0)  # fmt: skip
        for vividness in VIVIDNESS:
            chroma = vividness * drawn
            symbols = color.coarse_from_rgb(color.merge(gray64[:, None], chroma))
            for pool in POOLS:
                for exponent in EXPONENTS if pool > 1 else (1.0,):
                    first = spread_order(gray64, symbols[:, :pool], evened=exponent)[:, 0]
                    name = "one sample" if pool == 1 else f"central of {pool}, exponent {exponent}"
                    picked = resize(chroma[torch.arange(len(part)), first], size)
                    rows.setdefault(f"{name}, vividness {vividness}", []).append(
                        picture_from_rgb(color.merge(gray, picked))
                    )
    report.add(evaluation.PREVIEW, torch.cat(previews), sheet="preview")
    for name, parts in rows.items():
        report.add(name, torch.cat(parts), sheet=name if name.startswith("one sample") else None)
    return report.finish()


def main(argv: list[str] | None = None) -> int:
    return evaluation.run(evaluate, parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
