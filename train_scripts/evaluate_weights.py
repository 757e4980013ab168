"""Are these weights better than those? Two pipelines on the same photographs.

    git worktree add ../before REVISION
    python train_scripts/evaluate_weights.py --against ../before/pipeline/weights --set photos128

Rows of both: the preview, scored at 64x64, and the default output, at the photographs' size. Each row of these weights
has the ratio of its CIEDE2000 to that of the others, with its 95 % interval (paired bootstrap over photographs), and
for the default output also the difference in `squeezenet_kid` (the same halves and draws of photographs).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from pipeline import ColorPipeline
from stages.color.resample import resize
from stages.evaluation.command import add_steps, arguments, batches, run
from stages.evaluation.photos import load_photos
from stages.evaluation.pixel import ciede2000, picture_from_rgb
from stages.evaluation.report import Report
from stages.evaluation.statistics import paired_ratio
from stages.photographs import data_folder
from train_scripts.evaluate_pipeline import colorized, firsts
from train_scripts.weights import loaded_pipeline

SIDE = 64  # of the scored preview
BATCH = 8


def parser() -> argparse.ArgumentParser:
    options = arguments(
        "weights", "Compare two pipelines on the same photographs.", "photos256", "scored at their size"
    )
    add_steps(options, "stage 1 of both")
    options.add_argument("--weights", type=Path, metavar="FOLDER", help="pipeline folder (default: the packaged one)")
    options.add_argument("--against", type=Path, metavar="FOLDER", required=True, help="pipeline folder of the others")
    return options


def previews(pipe: ColorPipeline, gray: list[Tensor], seed: int) -> Tensor:
    """Of uint8 gray, each (1, H, W): uint8 (N, 3, 64, 64)."""
    parts: list[Tensor] = []
    for part in tqdm(batches(len(gray), BATCH), desc="preview", unit="batch"):
        levels = [gray[i][0].numpy() for i in part]
        images = pipe(levels, generator=seed, preview=True, output_type="pt").images
        parts.append(picture_from_rgb(resize(torch.stack(images), (SIDE, SIDE))))
    return torch.cat(parts)


@torch.inference_mode()
def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    photos = load_photos(data_folder(args.data), args.set, args.split, args.photos)
    gray = photos.gray()
    report = Report(args, photos, gray=gray)
    pipe, other = loaded_pipeline(args, report), ColorPipeline.from_pretrained(args.against)
    report.record["against"] = dict(other.fingerprint())

    small = photos.reduced(SIDE)
    plain = ciede2000(small.plain_gray(), small.pictures)
    mine, theirs = (ciede2000(previews(one, gray, args.seed), small.pictures) for one in (pipe, other))
    report.rows.append({
        "name": f"preview, at {SIDE}x{SIDE}", "photos": len(photos), "ciede2000": float(mine.mean()),
        "ciede2000_of_the_others": float(theirs.mean()), "ratio": paired_ratio(mine, theirs),
        "relative_to_gray": {"ciede2000": float(mine.mean() / plain.mean())},
    })  # fmt: skip
    told(report, report.rows[-1])

    names = ("default output", "default output of the others")
    for one, name in zip((other, pipe), reversed(names), strict=True):
        pictures = firsts(colorized(one, gray, args.seed, name=name, steps=args.steps))
        report.add(name, pictures, sheet=name)
    row, (mine, theirs) = report.rows[-1], (report.scores[name].ciede2000 for name in names)
    row["ratio"] = paired_ratio(mine, theirs)
    told(report, row)
    if report.scores[names[0]].kid is not None:
        more = report.compare(row, "the_others", names[1])
        report.note(f"{names[0]}: squeezenet_kid {more.value:+.1f} [{more.low:+.1f}, {more.high:+.1f}]")
    return report.finish()


def told(report: Report, row: dict[str, Any]) -> None:
    low, high = row["ratio"]["interval_95"]
    report.note(f"{row['name']}: CIEDE2000 is {row['ratio']['value']:.3f} [{low:.3f}, {high:.3f}] times the others', "
                f"{row['relative_to_gray']['ciede2000']:.3f} times plain gray's")  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    return run(evaluate, parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
