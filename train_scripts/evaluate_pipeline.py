"""Score the whole pipeline on photos256, or anybody's outputs by file.

    python train_scripts/evaluate_pipeline.py
    python train_scripts/evaluate_pipeline.py --originals photos/ --outputs ours/ theirs/

The pipeline is given the 8-bit luma of each photograph; photograph i uses the seed `--seed + i`. Rows: the
one-pass preview, the default output, one random sample (`pool=1`), best of 8 and diversity over the first
photographs, of the pictures that the pipeline gives ("chosen") and of plain samples. With `--more-steps` the chosen
ones stand there again, drawn in that many steps of stage 1, and the paired differences of the default's to them.

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
from stages.evaluation.command import DEFAULT_WEIGHTS, arguments, batches, positive, run, several
from stages.evaluation.photos import EvaluationError, load_folder, load_outputs, load_photos
from stages.evaluation.report import Account, Report
from stages.evaluation.tables import PREVIEW
from stages.photographs import data_folder

BATCH = 4


def parser() -> argparse.ArgumentParser:
    options = arguments("pipeline", "Score the pipeline, or anybody's outputs.")
    options.add_argument("--weights", type=Path, metavar="FOLDER", help="pipeline folder (default: the packaged one)")
    options.add_argument("--set", default="photos256", help="photographs in --data (default: %(default)s)")
    options.add_argument(
        "--best-photos",
        type=positive,
        default=64,
        metavar="N",
        help="photographs of the best-of-8 row: the first N (default: %(default)s)",
    )
    options.add_argument(
        "--candidates", type=several, default=8, metavar="K", help="K of best of K (default: %(default)s)"
    )
    options.add_argument("--more-steps", type=positive, metavar="N", help="best of K in N steps too")
    options.add_argument(
        "--outputs",
        type=Path,
        nargs="+",
        metavar="FOLDER",
        help="score the pictures of these folders instead",
    )
    options.add_argument("--originals", type=Path, metavar="FOLDER", help="their originals, matched by file stem")
    options.add_argument("--no-preview", action="store_true", help="with --outputs: without the preview's row")
    return options


def colorize(
    pipe: Any, gray: list[Tensor], seed: int, *, name: str, num_samples: int = 1, **settings: Any
) -> list[list[Tensor]]:
    """The pipeline's pictures, in the order they were drawn.

    gray: N of uint8 (1, H, W); photograph i uses seed + i -> N lists of `num_samples` pictures, uint8 (3, H,
    W)
    """
    made: list[list[Tensor]] = []
    for part in tqdm(batches(len(gray), BATCH), desc=name, unit="batch"):
        output = pipe(
            [gray[i][0].numpy() for i in part],
            num_samples=num_samples,
            generator=[seed + i for i in part],
            output_type="np",
            **settings,
        )
        for start in range(0, len(output.images), num_samples):
            mine = range(start, start + num_samples)
            # The pipeline puts what it chooses in an order of its own; a preview has no candidate number.
            drawn = sorted(mine, key=lambda i: output.info[i].candidate or 0)
            pictures = [torch.from_numpy(np.array(output.images[i])) for i in drawn]
            made.append([picture.permute(2, 0, 1).contiguous() for picture in pictures])
    return made


def first_of(made: list[list[Tensor]]) -> list[Tensor]:
    return [pictures[0] for pictures in made]


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
    pipe = load_pipeline(args, report)
    report.record["pool"] = getattr(pipe.stages["stage1"], "pool", 1)
    steps = {} if args.steps is None else {"num_inference_steps": args.steps}

    preview = colorize(pipe, gray, args.seed, preview=True, name="preview")
    report.add(PREVIEW, first_of(preview), sheet="preview")
    default = colorize(pipe, gray, args.seed, name="default", **steps)
    report.add("default output", first_of(default), sheet="default")
    plain = colorize(pipe, gray, args.seed, pool=1, name="one sample", **steps)
    report.add("one plain sample", first_of(plain))
    few, best = gray[: args.best_photos], f"best of {args.candidates}"
    chosen = colorize(pipe, few, args.seed, num_samples=args.candidates, name=f"{best}, chosen", **steps)
    report.add_candidates(f"{best}, chosen", chosen, sheet=True)
    if args.more_steps:
        row, longer = report.rows[-1], f"{best}, chosen, in {args.more_steps} steps"
        more = {"num_inference_steps": args.more_steps}
        chosen = colorize(pipe, few, args.seed, num_samples=args.candidates, name=longer, **more)
        report.add_candidates(longer, chosen, sheet=False)
        report.compare_candidates(row, "more_steps", longer)
    plain = colorize(pipe, few, args.seed, num_samples=args.candidates, pool=1, name=best, **steps)
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
        pipe = load_pipeline(args, report)
        preview = colorize(pipe, gray, args.seed, preview=True, name="preview")
        report.add(PREVIEW, first_of(preview), sheet="preview")
    for name, pictures in outputs.items():
        report.add(name, pictures[: len(photos)], sheet=Path(name).name)
    return report.finish()


def load_pipeline(args: argparse.Namespace, report: Account) -> Any:
    pipe = ColorPipeline.from_pretrained(args.weights) if args.weights else ColorPipeline.from_pretrained()
    report.record["sharpness"] = pipe.sharpness
    for name, stage in pipe.stages.items():
        folder = (args.weights or DEFAULT_WEIGHTS) / name
        report.use_weights(name, folder, stage, args.steps if name == "stage1" else None)
    return pipe


def main(argv: list[str] | None = None) -> int:
    return run(evaluate, parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
