"""The command `trichrome`. The work is in pipeline/files; here are options, messages and exit codes.

Exit codes: 0 all photos are colored, 1 some are not (each has its line on stderr) or none was found, 2 wrong usage or
an output folder in use, 130 and 143 interrupted by SIGINT or SIGTERM.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

if TYPE_CHECKING:
    from pipeline.color_pipeline import ColorPipeline
    from pipeline.files.guidance import Guidance
    from pipeline.files.records import Report, Settings
    from pipeline.files.report import Outcome
    from pipeline.files.run import Listeners

from pipeline import info, like, serve, steering, translate
from pipeline.batch import command as batch
from pipeline.export import command as export
from pipeline.files.interruptions import GOES_ON
from pipeline.files.report import misuse
from pipeline.video import command as video

# torch takes more than a second to import: nothing up here may load it.

__all__ = ["main", "run_colorize"]

_misuse = partial(misuse, "colorize")

RENAMED = {"--doubt": "--uncertainty", "--vividness": "--chroma-gain"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the arguments `argv` (by default those of the process); returns the exit code."""
    parser = _parser()
    try:
        options = parser.parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    options.arguments = sys.argv[1:] if argv is None else argv
    if options.run is None:  # no command was named
        parser.print_help(sys.stderr)
        return 2
    try:
        return options.run(options)
    except KeyboardInterrupt:  # before the first photo: then `Interruptions` watches
        print(GOES_ON, file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="trichrome", description="Colors black-and-white photographs.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="")
    colorize = commands.add_parser(
        "colorize", help="color photos and folders of photos",
        description="Color photos and folders of photos. Every photo keeps its size, luma (to half a level in PNG "
                    "and TIFF), bit depth, EXIF and alpha. Run again, it colors only what is new or was colored "
                    "with other settings.",
    )
    _add_options(colorize)
    colorize.set_defaults(run=_colorize, parser=colorize)
    batch.add_command(commands, _add_batch_options, _settings, _placement)
    translate.add_command(commands, _placement)
    video.add_command(commands, _placement)
    info.add_command(commands)
    export.add_command(commands)
    serve.add_commands(commands, _placement, run_colorize)
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Those of `trichrome colorize`."""
    add = parser.add_argument
    add("paths", nargs="+", type=Path, metavar="PATH", help="photo, or folder (searched to the bottom)")
    add("-o", "--output", required=True, type=Path, metavar="OUT",
        help="folder for the colored photos; or, for one photo, the file to write: x.jpg")
    _add_coloring_options(parser)
    add("--like", type=Path, metavar="FILE",
        help="make this output once more, as its record says: the same photo, weights and options, the same bytes")
    _add_folder_options(parser)
    add("--threads", type=_positive, metavar="N",
        help="of the networks on a CPU, in each worker (default: all cores); last digits of colors depend on it")
    add("--workers", type=_positive, metavar="N",
        help="processes at work (default: one for each card; on a CPU as many as --threads leaves cores for)")
    add("--as-worker", type=int, help=argparse.SUPPRESS)
    add("--sheet", type=Path, metavar="FILE", help="write a page of HTML with each photo before and after")


def _add_coloring_options(parser: argparse.ArgumentParser) -> None:
    """Those that decide the pictures, which `trichrome batch` has too."""
    add = parser.add_argument
    add("--samples", type=_positive, default=1, metavar="K", help="pictures per photo (default 1)")
    add("--seed", type=int, default=0, metavar="N", help="another seed, other colors (default 0)")
    add("--steps", type=_positive, metavar="N", help="sampling steps of stage 1 (default: its own)")
    add(
        "--pool",
        type=_positive,
        metavar="N",
        help="draws of which the first picture is the most central (default: stage 1's number; 1: no choosing)",
    )
    add("--candidate", type=_number_of_draw, metavar="N",
        help="number of the draw that is the one picture, as an earlier run has it in its manifest (default: chosen)")
    add("--superres-steps", type=_positive, metavar="N", help="steps of stage 3 (default: its own)")
    add("--temperature", type=_number, metavar="T",
        help="of stage 1's draws: less is surer and less varied, 1 as it has learned them (default: its own)")
    add("--chroma-gain", type=_number, metavar="G", help="factor on the chroma of stage 1's draws (default: its own)")
    add("--sharpness", type=_number, metavar="S", help="of the edges of color, 0 to 2 (default: the pipeline's own)")
    for old, new in RENAMED.items():
        add(old, action=_Renamed, new=new, nargs="?", help=argparse.SUPPRESS)
    steering.add_options(parser)
    add("--preview", action="store_true", help="one-pass colors: fast and pale")
    add("--uncertainty", action="store_true", help="also write NAME-uncertainty.png: white where it may well be wrong")
    add("--uncertainty-overlay", action="store_true",
        help="also write NAME-overlay.png: the map over the picture, with a legend")
    add("--page", type=_page, metavar="N|all", help="of TIFF and WebP files that hold several pictures")
    add("--max-megapixels", type=_positive, metavar="N",
        help="read pictures of up to N million pixels, however small their file (default 300, and 1000 to a byte)")
    add("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="default: the best there is")
    add("--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto",
        help="precision of the networks (auto: bfloat16 on cards that have it, else float32)")
    add("--format", choices=["keep", "png", "jpeg", "tiff", "webp"], default="keep",
        help="format of the outputs (default: that of each input's name)")
    add("--quality", type=_quality, default=95, metavar="Q", help="of JPEG and WebP, 1 to 100 (default 95)")
    add("--rank-with", metavar="FOLDER",
        help="put candidates in order by the scores of this critic or stage 1 (kind coltran or pic), the best first")
    add("--weights", metavar="FOLDER", help="pipeline folder or hub id (default: the weights in the package)")
    add("--no-provenance", action="store_true",
        help="do not write into the outputs that their colors are synthesized, and by what")


def _add_folder_options(parser: argparse.ArgumentParser) -> None:
    """Those of many photos, which `trichrome batch` has too."""
    add = parser.add_argument
    add("--overwrite", action="store_true",
        help="color everything again and replace files in the way (an input is never replaced)")
    add("--include", action="append", default=[], metavar="GLOB", help="of folders, photos that fit; may be repeated")
    add("--exclude", action="append", default=[], metavar="GLOB", help="of folders, none that fit; may be repeated")
    add("--dry-run", action="store_true", help="write nothing, only say what would become of each photo")
    add("--report", type=Path, metavar="FILE", help="write what became of each input, one line of JSON each")
    add("--progress", action="store_true", help="a progress bar even where stderr is no terminal")


def _add_batch_options(parser: argparse.ArgumentParser) -> None:
    _add_coloring_options(parser)
    _add_folder_options(parser)


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
    return color_files(pipe, options.paths, options.output, _settings(options), guidance=guidance, listeners=listeners)


def _colorize(options: argparse.Namespace) -> int:
    if options.like is not None:
        return _repeat(options)
    if reason := _why_wrong(options):
        return _misuse(reason)
    if options.threads is not None:
        import torch

        torch.set_num_threads(options.threads)

    from pipeline.color_pipeline import ColorPipeline
    from pipeline.files import worker
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
        place = _placement(options.device, options.dtype)
        team = None if options.as_worker is not None else team_for(options, place[0].type)
        if options.as_worker is not None and place[0].type == "cuda":
            place = torch.device("cuda", options.as_worker % torch.cuda.device_count()), place[1]
        if team is not None:  # the command itself colors nothing
            place = torch.device("cpu"), torch.float32
        pipe = ColorPipeline.from_pretrained(options.weights).to(*place)
        judge = None if options.rank_with is None else load_stage(options.rank_with).to(pipe.device)
        rank_with = None if judge is None else reranker(judge, pipe.device)
        settings = _settings(options)
        guidance = _guidance(options)
        if options.as_worker is not None:
            return worker.serve(pipe, options.output, settings, options.overwrite, rank_with, guidance)
        report_file = None if options.report is None else ReportFile(options.report)
        sheet = None if options.sheet is None else Sheet(options.sheet)
    except (ValueError, OSError) as error:
        return _misuse(str(error))
    show = options.progress or sys.stderr.isatty()
    terminal = Terminal(show)
    # Stages that draw row by row may need minutes for one photo.
    steps = StepBar(leave=False) if show and team is None and pipe.coarse.autoregressive else None

    def each(outcome: Outcome) -> None:
        for listener in (terminal, report_file, sheet):
            if listener is not None:
                listener.each(outcome)

    code = 0
    with Interruptions(terminal.say) as interruptions:
        hears = Listeners(terminal.say, each, terminal.update, steps, interruptions)
        choices: dict[str, Any] = {
            "overwrite": options.overwrite, "rank_with": rank_with, "guidance": guidance, "listeners": hears,
            "dry": options.dry_run,
        }  # fmt: skip
        try:
            if to_file:
                report = color_file(pipe, options.paths[0], options.output, settings, **choices)
            else:
                chosen = Chosen(tuple(options.include), tuple(options.exclude))
                report = color_files(pipe, options.paths, options.output, settings, **choices, chosen=chosen, team=team)
        except (OptionError, Locked, WorkerError) as error:
            return _misuse(str(error))
        except OutputLost as lost:
            report, code = lost.report, 1
            terminal.say(f"{lost}; stopped, the same command goes on from here")
        finally:
            if steps is not None:
                steps.close()
            terminal.close()
            if report_file is not None:
                report_file.close()
            if sheet is not None:
                sheet.close()
    return summed_up(terminal, report, interruptions.signal, options.paths, code, options.dry_run)


def _why_wrong(options: argparse.Namespace) -> str | None:
    """Why options do not go together; None where they do."""
    if options.preview and options.samples > 1:
        return "--preview is one picture per photo; leave out --samples"
    if options.preview and options.rank_with:
        return "--preview draws no candidates that --rank-with could order; leave one of them out"
    return steering.why_wrong(options)


def _settings(options: argparse.Namespace) -> Settings:
    """Raises OptionError for values out of range."""
    from pipeline.files.records import Settings
    from stages.options import SampleOptions

    return Settings(
        samples=options.samples, seed=options.seed, dtype=options.dtype, preview=options.preview,
        uncertainty=options.uncertainty, overlay=options.uncertainty_overlay, format=options.format,
        quality=options.quality, page=options.page, palette=options.palette, strength=options.strength,
        candidate=options.candidate, provenance=not options.no_provenance,
        max_pixels=None if options.max_megapixels is None else options.max_megapixels * 1_000_000,
        options=SampleOptions(
            steps=options.steps, superres_steps=options.superres_steps, temperature=options.temperature,
            chroma_gain=options.chroma_gain, pool=options.pool, sharpness=options.sharpness,
        ),
    )


def _guidance(options: argparse.Namespace) -> Guidance:
    """Raises ValueError, OSError for a reference that is none."""
    from pipeline.files.guidance import Guidance

    return Guidance(tuple(options.hint), options.hints, options.keep).with_reference(options.reference)


def _repeat(options: argparse.Namespace) -> int:
    to_file = _names_a_file(options.output)
    reason = like.why_not(options, to_file) or _why_wrong_output(options, to_file)
    return _misuse(reason) if reason else like.run(options, _placement, _misuse)


def _names_a_file(output: Path) -> bool:
    from pipeline.images.photo import FORMATS

    return output.suffix.lower() in FORMATS and not output.is_dir()


def _why_wrong_output(options: argparse.Namespace, to_file: bool) -> str | None:
    """Why the inputs can not go where -o says; None when they can."""
    from pipeline.images.photo import FORMATS

    output, paths = options.output, options.paths
    if not to_file:
        if not output.exists() or output.is_dir():
            return None
        return f"{output} is a file; -o names a folder, or for one photo a file with a known suffix"
    if len(paths) > 1 or paths[0].is_dir():
        return f"-o {output} names a file, which one photo can be written to; for more name a folder"
    if os.path.realpath(paths[0]) == os.path.realpath(output):
        return f"-o {output} is the photo itself; an input is never overwritten"
    if options.page == "all":
        return f"-o {output} names a file, --page all asks for several; name a folder"
    if options.format not in ("keep", FORMATS[output.suffix.lower()]):
        return f"-o {output} and --format {options.format} do not go together; leave out --format"
    return None


def _placement(device: str, dtype: str):
    """(torch.device, torch.dtype) for the words of the command line."""
    import torch

    from pipeline.placement import why_not

    if device == "auto":
        device = "mps" if torch.backends.mps.is_available() else "cpu"
        device = "cuda" if torch.cuda.is_available() else device
    place = torch.device(device)
    if dtype == "auto":
        # On a CPU bfloat16 is offered, not chosen: float32 gives one picture on all of them.
        fast = place.type == "cuda" and why_not(place, torch.bfloat16) is None
        return place, torch.bfloat16 if fast else torch.float32
    return place, getattr(torch, dtype)


class _RaisingParser(argparse.ArgumentParser):
    """Says what is wrong in a ValueError instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message.removeprefix("argument "))


