"""Score stage 2 alone on photos64: does it turn 3-bit colors into good ones, also when they are a little
wrong?

    python train_scripts/evaluate_stage2.py --weights runs/stage2/final

Stage 2 gets the coarse colors of the true picture, and the same after its chroma was disturbed (`disturbed`),
as a sampler's would be. Each row of stage 2 stands beside the bin centers of its own input merged with the
gray: what one would have without it. Where the stage knows likelihoods, the mean is noted: bits per dimension of the
originals given their gray and 3-bit colors.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, coarse_from_rgb, gray_from_rgb, merge
from stages.evaluation.command import arguments, batches, generators, optional_weights, run, stage_weights
from stages.evaluation.photos import load_photos
from stages.evaluation.pixel import picture_from_rgb
from stages.evaluation.report import Report
from stages.evaluation.tables import PREVIEW
from stages.photographs import data_folder
from stages.registry import load_stage
from train_scripts.evaluate_stage1 import from_coarse

BATCH = 32
PATCHES, PATCH_SPREAD, PIXEL_SPREAD = (
    4,
    0.04,
    0.02,
)  # the disturbance: 4x4 patches and pixels, standard deviations


def parser() -> argparse.ArgumentParser:
    options = arguments("stage2", "Score stage 2 on photos64.")
    options.add_argument("--weights", type=Path, metavar="FOLDER", help="stage 2 (default: the packaged one)")
    options.add_argument(
        "--stage1",
        type=Path,
        metavar="FOLDER",
        help="stage 1, for the preview row (default: the packaged one)",
    )
    return options


def disturbed(chroma: Tensor, generators: list[torch.Generator]) -> Tensor:
    """Chroma with smooth errors of hue and grain: (B,2,H,W), one generator per picture -> (B,2,H,W).

    Gaussian noise on a 4x4 grid, enlarged, of spread 0.04, plus noise of spread 0.02 per pixel (chroma spans
    1).
    """
    size = (chroma.shape[-2], chroma.shape[-1])
    patches = torch.stack([torch.randn(2, PATCHES, PATCHES, generator=one) for one in generators])
    pixels = torch.stack([torch.randn(2, *size, generator=one) for one in generators])
    return chroma + PATCH_SPREAD * resize(patches, size) + PIXEL_SPREAD * pixels


@torch.inference_mode()
def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    folder = stage_weights(args.weights, 2)
    stage1_folder = optional_weights(args.stage1, 1)
    photos = load_photos(data_folder(args.data), "photos64", args.split, args.photos)
    report = Report(args, photos)
    stage2: Any = load_stage(folder).eval()
    report.use_weights("stage2", folder, stage2)
    stage1: Any = None
    if stage1_folder:
        stage1 = load_stage(stage1_folder).eval()
        report.use_weights("stage1", stage1_folder, stage1)
    else:
        report.note("no stage-1 weights (--stage1): the row of the one-pass preview is missing")

    pictures: dict[str, list[Tensor]] = {}
    bits: list[Tensor] = []
    for part in tqdm(batches(len(photos), BATCH), desc="stage 2", unit="batch"):
        rgb64 = photos.rgb(slice(part.start, part.stop))
        gray64, chroma = gray_from_rgb(rgb64), chroma_from_rgb(rgb64)
        if hasattr(stage2, "bits"):
            bits.append(stage2.bits(rgb64))
        wrong = merge(gray64, disturbed(chroma, generators(args.seed, part, 1, "disturb")))
        made = {} if stage1 is None else {PREVIEW: stage1.preview(gray64)}
        for name, rgb in (("true coarse", rgb64), ("disturbed coarse", wrong)):
            coarse = coarse_from_rgb(rgb)
            made[f"bin centers, {name}"] = from_coarse(gray64, coarse)
            made[f"stage 2, {name}"] = stage2.sample(gray64, coarse)
        for name, rgb in made.items():
            pictures.setdefault(name, []).append(picture_from_rgb(rgb))

    sheet = {
        PREVIEW: "preview",
        "bin centers, true coarse": "bins",
        "stage 2, true coarse": "stage 2",
        "bin centers, disturbed coarse": "bins, disturbed",
        "stage 2, disturbed coarse": "stage 2, dist.",
    }
    for name, parts in pictures.items():
        report.add(name, torch.cat(parts), sheet=sheet[name])
    report.add_bits(bits, "dimension", " given exact 3-bit colors; these alone: 5")
    report.record["disturbance"] = {
        "patches": PATCHES,
        "patch_spread": PATCH_SPREAD,
        "pixel_spread": PIXEL_SPREAD,
    }
    return report.finish()


def main(argv: list[str] | None = None) -> int:
    return run(evaluate, parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
