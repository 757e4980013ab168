"""Draws of stage 1 for training photographs, as a set that a critic learns from.

    python train_scripts/draw_candidates.py --photos 20000 --out runs/draws

Writes OUT/draws64/train-00000-of-00001.parquet: for each photograph itself at 64x64, label 1, and then a draw, label 0,
as often as --draws says. A draw is a picture with the photograph's luma, as the pipeline makes it by default, before
stage 2. OUT/results.json says what made it: weights, seed, hash of the photographs. They are the first of the split
`train`; what training holds out is never among them.
"""

from __future__ import annotations

import argparse
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from stages.checkpoint import replaced_folder
from stages.color.spaces import merge
from stages.evaluation.coarse import BATCH, streams, view_of
from stages.evaluation.command import add_steps, batches, positive, run
from stages.evaluation.photos import SETS, EvaluationError, load_photos
from stages.evaluation.pixel import picture_from_rgb
from stages.evaluation.report import Account
from stages.options import SampleOptions
from stages.photographs import data_folder
from train_scripts.weights import coarse_colorizer, stage_weights

SET = "draws64"


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description="Draw colors of training photographs, for a critic.")
    add = options.add_argument
    add("--data", type=Path, metavar="FOLDER", help="folder of the photographs (default: $TRICHROME_DATA, else data/)")
    add("--set", choices=list(SETS), default="photos128", help="photographs in --data (default: %(default)s)")
    add("--photos", type=positive, metavar="N", help="the first N (default: all that training sees)")
    add("--weights", type=Path, metavar="FOLDER", help="stage 1 (default: the packaged one)")
    add("--draws", type=positive, default=1, metavar="N",
        help="of each photograph (default: %(default)s); the critic's holdout must be a multiple of N + 1, so that no "
        "photograph is in both parts")  # fmt: skip
    add("--seed", type=int, default=0, help="of all photographs; each has noise of its own (default: %(default)s)")
    add("--out", type=Path, default=Path("runs/draws"), metavar="FOLDER", help="default: %(default)s")
    add_steps(options, "stage 1")
    return options


@torch.inference_mode()
def draw(args: argparse.Namespace) -> dict[str, Any]:
    folder = stage_weights(args.weights, "coarse")
    stage, options = coarse_colorizer(folder), SampleOptions(steps=args.steps)
    stage.check_honored(options, SampleOptions.COARSE)
    photos = load_photos(data_folder(args.data), args.set, "train")
    held_out = SETS[args.set].held_out
    usable = len(photos) - held_out
    if usable < (args.photos or 1):
        raise EvaluationError(
            f"of the {len(photos)} photographs of {args.set} the last {held_out} are held out of training: ask for at "
            f"most {max(usable, 0)} with --photos; got {args.photos}"
        )
    photos = photos.first(args.photos or usable)
    small = photos.reduced(64)
    noise = photos.noise(args.seed)
    encoded: list[bytes] = []
    labels: list[int] = []
    for part in tqdm(batches(len(photos), BATCH), desc="stage 1", unit="batch"):
        encoding = stage.encode(view_of(photos, part))
        drawn = stage.sample(encoding, args.draws, options, streams(noise[part.start : part.stop], args.draws))
        pictures = picture_from_rgb(merge(encoding.gray64[:, None], drawn.chroma))
        for place, of_photo in zip(part, pictures, strict=True):
            encoded += [_png(small.pictures[place]), *map(_png, of_photo)]
            labels += [1] + [0] * args.draws
    _write(args.out / SET, encoded, labels)
    account = Account(args, photos)
    account.use_weights("stage1", folder, stage, args.steps)
    account.record |= {"draws": args.draws, "pictures": len(labels)}
    results = account.write()
    print(f"written: {args.out / SET}, {len(labels)} pictures, and {args.out / 'results.json'}")
    return results


def _png(picture: Tensor) -> bytes:
    file = BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(file, "PNG")
    return file.getvalue()


def _write(folder: Path, encoded: list[bytes], labels: list[int]) -> None:
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageColumn

    columns = {"image": [{"bytes": one, "path": None} for one in encoded], "label": labels}
    table = Dataset.from_dict(columns, features=Features({"image": ImageColumn(decode=False), "label": Value("int64")}))
    with replaced_folder(folder) as fresh:
        table.to_parquet(fresh / "train-00000-of-00001.parquet")


def main(argv: list[str] | None = None) -> int:
    return run(draw, parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
