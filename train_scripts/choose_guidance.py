"""Whether guidance makes draws of stage 1 better: a table on photographs held out of training.

    python train_scripts/choose_guidance.py --set photos128 --weights runs/stage1_hints/final --guidance 1 1.5 2
    python train_scripts/choose_guidance.py --set photos128 --weights runs/stage1_hints/final --weaker runs/stage1/final

Draws are led away from what a weaker denoiser believes: the same network without its condition, which it must have
learned (`condition_dropout`), or other weights (`--weaker`: autoguidance, Karras et al. 2024). Two rows per weight: one
plain sample, and the most central of the pool. All draws take `--steps` of DPM-Solver++ from the same noise. Weight 1
is no guidance; its rows are what the others are compared with. Kind `diffusion` only. Nothing is written into weights.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from stages.evaluation.coarse import BATCH, central, forms, streams, view_of
from stages.evaluation.command import arguments, batches, positive, run
from stages.evaluation.few_steps import diffusion_colorizer
from stages.evaluation.guided_draws import guided_draws
from stages.evaluation.photos import HELD_OUT, EvaluationError, load_photos
from stages.evaluation.pixel import picture_from_rgb
from stages.evaluation.provenance import weights_of
from stages.evaluation.report import Report
from stages.evaluation.statistics import paired_difference
from stages.photographs import data_folder
from train_scripts.weights import coarse_colorizer, stage_weights


def parser() -> argparse.ArgumentParser:
    options = arguments("guidance", "Whether guidance makes draws of stage 1 better.", "photos128", "at 64x64")
    options.set_defaults(split=HELD_OUT)
    options.add_argument("--weights", type=Path, metavar="FOLDER", help="stage 1 (default: the packaged one)")
    options.add_argument("--weaker", type=Path, metavar="FOLDER", help="other weights (default: no condition)")
    options.add_argument("--guidance", type=float, nargs="+", default=[1.25, 1.5, 2.0], metavar="W")
    options.add_argument("--interval", type=float, nargs=2, default=[0.0, math.inf], metavar=("LOW", "HIGH"),
                         help="noise levels with guidance (default: all)")  # fmt: skip
    options.add_argument("--pool", type=positive, metavar="N", help="default: the weights' own")
    options.add_argument("--steps", type=positive, default=20, metavar="N", help="default: %(default)s")
    return options


@torch.inference_mode()
def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    folder = stage_weights(args.weights, "coarse")
    stage = diffusion_colorizer(coarse_colorizer(folder))
    other = None if args.weaker is None else diffusion_colorizer(coarse_colorizer(args.weaker))
    if other is None and not stage.config.condition_dropout:
        raise EvaluationError(f"{folder} has never been without its condition (condition_dropout); name a --weaker")
    if not 0 <= args.interval[0] < args.interval[1]:
        raise EvaluationError(f"--interval must rise from 0 or more; got {args.interval}")
    photos = load_photos(data_folder(args.data), args.set, args.split, args.photos)
    report = Report(args, photos.reduced(64))
    report.use_weights("stage1", folder, stage, args.steps)
    report.record["sampler"] = "dpmpp_2m"
    if args.weaker is not None:
        report.record["weights"]["weaker"] = weights_of(args.weaker)
    noise, pool = photos.noise(args.seed), args.pool or stage.pool
    for weight in dict.fromkeys([1.0, *args.guidance]):
        plain: list[Tensor] = []
        chosen: list[Tensor] = []
        for part in tqdm(batches(len(photos), BATCH), desc=f"guidance {weight:g}", unit="batch"):
            view = view_of(photos, part)
            encoding = stage.encode(view)
            weaker = None if other is None else (other, other.encode(view))
            draws = guided_draws(stage, encoding, pool, args.steps, weight, weaker, tuple(args.interval),
                                 streams(noise[part.start : part.stop], pool))  # fmt: skip
            pictures = picture_from_rgb(forms(encoding.gray64, draws, None)["continuous"])
            plain.append(pictures[:, 0].clone())
            chosen.append(pictures[torch.arange(len(part)), central(encoding.gray64, draws.coarse64, pool)])
        report.add(f"guidance {weight:g}, one sample", torch.cat(plain))
        report.add(f"guidance {weight:g}, central of {pool}", torch.cat(chosen), sheet=f"guidance {weight:g}")
        if weight != 1:
            for row, kind in zip(report.rows[-2:], ("one sample", f"central of {pool}"), strict=True):
                compare(report, row, f"guidance 1, {kind}")
    return report.finish()


def compare(report: Report, row: dict[str, Any], other: str) -> None:
    """Paired differences to the row without guidance, noted and kept in the row."""
    ours, theirs = report.scores[row["name"]], report.scores[other]
    colors = paired_difference(ours.ciede2000, theirs.ciede2000)
    row["ciede2000_minus_no_guidance"] = colors
    low, high = colors["interval_95"]
    said = f"{row['name']}: CIEDE2000 {colors['value']:+.2f} [{low:+.2f}, {high:+.2f}]"
    if ours.kid is not None:
        kid = report.compare(row, "no_guidance", other)
        said += f", squeezenet_kid {kid.value:+.1f} [{kid.low:+.1f}, {kid.high:+.1f}]"
    report.note(f"{said} against {other}")


def main(argv: list[str] | None = None) -> int:
    return run(evaluate, parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
