"""What a person gives beside the photographs of a call, checked against each: hints, colors to keep, a reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from pipeline.images import Photo
from pipeline.kept import Kept
from pipeline.known_colors import Guide
from pipeline.sources import Source, photo_from
from stages.hints.hints import Hints, Point

__all__ = ["HintsSource", "guide_for", "hints_for", "kept_for", "one_per_photo", "reference_from"]

HintsSource = Hints | Image.Image | Sequence[Sequence[object]] | None
"""Points (x, y, color) or (x, y, color, radius), an RGBA picture of strokes, `Hints`, or nothing."""


def one_per_photo(name: str, given: Any, several: bool, count: int) -> list[Any]:  # Any: of each argument its own
    """One entry per photo. several: whether the call is for a list of photos, which takes a list of what is given."""
    if given is None:
        return [None] * count
    if not several:
        return [given]
    if not isinstance(given, list | tuple) or len(given) != count:
        raise ValueError(f"{name} of several photos must be a list of {count}, one entry for each or None; got "
                         f"{len(given) if isinstance(given, list | tuple) else type(given).__name__}")  # fmt: skip
    return list(given)


def guide_for(photo: Photo, hints: HintsSource, keep: Source | None, reference: Photo | None) -> Guide:
    """What is given for one photo. Raises ValueError for what does not fit it."""
    return Guide(hints_for(photo, hints), None if keep is None else kept_for(photo, keep), reference)


def hints_for(photo: Photo, source: HintsSource) -> Hints | None:
    """The hints of one photo, None where there are none. Raises ValueError for hints of another photo, see `Hints`."""
    if source is None:
        return None
    size = _size(photo)
    if isinstance(source, Hints):
        hints = source
    elif isinstance(source, Image.Image):
        hints = Hints(size, strokes=source)
    else:
        hints = Hints(size, [_point(point) for point in source])
    if hints.size != size:
        raise ValueError(f"these hints are for a photo of {hints.size[0]}x{hints.size[1]} pixels; got one of "
                         f"{size[0]}x{size[1]}, upright. Make them anew for it.")  # fmt: skip
    return hints if hints.points or hints.strokes is not None else None


def kept_for(photo: Photo, mask: Source) -> Kept:
    """The colors that a photo read with `keep_rgb` keeps. mask: gray levels, white keeps; of the photo's size."""
    if photo.rgb is None:
        raise ValueError("this Photo was read without its colors, so there is none to keep; "
                         "load_photo(…, keep_rgb=True) reads them")  # fmt: skip
    levels = photo_from(mask)
    if levels.gray.shape != photo.gray.shape:
        width, height = _size(photo)
        raise ValueError(f"keep must be a mask of the photo's {width}x{height} pixels, upright; got "
                         f"{levels.gray.shape[1]}x{levels.gray.shape[0]}. Make it anew for this photo.")  # fmt: skip
    if not any(np.any(photo.rgb[..., 0] != photo.rgb[..., channel]) for channel in (1, 2)):
        raise ValueError("keep is for a photo that has color in part; this one is gray all over. Leave keep out.")
    return Kept(levels.gray, photo.rgb)


def reference_from(source: Source) -> Photo:
    """A picture whose colors guide others. Raises ValueError for one without colors."""
    picture = photo_from(source, keep_rgb=True)
    if not picture.is_color:
        raise ValueError("a reference must be a picture in color; got one that is gray or of a single tint")
    return picture


def _size(photo: Photo) -> tuple[int, int]:
    return photo.gray.shape[1], photo.gray.shape[0]


def _point(point: Sequence[object]) -> Point:
    if not isinstance(point, list | tuple) or not 3 <= len(point) <= 4:
        raise ValueError(f"a hint must be (x, y, color) or (x, y, color, radius); got {point!r}")
    return Point(*point)
