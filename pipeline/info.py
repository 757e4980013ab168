"""The command `trichrome info`: the record of an output as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

# torch takes more than a second to import: nothing up here may load it.

__all__ = ["add_command"]


def add_command(commands: Any) -> None:  # Any: argparse does not name its type
    """Adds `info` to the subcommands of `trichrome`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "info", help="what a colored picture or video says of its coloring, as JSON",
        description="Print the record of a picture or video that trichrome colored: by which version, weights, seed "
                    "and settings, from which input. Exit code 1 where there is none, or it was edited.",
    )  # fmt: skip
    parser.add_argument("file", type=Path, metavar="FILE", help="picture or video")
    parser.set_defaults(run=_info)


def _info(options: argparse.Namespace) -> int:
    from pipeline.files.report import shown
    from pipeline.images.photo import ImageError
    from pipeline.provenance.record import RecordError, checked, read_record
    from pipeline.video.errors import SUFFIXES, VideoError, check_extra

    try:
        if options.file.suffix.lower() in SUFFIXES:
            check_extra()
            from pipeline.video.record import read_record as read_video_record

            record = read_video_record(options.file)
        else:
            record = read_record(options.file)
        print(json.dumps(record, indent=2))
        checked(record, options.file)
    except (RecordError, ImageError, VideoError) as error:
        print(f"trichrome info: {shown(error)}", file=sys.stderr)
        return 1
    return 0
