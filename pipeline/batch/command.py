"""The command `trichrome batch`: options, messages and exit codes; the work is in the modules beside."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.arguments import placement
from pipeline.coloring_options import add_coloring_options, add_folder_options, settings
from pipeline.files.report import misuse
from pipeline.steering import OF_ONE_PHOTO

if TYPE_CHECKING:
    from pipeline.color_pipeline import ColorPipeline
    from pipeline.files.report import Outcome
    from stages.faces import Scores

# torch and Ray take seconds to import: nothing up here may load them.

__all__ = ["add_command"]

FORMS = ("folder", "parquet", "webdataset")  # pipeline.batch.units, a test sees
_misuse = partial(misuse, "batch")
NO_RAY = "it needs Ray Data: pip install 'trichrome[ray]'"


def add_command(commands: Any) -> None:  # Any: argparse does not name its type
    """Adds `batch` to the subcommands of `trichrome`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "batch", help="color folders, Parquet files and WebDataset shards, on one machine or many",
        description="Color photos by actors of a Ray cluster: a folder, Parquet files or WebDataset shards, here or in "
                    "an object store. Run again, it colors only what is not finished.",
    )  # fmt: skip
    add = parser.add_argument
    add("paths", nargs="+", metavar="IN", help="folder, photo, .parquet or .tar: a path, or a name such as s3://…")
    add("-o", "--output", required=True, metavar="OUT", help="folder for the results: a path, or a name such as s3://…")
    add("--from", dest="read", choices=FORMS, help="what the inputs are (default: as their names say)")
    add("--to", dest="write", choices=FORMS, help="what is written (default: as the inputs)")
    add("--column", metavar="NAME",
        help="of the pictures: a column of Parquet, or the end of names in WebDataset, as jpg (default: the only one)")
    add("--per-shard", type=int, default=256, metavar="N",
        help="photos of a folder that go into one shard (default %(default)s)")
    add_coloring_options(parser)
    add_folder_options(parser)
    add("--actors", type=int, metavar="N", help="pipelines at work (default: as many as there is room for)")
    add("--threads", type=int, default=1, metavar="N",
        help="CPUs of each actor, and threads of its networks there (default 1); last digits of colors depend on it")
    add("--gpus-per-actor", type=float, metavar="F",
        help="may be a fraction (default: 1 where the cluster has cards, and --device lets them be used)")
    add("--address", help="of a Ray cluster, or auto (default: a Ray of this machine, for this command)")
    parser.set_defaults(run=_batch)


def _batch(options: argparse.Namespace) -> int:
    if reason := _why_wrong(options):
        return _misuse(reason)

    from pipeline.batch.cluster import Cluster
    from pipeline.batch.planning import Shape
    from pipeline.batch.run import color_batch
    from pipeline.color_pipeline import ColorPipeline
    from pipeline.files.beside import Beside
    from pipeline.files.broken import OutputLost
    from pipeline.files.guidance import Guidance
    from pipeline.files.interruptions import Interruptions
    from pipeline.files.lock import Locked
    from pipeline.files.names import Chosen
    from pipeline.files.team import WorkerError
    from pipeline.files.telling import Listeners
    from pipeline.files.terminal import ReportFile, Terminal, summed_up

    gpus = 0.0 if options.device in ("cpu", "mps") else options.gpus_per_actor
    device = "cpu" if gpus == 0 and options.device == "auto" else options.device
    opened = partial(_opened, ColorPipeline.from_pretrained, options.weights, options.rank_with)
    try:
        pipe, rank_with = opened("cpu", "float32")  # for the plan alone; actors color
        guidance = Guidance().with_reference(options.reference)
        asked, shape = settings(options), Shape(options.read, options.write, options.column, options.per_shard)
        report_file = None if options.report is None else ReportFile(options.report)
    except (ValueError, OSError) as error:
        return _misuse(str(error))
    terminal = Terminal(options.progress or sys.stderr.isatty(), "part")

    beside = Beside(terminal.say, report_file)

    def each(outcome: Outcome) -> None:
        terminal.each(outcome)
        beside.each(outcome)

    code = 0
    with Interruptions(terminal.say, "now, and what is under way is done again") as interruptions:
        try:
            report = color_batch(
                pipe, options.paths, options.output, asked, shape=shape, rank_with=rank_with, guidance=guidance,
                pool=Cluster(options.address, options.actors, options.threads, gpus), threads=options.threads,
                opened=partial(opened, device, options.dtype), overwrite=options.overwrite, dry=options.dry_run,
                chosen=Chosen(tuple(options.include), tuple(options.exclude)),
                listeners=Listeners(terminal.say, each, terminal.update, stop=interruptions),
            )  # fmt: skip
        except (ValueError, OSError, Locked, WorkerError) as error:
            return _misuse(str(error))
        except OutputLost as lost:
            report, code = lost.report, 1
            terminal.say(f"{lost}; stopped, the same command goes on from here")
        finally:
            terminal.close()
            beside.close()
        code = 1 if beside.lost else code
        return summed_up(terminal, report, interruptions.signal, options.paths, code, options.dry_run)


def _opened(
    load: Callable[[str | None], ColorPipeline], weights: str | None, rank_with: str | None, device: str, dtype: str
) -> tuple[ColorPipeline, Scores | None]:  # fmt: skip
    """The pipeline and what candidates are put in order by, in the command and in each actor."""
    from pipeline.request import reranker
    from stages.registry import load_stage

    pipe = load(weights).to(*placement(device, dtype))
    judge = None if rank_with is None else load_stage(rank_with).to(pipe.device)
    return pipe, None if judge is None else reranker(judge, pipe.device)


def _why_wrong(options: argparse.Namespace) -> str | None:
    """Why the options can not be honored; None where they can."""
    if not options.dry_run and any(importlib.util.find_spec(name) is None for name in ("ray", "pandas")):
        return NO_RAY
    if given := [f"--{name}" for name in OF_ONE_PHOTO if getattr(options, name)]:
        return f"{', '.join(given)}: of one photo, and a batch is of many; NAME.hints.json beside NAME is taken"
    for name in ("actors", "threads", "per_shard"):
        value = getattr(options, name)
        if value is not None and value < 1:
            return f"--{name.replace('_', '-')} must be a whole number from 1; got {value}"
    gpus = options.gpus_per_actor
    if gpus is not None and not 0 <= gpus < float("inf"):
        return f"--gpus-per-actor must be a number from 0; got {gpus}"
    if options.gpus_per_actor and options.device in ("cpu", "mps"):
        return f"--gpus-per-actor {gpus:g} and --device {options.device} do not go together; leave one of them out"
    if "://" not in options.output and Path(options.output).exists() and not Path(options.output).is_dir():
        return f"{options.output} is a file; -o names a folder"
    if options.column is not None and options.read == "folder":
        return "--column is of Parquet files and WebDataset shards; photos of a folder have none"
    return None
