"""Score stage 1 alone at 64x64: are its colors lively, and are they right?

    python train_scripts/evaluate_stage1.py --weights runs/stage1/final

Rows: the one-pass preview; the default output (the most central of the pool of candidates); one plain random
sample (candidate 0, pool off); best of 8 and diversity over the first photographs. Stage 1 hands 3-bit colors
to stage 2, so each sampled row stands twice where the stage also offers its chroma before rounding
(`sample_chroma`): "continuous" and "coarse (3 bit)". With --stage2 it stands there once more, "after stage 2". All
pictures are the true gray64 merged with the stage's chroma. Where the stage knows likelihoods, their mean is noted:
bits per symbol of the originals' 3-bit colors, or per dimension of their chroma.

Photographs of another --set are reduced to 64x64 to be compared; the stage sees as many of their pixels as it can use.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, coarse_from_rgb, gray_from_rgb, merge, rgb_from_coarse
from stages.evaluation.command import (
    arguments,
    batches,
    generators,
    positive,
    run,
    seen_by_stage1,
    several,
    stage_weights,
)
from stages.evaluation.photos import Photos, load_photos
from stages.evaluation.pixel import picture_from_rgb
from stages.evaluation.report import Report
from stages.evaluation.tables import PREVIEW
from stages.photographs import data_folder
from stages.registry import load_stage

BATCH = 16  # photographs sampled at once


def parser() -> argparse.ArgumentParser:
    options = arguments("stage1", "Score stage 1 at 64x64.")
    options.add_argument("--set", default="photos64", help="photographs in --data (default: %(default)s)")
    options.add_argument("--preview-only", action="store_true", help="nothing but the preview: for an encoder alone")
    options.add_argument("--weights", type=Path, metavar="FOLDER", help="stage 1 (default: the packaged one)")
    options.add_argument(
        "--stage2", type=Path, metavar="FOLDER", help="stage 2, for rows of what it makes of the coarse colors"
    )
    options.add_argument(
        "--best-photos",
        type=positive,
        default=300,
        metavar="N",
        help="photographs of the best-of-8 row: the first N (default: %(default)s)",
    )
    options.add_argument(
        "--candidates", type=several, default=8, metavar="K", help="K of best of K (default: %(default)s)"
    )
    return options


def from_coarse(gray64: Tensor, coarse: Tensor) -> Tensor:
    """gray64 with the chroma of the coarse bin centers: (B,1,64,64), (B,64,64) -> rgb (B,3,64,64)."""
    return merge(gray64, chroma_from_rgb(rgb_from_coarse(coarse)))


@torch.inference_mode()
def sample(
    stage: Any, gray64: Tensor, generators: list[torch.Generator], steps: int | None, **sharp: Tensor
) -> dict[str, Tensor]:
    """Candidates of stage 1, form by form: name -> rgb (B, K, 3, 64, 64), "symbols" -> (B, K, 64, 64).

    sharp: more pixels of the photographs, where the stage can use them and there are any
    The coarse symbols are those `stage.sample` returns: where the stage offers its chroma, they are that
    chroma merged with the gray and rounded to 3 bits.
    """
    count = len(generators) // len(gray64)
    settings = {"num_samples": count, "generator": generators, "num_inference_steps": steps, **sharp}
    made = {}
    if hasattr(stage, "sample_chroma"):
        chroma = stage.sample_chroma(gray64, **settings)
        made["continuous"] = merge(gray64[:, None], chroma)
        symbols = coarse_from_rgb(made["continuous"])
    else:
        symbols = stage.sample(gray64, **settings)
    bins = chroma_from_rgb(rgb_from_coarse(symbols))
    return made | {"coarse (3 bit)": merge(gray64[:, None], bins), "symbols": symbols}


def opened(
    args: argparse.Namespace, side: int | None = None
) -> tuple[Photos, Report, Any]:
    """The photographs of the set, a report on them, reduced to `side` where given, and the stage 1 of the arguments."""
    folder = stage_weights(args.weights, 1)
    photos = load_photos(data_folder(args.data), args.set, args.split, args.photos)
    report = Report(args, photos if side is None else photos.reduced(side))
    stage: Any = load_stage(folder).eval()
    report.use_weights("stage1", folder, stage, args.steps)
    return photos, report, stage


def shown(photos: Photos, part: range, stage: Any) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Photographs at 64x64, (B, 3, 64, 64), and as the stage sees them: gray64, and `sharp` where there is more."""
    rgb = photos.rgb(slice(part.start, part.stop))
    return resize(rgb, (64, 64)).clamp(0, 1), *seen_by_stage1(stage, gray_from_rgb(rgb))


