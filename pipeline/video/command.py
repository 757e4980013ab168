"""The command `trichrome video`: its options, messages and exit codes; the work is in run.py.

Exit codes: 0 it is colored, 1 it can not be read, colored or written, 2 wrong usage, a missing extra, or an output in
use, 130 and 143 interrupted by SIGINT or SIGTERM.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import steering
from pipeline.arguments import add_networks, add_sampling, from_one, placement, sample_options
from pipeline.files.interruptions import GOES_ON
from pipeline.files.report import misuse
from pipeline.video.errors import check_extra

if TYPE_CHECKING:
    from pipeline.video.settings import Summary, VideoSettings

# torch takes more than a second to import: nothing up here may load it.

__all__ = ["add_command"]

_misuse = partial(misuse, "video")


def add_command(commands: Any) -> None:  # Any: argparse does not name its type
    """Adds `video` to the subcommands of `trichrome`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "video", help="color a video, or a folder of frames",
        description="Color a video or a folder of frames so that the colors hold still. Sound, times, size, rotation "
                    "and luma stay. Run again after an interruption, it goes on where it stopped.",
    )  # fmt: skip
    add = parser.add_argument
    add("path", type=Path, metavar="PATH", help="video, or folder of frames in the order of their numbers")
    add("-o", "--output", required=True, type=Path, metavar="OUT",
        help="video to write: .mp4, .m4v, .mov or .mkv; of a folder of frames a folder")
    add("--hints", action="append", type=_hints, default=[], metavar="FRAME=FILE",
        help="known colors of a frame, counted from 0: a hints file (.json) or a picture of strokes; repeatable")
    add_sampling(parser)
    steering.add_leaning(parser)
    add("--codec", choices=["h264", "hevc", "ffv1"], help="default: h264, of 10 bits hevc; ffv1, without loss, in .mkv")
    add("--crf", type=int, choices=range(0, 52), default=16, metavar="N",
        help="quality of h264 and hevc, 0 to 51, less is better (default %(default)s)")
    add("--quality", type=int, choices=range(1, 101), default=95, metavar="Q",
        help="of frames that are JPEG or WebP, 1 to 100 (default %(default)s)")
    add_networks(parser)
    add("--threads", type=from_one, metavar="N", help="of the networks on a CPU (default: all cores)")
    add("--no-provenance", action="store_true", help="do not write that colors are synthesized, and by what")
    add("--overwrite", action="store_true", help="replace files in the way (an input is never replaced)")
    add("--progress", action="store_true", help="a progress bar even where stderr is no terminal")
    parser.set_defaults(run=_video)


def _video(options: argparse.Namespace) -> int:
    if len(dict(options.hints)) < len(options.hints):
        return _misuse("--hints names a frame twice; put its hints into one file")
    try:
        check_extra()
        import torch

        from pipeline.color_pipeline import ColorPipeline

        if options.threads is not None:
            torch.set_num_threads(options.threads)
        settings = _settings(options)
        pipe = ColorPipeline.from_pretrained(options.weights).to(*placement(options.device, options.dtype))
    except (ValueError, OSError) as error:
        return _misuse(str(error))

    from pipeline.files.interruptions import Interruptions
    from pipeline.files.lock import Locked
    from pipeline.video.bars import Bars
    from pipeline.video.run import color_video
    from pipeline.video.settings import Telling
    from stages.options import OptionError

    bars = Bars(options.progress or sys.stderr.isatty())
    with Interruptions(bars.say, "after the frame at hand") as interruptions:
        try:
            summary = color_video(pipe, options.path, options.output, settings,
                                  Telling(bars.say, bars.update, interruptions))  # fmt: skip
        except (OptionError, Locked) as error:
            return _misuse(str(error))
        except (ValueError, OSError) as error:
            bars.say(f"trichrome video: error: {error}")
            return 1
        finally:
            bars.close()
        if not summary.finished:
            bars.say(GOES_ON)
            return 128 + (interruptions.signal or 2)
        print(_sentence(summary, options.output))
        return 0


def _settings(options: argparse.Namespace) -> VideoSettings:
    """Raises OptionError for values out of range, ValueError and OSError for files that are none."""
    from pipeline.files.guidance import Guidance
    from pipeline.request import Request
    from pipeline.video.settings import VideoSettings
    from stages.hints.palette import palette_chroma

    if not options.path.exists():
        raise ValueError(f"{options.path}: no such file or folder")
    guidance = Guidance().with_reference(options.reference)
    request = Request(
        options=sample_options(options),
        palette=palette_chroma(options.palette) if options.palette else None, strength=options.strength,
    )  # fmt: skip
    return VideoSettings(
        request, options.seed, guidance.reference, guidance.reference_sha256, dict(options.hints), options.codec,
        options.crf, options.quality, not options.no_provenance, options.overwrite,
    )  # fmt: skip


def _hints(text: str) -> tuple[int, Path]:
    number, _, file = text.partition("=")
    if not (number.isascii() and number.isdigit() and file):
        raise argparse.ArgumentTypeError(f"expected FRAME=FILE, such as 120=frame.hints.json, got {text!r}")
    if not Path(file).is_file():
        raise argparse.ArgumentTypeError(f"{file}: no such file")
    return int(number), Path(file)


def _sentence(summary: Summary, output: Path) -> str:
    if summary.frames == 0:
        return f"{output} is finished already, by the same settings"
    scenes = "1 scene" if summary.scenes == 1 else f"{summary.scenes} scenes"
    before = summary.frames - summary.colored
    earlier = f", {before} of them before" if before else ""
    return f"{summary.frames} frames colored in {scenes}{earlier}, {summary.seconds:.1f} s"
