"""Fits the packaged weights to a folder of one's own color photographs, in one command.

    python train_scripts/finetune.py my-pictures/ --out my-weights

Stage 1 is trained on (configs/finetune.toml), its few steps are distilled again, and the result is written with the
packaged stages 2 and 3 as a pipeline folder: `trichrome colorize --weights my-weights`. Every fifth picture is held
out: on these the weights before and after are compared, at 64x64, in results.json and sheet.png beside the run's log.
The log has the colorfulness of samples on the way. The same command continues a run that was stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import sys
from pathlib import Path

import torch
from torch import Tensor

from pipeline import ColorPipeline
from stages.checkpoint import CheckpointError
from stages.color.spaces import merge
from stages.diffusion import FewSteps
from stages.evaluation.coarse import streams, view_of
from stages.evaluation.command import batches
from stages.evaluation.few_steps import with_levels
from stages.evaluation.photos import EvaluationError, Photos
from stages.evaluation.pixel import ciede2000, colorfulness, picture_from_rgb
from stages.evaluation.report import Account
from stages.evaluation.statistics import paired_ratio
from stages.evaluation.tables import save_sheet
from stages.faces import CoarseColorizer
from stages.photographs import DataError, sets_in
from stages.stage1_coarse.diffusion import DiffusionColorizer
from stages.stage1_coarse.diffusion_networks import SIDE
from stages.training.config import Config
from stages.training.data import Mixture, Pictures, load_mixture
from stages.training.launch import CONFIGS, TERMINATED, Termination, first_stage, given_start
from stages.training.loop import Terminated, train
from train_scripts.stage1 import report
from train_scripts.tune_steps import BATCH as TUNE_BATCH
from train_scripts.tune_steps import LongDraws, learn

LEAST = 20  # pictures
UPDATES = 40  # of few-step distillation
REFERENCE = 50  # steps that it learns from
BATCH, SHEET_PHOTOS = 16, 12


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Fits the packaged weights to a folder of color photographs.")
    parser.add_argument("pictures", type=Path, metavar="FOLDER", help="color photographs, subfolders included")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="pipeline folder to write")
    parser.add_argument("--config", type=Path, default=CONFIGS / "finetune.toml", help="default: %(default)s")
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="log, samples, checkpoints (default: OUT-run)")
    parser.add_argument("--test", type=Path, metavar="FOLDER", help="compare on these pictures, not on those held out")
    parser.add_argument("--seed", type=int, default=0, help="of the draws that are compared (default: %(default)s)")
    args = parser.parse_args(argv)
    args.run = args.run or args.out.with_name(args.out.name + "-run")
    try:
        finetune(args)
    except Terminated as end:
        print(end)
        return TERMINATED
    except (CheckpointError, DataError, EvaluationError, FloatingPointError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def finetune(args: argparse.Namespace) -> None:
    config = Config.read(args.config)
    pictures = own_pictures(args.pictures, config)
    start = given_start(config.training.start_from)
    pipe = ColorPipeline.from_pretrained()
    before = pipe.coarse
    if not isinstance(before, DiffusionColorizer):
        raise CheckpointError(f"the packaged stage 1 must be of kind diffusion; got {before.kind!r}")
    if args.out.exists() and not (args.out / "model_index.json").is_file():
        raise CheckpointError(f"{args.out} is there and holds no pipeline; name a folder that is new")
    tested = None if args.test is None else photos_of(own_pictures(args.test, config).sets[0], args.test)
    with Termination() as termination:
        final = train(
            config, first_stage(config, args.config, start), pictures, args.run, report, stop=termination.came
        )
    assert final is not None
    after = DiffusionColorizer.from_pretrained(final)
    after.config = dataclasses.replace(
        after.config, temperature=before.config.temperature, chroma_gain=before.config.chroma_gain,
        pool=before.config.pool,
    )  # fmt: skip
    learned, held_out = pictures.split()
    if before.tuned is not None:
        distill(after, before.tuned, photos_of(learned.sets[0], args.pictures), args.seed)
    compare(before, after, tested or photos_of(held_out, args.pictures), args, final)
    ColorPipeline(after, pipe.color, pipe.superres, pipe.sharpness).save_pretrained(args.out, dtype=torch.float16)
    print(f"written: {args.out}, {args.run / 'results.json'}, {args.run / 'sheet.png'}")


def own_pictures(folder: Path, config: Config) -> Mixture:
    """The pictures of a folder, every fifth of them held out. Raises DataError where there are too few."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; expected one with color photographs")
    if sets := sets_in(folder):
        raise DataError(f"{folder} holds the sets {', '.join(sets)}; expected a folder of pictures. Sets are for "
                        "train_scripts/stage1.py")  # fmt: skip
    pictures = load_mixture(folder, config.data)
    if len(pictures) < LEAST:
        raise DataError(f"{folder}: {len(pictures)} usable pictures; at least {LEAST} are needed")
    print(f"{len(pictures)} pictures of {folder}; left out: {pictures.sets[0].dropped}")
    return dataclasses.replace(pictures, holdouts=(len(pictures) // 5,))


def photos_of(pictures: Pictures, folder: Path) -> Photos:
    """The squares in the middle of pictures, as an evaluation takes them; told apart by their pixels."""
    whole = picture_from_rgb(pictures.squares())
    return Photos(str(folder), whole, [hashlib.sha256(one.numpy().tobytes()).digest() for one in whole])


def distill(stage: DiffusionColorizer, start: FewSteps, photos: Photos, seed: int) -> None:
    """Few-step distillation of `stage` (train_scripts/tune_steps.py) from photographs it has learned from, beginning
    with the steps of the weights that it began with.
    """
    with_levels(stage, start.levels.tolist())
    assert stage.tuned is not None
    stage.tuned.load_state_dict(start.state_dict())
    with torch.no_grad():
        draws = LongDraws(stage, photos, seed, REFERENCE)
    per_pass = -(-len(photos) // TUNE_BATCH)
    learn(stage.tuned, draws, len(photos), seed, max(1, UPDATES // per_pass))


@torch.no_grad()
def compare(
    before: DiffusionColorizer, after: DiffusionColorizer, photos: Photos, args: argparse.Namespace, final: Path
) -> None:
    """Held-out photographs colored by both, at 64x64: printed, results.json and sheet.png in the run's folder."""
    account = Account(argparse.Namespace(out=args.run, seed=args.seed), photos)
    account.use_weights("after", final, after)
    small = photos.reduced(SIDE)
    assert isinstance(small.pictures, Tensor)
    original = small.pictures
    pictures = {"gray": torch.stack(small.plain_gray())}
    for name, stage in (("before", before), ("after", after)):
        pictures |= {f"{what}, {name}": drawn for what, drawn in colored(stage, photos, args.seed).items()}
    errors = {name: ciede2000(drawn, original) for name, drawn in pictures.items()}
    for name, drawn in pictures.items():
        account.rows.append({
            "name": name, "photos": len(photos), "ciede2000": float(errors[name].mean()),
            "colorfulness_ratio": float(colorfulness(drawn).mean() / colorfulness(original).mean()),
        })  # fmt: skip
        print("{name}: CIEDE2000 {ciede2000:.2f}, colorfulness {colorfulness_ratio:.2f} of the originals'"
              .format(**account.rows[-1]))  # fmt: skip
    for what in ("preview", "sample"):
        ratio = paired_ratio(errors[f"{what}, after"], errors[f"{what}, before"])
        account.record[f"{what}_ciede2000_after_by_before"] = ratio
        low, high = ratio["interval_95"]
        print(f"{what}: CIEDE2000 after / before {ratio['value']:.3f} [{low:.3f}, {high:.3f}], {len(photos)} held out")
    account.write()
    columns = [*pictures.items(), ("original", original)]
    save_sheet(args.run / "sheet.png", [(name, list(drawn[:SHEET_PHOTOS])) for name, drawn in columns])


def colored(stage: CoarseColorizer, photos: Photos, seed: int) -> dict[str, Tensor]:
    """Preview and first draw of photographs, uint8 (N, 3, 64, 64) each."""
    sources, parts = photos.noise(seed), []
    for part in batches(len(photos), BATCH):
        view = view_of(photos, part)
        encoding = stage.encode(view)
        chroma = stage.sample(encoding, generator=streams(sources[part.start : part.stop], 1)).chroma[:, 0]
        parts.append([picture_from_rgb(one) for one in (stage.preview(encoding), merge(view.gray64, chroma))])
    preview, sample = (torch.cat(one) for one in zip(*parts, strict=True))
    return {"preview": preview, "sample": sample}


if __name__ == "__main__":
    sys.exit(main())
