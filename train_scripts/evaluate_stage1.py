"""Score stage 1 alone at 64x64: are its colors lively, and are they right?

    python train_scripts/evaluate_stage1.py --weights runs/stage1/final

Rows: the one-pass preview; the default output (the most central of the pool of candidates); one plain random
sample (candidate 0, pool off); best of 8 and diversity over the first photographs. Stage 1 hands 3-bit colors
to stage 2, so each sampled row stands twice where the kind also knows its chroma before rounding:
"continuous" and "coarse (3 bit)". With --stage2 it stands there once more, "after stage 2". All pictures are the
true gray64 merged with the stage's chroma. Where the stage knows likelihoods, their mean is noted: bits per symbol of
the originals' 3-bit colors, or per dimension of their chroma.

Photographs of another --set are reduced to 64x64 to be compared; the stage sees as many of their pixels as it can use.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from stages.color.resample import resize
from stages.evaluation.coarse import BATCH, central, forms, streams, view_of
from stages.evaluation.command import add_best_of, add_steps, arguments, batches, run
from stages.evaluation.photos import Photos, load_photos
from stages.evaluation.pixel import picture_from_rgb
from stages.evaluation.report import Report
from stages.evaluation.statistics import paired_difference
from stages.evaluation.tables import PREVIEW
from stages.faces import CoarseColorizer, ColorUpsampler, GrayView, HasLikelihood
from stages.options import SampleOptions
from stages.photographs import data_folder
from stages.seeds import NoiseSource
from train_scripts.weights import coarse_colorizer, color_upsampler, stage_weights

BOTH = "mean of both previews"
NO_KNOWLEDGE = {"symbol": 9, "dimension": 8}  # bits that a stage pays that knows nothing


def parser() -> argparse.ArgumentParser:
    options = arguments("stage1", "Score stage 1 at 64x64.", "photos64", "scored at 64x64")
    add_steps(options, "stage 1")
    options.add_argument("--preview-only", action="store_true", help="nothing but the preview: for an encoder alone")
    options.add_argument("--mirrored", action="store_true",
                         help="also the mean of the preview and of that of the mirror image")  # fmt: skip
    options.add_argument("--weights", type=Path, metavar="FOLDER", help="stage 1 (default: the packaged one)")
    options.add_argument(
        "--stage2", type=Path, metavar="FOLDER", help="stage 2, for rows of what it makes of the coarse colors"
    )
    add_best_of(options, photos=300)
    return options


@torch.inference_mode()
def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    folder = stage_weights(args.weights, "coarse")
    stage, options = coarse_colorizer(folder), SampleOptions(steps=args.steps)
    stage.check_honored(options, SampleOptions.COARSE)
    photos = load_photos(data_folder(args.data), args.set, args.split, args.photos)
    report = Report(args, photos.reduced(64))
    report.use_weights("stage1", folder, stage, args.steps)
    color: ColorUpsampler | None = None
    if args.stage2:
        color_folder = stage_weights(args.stage2, "color")
        color = color_upsampler(color_folder)
        report.use_weights("stage2", color_folder, color)

    noise = photos.noise(args.seed)
    best_photos = min(args.best_photos, len(photos))
    previews: list[Tensor] = []
    both: list[Tensor] = []
    default: dict[str, list[Tensor]] = {}
    plain: dict[str, list[Tensor]] = {}
    best: dict[str, list[Tensor]] = {}
    bits: list[Tensor] = []
    for part in tqdm(batches(len(photos), BATCH), desc="stage 1", unit="batch"):
        view = view_of(photos, part)
        encoding = stage.encode(view)
        rgb = stage.preview(encoding)
        previews.append(picture_from_rgb(rgb))
        if args.mirrored:
            mirrored = stage.preview(stage.encode(GrayView(view.gray64.flip(-1), view.gray128.flip(-1)))).flip(-1)
            both.append(picture_from_rgb((rgb + mirrored) / 2))  # of one luma, so it keeps it
        if args.preview_only:
            continue
        if isinstance(stage, HasLikelihood):
            bits.append(stage.bits(resize(photos.rgb(part), (64, 64))))
        # Beyond the photographs of the best-of row only the pool is needed.
        count = max(stage.pool, args.candidates) if part.start < best_photos else stage.pool
        draws = stage.sample(encoding, count, options, streams(noise[part.start : part.stop], count))
        first = central(encoding.gray64, draws.coarse64, stage.pool)
        for form, rgb in forms(encoding.gray64, draws, color).items():
            pictures = picture_from_rgb(rgb)
            default.setdefault(form, []).append(pictures[torch.arange(len(part)), first])
            plain.setdefault(form, []).append(pictures[:, 0].clone())
            if part.start < best_photos:
                best.setdefault(form, []).append(pictures[: best_photos - part.start, : args.candidates])

    report.add(PREVIEW, torch.cat(previews), sheet="preview")
    if args.mirrored:
        report.add(BOTH, torch.cat(both))
        less = paired_difference(report.scores[BOTH].ciede2000, report.scores[PREVIEW].ciede2000)
        report.rows[-1]["ciede2000_minus_preview"] = less
        low, high = less["interval_95"]
        report.note(f"{BOTH}: CIEDE2000 {less['value']:+.3f} [{low:+.3f}, {high:+.3f}] against the preview's")
    if args.preview_only:
        report.note("--preview-only: nothing was sampled")
        return report.finish()
    for form, parts in default.items():
        report.add(f"default output, {form}", torch.cat(parts), sheet=f"default, {form.split()[0]}")
    for form, parts in plain.items():
        report.add(f"one plain sample, {form}", torch.cat(parts))
    for i, (form, parts) in enumerate(best.items()):
        report.add_candidates(f"best of {args.candidates}, {form}", torch.cat(parts), sheet=i == 0)
    seconds, count = seconds_per_candidate(stage, photos, noise, options)
    report.record |= {"pool": stage.pool, "seconds_per_candidate": seconds}
    report.note(f"{seconds:.3f} seconds per candidate, {count} drawn at once")
    if isinstance(stage, HasLikelihood):
        report.add_bits(bits, stage.bits_unit, f"; knowing nothing costs {NO_KNOWLEDGE[stage.bits_unit]}")
    if "continuous" not in default:
        report.note(f"kind {stage.kind!r} knows no chroma before rounding: 3-bit rows only")
    return report.finish()


def seconds_per_candidate(
    stage: CoarseColorizer[Any], photos: Photos, noise: Sequence[NoiseSource], options: SampleOptions
) -> tuple[float, int]:
    """One candidate each of a batch of photographs, the encoding included: seconds for one, and how many they were."""
    part = range(min(BATCH, len(photos)))
    view, generators = view_of(photos, part), streams(noise[: len(part)], 1)
    start = time.perf_counter()
    stage.sample(stage.encode(view), 1, options, generators)
    return (time.perf_counter() - start) / len(part), len(part)


def main(argv: list[str] | None = None) -> int:
    return run(evaluate, parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
