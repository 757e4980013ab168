"""Does the uncertainty map know where the colors are wrong? Rank correlations with errors.

    python train_scripts/evaluate_uncertainty.py

The error of a pixel is CIEDE2000 between the original and, once, the mean of `--samples` plain samples of the pipeline
(mean chroma, the photograph's luma), and again the default output, at the photograph's size. Rows for each: the
pipeline's uncertainty map of that picture; and what needs no model: its saturation, that of the one-pass preview,
contrast of the gray (standard deviation in 9x9 pixels), gray itself; for the mean also how far the samples lie apart
(root mean square distance in a and b from their mean). Spearman's correlation over the pixels of all photographs, and
the mean over photographs of that within each, with its standard error.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from pipeline import ColorPipeline
from pipeline.cascade import CANDIDATES, UNCERTAINTY_DRAWS, uncertainty_map
from pipeline.full_resolution import full_size_uncertainty
from pipeline.images import Photo
from pipeline.sources import photo_from
from stages.color.difference import ciede2000
from stages.color.spaces import chroma_from_rgb, lab_from_rgb, merge
from stages.evaluation.command import add_steps, arguments, run, several
from stages.evaluation.photos import EvaluationError, load_photos
from stages.evaluation.report import Account
from stages.evaluation.statistics import spearman
from stages.faces import Draws, GrayView
from stages.options import SampleOptions
from stages.photographs import data_folder
from stages.seeds import NoiseSource
from train_scripts.weights import loaded_pipeline

WINDOW = 9


def parser() -> argparse.ArgumentParser:
    options = arguments(
        "uncertainty", "Rank correlations of the uncertainty map with errors.", "photos256", "at their size"
    )
    add_steps(options, "stage 1")
    options.add_argument("--weights", type=Path, metavar="FOLDER", help="pipeline folder (default: the packaged one)")
    options.add_argument("--samples", type=several, default=8, metavar="K", help="of the mean sample")
    return options


def contrast(gray: Tensor) -> Tensor:
    """Standard deviation of gray (1, H, W) in a window around each pixel: (H, W)."""
    mean, square = (F.avg_pool2d(x[None], WINDOW, 1, WINDOW // 2, count_include_pad=False)[0] for x in (gray, gray**2))
    return (square - mean**2).clamp_min(0).sqrt()[0]


def uncertainty_draws(pipe: ColorPipeline, photo: Photo, noise: NoiseSource, steps: int | None) -> Tensor:
    """The draws of the pipeline's own uncertainty map: chroma (UNCERTAINTY_DRAWS, 2, 64, 64)."""
    encoding = pipe.coarse.encode(GrayView.of(torch.from_numpy(photo.gray)[None, None]))
    options, draws = SampleOptions(steps=steps, temperature=1.0), []
    for first in range(0, UNCERTAINTY_DRAWS, CANDIDATES):
        streams = [noise.generator(candidate, "uncertainty") for candidate in range(first, first + CANDIDATES)]
        draws.append(pipe.coarse.sample(encoding, CANDIDATES, options, streams))
    return Draws.cat(draws).chroma[0]


def maps_of(
    pipe: ColorPipeline, rgb: Tensor, photo: Photo, noise: NoiseSource, args: argparse.Namespace
) -> dict[str, tuple[Tensor, dict[str, Tensor]]]:
    """Of one photograph, for each of the two pictures judged: its errors (H, W), and every map that might rank them.

    rgb: (3, H, W), the original; photo: its luma in 8 bits, and where its noise comes from
    """
    gray, seed, steps = torch.from_numpy(photo.gray)[None], noise.seed, args.steps
    samples = torch.stack(pipe(photo, args.samples, steps, seed, pool=1, output_type="pt").images)
    (default,) = pipe(photo, 1, steps, seed, output_type="pt").images
    (preview,) = pipe(photo, preview=True, output_type="pt").images
    mean = merge(gray, chroma_from_rgb(samples).mean(0))
    draws = uncertainty_draws(pipe, photo, noise, steps)
    of_mean, of_default = (
        torch.from_numpy(full_size_uncertainty(one, photo.gray.shape))
        for one in uncertainty_map(photo, draws, torch.stack([mean, default]))
    )
    ab = lab_from_rgb(samples)[:, 1:]
    apart = {f"standard deviation of {args.samples} samples": (ab - ab.mean(0)).square().sum(1).mean(0).sqrt()}
    common = {"saturation of the preview": saturation(preview), "contrast of gray": contrast(gray), "gray": gray[0]}
    judged = {}
    for name, picture, maps in (
        ("mean sample", mean, {"uncertainty map": of_mean, **apart}),
        ("default output", default, {"uncertainty map": of_default}),
    ):
        error = ciede2000(lab_from_rgb(picture), lab_from_rgb(rgb))
        judged[name] = error, {**maps, "saturation": saturation(picture), **common}
    return judged


def saturation(rgb: Tensor) -> Tensor:
    """Distance from gray in Lab: (3, H, W) -> (H, W)."""
    return lab_from_rgb(rgb)[1:].square().sum(0).sqrt()


@torch.inference_mode()
def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    photos = load_photos(data_folder(args.data), args.set, args.split, args.photos)
    if len(photos) < 2:
        raise EvaluationError("at least two photographs are needed")
    account = Account(args, photos)
    pipe = loaded_pipeline(args, account)
    errors: dict[str, list[Tensor]] = {}
    maps: dict[tuple[str, str], list[Tensor]] = {}
    sources = zip(photos.rgb(), photos.gray(), photos.noise(args.seed), strict=True)
    for rgb, gray, noise in tqdm(sources, total=len(photos), desc="photographs"):
        for judged, (error, of_photo) in maps_of(pipe, rgb, photo_from(gray[0].numpy()), noise, args).items():
            errors.setdefault(judged, []).append(error)
            for name, one in of_photo.items():
                maps.setdefault((judged, name), []).append(one)
    for (judged, name), ones in maps.items():
        within = torch.tensor([spearman(one, error) for one, error in zip(ones, errors[judged], strict=True)])
        account.rows.append({
            "errors_of": judged, "name": name, "spearman": spearman(torch.stack(ones), torch.stack(errors[judged])),
            "spearman_within": float(within.mean()), "standard_error": float(within.std() / len(within) ** 0.5),
        })  # fmt: skip
        print("| {errors_of} | {name} | {spearman:.3f} | {spearman_within:.3f} +- {standard_error:.3f} |".format(
            **account.rows[-1]))  # fmt: skip
    account.record["samples"] = args.samples
    results = account.write()
    print(f"written: {args.out / 'results.json'}")
    return results


def main(argv: list[str] | None = None) -> int:
    return run(evaluate, parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
