"""Does a critic choose better than the medoid? The first picture of a pool, by either, on the same draws.

    python train_scripts/evaluate_critic.py --weights runs/critic/final --photos 500

Rows: one plain sample; for each pool of --pools its medoid (`spread_order`) and the draw with the highest score of the
critic; the draw with the lowest score of the largest pool, which a critic that knows something makes worse. Pictures
are coarse colors (3 bit) at 64x64 with the photograph's luma. Paired differences of `squeezenet_kid` to the medoid are
noted with their 95 % intervals, and those of CIEDE2000 and `squeezenet_distance` by the normal distribution.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from stages.evaluation.coarse import BATCH, bin_centers, central, streams, view_of
from stages.evaluation.command import add_steps, arguments, batches, run, several
from stages.evaluation.photos import load_photos
from stages.evaluation.pixel import picture_from_rgb
from stages.evaluation.report import Report
from stages.faces import Scores
from stages.options import OptionError, SampleOptions
from stages.photographs import data_folder
from stages.precision import checked_finite
from stages.registry import load_stage
from train_scripts.weights import coarse_colorizer, stage_weights

PLAIN, COMPARED = "one plain sample", ("ciede2000", "squeezenet_distance")


def parser() -> argparse.ArgumentParser:
    options = arguments("critic", "Compare a critic's choice with the medoid.", "photos128", "scored at 64x64")
    add_steps(options, "stage 1")
    judge = "what scores: a critic, or a coarse colorizer that can"
    options.add_argument("--weights", type=Path, required=True, metavar="FOLDER", help=judge)
    options.add_argument("--stage1", type=Path, metavar="FOLDER", help="what draws (default: the packaged one)")
    options.add_argument("--pools", type=several, nargs="+", default=[8, 24], metavar="N", help="default: 8 24")
    return options


@torch.inference_mode()
def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    critic = load_stage(args.weights)
    if not isinstance(critic, Scores):
        what = f"kind {critic.kind!r} of the family {critic.family}"
        raise OptionError(f"{args.weights} holds {what}, which can not score draws")
    folder = stage_weights(args.stage1, "coarse")
    stage, options = coarse_colorizer(folder), SampleOptions(steps=args.steps)
    stage.check_honored(options, SampleOptions.COARSE)
    photos = load_photos(data_folder(args.data), args.set, args.split, args.photos)
    report = Report(args, photos.reduced(64))
    report.use_weights("stage1", folder, stage, args.steps)
    report.use_weights("critic", args.weights, critic)
    pools = sorted(set(args.pools))
    noise, count = photos.noise(args.seed), pools[-1]
    chosen: dict[str, list[Tensor]] = {}
    for part in tqdm(batches(len(photos), BATCH), desc="stage 1", unit="batch"):
        encoding = stage.encode(view_of(photos, part))
        gray64 = encoding.gray64
        coarse64 = stage.sample(encoding, count, options, streams(noise[part.start : part.stop], count)).coarse64
        scores = torch.stack([critic.score(gray64, one) for one in coarse64.unbind(1)], dim=1)
        checked_finite(scores, f"the scores of {args.weights}")
        rows = torch.arange(len(part))
        which = {PLAIN: torch.zeros(len(part), dtype=torch.int64)}
        for pool in pools:
            which[f"medoid of {pool}"] = central(gray64, coarse64, pool)
            which[f"critic's best of {pool}"] = scores[:, :pool].argmax(1)
        which[f"critic's worst of {count}"] = scores.argmin(1)
        for name, number in which.items():
            picture = picture_from_rgb(bin_centers(gray64, coarse64[rows, number][:, None]))[:, 0]
            chosen.setdefault(name, []).append(picture)
    for name, parts in chosen.items():
        report.add(name, torch.cat(parts), sheet=name)
    for pool in pools:
        compare(report, f"critic's best of {pool}", f"medoid of {pool}")
    return report.finish()


def compare(report: Report, name: str, other: str) -> None:
    """The paired differences of two rows, noted and kept in the first."""
    (row,) = (row for row in report.rows if row["name"] == name)
    if report.scores[name].kid is not None:
        kid = report.compare(row, "medoid", other)
        report.note(f"{name}: squeezenet_kid {kid.value:+.1f} [{kid.low:+.1f}, {kid.high:+.1f}] against {other}")
    for key in COMPARED:
        ours, theirs = (getattr(report.scores[one], key) for one in (name, other))
        if ours is None:  # without a feature network
            continue
        apart = ours - theirs
        mean, half = float(apart.mean()), 1.96 * float(apart.std()) / len(apart) ** 0.5
        row[f"{key}_minus_medoid"] = {"value": mean, "interval_95": [mean - half, mean + half]}
        report.note(f"{name}: {key} {mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}] against {other}")


def main(argv: list[str] | None = None) -> int:
    return run(evaluate, parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
