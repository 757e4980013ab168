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

from pipeline.full_resolution import full_size_uncertainty
from pipeline.sources import photo_from
from stages.color.difference import ciede2000
from stages.color.spaces import chroma_from_rgb, gray_from_rgb, lab_from_rgb, merge
from stages.evaluation.command import arguments, run, several
from stages.evaluation.photos import EvaluationError, load_photos
from stages.evaluation.report import Account
from stages.evaluation.statistics import spearman
from stages.photographs import data_folder
from train_scripts.evaluate_pipeline import load_pipeline

WINDOW = 9


def parser() -> argparse.ArgumentParser:
    options = arguments("uncertainty", "Rank correlations of the uncertainty map with errors.")
    options.add_argument("--weights", type=Path, metavar="FOLDER", help="pipeline folder (default: the packaged one)")
    options.add_argument("--set", default="photos256", help="photographs in --data (default: %(default)s)")
    options.add_argument("--samples", type=several, default=8, metavar="K", help="of the mean sample")
    return options


def contrast(gray: Tensor) -> Tensor:
    """Standard deviation of gray (1, H, W) in a window around each pixel: (H, W)."""
    mean, square = (F.avg_pool2d(x[None], WINDOW, 1, WINDOW // 2, count_include_pad=False)[0] for x in (gray, gray**2))
    return (square - mean**2).clamp_min(0).sqrt()[0]


def maps_of(
    pipe: Any, rgb: Tensor, seed: int, args: argparse.Namespace
) -> dict[str, tuple[Tensor, dict[str, Tensor]]]:
    """Of one photograph, for each of the two pictures judged: its errors (H, W), and every map that might rank them."""
    gray = gray_from_rgb(rgb)
    settings: dict[str, Any] = {"generator": seed, "output_type": "pt", "num_inference_steps": args.steps}
    samples = torch.stack(pipe(gray, num_samples=args.samples, pool=1, **settings).images)
    (default,) = pipe(gray, **settings).images
    (preview,) = pipe(gray, preview=True, **settings).images
    mean = merge(gray, chroma_from_rgb(samples).mean(0))
    (uncertainty,) = pipe.uncertainty_maps([photo_from(gray)], [seed], [torch.stack([mean, default])], args.steps)
    of_mean, of_default = (torch.from_numpy(full_size_uncertainty(one, tuple(gray.shape[1:]))) for one in uncertainty)
    ab = lab_from_rgb(samples)[:, 1:]
    spread = {f"spread of {args.samples} samples": (ab - ab.mean(0)).square().sum(1).mean(0).sqrt()}
    common = {"saturation of the preview": saturation(preview), "contrast of gray": contrast(gray), "gray": gray[0]}
    found = {}
    for name, picture, own in (
        ("mean sample", mean, {"uncertainty map": of_mean, **spread}),
        ("default output", default, {"uncertainty map": of_default}),
    ):
        error = ciede2000(lab_from_rgb(picture), lab_from_rgb(rgb))
        found[name] = error, {**own, "saturation": saturation(picture), **common}
    return found


def saturation(rgb: Tensor) -> Tensor:
    """Distance from gray in Lab: (3, H, W) -> (H, W)."""
    return lab_from_rgb(rgb)[1:].square().sum(0).sqrt()


@torch.inference_mode()
def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    photos = load_photos(data_folder(args.data), args.set, args.split, args.photos)
    if len(photos) < 2:
        raise EvaluationError("at least two photographs are needed")
    account = Account(args, photos)
    pipe = load_pipeline(args, account)
    errors: dict[str, list[Tensor]] = {}
    maps: dict[tuple[str, str], list[Tensor]] = {}
    for i in tqdm(range(len(photos)), desc="photographs"):
        for judged, (error, found) in maps_of(pipe, photos.rgb(slice(i, i + 1))[0], args.seed + i, args).items():
            errors.setdefault(judged, []).append(error)
            for name, one in found.items():
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
