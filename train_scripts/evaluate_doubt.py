"""Does the map of doubt know where the colors are wrong? Rank correlations with the errors of the mean sample.

    python train_scripts/evaluate_doubt.py

The error of a pixel is CIEDE2000 between the original and the mean of `--samples` plain samples of the pipeline (mean
chroma, the photograph's luma), at the photograph's size. Rows: the pipeline's map; how far the samples lie apart there
(root mean square distance in a and b from their mean); and what needs no model of doubt: saturation of the mean
sample and of the one-pass preview, contrast of the gray (standard deviation in 9x9 pixels), gray itself. Spearman's
correlation over the pixels of all photographs, and the mean over photographs of that within each, with its standard
error.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from stages import color
from stages.data import data_folder
from stages.metrics import spearman
from train_scripts import evaluation
from train_scripts.evaluate_pipeline import load_pipeline

WINDOW = 9


def parser() -> argparse.ArgumentParser:
    options = evaluation.arguments("doubt", "Rank correlations of the map of doubt with errors.")
    options.add_argument("--weights", type=Path, metavar="FOLDER", help="pipeline folder (default: the packaged one)")
    options.add_argument("--set", default="photos256", help="photographs in --data (default: %(default)s)")
    options.add_argument("--samples", type=evaluation.several, default=8, metavar="K", help="of the mean sample")
    return options


def contrast(gray: Tensor) -> Tensor:
    """Standard deviation of gray (1, H, W) in a window around each pixel: (H, W)."""
    mean, square = (F.avg_pool2d(x[None], WINDOW, 1, WINDOW // 2, count_include_pad=False)[0] for x in (gray, gray**2))
    return (square - mean**2).clamp_min(0).sqrt()[0]


def maps_of(pipe: Any, rgb: Tensor, seed: int, args: argparse.Namespace) -> tuple[Tensor, dict[str, Tensor]]:
    """The errors of one photograph's mean sample (H, W), and every map that might rank them."""
    gray = color.gray_from_rgb(rgb)
    settings: dict[str, Any] = {"generator": seed, "output_type": "pt"}
    steps = {} if args.steps is None else {"num_inference_steps": args.steps}
    drawn = pipe(gray, num_samples=args.samples, pool=1, doubt=True, **settings, **steps)
    samples = torch.stack(drawn.images)
    (preview,) = pipe(gray, preview=True, **settings).images
    mean = color.merge(gray, color.chroma_from_rgb(samples).mean(0))
    error = color.ciede2000(color.lab_from_rgb(mean), color.lab_from_rgb(rgb))
    ab = color.lab_from_rgb(samples)[:, 1:]
    return error, {
        "map of doubt": drawn.doubt[0],
        f"spread of {args.samples} samples": (ab - ab.mean(0)).square().sum(1).mean(0).sqrt(),
        "saturation of the mean sample": color.lab_from_rgb(mean)[1:].square().sum(0).sqrt(),
        "saturation of the preview": color.lab_from_rgb(preview)[1:].square().sum(0).sqrt(),
        "contrast of gray": contrast(gray),
        "gray": gray[0],
    }


@torch.inference_mode()
def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    photos = evaluation.load_photos(data_folder(args.data), args.set, args.split, args.photos)
    if len(photos) < 2:
        raise evaluation.EvaluationError("at least two photographs are needed")
    account = evaluation.Account(args, photos)
    pipe = load_pipeline(args, account)
    errors: list[Tensor] = []
    maps: dict[str, list[Tensor]] = {}
    for i in tqdm(range(len(photos)), desc="photographs"):
        error, found = maps_of(pipe, photos.rgb(slice(i, i + 1))[0], args.seed + i, args)
        errors.append(error)
        for name, one in found.items():
            maps.setdefault(name, []).append(one)
    for name, ones in maps.items():
        within = torch.tensor([spearman(one, error) for one, error in zip(ones, errors, strict=True)])
        account.rows.append({
            "name": name, "spearman": spearman(torch.stack(ones), torch.stack(errors)),
            "spearman_within": float(within.mean()), "standard_error": float(within.std() / len(within) ** 0.5),
        })  # fmt: skip
        print("| {name} | {spearman:.3f} | {spearman_within:.3f} +- {standard_error:.3f} |".format(**account.rows[-1]))
    account.record["samples"] = args.samples
    results = account.write()
    print(f"written: {args.out / 'results.json'}")
    return results


def main(argv: list[str] | None = None) -> int:
    return evaluation.run(evaluate, parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
