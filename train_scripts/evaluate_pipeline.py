"""Score the whole pipeline, or anybody's outputs by file.

    python train_scripts/evaluate_pipeline.py
    python train_scripts/evaluate_pipeline.py --originals photos/ --outputs ours/ theirs/

The pipeline is given the 8-bit luma of each photograph and `--seed`. Rows: the one-pass preview, the default output,
one random sample (`pool=1`), best of 8 and diversity over the first photographs, of the pictures that the pipeline
gives ("chosen") and of plain samples. With `--more-steps` the chosen ones stand there again, drawn in that many steps
of stage 1, and the paired differences of the default's to them.

With --outputs, the pictures of each folder are matched to those of --originals by file stem and scored as
they are; rows of the originals, plain gray and, unless --no-preview is given, this pipeline's preview stand
beside them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pipeline import ColorPipeline
from stages.evaluation.command import add_best_of, add_steps, arguments, batches, positive, run
from stages.evaluation.photos import EvaluationError, load_folder, load_outputs, load_photos
from stages.evaluation.report import Report
from stages.evaluation.tables import PREVIEW
from stages.photographs import data_folder
from train_scripts.weights import loaded_pipeline

BATCH = 4


def parser() -> argparse.ArgumentParser:
    options = arguments("pipeline", "Score the pipeline, or anybody's outputs.", "photos256", "scored at their size")
    add_steps(options, "stage 1")
    options.add_argument("--weights", type=Path, metavar="FOLDER", help="pipeline folder (default: the packaged one)")
    add_best_of(options, photos=64)
    options.add_argument("--more-steps", type=positive, metavar="N", help="best of K in N steps too")
    options.add_argument(
        "--outputs", type=Path, nargs="+", metavar="FOLDER", help="score the pictures of these folders instead"
    )
    options.add_argument("--originals", type=Path, metavar="FOLDER", help="their originals, matched by file stem")
    options.add_argument("--no-preview", action="store_true", help="with --outputs: without the preview's row")
    return options


def colorized(
    pipe: ColorPipeline, gray: list[Tensor], seed: int, *, name: str, num_samples: int = 1, steps: int | None = None,
    preview: bool = False, pool: int | None = None,
) -> list[list[Tensor]]:  # fmt: skip
    """The pipeline's pictures, in the order they were drawn.

    gray: N of uint8 (1, H, W) -> N lists of `num_samples` pictures, uint8 (3, H, W)
    """
    pictures: list[list[Tensor]] = []
    for part in tqdm(batches(len(gray), BATCH), desc=name, unit="batch"):
        output = pipe(
            [gray[i][0].numpy() for i in part], num_samples, num_inference_steps=steps, generator=seed,
            preview=preview, pool=pool, output_type="np",
        )  # fmt: skip
        for start in range(0, len(output.images), num_samples):
            # The pipeline puts what it chooses in an order of its own; a preview has no candidate number.
            drawn = sorted(range(start, start + num_samples), key=lambda i: output.info[i].candidate or 0)
            images = [torch.from_numpy(np.array(output.images[i])) for i in drawn]
            pictures.append([image.permute(2, 0, 1).contiguous() for image in images])
    return pictures


def firsts(pictures: list[list[Tensor]]) -> list[Tensor]:
    return [first for first, *_ in pictures]


@torch.inference_mode()
def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    if args.outputs and args.more_steps:
        raise EvaluationError("--outputs scores pictures as they are; leave out --more-steps")
    if bool(args.outputs) != bool(args.originals):
        raise EvaluationError("--outputs and --originals belong together: give both folders")
    return evaluate_outputs(args) if args.outputs else evaluate_pipeline(args)


def evaluate_pipeline(args: argparse.Namespace) -> dict[str, Any]:
    photos = load_photos(data_folder(args.data), args.set, args.split, args.photos)
    gray = photos.gray()
    report = Report(args, photos, gray=gray)
    pipe = loaded_pipeline(args, report)

    preview = colorized(pipe, gray, args.seed, preview=True, name="preview")
    report.add(PREVIEW, firsts(preview), sheet="preview")
    default = colorized(pipe, gray, args.seed, name="default", steps=args.steps)
    report.add("default output", firsts(default), sheet="default")
    plain = colorized(pipe, gray, args.seed, pool=1, name="one sample", steps=args.steps)
    report.add("one plain sample", firsts(plain))
    few, count, best = gray[: args.best_photos], args.candidates, f"best of {args.candidates}"
    chosen = colorized(pipe, few, args.seed, num_samples=count, name=f"{best}, chosen", steps=args.steps)
    report.add_candidates(f"{best}, chosen", chosen, sheet=True)
    if args.more_steps:
        row, longer = report.rows[-1], f"{best}, chosen, in {args.more_steps} steps"
        chosen = colorized(pipe, few, args.seed, num_samples=count, name=longer, steps=args.more_steps)
        report.add_candidates(longer, chosen, sheet=False)
        report.compare_candidates(row, "more_steps", longer)
    plain = colorized(pipe, few, args.seed, num_samples=count, pool=1, name=best, steps=args.steps)
    report.add_candidates(best, plain, sheet=False)
    return report.finish()


def evaluate_outputs(args: argparse.Namespace) -> dict[str, Any]:
    photos = load_folder(args.originals)
    outputs = {str(folder): load_outputs(folder, photos) for folder in args.outputs}
    if args.photos is not None:
        photos = photos.first(args.photos)
    gray = photos.gray()
    report = Report(args, photos, gray=gray)
    if args.no_preview:
        report.note("--no-preview: the row of this pipeline's one-pass preview is missing")
    else:
        preview = colorized(loaded_pipeline(args, report), gray, args.seed, preview=True, name="preview")
        report.add(PREVIEW, firsts(preview), sheet="preview")
    for name, pictures in outputs.items():
        report.add(name, pictures[: len(photos)], sheet=Path(name).name)
    return report.finish()


def main(argv: list[str] | None = None) -> int:
    return run(evaluate, parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
