"""How few denoiser evaluations stage 1 can do with: quality against evaluations and against seconds.

    python train_scripts/evaluate_steps.py

One plain sample per photograph and row, before rounding to 3 bits, from the same start noise in every row. Rows differ
in the sampler and in how often the denoiser is asked; beside each stand the seconds of one draw (several photographs at
once, the encoder included) and the paired difference of `squeezenet_kid` to the reference, the first row. Where the
weights hold tuned steps (train_scripts/tune_steps.py), as many steps stand there once more, tuned, and so do those of
`--tuned`, other tunings of the same weights. A sampler of two evaluations per step gets half of the steps,
rounded up; its last step is one evaluation. Kind `diffusion` only.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from stages.color.spaces import merge
from stages.diffusion import FewSteps
from stages.evaluation.coarse import BATCH, streams, view_of
from stages.evaluation.command import arguments, batches, positive, run
from stages.evaluation.few_steps import diffusion_colorizer, same_but_tuned
from stages.evaluation.photos import EvaluationError, load_photos
from stages.evaluation.pixel import picture_from_rgb
from stages.evaluation.provenance import weights_of
from stages.evaluation.report import Report
from stages.options import SampleOptions
from stages.photographs import data_folder
from stages.stage1_coarse.diffusion import STAGE1_SAMPLERS, DiffusionColorizer
from train_scripts.weights import coarse_colorizer, stage_weights


def parser() -> argparse.ArgumentParser:
    options = arguments("steps", "Quality of stage 1 against evaluations of its denoiser.", "photos64", "at 64x64")
    options.add_argument("--weights", type=Path, metavar="FOLDER", help="stage 1 (default: the packaged one)")
    options.add_argument("--reference", type=positive, default=50, help="evaluations of the first row")
    options.add_argument("--evaluations", type=positive, nargs="+", default=[2, 3, 4, 5, 6, 8, 10, 14])
    options.add_argument(
        "--samplers", nargs="+", default=["spectral", "dpmpp_2m"], choices=STAGE1_SAMPLERS,
        help="the reference's first",
    )  # fmt: skip
    options.add_argument("--tuned", type=Path, nargs="+", default=[], metavar="FOLDER",
                         help="stages 1 with other tuned steps of the same weights")  # fmt: skip
    return options


@torch.inference_mode()
def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    folder = stage_weights(args.weights, "coarse")
    stage = diffusion_colorizer(coarse_colorizer(folder))
    tunings = tunings_of(stage, args.tuned)
    photos = load_photos(data_folder(args.data), args.set, args.split, args.photos)
    report = Report(args, photos.reduced(64))
    report.use_weights("stage1", folder, stage)
    report.record["sampler"] = report.record["steps"] = "by row"
    report.record["tuned"] = {str(folder): weights_of(folder)["sha256"] for folder in args.tuned}
    stored, asked, noise = stage.config, [0], photos.noise(args.seed)
    stage.network.register_forward_hook(lambda *_: asked.__setitem__(0, asked[0] + 1))
    wanted = [(args.samplers[0], args.reference)]
    wanted += [(name, count) for name in args.samplers for count in args.evaluations]
    # Those of two evaluations per step can not do every number; each row comes once.
    wanted = list(dict.fromkeys((name, (count + 1) // 2 if name == "heun" else count) for name, count in wanted))
    reference = ""  # the first row's name
    rows = [(*row, False) for row in wanted] + [("spectral", steps, True) for steps in sorted(tunings)]
    for sampler, steps, tuned in rows:
        stage.config = dataclasses.replace(stored, sampler=sampler, tuned=steps if tuned else 0)
        stage.tuned = tunings.get(steps)
        pictures: list[Tensor] = []
        seconds, asked[0] = 0.0, 0
        for part in tqdm(batches(len(photos), BATCH), desc=f"{sampler}, {steps} steps", unit="batch"):
            view, generators = view_of(photos, part), streams(noise[part.start : part.stop], 1)
            start = time.perf_counter()
            draws = stage.sample(stage.encode(view), 1, SampleOptions(steps=steps), generators)
            seconds += time.perf_counter() - start
            pictures.append(picture_from_rgb(merge(view.gray64, draws.chroma[:, 0])))
        evaluations = asked[0] / len(pictures)
        name = f"{sampler}, {evaluations:g} evaluations" + (", tuned" if tuned else "")
        report.add(name, torch.cat(pictures), sheet=name)
        row = report.rows[-1]
        row |= {"sampler": sampler, "tuned": tuned, "evaluations": evaluations}
        row["seconds_per_draw"] = seconds / len(photos)
        if not reference:
            reference = name
            report.note(f"{name}: {row['seconds_per_draw']:.3f} s per draw")
            continue
        more = report.compare(row, "reference", reference)
        report.note(f"{name}: {row['seconds_per_draw']:.3f} s per draw, squeezenet_kid {more.value:+.1f} "
                    f"[{more.low:+.1f}, {more.high:+.1f}] against the reference")  # fmt: skip
    return report.finish()


def tunings_of(stage: DiffusionColorizer, folders: list[Path]) -> dict[int, FewSteps]:
    """By number of steps, those that the stage holds and those of `folders`; raises EvaluationError for others."""
    tunings = {} if stage.tuned is None else {stage.config.tuned: stage.tuned}
    for folder in folders:
        other = diffusion_colorizer(coarse_colorizer(stage_weights(folder, "coarse")))
        if other.tuned is None or other.config.tuned in tunings:
            raise EvaluationError(
                f"{folder} holds no tuned steps (train_scripts/tune_steps.py), or as many as another; known so far: "
                f"{sorted(tunings)}"
            )
        if not same_but_tuned(stage, other):
            raise EvaluationError(f"{folder} holds tuned steps of other weights than those of stage 1")
        tunings[other.config.tuned] = other.tuned
    return tunings


def main(argv: list[str] | None = None) -> int:
    return run(evaluate, parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
