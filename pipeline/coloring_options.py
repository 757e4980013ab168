"""The options that `trichrome colorize` and `trichrome batch` have in common, and the settings they ask for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline import steering
from pipeline.arguments import (
    add_format,
    add_max_megapixels,
    add_networks,
    add_sampling,
    from_one,
    from_zero,
    max_pixels,
    sample_options,
    whole,
)

if TYPE_CHECKING:
    from pipeline.files.records import Settings

# torch takes more than a second to import: nothing up here may load it.

__all__ = ["add_coloring_options", "add_folder_options", "settings"]

RENAMED = {"--doubt": "--uncertainty", "--vividness": "--chroma-gain"}


def add_coloring_options(parser: argparse.ArgumentParser) -> None:
    """Adds those that decide the pictures; `settings` reads them."""
    add = parser.add_argument
    add("--samples", type=from_one, default=1, metavar="K", help="pictures per photo (default 1)")
    add_sampling(parser)
    add("--candidate", type=from_zero, metavar="N",
        help="number of the draw that is the one picture, as an earlier run has it in its manifest (default: chosen)")
    for old, new in RENAMED.items():
        add(old, action=_Renamed, new=new, nargs="?", help=argparse.SUPPRESS)
    steering.add_options(parser)
    add("--preview", action="store_true", help="one-pass colors: fast and pale")
    add("--uncertainty", action="store_true", help="also write NAME-uncertainty.png: white where it may well be wrong")
    add("--uncertainty-overlay", action="store_true",
        help="also write NAME-overlay.png: the map over the picture, with a legend")
    add("--page", type=_page, metavar="N|all", help="of TIFF and WebP files that hold several pictures")
    add_max_megapixels(parser)
    add_networks(parser)
    add_format(parser)
    add("--rank-with", metavar="FOLDER",
        help="put candidates in order by the scores of this critic or stage 1 (kind coltran or pic), the best first")
    add("--no-provenance", action="store_true",
        help="do not write into the outputs that their colors are synthesized, and by what")


def add_folder_options(parser: argparse.ArgumentParser) -> None:
    """Adds those of many photos."""
    add = parser.add_argument
    add("--overwrite", action="store_true",
        help="color everything again and replace files in the way (an input is never replaced)")
    add("--include", action="append", default=[], metavar="GLOB", help="of folders, photos that fit; may be repeated")
    add("--exclude", action="append", default=[], metavar="GLOB", help="of folders, none that fit; may be repeated")
    add("--dry-run", action="store_true", help="write nothing, only say what would become of each photo")
    add("--report", type=Path, metavar="FILE", help="write what became of each input, one line of JSON each")
    add("--progress", action="store_true", help="a progress bar even where stderr is no terminal")


def settings(options: argparse.Namespace) -> Settings:
    """Raises OptionError for values out of range."""
    from pipeline.files.records import Settings

    return Settings(
        samples=options.samples, seed=options.seed, dtype=options.dtype, preview=options.preview,
        uncertainty=options.uncertainty, overlay=options.uncertainty_overlay, format=options.format,
        quality=options.quality, page=options.page, palette=options.palette, strength=options.strength,
        candidate=options.candidate, provenance=not options.no_provenance,
        max_pixels=max_pixels(options), options=sample_options(options),
    )  # fmt: skip


class _Renamed(argparse.Action):
    """An option that has another name now: refused by a sentence that gives it."""

    def __init__(self, *args: Any, new: str, **kwargs: Any) -> None:  # Any: argparse's own arguments
        super().__init__(*args, **kwargs)
        self.new = new

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        parser.error(f"{option_string} is called {self.new} now")


def _page(text: str) -> int | Literal["all"]:
    return "all" if text == "all" else whole(text, lambda value: value >= 1, "a whole number from 1, or all")
