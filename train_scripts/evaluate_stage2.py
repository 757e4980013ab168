"""Score stage 2 alone at 64x64: does it turn 3-bit colors into good ones, also when they are a little wrong?

    python train_scripts/evaluate_stage2.py --weights runs/stage2/final

Stage 2 gets the coarse colors of the true picture, and the same after its chroma was disturbed (`disturbed`),
as a sampler's would be. Each row of stage 2 stands beside the bin centers of its own input merged with the
gray: what one would have without it. Where the stage knows likelihoods, the mean is noted: bits per dimension of the
originals given their gray and 3-bit colors. Photographs of another --set are reduced to 64x64.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor
from tqdm import tqdm

from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, coarse_from_rgb, gray_from_rgb, merge
from stages.diffusion.noise import draw_noise
from stages.evaluation.coarse import bin_centers, streams, view_of
from stages.evaluation.command import arguments, batches, run
from stages.evaluation.photos import load_photos
from stages.evaluation.pixel import picture_from_rgb
from stages.evaluation.report import Report
from stages.evaluation.tables import PREVIEW
from stages.faces import CoarseColorizer, HasLikelihood
from stages.photographs import data_folder
from train_scripts.weights import coarse_colorizer, color_upsampler, optional_weights, stage_weights

BATCH = 32
GRID, GRID_STD, PIXEL_STD = 4, 0.04, 0.02  # the disturbance: of a 4x4 grid and of pixels, standard deviations


def parser() -> argparse.ArgumentParser:
    options = arguments("stage2", "Score stage 2 at 64x64.", "photos64", "reduced to 64x64")
    options.add_argument("--weights", type=Path, metavar="FOLDER", help="stage 2 (default: the packaged one)")
    options.add_argument(
        "--stage1", type=Path, metavar="FOLDER", help="stage 1, for the preview row (default: the packaged one)"
    )
    return options


def disturbed(chroma: Tensor, generators: Sequence[Generator]) -> Tensor:
    """Chroma with smooth errors of hue and grain: (B, 2, H, W), one generator per picture -> (B, 2, H, W).

    Gaussian noise on a 4x4 grid, enlarged, of standard deviation 0.04, and 0.02 per pixel (chroma spans 1).
    """
    grid = draw_noise((len(chroma), 2, GRID, GRID), generators)
    pixels = draw_noise(chroma.shape, generators)
    return chroma + GRID_STD * resize(grid, (chroma.shape[-2], chroma.shape[-1])) + PIXEL_STD * pixels


@torch.inference_mode()
def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    folder = stage_weights(args.weights, "color")
    coarse_folder = optional_weights(args.stage1, "coarse")
    photos = load_photos(data_folder(args.data), args.set, args.split, args.photos)
    reduced = photos.reduced(64)
    report = Report(args, reduced)
    color = color_upsampler(folder)
    report.use_weights("stage2", folder, color)
    coarse: CoarseColorizer[Any] | None = None
    if coarse_folder:
        coarse = coarse_colorizer(coarse_folder)
        report.use_weights("stage1", coarse_folder, coarse)
    else:
        report.note("no stage-1 weights (--stage1): the row of the one-pass preview is missing")

    noise = photos.noise(args.seed)
    pictures: dict[str, list[Tensor]] = {}
    bits: list[Tensor] = []
    for part in tqdm(batches(len(photos), BATCH), desc="stage 2", unit="batch"):
        rgb64 = reduced.rgb(part)
        gray64, chroma = gray_from_rgb(rgb64), chroma_from_rgb(rgb64)
        if isinstance(color, HasLikelihood):
            bits.append(color.bits(rgb64))
        wrong = merge(gray64, disturbed(chroma, streams(noise[part.start : part.stop], 1, "disturbance")))
        rows = {} if coarse is None else {PREVIEW: coarse.preview(coarse.encode(view_of(photos, part)))}
        for name, rgb in (("true coarse", rgb64), ("disturbed coarse", wrong)):
            coarse64 = coarse_from_rgb(rgb)
            rows[f"bin centers, {name}"] = bin_centers(gray64, coarse64[:, None])[:, 0]
            rows[f"stage 2, {name}"] = color.upsample(gray64, coarse64)
        for name, rgb in rows.items():
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
    report.record["disturbance"] = {"grid": GRID, "grid_std": GRID_STD, "pixel_std": PIXEL_STD}
    return report.finish()


def main(argv: list[str] | None = None) -> int:
    return run(evaluate, parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
