"""What the training scripts share: arguments, where runs live, and the run a config starts from."""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
import threading
from pathlib import Path

import torch

from stages.checkpoint import WEIGHTS_NAME, CheckpointError, load_weights, read_description
from stages.photographs import DataError, data_folder
from stages.registry import kind_of
from stages.seeds import seed_of
from stages.stage import Stage
from stages.training.config import Config, check_options
from stages.training.data import load_mixture
from stages.training.loop import Report, Terminated, TrainingError, train

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PACKAGED = "package:"  # of a `start_from`: the weights that ship with `pipeline`
TERMINATED = 128 + signal.SIGTERM  # exit code, as of a process that SIGTERM ended


def main(family: str, default: str, report: Report, arguments: list[str] | None = None) -> int:
    what = f"Trains a stage of the family {family}. Continues a run that was interrupted."
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--config", default=str(CONFIGS / f"{default}.toml"), help="a TOML file (default: %(default)s)")
    parser.add_argument("--data", help="folder of photographs (default: $TRICHROME_DATA, else ./data)")
    parser.add_argument("--runs", default="runs", help="folder of all runs, one per config (default: %(default)s)")
    parser.add_argument("--expect-world", type=int, metavar="N", help="fail unless N processes really work together")
    parser.add_argument("--track", metavar="NAME", help='a tracker that gets the reports too, like "tensorboard"')
    parser.add_argument("--stop-after", type=int, metavar="STEPS", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        final = run_config(Path(options.config), family, report, options)
    except Terminated as end:
        print(end)
        return TERMINATED
    except (CheckpointError, DataError, TrainingError, FloatingPointError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)  # a user can cause these; any other error keeps its traceback
        return 1
    if final is not None:
        print(f"final weights: {final}")
    return 0


def run_config(
    path: Path, family: str, report: Report, options: argparse.Namespace, after: tuple[Path, ...] = ()
) -> Path | None:
    """Trains one config, and before it the one it starts from. after: configs that wait for this one."""
    if path in after:
        raise CheckpointError(f"start_from goes in a circle: {' <- '.join(one.stem for one in (*after, path))}")
    config = Config.read(path)
    if config.family != family:
        raise CheckpointError(f"{path} is of the family {config.family}; expected {family}")
    check_options(config.training)
    run = Path(options.runs) / config.name
    data = data_folder(options.data)  # before anything long begins
    source, start = config.training.start_from, None
    if source.startswith(PACKAGED) or "/" in source:
        start = given_start(source)
    elif source:
        start = Path(options.runs) / source / "final"
        if not start.is_dir():
            before = path.with_name(source + ".toml")
            shipped = CONFIGS / before.name
            before = shipped if shipped.is_file() and not before.is_file() else before
            start = run_config(before, family, report, options, (*after, path))
            if start is None:
                return None
    stage = first_stage(config, path, start)
    pictures = load_mixture(data, config.data)
    classes, labels = stage.label_classes, torch.cat([one.labels for one in pictures.sets])
    if classes and not ((labels >= -1) & (labels < classes)).all():
        given = f"{int(labels.min())} to {int(labels.max())}"
        raise DataError(f"labels must be class numbers below classes = {classes}, or -1 where unknown; got {given}")
    if stage.needs_labels and int(labels.min()) < 0:
        raise DataError(f"the family {family} learns from labels, and {int((labels < 0).sum())} of {len(labels)} "
                        "pictures have none: a set for it is made by a script, see its config")  # fmt: skip
    with Termination() as termination:
        return train(
            config, stage, pictures, run, report, expect_world=options.expect_world,
            stop_after=options.stop_after, stop=termination.came, track=options.track,
        )  # fmt: skip


def given_start(source: str) -> Path:
    """The folder of saved weights that a `start_from` names which is no run: "package:stage1", or a path."""
    if source.startswith(PACKAGED):
        package = importlib.util.find_spec("pipeline")  # found without being imported: training needs none of it
        if package is None or package.origin is None:
            raise CheckpointError(f"start_from = {source!r}: the package `pipeline` is not installed")
        folder = Path(package.origin).parent / "weights" / source.removeprefix(PACKAGED)
    else:
        folder = Path(source).expanduser()
    if not folder.is_dir():
        raise CheckpointError(f"start_from = {source!r}: there is no folder {folder}")
    return folder


def first_stage(config: Config, path: Path, start: Path | None) -> Stage:
    """The stage of a config as its training begins, with the weights saved in `start` if given.

    Few-step distillation and the like belong to the weights of their time, and are left out. What the stage declares
    new may be missing in `start`. Raises CheckpointError where anything else does not fit.
    """
    options = config.training
    torch.manual_seed(seed_of(options.seed, "weights"))
    try:
        stage = kind_of(config.family, config.kind)[1](config.network)
    except ValueError as error:  # what a stage says of its config
        raise CheckpointError(f"{path}: {error}") from error
    side = config.data.side
    if stage.training_side not in (None, side):
        raise CheckpointError(f"{path}: data.side must be {stage.training_side} for this network; got {side}")
    if start is not None:
        read_description(start)
        load_weights(stage, start / WEIGHTS_NAME, may_miss=stage.new_parameters, left_out=stage.finishing_parameters)
    if options.pretrained_backbone:
        try:
            stage.load_pretrained_backbone()
        except ValueError as error:  # not the weights that were expected
            raise CheckpointError(f"{path}: {error}") from error
    elif start is None and stage.frozen_parameters:
        raise CheckpointError(
            f"{path}: this stage freezes parameters ({stage.frozen_parameters[0]}, …), which would stay random: set "
            "start_from or pretrained_backbone in [training], or backbone_frozen = 0 in [network]"
        )
    return stage


class Termination:
    """While it is open SIGTERM is only noted: `came`."""

    def __enter__(self) -> Termination:
        self.noted = False
        self.before = signal.signal(signal.SIGTERM, self._note) if self._may_handle() else None
        return self

    def __exit__(self, *_: object) -> None:
        if self._may_handle():
            signal.signal(signal.SIGTERM, self.before)

    def came(self) -> bool:
        return self.noted

    @staticmethod
    def _may_handle() -> bool:
        return threading.current_thread() is threading.main_thread()

    def _note(self, *_: object) -> None:
        self.noted = True