class _Renamed(argparse.Action):
    """An option that has another name now: refused by a sentence that gives it."""

    def __init__(self, *args: Any, new: str, **kwargs: Any) -> None:  # Any: argparse's own arguments
        super().__init__(*args, **kwargs)
        self.new = new

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        parser.error(f"{option_string} is called {self.new} now")


class _Version(argparse.Action):
    def __call__(self, parser, *_: object) -> None:
        from importlib.metadata import version

        print(f"trichrome {version('trichrome')}")
        parser.exit()


def _whole(text: str, accept: Callable[[int], bool], what: str) -> int:
    if not text.isascii() or not text.isdigit() or not accept(int(text)):
        raise argparse.ArgumentTypeError(f"expected {what}, got {text!r}")
    return int(text)


def _positive(text: str) -> int:
    return _whole(text, lambda value: value >= 1, "a whole number from 1")


def _number_of_draw(text: str) -> int:
    return _whole(text, lambda value: True, "a whole number from 0")


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number from 0, got {text!r}")
    return value


def _quality(text: str) -> int:
    return _whole(text, lambda value: 1 <= value <= 100, "a whole number from 1 to 100")


def _page(text: str) -> int | Literal["all"]:
    return "all" if text == "all" else _whole(text, lambda value: value >= 1, "a whole number from 1, or all")


if __name__ == "__main__":
    sys.exit(main())
