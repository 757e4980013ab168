"""Score stage 3 alone on photos256: is it better than enlarging the chroma?

    python train_scripts/evaluate_stage3.py --weights runs/stage3/final

Three ways from 64 to 256, each with the same rgb64: bicubic enlargement of its chroma, enlargement guided by
the luma (`stages.resize.enlarge_chroma`), stage 3. First with the true rgb64 (the photograph reduced by
area), then, where weights of stages 1 and 2 are there, with a sampled one (the most central of stage 1's pool
through stage 2). The luma is the true gray256 in every row. With `--more-steps` stage 3 stands there again in these
numbers of steps, each with the paired difference of `squeezenet_kid` to the largest of them; with `--sharpness` all
these stand there sharpened too, as the pipeline does it. Where the stage knows likelihoods, the mean is noted: bits per
dimension of the originals given their gray and themselves at 64x64.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from pipeline.folder import MAX_SHARPNESS
from pipeline.full_resolution import sharpened
from stages.color.guided_filter import enlarge_chroma
from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, gray_from_rgb, merge
from stages.evaluation.command import (
    arguments,
    batches,
    generators,
    optional_weights,
    positive,
    run,
    seen_by_stage1,
    stage_weights,
)
from stages.evaluation.photos import EvaluationError, load_photos
from stages.evaluation.pixel import picture_from_rgb
from stages.evaluation.report import Report
from stages.evaluation.tables import PREVIEW
from stages.photographs import data_folder
from stages.registry import load_stage

BATCH = 8


def parser() -> argparse.ArgumentParser:
    options = arguments("stage3", "Score stage 3 on photos256.")
    options.add_argument("--weights", type=Path, metavar="FOLDER", help="stage 3 (default: the packaged one)")
    for number in (1, 2):
        options.add_argument(
            f"--stage{number}",
            type=Path,
            metavar="FOLDER",
            help=f"stage {number}, for a sampled rgb64 (default: the packaged one)",
        )
    options.add_argument(
        "--more-steps", type=positive, nargs="+", default=[], metavar="N", help="rows of stage 3 in N steps"
    )
    options.add_argument("--sharpness", type=float, default=0.0, help="rows of stage 3 sharpened by this")
    return options


@torch.inference_mode()
def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    folders = {
        1: optional_weights(args.stage1, 1),
        2: optional_weights(args.stage2, 2),
        3: stage_weights(args.weights, 3),
    }
    photos = load_photos(data_folder(args.data), "photos256", args.split, args.photos)
    if not 0 <= args.sharpness <= MAX_SHARPNESS:
        raise EvaluationError(f"--sharpness must be in [0, {MAX_SHARPNESS}]; got {args.sharpness}")
    report = Report(args, photos)
    stages: dict[int, Any] = {}
    for number, folder in folders.items():
        if folder:
            stages[number] = load_stage(folder).eval()
            report.use_weights(f"stage{number}", folder, stages[number], args.steps if number == 3 else None)
    if args.more_steps and not hasattr(stages[3], "denoiser"):
        raise EvaluationError(f"stage 3 of kind {stages[3].kind!r} takes no steps; leave out --more-steps")
    if 1 not in stages:
        report.note("no stage-1 weights (--stage1): the row of the one-pass preview is missing")
    if not {1, 2} <= set(stages):
        report.note("no weights of stages 1 and 2 (--stage1, --stage2): no rows with a sampled rgb64")

    in_steps = {f"stage 3 in {steps} steps": steps for steps in sorted(set(args.more_steps))}
    forms = {"": 0.0, **({", sharpened": args.sharpness} if args.sharpness else {})}
    pictures: dict[str, list[Tensor]] = {}
    bits: list[Tensor] = []
    for part in tqdm(batches(len(photos), BATCH), desc="stage 3", unit="batch"):
        rgb256 = photos.rgb(slice(part.start, part.stop))
        gray256 = gray_from_rgb(rgb256)
        if hasattr(stages[3], "bits"):
            bits.append(stages[3].bits(rgb256))
        inputs = {"true": resize(rgb256, (64, 64))}
        gray64, sharp = seen_by_stage1(stages.get(1), gray256)
        made = {}
        if 1 in stages:
            preview = chroma_from_rgb(stages[1].preview(gray64, **sharp))
            made[PREVIEW] = merge(gray256, enlarge_chroma(preview, gray64, gray256))
        if {1, 2} <= set(stages):
            pool = max(1, stages[1].pool)
            draws = generators(args.seed, part, pool)
            coarse = stages[1].sample(gray64, num_samples=pool, generator=draws, **sharp)
            first = stages[1].order(gray64, coarse)[:, 0]
            inputs["sampled"] = stages[2].sample(gray64, coarse[torch.arange(len(part)), first])
        for name, rgb64 in inputs.items():
            chroma = chroma_from_rgb(rgb64)
            enlarged = {
                "bicubic": resize(chroma, (256, 256)),
                "luma-guided": enlarge_chroma(chroma, gray64, gray256),
            }
            for way, larger in enlarged.items():
                made[f"{way}, {name} rgb64"] = merge(gray256, larger)
            for way, steps in {"stage 3": args.steps, **in_steps}.items():
                colored256 = stages[3].sample(
                    gray256,
                    rgb64,
                    generator=generators(args.seed, part, 1, "stage 3"),
                    num_inference_steps=steps,
                )
                for form, sharpness in forms.items():
                    made[f"{way}{form}, {name} rgb64"] = sharpened(gray256, colored256, sharpness)
        for name, rgb in made.items():
            pictures.setdefault(name, []).append(picture_from_rgb(rgb))

    for name, parts in pictures.items():
        report.add(name, torch.cat(parts), sheet=name.removesuffix(" rgb64"))
    for row in [row for row in report.rows if in_steps and row["name"].startswith("stage 3")]:
        for form in forms:
            most = f"{list(in_steps)[-1]}{form}, {row['name'].rpartition(', ')[2]}"
            more = report.compare(row, f"most_steps{form.replace(', ', '_')}", most)
            report.note(f"{row['name']}: squeezenet_kid {more.value:+.2f} [{more.low:+.2f}, {more.high:+.2f}] against "
                        f"{most}")  # fmt: skip
    report.add_bits(bits, "dimension", "; knowing nothing costs 8")
    return report.finish()


def main(argv: list[str] | None = None) -> int:
    return run(evaluate, parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
