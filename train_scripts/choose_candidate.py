"""How the default picture is best made: a table on photographs held out of training.

    python train_scripts/choose_candidate.py --set photos256

Two rows per temperature, chroma_gain, size of the pool and exponent that evens the strengths of draws, all from the same
draws before rounding to 3 bits: the first picture of `spread_order`, and best of K over the first photographs, of the
pictures that it puts first among as many draws as the pipeline makes. Chroma is enlarged bicubically where photographs
have more than 64x64 pixels. Nothing is written into the weights: the choice is made by reading (docs/results.md) and
set as `temperature`, `chroma_gain` and `pool` of stage 1 in configs/pipeline.toml, the exponent as EVENED_STRENGTH in
stages/stage1_coarse/candidates.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from pathlib import Path
from typing import Any

import torch
from stages.stage1_coarse.temperature import checked_temperature
from torch import Tensor
from tqdm import tqdm

from pipeline.color_pipeline import DRAWS
from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, coarse_from_rgb, gray_from_rgb, merge
from stages.evaluation.command import arguments, batches, generators, positive, run, seen_by_stage1, several
from stages.evaluation.photos import HELD_OUT, EvaluationError
from stages.evaluation.pixel import picture_from_rgb
from stages.evaluation.tables import PREVIEW
from stages.stage1_coarse.candidates import EVENED_STRENGTH, spread_order
from train_scripts.evaluate_stage1 import BATCH, opened


def parser() -> argparse.ArgumentParser:
    options = arguments("candidate", "Choose how the default picture is made.")
    options.set_defaults(split=HELD_OUT)
    options.add_argument("--weights", type=Path, metavar="FOLDER", help="stage 1 (default: the packaged one)")
    options.add_argument("--set", default="photos64", help="photographs in --data (default: %(default)s)")
    options.add_argument("--temperatures", type=_temperature, nargs="+", default=[0.7, 0.9, 1.0], metavar="T")
    options.add_argument("--chroma_gain", type=float, nargs="+", default=[1.1, 1.25], metavar="V")
    options.add_argument("--pools", type=positive, nargs="+", default=[1, 8], metavar="N")
    options.add_argument("--evened", type=float, nargs="+", default=[EVENED_STRENGTH], metavar="E", help="exponent")
    options.add_argument("--best-photos", type=positive, default=64, metavar="N", help="of best of K")
    options.add_argument("--candidates", type=several, default=8, metavar="K", help="K of best of K")
    return options


@torch.inference_mode()
def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    photos, report, stage = opened(args)
    if not hasattr(stage, "sample_chroma"):
        raise EvaluationError(f"stage 1 of kind {stage.kind!r} offers no chroma before rounding")
    if hasattr(stage.config, "chroma_gain"):  # as drawn; the rows say the rest
        stage.config = dataclasses.replace(stage.config, chroma_gain=1.0)
    temperatures, pools = list(dict.fromkeys(args.temperatures)), list(dict.fromkeys(args.pools))
    livelier, evener = list(dict.fromkeys(args.chroma_gain)), list(dict.fromkeys(args.evened))
    most = max(*pools, DRAWS * args.candidates)
    previews: list[Tensor] = []
    firsts: dict[str, list[Tensor]] = {}
    best: dict[str, list[Tensor]] = {}
    for part in tqdm(batches(len(photos), BATCH), desc="stage 1", unit="batch"):
        gray = gray_from_rgb(photos.rgb(slice(part.start, part.stop)))
        gray64, sharp = seen_by_stage1(stage, gray)
        previews.append(_pictures(gray, chroma_from_rgb(stage.preview(gray64, **sharp))[:, None])[:, 0])
        of_best = max(0, min(len(part), args.best_photos - part.start))
        count = most if of_best else max(pools)
        for temperature in temperatures:
            noise = generators(args.seed, part, count)
            drawn = stage.sample_chroma(gray64, count, noise, args.steps, **sharp, temperature=temperature)
            for chroma_gain, pool, evened in itertools.product(livelier, pools, evener):
                if pool == 1 and evened != evener[0]:
                    continue  # one is not chosen
                chroma = chroma_gain * drawn
                seen = chroma[:, : max(pool, DRAWS * args.candidates)]
                order = torch.arange(seen.shape[1]).expand(len(part), -1)
                if pool > 1:  # from a pool of one the pipeline, too, gives draws as they come
                    symbols = coarse_from_rgb(merge(gray64[:, None], seen))
                    order = spread_order(gray64, symbols, pool, evened)
                name = f"temperature {temperature}, chroma_gain {chroma_gain}, " + (
                    "one sample" if pool == 1 else f"central of {pool}, exponent {evened}")  # fmt: skip
                rows = torch.arange(len(part))[:, None]
                firsts.setdefault(name, []).append(_pictures(gray, chroma[rows, order[:, :1]])[:, 0])
                if of_best:
                    chosen = chroma[rows, order[:, : args.candidates]][:of_best]
                    best.setdefault(name, []).append(_pictures(gray[:of_best], chosen))
    report.add(PREVIEW, torch.cat(previews), sheet="preview")
    for name, parts in firsts.items():
        report.add(name, torch.cat(parts))
        report.add_candidates(f"best of {args.candidates}, {name}", torch.cat(best[name]), sheet=False)
    return report.finish()


def _temperature(text: str) -> float:
    try:
        return checked_temperature(float(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _pictures(gray: Tensor, chroma: Tensor) -> Tensor:
    """Photographs with small chroma on them: (B, 1, H, W), (B, K, 2, 64, 64) -> uint8 (B, K, 3, H, W)."""
    size = (gray.shape[-2], gray.shape[-1])
    large = resize(chroma.flatten(0, 1), size).unflatten(0, chroma.shape[:2])
    return torch.stack([picture_from_rgb(merge(gray, one)) for one in large.unbind(1)], dim=1)


def main(argv: list[str] | None = None) -> int:
    return run(evaluate, parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
