"""Which of two pipelines is preferred by eyes that do not know which is which?

    python train_scripts/blind_pairs.py --against ../before/pipeline/weights --photos 60
    python train_scripts/blind_pairs.py --answers answers.json

The first command colors photographs by both, as they do by default, and writes sheets of six: number, gray, left,
right. `OUT/key.json` says on which side whose picture is; whoever judges sees the sheets alone. Which side is whose is
drawn for each photograph from the seed and both weights: what one key tells is no help with another.

Answers are a JSON object of every number: {"1": "left", "2": "right", "3": "same", …}. The second command counts: the
share of the photographs on which `--weights` is preferred, a tie as half, with its 95 % interval (Wilson 1927).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Generator, Tensor

from pipeline import ColorPipeline
from stages.checkpoint import sha256_of
from stages.evaluation.command import add_steps, arguments, batches, run
from stages.evaluation.photos import EvaluationError, load_photos
from stages.evaluation.report import Account
from stages.evaluation.statistics import wilson_interval
from stages.photographs import data_folder
from stages.seeds import seed_of
from train_scripts.evaluate_pipeline import colorized, firsts
from train_scripts.weights import loaded_pipeline

PER_SHEET, CELL, MARGIN, GAP = 6, 256, 44, 6
SIDES, SAME = ("left", "right"), "same"
KEY = "key.json"


def parser() -> argparse.ArgumentParser:
    options = arguments("blind_pairs", "Judge two pipelines without knowing which is which.", "photos256", "as colored")
    options.add_argument("--weights", type=Path, metavar="FOLDER", help="pipeline folder (default: the packaged one)")
    options.add_argument("--against", type=Path, metavar="FOLDER", help="pipeline folder of the others")
    add_steps(options, "stage 1 of both")
    options.add_argument("--answers", type=Path, metavar="FILE", help="count these, about the sheets in --out")
    return options


@torch.inference_mode()
def evaluate(args: argparse.Namespace) -> None:
    if (args.answers is None) == (args.against is None):
        raise EvaluationError("name --against, to make sheets, or --answers, to count what was said of them")
    if args.answers is not None:
        count(args.answers, args.out)
    else:
        show(args)


def show(args: argparse.Namespace) -> None:
    if any(args.out.glob("pairs-*.png")):
        raise EvaluationError(f"{args.out} holds sheets already: delete them, or choose another --out")
    photos = load_photos(data_folder(args.data), args.set, args.split, args.photos)
    gray, account = photos.gray(), Account(args, photos)
    pipe, other = loaded_pipeline(args, account), ColorPipeline.from_pretrained(args.against)
    who = [sorted(one.fingerprint().items()) for one in (pipe, other)]
    generator = Generator().manual_seed(seed_of(args.seed, "sides", str(who)))
    ours = [SIDES[side] for side in torch.randint(2, (len(photos),), generator=generator).tolist()]
    mine, theirs = (
        firsts(colorized(one, gray, args.seed, name=name, steps=args.steps))
        for one, name in ((pipe, "ours"), (other, "theirs"))
    )
    args.out.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(batches(len(photos), PER_SHEET), 1):
        rows = [(gray[i], mine[i], theirs[i]) if ours[i] == "left" else (gray[i], theirs[i], mine[i]) for i in part]
        save_pairs(args.out / f"pairs-{number:02d}.png", rows, part.start + 1)
    account.record["against"] = dict(other.fingerprint())
    sides = {str(number): side for number, side in enumerate(ours, 1)}
    (args.out / KEY).write_text(json.dumps(account.record | {"weights_on": sides}, indent=1) + "\n")
    print(f"written: {args.out}/pairs-*.png, and {args.out / KEY}, which nobody who judges should see")


def save_pairs(path: Path, rows: list[tuple[Tensor, Tensor, Tensor]], first: int) -> None:
    """A sheet: a row per photograph, uint8 gray (1, H, W) and two pictures (3, H, W), numbered from `first`."""
    sheet = Image.new("RGB", (MARGIN + 3 * (CELL + GAP), len(rows) * (CELL + GAP)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(20)
    for y, pictures in enumerate(rows):
        draw.text((4, y * (CELL + GAP) + 4), str(first + y), fill="black", font=font)
        for x, picture in enumerate(pictures):
            image = Image.fromarray(picture.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())
            image = ImageOps.contain(image, (CELL, CELL), Image.Resampling.BICUBIC)
            sheet.paste(image, (MARGIN + x * (CELL + GAP), y * (CELL + GAP)))
    sheet.save(path)


def count(path: Path, out: Path) -> dict[str, Any]:
    """What was preferred; OUT/results.json has it beside all that the key has."""
    try:
        record, answers = json.loads((out / KEY).read_text()), json.loads(path.read_text())
        sides: dict[str, str] = record["weights_on"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise EvaluationError(
            f"expected answers in JSON, and {out / KEY} as it was written beside the sheets; got {error!r}"
        ) from error
    if not isinstance(answers, dict) or answers.keys() != sides.keys():
        raise EvaluationError(f"{path} must answer for each of the numbers 1 to {len(sides)}, and no other")
    if odd := [answer for answer in answers.values() if answer not in (*SIDES, SAME)]:
        raise EvaluationError(f"an answer is left, right or same; got {odd}")
    same = sum(answer == SAME for answer in answers.values())
    preferred = sum(answers[number] == side for number, side in sides.items())
    share = (preferred + same / 2) / len(sides)
    row = {"name": "blind pairs", "photos": len(sides), "preferred": preferred, "same": same,
           "others_preferred": len(sides) - preferred - same, "share": share,
           "interval_95": list(wilson_interval(share, len(sides)))}  # fmt: skip
    results = record | {"answers": answers, "answers_sha256": sha256_of(path), "rows": [row]}
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    low, high = row["interval_95"]
    print(f"preferred on {preferred} of {len(sides)}, {same} the same: {share:.2f} [{low:.2f}, {high:.2f}]")
    return results


def main(argv: list[str] | None = None) -> int:
    return run(evaluate, parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
