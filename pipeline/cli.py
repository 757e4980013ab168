"""The command `trichrome`. The work is in pipeline/files; here are options, messages and exit codes.

Exit codes: 0 all photos are colored, 1 some are not (each has its line on stderr), 2 wrong usage, 130
interrupted.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline import translate

# torch takes more than a second to import: nothing up here may load it.

__all__ = ["main"]

RENAMED = {"--doubt": "--uncertainty", "--vividness": "--chroma-gain"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the arguments `argv` (by default those of the process); returns the exit code."""
    parser = _parser()
    try:
        options = parser.parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    if not hasattr(options, "run"):
        parser.print_help(sys.stderr)
        return 2
    try:
        return options.run(options)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where this one stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="trichrome", description="Colors black-and-white photographs.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(title="commands", metavar="")
    colorize = commands.add_parser(
        "colorize", help="color photos and folders of photos",
        description="Color photos and folders of photos. Every photo keeps its size, luma (to half a level in PNG "
                    "and TIFF), bit depth, EXIF and alpha. Run again, it colors only what is new or was colored "
                    "with other settings.",
    )
    add = colorize.add_argument
    add("paths", nargs="+", type=Path, metavar="PATH", help="photo, or folder (searched to the bottom)")
    add("-o", "--output", required=True, type=Path, metavar="OUT", help="folder for the colored photos")
    add("--samples", type=_positive, default=1, metavar="K", help="pictures per photo (default 1)")
    add("--seed", type=int, default=0, metavar="N", help="another seed, other colors (default 0)")
    add("--steps", type=_positive, metavar="N", help="sampling steps of stage 1 (default: its own)")
    add(
        "--pool",
        type=_positive,
        metavar="N",
        help="draws of which the first picture is the most central (default: stage 1's number; 1: no choosing)",
    )
    add("--superres-steps", type=_positive, metavar="N", help="steps of stage 3 (default: its own)")
    add("--temperature", type=_number, metavar="T",
        help="of stage 1's draws: less is surer and less varied, 1 as it has learned them (default: its own)")
    add("--chroma-gain", type=_number, metavar="G", help="factor on the chroma of stage 1's draws (default: its own)")
    add("--sharpness", type=_number, metavar="S", help="of the edges of color, 0 to 2 (default: the pipeline's own)")
    for old, new in RENAMED.items():
        add(old, action=_Renamed, new=new, nargs="?", help=argparse.SUPPRESS)
    add("--preview", action="store_true", help="one-pass colors: fast and pale")
    add("--uncertainty", action="store_true", help="also write NAME-uncertainty.png: white where it may well be wrong")
    add("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="default: the best there is")
    add("--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto",
        help="precision of the networks (auto: bfloat16 on cards that have it, else float32)")
    add("--format", choices=["keep", "png", "jpeg", "tiff", "webp"], default="keep",
        help="format of the outputs (default: that of each input's name)")
    add("--quality", type=_quality, default=95, metavar="Q", help="of JPEG and WebP, 1 to 100 (default 95)")
    add("--rank-with", metavar="FOLDER",
        help="put candidates in order by the likelihoods of this stage 1 (kind coltran or pic), the likeliest first")
    add("--weights", metavar="FOLDER", help="pipeline folder or hub id (default: the weights in the package)")
    add("--overwrite", action="store_true",
        help="color everything again and replace files in the way (an input is never replaced)")
    add("--progress", action="store_true", help="a progress bar even where stderr is no terminal")
    colorize.set_defaults(run=_colorize)
    translate.add_command(commands, _placement)
    return parser


def _colorize(options: argparse.Namespace) -> int:
    if options.preview and options.samples > 1:
        return _misuse("--preview is one picture per photo; leave out --samples")
    if options.preview and options.rank_with:
        return _misuse("--preview draws no candidates that --rank-with could order; leave one of them out")
    if options.output.exists() and not options.output.is_dir():
        return _misuse(f"{options.output} is a file; -o names a folder")

    from pipeline.color_pipeline import ColorPipeline
    from pipeline.files.records import Settings
    from pipeline.files.run import color_files
    from pipeline.progress import StepBar
    from pipeline.request import reranker
    from stages.options import OptionError, SampleOptions
    from stages.registry import load_stage

    try:
        pipe = ColorPipeline.from_pretrained(options.weights).to(*_placement(options.device, options.dtype))
        rank_with = None if options.rank_with is None else reranker(load_stage(options.rank_with))
        settings = Settings(
            samples=options.samples, seed=options.seed, dtype=options.dtype, preview=options.preview,
            uncertainty=options.uncertainty, format=options.format, quality=options.quality,
            options=SampleOptions(
                steps=options.steps, superres_steps=options.superres_steps, temperature=options.temperature,
                chroma_gain=options.chroma_gain, pool=options.pool, sharpness=options.sharpness,
            ),
        )
    except (ValueError, OSError) as error:
        return _misuse(str(error))
    show = options.progress or sys.stderr.isatty()
    bar = _Bar(show)
    # Stages that draw row by row may need minutes for one photo.
    steps = StepBar(leave=False) if show and pipe.coarse.autoregressive else None
    try:
        report = color_files(
            pipe, options.paths, options.output, settings,
            overwrite=options.overwrite, say=bar.say, progress=bar.update, step=steps,
            rank_with=rank_with,
        )
    except OptionError as error:
        return _misuse(str(error))
    except OSError as error:  # the output folder itself
        bar.say(f"{options.output}: {error.strerror or error}")
        return 1
    finally:
        if steps is not None:
            steps.close()
        bar.close()
    print(f"{report.colored} colored, {report.skipped} skipped (finished before), "
          f"{len(report.failed)} failed, {report.seconds:.1f} s")
    return 1 if report.failed else 0


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


class _Bar:
    """Progress on stderr, made at the first photo; lines said meanwhile go above it."""

    def __init__(self, show: bool) -> None:
        self.show = show
        self.bar: Any = None

    def update(self, done: int, total: int) -> None:
        if not self.show or total == 0:
            return
        if self.bar is None:
            from tqdm import tqdm

            self.bar = tqdm(total=total, unit="photo", file=sys.stderr, dynamic_ncols=True)
        self.bar.update(done - self.bar.n)

    def say(self, line: str) -> None:
        if self.bar is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self.bar.write(line, file=sys.stderr)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


class _Renamed(argparse.Action):
    """An option that has another name now: refused by a sentence that gives it."""

    def __init__(self, *args: Any, new: str, **kwargs: Any) -> None:
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


def _misuse(message: str) -> int:
    print(f"trichrome colorize: error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
