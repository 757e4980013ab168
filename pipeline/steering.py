"""The options by which a person steers the colors."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from pipeline.arguments import number

# torch takes more than a second to import: nothing up here may load it.

__all__ = ["add_leaning", "add_options", "palette_of", "why_wrong"]

OF_ONE_PHOTO = ("hint", "hints", "keep")
MOST_STRENGTH = 2  # pipeline.request, a test sees


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds all of them."""
    add = parser.add_argument
    add("--hint", action="append", type=_hint, default=[], metavar="X,Y,COLOR[,R]",
        help="a known color of a place, in pixels of the upright photo; may be given again")
    add("--hints", type=Path, metavar="FILE",
        help="known colors: a hints file (.json) or an RGBA picture of strokes (default: NAME.hints.json beside NAME)")
    add("--keep", type=Path, metavar="MASK", help="of the photo's size: white keeps the color that the photo has there")
    add_leaning(parser)


def add_leaning(parser: argparse.ArgumentParser) -> None:
    """Adds those that say no place."""
    add = parser.add_argument
    add("--strength", type=_strength, default=1.0, metavar="S",
        help="factor on the chroma of the finished picture, 0 (gray) to 2 (default 1)")
    add("--palette", type=palette_of, default=(), metavar="COLORS",
        help="colors that pictures lean to, such as navy,#c08040,gray")
    add("--reference", type=Path, metavar="FILE",
        help="a picture in color: what is like its places leans to their colors")


def why_wrong(options: argparse.Namespace) -> str | None:
    """Why what is given does not go with the inputs; None where it does."""
    given = [name for name in OF_ONE_PHOTO if getattr(options, name)]
    several = len(options.paths) > 1 or options.paths[0].is_dir() or options.page == "all"
    if given and several:
        words = ", ".join(f"--{name}" for name in given)
        return f"{words}: of one photo, there are several; name one PATH. NAME.hints.json beside NAME is always taken"
    for name in ("hints", "keep", "reference"):
        path = getattr(options, name)
        if path is not None and not path.is_file():
            return f"--{name} {path}: no such file"
    return None


def _strength(text: str) -> float:
    return number(text, MOST_STRENGTH)


def _hint(text: str) -> tuple[float | str, ...]:
    parts = _parts(text)
    try:
        if not 3 <= len(parts) <= 4:
            raise ValueError("three or four parts")
        x, y, *radius = (float(part) for part in (*parts[:2], *parts[3:]))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected X,Y,COLOR or X,Y,COLOR,R in pixels, got {text!r}") from error
    return x, y, _color(parts[2]), *radius


def palette_of(text: str) -> tuple[str, ...]:
    """Colors between commas. Raises argparse.ArgumentTypeError for what is no color."""
    return tuple(map(_color, _parts(text)))


def _parts(text: str) -> list[str]:
    """What is between commas; those of rgb(1, 2, 3) are within brackets."""
    return [part.strip() for part in re.split(r",(?![^()]*\))", text)]


def _color(text: str) -> str:
    from stages.hints.words import rgb_of

    try:
        rgb_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text
