"""Score stage 3 alone: is it better than enlarging the chroma?

    python train_scripts/evaluate_stage3.py --weights runs/stage3/final

Three ways from 64 to 256, each with the same rgb64: bicubic enlargement of its chroma, enlargement guided by
the luma (`enlarge_chroma`), stage 3. First with the true rgb64 (the photograph reduced by area), then, where weights of
stages 1 and 2 are there, with the sampled one of the pipeline's default output (the most central of stage 1's pool
through stage 2). The luma is the true one in every row. With `--more-steps` stage 3 stands there again in these
numbers of steps, each with the paired difference of `squeezenet_kid` to the largest of them; with `--sharpness` all
these stand there sharpened too, as the pipeline does it. Where the stage knows likelihoods, the mean is noted: bits per
dimension of the originals given their gray and themselves at 64x64.

Photographs of photos128 are enlarged to 256x256 for the stages, as in the pipeline, and scored at their own size.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from pipeline.full_resolution import sharpened
from stages.color.guided_filter import enlarge_chroma
from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, gray_from_rgb, merge
from stages.evaluation.coarse import central, streams, view_of
from stages.evaluation.command import add_steps, arguments, batches, positive, run
from stages.evaluation.photos import load_photos
from stages.evaluation.pixel import picture_from_rgb
from stages.evaluation.report import Report
from stages.evaluation.tables import PREVIEW
from stages.faces import CoarseColorizer, ColorUpsampler, HasLikelihood
from stages.options import MAX_SHARPNESS, SampleOptions
from stages.photographs import data_folder
from train_scripts.weights import (
    coarse_colorizer,
    color_upsampler,
    optional_weights,
    stage_weights,
    super_resolver,
)

BATCH = 8
SIDE = 256


def parser() -> argparse.ArgumentParser:
    options = arguments(
        "stage3", "Score stage 3.", "photos256", "scored at their own size", sets=("photos128", "photos256")
    )
    add_steps(options, "stage 3")
    options.add_argument("--weights", type=Path, metavar="FOLDER", help="stage 3 (default: the packaged one)")
    for name in ("stage1", "stage2"):
        options.add_argument(
            f"--{name}", type=Path, metavar="FOLDER", help=f"{name}, for a sampled rgb64 (default: the packaged one)"
        )
    options.add_argument(
        "--more-steps", type=positive, nargs="+", default=[], metavar="N", help="rows of stage 3 in N steps"
    )
    options.add_argument(
        "--sharpness", type=float, default=0.0, help=f"rows of stage 3 sharpened by this, up to {MAX_SHARPNESS:g}"
    )
    return options


@torch.inference_mode()
def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    SampleOptions(sharpness=args.sharpness)  # raises where it is out of range
    folder = stage_weights(args.weights, "superres")
    coarse_folder = optional_weights(args.stage1, "coarse")
    color_folder = optional_weights(args.stage2, "color")
    superres = super_resolver(folder)
    ways = {"stage 3": SampleOptions(superres_steps=args.steps)}
    in_steps = {f"stage 3 in {steps} steps": SampleOptions(superres_steps=steps) for steps in sorted(args.more_steps)}
    for options in (ways | in_steps).values():
        superres.check_honored(options, SampleOptions.SUPERRES)
    photos = load_photos(data_folder(args.data), args.set, args.split, args.photos)
    report = Report(args, photos)
    coarse: CoarseColorizer[Any] | None = None
    color: ColorUpsampler | None = None
    if coarse_folder:
        coarse = coarse_colorizer(coarse_folder)
        report.use_weights("stage1", coarse_folder, coarse)
    else:
        report.note("no stage-1 weights (--stage1): the row of the one-pass preview is missing")
    if color_folder:
        color = color_upsampler(color_folder)
        report.use_weights("stage2", color_folder, color)
    report.use_weights("stage3", folder, superres, args.steps)
    if coarse is None or color is None:
        report.note("no weights of stages 1 and 2 (--stage1, --stage2): no rows with a sampled rgb64")

    noise = photos.noise(args.seed)
    finishes = {"": 0.0, **({", sharpened": args.sharpness} if args.sharpness else {})}
    pictures: dict[str, list[Tensor]] = {}
    bits: list[Tensor] = []
    for part in tqdm(batches(len(photos), BATCH), desc="stage 3", unit="batch"):
        rgb, sources = photos.rgb(part), noise[part.start : part.stop]
        gray, view = gray_from_rgb(rgb), view_of(photos, part)
        gray64, gray256 = view.gray64, resize(gray, (SIDE, SIDE))
        if isinstance(superres, HasLikelihood) and rgb.shape[-1] == SIDE:
            bits.append(superres.bits(rgb))
        # By name: rgb64 and the candidate that it is, whose noise stage 3 gets.
        inputs = {"true": (resize(rgb, (64, 64)), torch.zeros(len(part), dtype=torch.int64))}
        rows: dict[str, Tensor] = {}  # rgb256
        if coarse is not None:
            encoding = coarse.encode(view)
            preview = chroma_from_rgb(coarse.preview(encoding))
            rows[PREVIEW] = merge(gray256, enlarge_chroma(preview, gray64, gray256))
            if color is not None:
                coarse64 = coarse.sample(encoding, coarse.pool, generator=streams(sources, coarse.pool)).coarse64
                first = central(gray64, coarse64, coarse.pool)
                inputs["sampled"] = color.upsample(gray64, coarse64[torch.arange(len(part)), first]), first
        for name, (rgb64, candidates) in inputs.items():
            chroma = chroma_from_rgb(rgb64)
            rows[f"bicubic, {name} rgb64"] = merge(gray256, resize(chroma, (SIDE, SIDE)))
            rows[f"luma-guided, {name} rgb64"] = merge(gray256, enlarge_chroma(chroma, gray64, gray256))
            for way, options in (ways | in_steps).items():
                generators = [one.generator(int(k), "stage3") for one, k in zip(sources, candidates, strict=True)]
                rgb256 = superres.sample(gray256, rgb64, options, generators)
                for form, sharpness in finishes.items():
                    rows[f"{way}{form}, {name} rgb64"] = sharpened(gray256, rgb256, sharpness)
        for name, rgb256 in rows.items():
            at_size = merge(gray, resize(chroma_from_rgb(rgb256), (gray.shape[-2], gray.shape[-1])))
            pictures.setdefault(name, []).append(picture_from_rgb(rgb256 if gray.shape[-1] == SIDE else at_size))

    for name, parts in pictures.items():
        report.add(name, torch.cat(parts), sheet=name.removesuffix(" rgb64"))
    for row in [row for row in report.rows if in_steps and row["name"].startswith("stage 3")]:
        for form in finishes:
            most = f"{list(in_steps)[-1]}{form}, {row['name'].rpartition(', ')[2]}"
            more = report.compare(row, f"most_steps{form.replace(', ', '_')}", most)
            report.note(f"{row['name']}: squeezenet_kid {more.value:+.2f} [{more.low:+.2f}, {more.high:+.2f}] against "
                        f"{most}")  # fmt: skip
    if isinstance(superres, HasLikelihood) and not bits:
        report.note(f"no bits per dimension: they are of photographs at {SIDE}x{SIDE}")
    report.add_bits(bits, "dimension", "; knowing nothing costs 8")
    return report.finish()


def main(argv: list[str] | None = None) -> int:
    return run(evaluate, parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
