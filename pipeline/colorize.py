"""The command `trichrome colorize`: options, messages and exit codes. The work is in pipeline/files.

Exit codes: 0 all photos are colored, 1 some are not (each has its line on stderr) or none was found, 2 wrong usage or
an output folder in use, 130 and 143 interrupted by SIGINT or SIGTERM.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pipeline import like, steering
from pipeline.arguments import from_one, placement
from pipeline.coloring_options import add_coloring_options, add_folder_options, settings
from pipeline.files.report import misuse

if TYPE_CHECKING:
    from pipeline.color_pipeline import ColorPipeline
    from pipeline.files.guidance import Guidance
    from pipeline.files.records import Report
    from pipeline.files.report import Outcome
    from pipeline.files.run import Listeners

# torch takes more than a second to import: nothing up here may load it.

__all__ = ["add_command", "run_colorize"]

_misuse = partial(misuse, "colorize")


def add_command(commands: Any) -> None:  # Any: argparse does not name its type
    """Adds `colorize` to the subcommands of `trichrome`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "colorize", help="color photos and folders of photos",
        description="Color photos and folders of photos. Every photo keeps its size, luma (to half a level in PNG "
                    "and TIFF), bit depth, EXIF and alpha. Run again, it colors only what is new or was colored "
                    "with other settings.",
    )  # fmt: skip
    _add_options(parser)
    parser.set_defaults(run=_colorize, parser=parser)


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Those of `trichrome colorize`."""
    add = parser.add_argument
    add("paths", nargs="+", type=Path, metavar="PATH", help="photo, or folder (searched to the bottom)")
    add("-o", "--output", required=True, type=Path, metavar="OUT",
        help="folder for the colored photos; or, for one photo, the file to write: x.jpg")
    add_coloring_options(parser)
    add("--like", type=Path, metavar="FILE",
        help="make this output once more, as its record says: the same photo, weights and options, the same bytes")
    add_folder_options(parser)
    add("--threads", type=from_one, metavar="N",
        help="of the networks on a CPU, in each worker (default: all cores); last digits of colors depend on it")
    add("--workers", type=from_one, metavar="N",
        help="processes at work (default: one for each card; on a CPU as many as --threads leaves cores for)")
    add("--as-worker", type=int, help=argparse.SUPPRESS)
    add("--sheet", type=Path, metavar="FILE", help="write a page of HTML with each photo before and after")


def run_colorize(pipe: ColorPipeline, arguments: Sequence[str], listeners: Listeners) -> Report:
    """`trichrome colorize` with a pipeline that is open already, as the HTTP API runs it.

    arguments: of the command; those of weights, device and dtype say nothing here
    Raises ValueError, with the command's own words, for a wrong use.
    """
    from pipeline.files.run import color_files

    parser = _RaisingParser(prog="trichrome colorize", add_help=False)
    _add_options(parser)
    options = parser.parse_args(arguments)
    if reason := _why_wrong(options):
        raise ValueError(reason)
    guidance = _guidance(options)
    return color_files(pipe, options.paths, options.output, settings(options), guidance=guidance, listeners=listeners)


def _colorize(options: argparse.Namespace) -> int:
    if options.like is not None:
        return _repeat(options)
    if reason := _why_wrong(options):
        return _misuse(reason)

    import torch

    if options.threads is not None:
        torch.set_num_threads(options.threads)

    from pipeline.color_pipeline import ColorPipeline
    from pipeline.files import worker
    from pipeline.files.beside import Beside
    from pipeline.files.broken import OutputLost
    from pipeline.files.interruptions import Interruptions
    from pipeline.files.lock import Locked
    from pipeline.files.names import Chosen
    from pipeline.files.run import Listeners, color_file, color_files
    from pipeline.files.sheet import Sheet
    from pipeline.files.team import WorkerError, team_for
    from pipeline.files.terminal import ReportFile, Terminal, summed_up
    from pipeline.progress import StepBar
    from pipeline.request import reranker
    from stages.options import OptionError
    from stages.registry import load_stage

    to_file = _names_a_file(options.output)
    if reason := _why_wrong_output(options, to_file):
        return _misuse(reason)
    try:
        place = placement(options.device, options.dtype)
        # One file is colored by the command itself.
        team = None if to_file or options.as_worker is not None else team_for(options, place[0].type)
        if options.as_worker is not None and place[0].type == "cuda":
            place = torch.device("cuda", options.as_worker % torch.cuda.device_count()), place[1]
        if team is not None:  # the command itself colors nothing
            place = torch.device("cpu"), torch.float32
        pipe = ColorPipeline.from_pretrained(options.weights).to(*place)
        judge = None if options.rank_with is None else load_stage(options.rank_with).to(pipe.device)
        rank_with = None if judge is None else reranker(judge, pipe.device)
        asked = settings(options)
        guidance = _guidance(options)
        if options.as_worker is not None:
            return worker.serve(pipe, options.output, asked, options.overwrite, rank_with, guidance)
        report_file = None if options.report is None else ReportFile(options.report)
        sheet = None if options.sheet is None or options.dry_run else Sheet(options.sheet)
    except (ValueError, OSError) as error:
        return _misuse(str(error))
    show = options.progress or sys.stderr.isatty()
    terminal = Terminal(show)
    # Stages that draw row by row may need minutes for one photo.
    steps = StepBar(leave=False) if show and team is None and pipe.coarse.autoregressive else None

    beside = Beside(terminal.say, report_file, sheet)

    def each(outcome: Outcome) -> None:
        terminal.each(outcome)
        beside.each(outcome)

    code = 0
    with Interruptions(terminal.say) as interruptions:
        hears = Listeners(terminal.say, each, terminal.update, steps, interruptions)
        choices: dict[str, Any] = {
            "overwrite": options.overwrite, "rank_with": rank_with, "guidance": guidance, "listeners": hears,
            "dry": options.dry_run,
        }  # fmt: skip
        try:
            if to_file:
                report = color_file(pipe, options.paths[0], options.output, asked, **choices)
            else:
                chosen = Chosen(tuple(options.include), tuple(options.exclude))
                report = color_files(pipe, options.paths, options.output, asked, **choices, chosen=chosen, team=team)
        except (OptionError, Locked, WorkerError) as error:
            return _misuse(str(error))
        except OutputLost as lost:
            report, code = lost.report, 1
            terminal.say(f"{lost}; stopped, the same command goes on from here")
        finally:
            if steps is not None:
                steps.close()
            terminal.close()
            beside.close()
        code = 1 if beside.lost else code
        return summed_up(terminal, report, interruptions.signal, options.paths, code, options.dry_run)


def _why_wrong(options: argparse.Namespace) -> str | None:
    """Why options do not go together; None where they do."""
    if options.preview and options.samples > 1:
        return "--preview is one picture per photo; leave out --samples"
    if options.preview and options.rank_with:
        return "--preview draws no candidates that --rank-with could order; leave one of them out"
    return steering.why_wrong(options)


def _guidance(options: argparse.Namespace) -> Guidance:
    """Raises ValueError, OSError for a reference that is none."""
    from pipeline.files.guidance import Guidance

    return Guidance(tuple(options.hint), options.hints, options.keep).with_reference(options.reference)


def _repeat(options: argparse.Namespace) -> int:
    to_file = _names_a_file(options.output)
    reason = like.why_not(options, to_file) or _why_wrong_output(options, to_file)
    return _misuse(reason) if reason else like.run(options, _misuse)


def _names_a_file(output: Path) -> bool:
    from pipeline.images.photo import FORMATS

    return output.suffix.lower() in FORMATS and not output.is_dir()


def _why_wrong_output(options: argparse.Namespace, to_file: bool) -> str | None:
    """Why the inputs can not go where -o says; None when they can."""
    from pipeline.images.photo import FORMATS, READ_ONLY

    output, paths = options.output, options.paths
    if output.suffix.lower() in READ_ONLY and not output.is_dir():
        return f"-o {output}: {output.suffix} is read and not written; name {output.stem}.png, which holds as much"
    if not to_file:
        if not output.exists() or output.is_dir():
            return None
        return f"{output} is a file; -o names a folder, or for one photo a file with a known suffix"
    if len(paths) > 1 or paths[0].is_dir():
        return f"-o {output} names a file, which one photo can be written to; for more name a folder"
    if os.path.realpath(paths[0]) == os.path.realpath(output):
        return f"-o {output} is the photo itself; an input is never overwritten"
    if (options.workers or 1) > 1:
        return f"-o {output} names a file, which the command colors itself; leave out --workers"
    if options.page == "all":
        return f"-o {output} names a file, --page all asks for several; name a folder"
    if options.format not in ("keep", FORMATS[output.suffix.lower()]):
        return f"-o {output} and --format {options.format} do not go together; leave out --format"
    return None


class _RaisingParser(argparse.ArgumentParser):
    """Says what is wrong in a ValueError instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message.removeprefix("argument "))