def finished(stage2: Any, gray64: Tensor, symbols: Tensor) -> Tensor:
    """What stage 2 makes of coarse colors: (B,1,64,64), (B,K,64,64) -> rgb (B,K,3,64,64)."""
    count = symbols.shape[1]
    return stage2.sample(gray64.repeat_interleave(count, 0), symbols.flatten(0, 1)).unflatten(0, (-1, count))


@torch.inference_mode()
def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    photos, report, stage = opened(args, 64)
    stage2: Any = None
    if args.stage2:
        folder = stage_weights(args.stage2, 2)
        stage2 = load_stage(folder).eval()
        report.use_weights("stage2", folder, stage2)

    pool = max(1, stage.pool)
    drawn = max(pool, args.candidates)
    best_photos = min(args.best_photos, len(photos))
    previews: list[Tensor] = []
    chosen: dict[str, list[Tensor]] = {}
    plain: dict[str, list[Tensor]] = {}
    best: dict[str, list[Tensor]] = {}
    bits: list[Tensor] = []
    for part in tqdm(batches(len(photos), BATCH), desc="stage 1", unit="batch"):
        rgb, gray64, sharp = shown(photos, part, stage)
        previews.append(picture_from_rgb(stage.preview(gray64, **sharp)))
        if args.preview_only:
            continue
        if hasattr(stage, "bits"):
            bits.append(stage.bits(rgb))
        # Beyond the photographs of the best-of row only the pool is needed.
        count = drawn if part.start < best_photos else pool
        draws = generators(args.seed, part, count)
        made = sample(stage, gray64, draws, args.steps, **sharp)
        symbols = made.pop("symbols")
        first = stage.order(gray64, symbols[:, :pool])[:, 0]
        if stage2 is not None:
            made["after stage 2"] = finished(stage2, gray64, symbols)
        for form, candidates in made.items():
            pictures = picture_from_rgb(candidates)
            chosen.setdefault(form, []).append(pictures[torch.arange(len(part)), first])
            plain.setdefault(form, []).append(pictures[:, 0].clone())
            if part.start < best_photos:
                best.setdefault(form, []).append(pictures[: best_photos - part.start, : args.candidates])

    report.add(PREVIEW, torch.cat(previews), sheet="preview")
    if args.preview_only:
        report.note("--preview-only: nothing was sampled")
        return report.finish()
    for form in chosen:
        report.add(f"default output, {form}", torch.cat(chosen[form]), sheet=f"default, {form.split()[0]}")
    for form in plain:
        report.add(f"one plain sample, {form}", torch.cat(plain[form]))
    for i, form in enumerate(best):
        report.add_candidates(f"best of {args.candidates}, {form}", torch.cat(best[form]), sheet=i == 0)
    timed = range(min(BATCH, len(photos)))  # one candidate of each: the same work whatever the pool
    _, gray64, sharp = shown(photos, timed, stage)
    draws = generators(args.seed, timed, 1)
    start = time.perf_counter()
    sample(stage, gray64, draws, args.steps, **sharp)
    seconds = (time.perf_counter() - start) / len(timed)
    report.record |= {"pool": pool, "seconds_per_candidate": seconds}
    report.note(f"{seconds:.3f} seconds per candidate, {len(timed)} drawn at once")
    if bits:
        nothing = {"symbol": 9, "dimension": 8}[stage.bits_unit]
        report.add_bits(bits, stage.bits_unit, f"; knowing nothing costs {nothing}")
    if "continuous" not in chosen:
        report.note("this stage offers no chroma before rounding (sample_chroma): 3-bit rows only")
    return report.finish()


def main(argv: list[str] | None = None) -> int:
    return run(evaluate, parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
