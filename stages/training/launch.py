"""What the training scripts share: arguments, where runs live, and the run a config starts from."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from stages.checkpoint import CheckpointError, load_weights
from stages.photographs import DataError, data_folder, sets_in
from stages.registry import kind_of
from stages.seeds import seed_of
from stages.stage import Stage
from stages.training.config import Config, DataConfig
from stages.training.data import Pictures, load_pictures
from stages.training.loop import Report, TrainingError, train

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def main(stage: int, default: str, report: Report, arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=f"Trains stage {stage}. Continues a run that was interrupted.")
    parser.add_argument("--config", default=str(CONFIGS / f"{default}.toml"), help="a TOML file (default: %(default)s)")
    parser.add_argument("--data", help="folder of photographs (default: $TRICHROME_DATA, else ./data)")
    parser.add_argument("--runs", default="runs", help="folder of all runs, one per config (default: %(default)s)")
    parser.add_argument("--expect-world", type=int, metavar="N", help="fail unless N processes really work together")
    parser.add_argument("--track", metavar="NAME", help='a tracker that gets the reports too, like "tensorboard"')
    parser.add_argument("--stop-after", type=int, metavar="STEPS", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        final = run_config(Path(options.config), stage, report, options)
    except (ValueError, ModuleNotFoundError, TrainingError, FloatingPointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if final is not None:
        print(f"final weights: {final}")
    return 0


def run_config(
    path: Path, stage_number: int, report: Report, options: argparse.Namespace, after: tuple[Path, ...] = ()
) -> Path | None:
    """Trains one config, and before it the one it starts from. after: configs that wait for this one."""
    if path in after:
        raise CheckpointError(f"start_from goes in a circle: {' <- '.join(one.stem for one in (*after, path))}")
    config = Config.read(path)
    if config.stage != stage_number:
        raise CheckpointError(f"{path} is of stage {config.stage}; expected stage {stage_number}")
    run = Path(options.runs) / config.name
    data = data_folder(options.data)  # before anything long begins
    start: Path | None = None
    if config.training.start_from:
        start = Path(options.runs) / config.training.start_from / "final"
        if not start.is_dir():
            before = path.with_name(config.training.start_from + ".toml")
            shipped = CONFIGS / before.name
            before = shipped if shipped.is_file() and not before.is_file() else before
            trained = run_config(before, stage_number, report, options, (*after, path))
            if trained is None:
                return None
            start = trained
    pictures = training_pictures(data, config.data)
    classes = getattr(config.network, "classes", 0)
    if classes and not ((pictures.labels >= -1) & (pictures.labels < classes)).all():
        found = f"{int(pictures.labels.min())} to {int(pictures.labels.max())}"
        raise DataError(f"labels must be class numbers below classes = {classes}, or -1 where unknown; got {found}")
    torch.manual_seed(seed_of(config.training.seed, "weights"))
    stage = kind_of(config.stage, config.kind)[1](config.network)
    if start is not None:
        load_weights(stage, start / "model.safetensors")
    if config.training.pretrained_backbone:
        pretrained_backbone(stage)
    return train(
        config, stage, pictures, run, report,
        expect_world=options.expect_world, stop_after=options.stop_after, track=options.track,
    )  # fmt: skip


def training_pictures(folder: Path, data: DataConfig) -> Pictures:
    """The pictures to learn from, at the end those that are held out."""
    pictures = load_pictures(folder, data.name, "train", data.side, data.limit or None, doubled=data.doubled)
    if not data.also or not sets_in(folder):
        return pictures
    if data.also_copies < 1:
        raise CheckpointError(f"data.also_copies must be at least 1; got {data.also_copies}")
    if data.also_crops < 0:
        raise CheckpointError(f"data.also_crops must not be negative; got {data.also_crops}")
    side = 2 * data.side if data.also_crops else data.side
    other, _ = load_pictures(folder, data.also, "train", side).split(data.also_holdout)
    if data.also_crops:
        other = other.halved(data.also_crops)  # and the large ones are let go
    return pictures.with_also(other, data.also_copies)


def pretrained_backbone(stage: Stage) -> None:
    load = getattr(stage, "load_pretrained_backbone", None)
    if load is None:
        raise CheckpointError(f"stage {stage.stage} of kind {stage.kind!r} has no pretrained backbone")
    load()
