"""Does another picture in color help? Learned matches of places against a low pass of its chroma.

    python train_scripts/evaluate_reference.py --photos 100

Each photograph is colored at 64x64, by the preview, with three kinds of references:

- copy: the photograph itself, mirrored, cut at other borders and relit (gamma 1.25, every other one 0.8);
- neighbor: the photograph of the same list whose encoder features are nearest (cosine of their means);
- other: a photograph half the list away, which has nothing to do with it.

Rows: without a reference; `matched`, what the call does with `reference=`; and ILVR's idea (arXiv 2108.02938), the low
pass of the reference's chroma in place of the preview's, by means of N x N pixels, enlarged bilinearly. Each has its
CIEDE2000 and the paired difference from the preview without a reference, with its 95 % interval. References that the
call refuses, because they are gray or of one tint, are left out with their pairs, which a note counts.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from pipeline import ColorPipeline
from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, gray_from_rgb, merge
from stages.color.tint import has_one_tint
from stages.evaluation.command import arguments, run
from stages.evaluation.photos import EvaluationError, Photos, load_photos
from stages.evaluation.pixel import ciede2000, picture_from_rgb
from stages.evaluation.report import Account
from stages.evaluation.statistics import paired_difference
from stages.faces import GrayView
from stages.photographs import data_folder
from train_scripts.weights import loaded_pipeline

SIDE, SCORED = 256, 64
LOW_PASSES = (8, 16, 64)  # pixels of 64x64 to a side
CUT = (24, 8, 224)  # top, left and side of what a copy keeps
GAMMAS = (1.25, 0.8)


def parser() -> argparse.ArgumentParser:
    options = arguments(
        "reference", "References: matches of places against a low pass.", "photos256", "scored at 64x64", ("photos256",)
    )
    options.add_argument("--weights", type=Path, metavar="FOLDER", help="pipeline folder (default: the packaged one)")
    return options


def copy_of(rgb: Tensor, gamma: float) -> Tensor:
    """Mirrored, cut at other borders and relit, in 8 bits: (3, 256, 256) -> uint8 (3, 224, 224)."""
    top, left, side = CUT
    return picture_from_rgb(rgb[:, top : top + side, left : left + side].flip(-1) ** gamma)


def low_passed(chroma: Tensor, size: int) -> Tensor:
    """Means of size x size pixels, enlarged again: (1, 2, 64, 64) -> the same shape."""
    return F.interpolate(F.avg_pool2d(chroma, size), (SCORED, SCORED), mode="bilinear", align_corners=False)


def neighbors(pipe: ColorPipeline, photos: Photos) -> list[int]:
    """Of each photograph the other one that its encoder finds most like it."""
    means = []
    for gray in tqdm(photos.gray(), desc="features"):
        features = pipe.coarse.features(pipe.coarse.encode(GrayView.of(gray[None].float() / 255)))
        if features is None:
            raise EvaluationError(f"stage 1 of kind {pipe.coarse.kind!r} has no features to compare pictures by")
        means.append(features.float().mean((2, 3)))
    one = torch.cat(means)
    one = F.normalize(one - one.mean(0), dim=1)
    return (one @ one.T).fill_diagonal_(-torch.inf).argmax(1).tolist()


def references(pipe: ColorPipeline, photos: Photos) -> Iterator[tuple[str, list[Tensor]]]:
    """Kinds of references, and one of each photograph: uint8 (3, h, w)."""
    yield "copy", [copy_of(photos.rgb(slice(i, i + 1))[0], GAMMAS[i % 2]) for i in range(len(photos))]
    yield "neighbor", [photos.pictures[i] for i in neighbors(pipe, photos)]
    yield "other", [photos.pictures[(i + len(photos) // 2) % len(photos)] for i in range(len(photos))]


def colored(pipe: ColorPipeline, gray: Tensor, reference: Tensor) -> dict[str, Tensor]:
    """Pictures of one photograph by each system: uint8 gray (1, 256, 256), reference (3, h, w) -> (1, 3, 64, 64)."""
    levels, other = gray[0].numpy(), reference.permute(1, 2, 0).numpy()

    def small(**options: Any) -> Tensor:  # Any: of the call
        (picture,) = pipe(levels, preview=True, output_type="pt", **options).images
        return resize(picture[None], (SCORED, SCORED))

    plain = small()
    chroma = chroma_from_rgb(plain)
    theirs = resize(chroma_from_rgb(reference[None].float() / 255), (SCORED, SCORED))
    systems = {"no reference": plain, "matched": small(reference=other)}
    for size in LOW_PASSES:
        projected = chroma + low_passed(theirs, size) - low_passed(chroma, size)
        systems[f"low pass of {size}x{size}"] = merge(gray_from_rgb(plain), projected)
    return systems


@torch.inference_mode()
def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    photos = load_photos(data_folder(args.data), args.set, args.split, args.photos)
    account = Account(args, photos)
    pipe = loaded_pipeline(argparse.Namespace(**vars(args), steps=None), account)
    originals = photos.reduced(SCORED).pictures
    print("| reference | system | CIEDE2000 | minus no reference [95 %] |\n|---|---|---|---|")
    for kind, others in references(pipe, photos):
        differences: dict[str, list[Tensor]] = {}
        pairs = [i for i, other in enumerate(others) if not has_one_tint(other.float() / 255)]
        if len(pairs) < len(others):
            account.note(f"{kind}: {len(others) - len(pairs)} pairs left out, whose reference is gray or of one tint")
        for i in tqdm(pairs, desc=kind):
            for name, rgb in colored(pipe, photos.gray()[i], others[i]).items():
                differences.setdefault(name, []).append(ciede2000(picture_from_rgb(rgb), originals[i : i + 1]))
        scores = {name: torch.cat(values) for name, values in differences.items()}
        for name, values in scores.items():
            apart = paired_difference(values, scores["no reference"])
            row = {"reference": kind, "name": name, "pairs": len(pairs), "ciede2000": float(values.mean()),
                   "minus_no_reference": apart}  # fmt: skip
            account.rows.append(row)
            low, high = apart["interval_95"]
            print(f"| {kind} | {name} | {row['ciede2000']:.2f} | {apart['value']:+.2f} [{low:+.2f}, {high:+.2f}] |")
    results = account.write()
    print(f"written: {args.out / 'results.json'}")
    return results


def main(argv: list[str] | None = None) -> int:
    return run(evaluate, parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
