"""Which share of two stages' weights colors photographs held out of training best: a table of previews.

    python train_scripts/choose_mix.py --weights runs/stage1_hints/final --with runs/stage1/final --set photos256

A row for each share, with the preview's CIEDE2000 at 64x64, and how much less it is than that of --with alone, with its
95 % interval (paired bootstrap over photographs). No weights are written: train_scripts/mix_weights.py does that.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from stages.color.resample import resize
from stages.evaluation.coarse import BATCH, view_of
from stages.evaluation.command import arguments, batches, run
from stages.evaluation.photos import HELD_OUT, Photos, load_photos
from stages.evaluation.pixel import ciede2000, picture_from_rgb
from stages.evaluation.report import Account
from stages.evaluation.statistics import paired_difference, paired_ratio
from stages.faces import CoarseColorizer
from stages.photographs import data_folder
from train_scripts.mix_weights import mixed
from train_scripts.weights import coarse_colorizer, stage_weights

SIDE = 64


def parser() -> argparse.ArgumentParser:
    options = arguments("mix", "Choose the share of two stages' weights.", "photos256", f"scored at {SIDE}x{SIDE}")
    options.set_defaults(split=HELD_OUT)
    options.add_argument("--weights", type=Path, metavar="FOLDER", required=True, help="stage 1, without tuned steps")
    options.add_argument("--with", dest="other", type=Path, metavar="FOLDER", required=True,
                         help="stage 1 that it was trained on from")  # fmt: skip
    options.add_argument("--shares", type=float, nargs="+", default=[1.0, 0.8, 0.6, 0.5, 0.4], metavar="S",
                         help="of --weights (default: %(default)s); 0, --with alone, is always there")  # fmt: skip
    return options


def previews(stage: CoarseColorizer[Any], photos: Photos) -> Tensor:
    """uint8 (N, 3, 64, 64)"""
    parts = tqdm(batches(len(photos), BATCH), desc="previews", unit="batch")
    return torch.cat([picture_from_rgb(stage.preview(stage.encode(view_of(photos, part)))) for part in parts])


@torch.inference_mode()
def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    folders = [stage_weights(folder, "coarse") for folder in (args.weights, args.other)]
    photos = load_photos(data_folder(args.data), args.set, args.split, args.photos)
    account = Account(args, photos)
    for name, folder in zip(("stage1", "with"), folders, strict=True):
        account.use_weights(name, folder, coarse_colorizer(folder))
    originals = photos.reduced(SIDE).pictures
    gray = [resize(one[None].float() / 255, (SIDE, SIDE))[0] for one in photos.gray()]
    plain = ciede2000([picture_from_rgb(one).expand(3, -1, -1) for one in gray], originals)
    alone: Tensor | None = None
    for share in dict.fromkeys([0.0, *args.shares]):
        stage, other = (coarse_colorizer(folder) for folder in folders)
        differences = ciede2000(previews(mixed(stage, other, share), photos), originals)
        alone = differences if alone is None else alone
        row = {
            "name": f"{share:g} of --weights", "share": share, "ciede2000": float(differences.mean()),
            "share_of_gray": paired_ratio(differences, plain), "minus_none": paired_difference(differences, alone),
        }  # fmt: skip
        account.rows.append(row)
        low, high = row["minus_none"]["interval_95"]
        print(f"{row['name']}: {row['ciede2000']:.3f}, of gray's {row['share_of_gray']['value']:.4f}, "
              f"minus none of it [{low:.3f}, {high:.3f}]")  # fmt: skip
    return account.write()


def main(argv: list[str] | None = None) -> int:
    return run(evaluate, parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
