"""How the default picture is best made: a table on photographs held out of training.

    python train_scripts/choose_candidate.py --set photos256

Two rows per temperature, chroma gain, size of the pool and exponent that evens the strengths of draws, all from the
same draws before rounding to 3 bits: the first picture of `spread_order`, and best of K over the first photographs, of
the pictures that it puts first among as many draws as the pipeline makes. Chroma is enlarged bicubically where
photographs have more than 64x64 pixels. Nothing is written into the weights: the choice is made by reading
(docs/research/results.md) and set as `temperature`, `chroma_gain` and `pool` of stage 1 in configs/pipeline.toml, the
exponent as EVENED_STRENGTH in stages/stage1_coarse/candidates.py.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from pipeline.cascade import DRAWS_PER_PICTURE
from stages.color.spaces import chroma_from_rgb, gray_from_rgb
from stages.evaluation.coarse import BATCH, pictures_with, streams
from stages.evaluation.command import add_best_of, add_steps, arguments, batches, positive, run
from stages.evaluation.photos import HELD_OUT, EvaluationError, load_photos
from stages.evaluation.report import Report
from stages.evaluation.tables import PREVIEW
from stages.faces import Draws, GrayView
from stages.options import SampleOptions
from stages.photographs import data_folder
from stages.stage1_coarse.candidates import EVENED_STRENGTH, spread_order
from train_scripts.weights import coarse_colorizer, stage_weights


def parser() -> argparse.ArgumentParser:
    options = arguments("candidate", "Choose how the default picture is made.", "photos64", "scored at their own size")
    options.set_defaults(split=HELD_OUT)
    add_steps(options, "stage 1")
    options.add_argument("--weights", type=Path, metavar="FOLDER", help="stage 1 (default: the packaged one)")
    options.add_argument("--temperatures", type=float, nargs="+", default=[0.7, 0.9, 1.0], metavar="T")
    options.add_argument("--chroma-gains", type=float, nargs="+", default=[1.1, 1.25], metavar="G")
    options.add_argument("--pools", type=positive, nargs="+", default=[1, 8], metavar="N")
    options.add_argument("--evened", type=float, nargs="+", default=[EVENED_STRENGTH], metavar="E", help="exponent")
    add_best_of(options, photos=64)
    return options


@torch.inference_mode()
def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    folder = stage_weights(args.weights, "coarse")
    stage = coarse_colorizer(folder)
    as_drawn = 1.0 if "chroma_gain" in stage.honors else None  # the rows say the rest
    asked = {t: SampleOptions(steps=args.steps, temperature=t, chroma_gain=as_drawn) for t in args.temperatures}
    for options in asked.values():
        stage.check_honored(options, SampleOptions.COARSE)
    gains = list(dict.fromkeys(args.chroma_gains))
    for gain in gains:
        SampleOptions(chroma_gain=gain)  # raises where it is out of range
    pools, exponents = list(dict.fromkeys(args.pools)), list(dict.fromkeys(args.evened))
    photos = load_photos(data_folder(args.data), args.set, args.split, args.photos)
    report = Report(args, photos)
    report.use_weights("stage1", folder, stage, args.steps)
    noise, several = photos.noise(args.seed), DRAWS_PER_PICTURE * args.candidates
    previews: list[Tensor] = []
    firsts: dict[str, list[Tensor]] = {}
    best: dict[str, list[Tensor]] = {}
    for part in tqdm(batches(len(photos), BATCH), desc="stage 1", unit="batch"):
        gray = gray_from_rgb(photos.rgb(part))
        encoding = stage.encode(GrayView.of(gray))
        previews.append(pictures_with(gray, chroma_from_rgb(stage.preview(encoding))[:, None])[:, 0])
        of_best = max(0, min(len(part), args.best_photos - part.start))
        count = max(*pools, several) if of_best else max(pools)
        for temperature, options in asked.items():
            draws = stage.sample(encoding, count, options, streams(noise[part.start : part.stop], count))
            if draws.chroma64 is None:
                raise EvaluationError(f"stage 1 of kind {stage.kind!r} knows no chroma before rounding")
            for gain, pool, exponent in itertools.product(gains, pools, exponents):
                if pool == 1 and exponent != exponents[0]:
                    continue  # one is not chosen
                chroma = gain * draws.chroma64[:, : max(pool, several)]
                order = torch.arange(chroma.shape[1]).expand(len(part), -1)
                if pool > 1:  # from a pool of one the pipeline, too, gives draws as they come
                    order = spread_order(encoding.gray64, Draws.of(encoding.gray64, chroma).coarse64, pool, exponent)
                name = f"temperature {temperature}, chroma gain {gain}, " + (
                    "one sample" if pool == 1 else f"central of {pool}, exponent {exponent}")  # fmt: skip
                rows = torch.arange(len(part))[:, None]
                firsts.setdefault(name, []).append(pictures_with(gray, chroma[rows, order[:, :1]])[:, 0])
                if of_best:
                    chosen = chroma[rows, order[:, : args.candidates]][:of_best]
                    best.setdefault(name, []).append(pictures_with(gray[:of_best], chosen))
    report.add(PREVIEW, torch.cat(previews), sheet="preview")
    for name, parts in firsts.items():
        report.add(name, torch.cat(parts))
        report.add_candidates(f"best of {args.candidates}, {name}", torch.cat(best[name]), sheet=False)
    return report.finish()


def main(argv: list[str] | None = None) -> int:
    return run(evaluate, parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
