"""Known colors of one photograph: points and strokes, in a file beside it, and as the tensor `hints` of the stages.

A file `photo.jpg.hints.json` holds

    {"format": 1, "size": [W, H], "points": [{"x": 12, "y": 40.5, "color": "#a32", "radius": 6}], "strokes": "file.png"}

in pixels of the upright photograph, from its upper left corner: pixel i reaches from i to i + 1. `radius` and `strokes`
may be left out. The strokes are an RGBA picture of the photograph's size; alpha says how much the color counts.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, merge
from stages.hints.words import rgb_of

__all__ = ["FORMAT", "Hints", "Point", "area_averages", "strokes_file"]

FORMAT = 1
RADIUS_SHARE = 1 / 64  # of the longer side, where a point has no radius of its own
BAND_PIXELS = 1 << 20  # of strokes, worked on at a time: bounds the memory of temporaries


class Point(NamedTuple):
    """A known color around one place: x, y and radius in pixels, color as PIL.ImageColor reads it or RGB 0..255."""

    x: float
    y: float
    color: str | Sequence[int]
    radius: float | None = None


@dataclass(frozen=True)
class Hints:
    """What is known of the colors of a photograph of `size` (width, height), upright.

    Raises ValueError, with what was expected, for points outside the photograph, colors and radii that are none, and
    strokes that are not RGBA of the photograph's size.
    """

    size: tuple[int, int]
    points: Sequence[Point] = ()
    strokes: Image.Image | None = None

    def __post_init__(self) -> None:
        if len(self.size) != 2 or not all(type(side) is int and side > 0 for side in self.size):
            raise ValueError(f"size must be (width, height) of the upright photograph, in pixels; got {self.size!r}")
        object.__setattr__(self, "size", tuple(self.size))
        object.__setattr__(self, "points", tuple(_checked(Point(*point), self.size) for point in self.points))
        if self.strokes is not None and (self.strokes.mode != "RGBA" or self.strokes.size != self.size):
            raise ValueError(
                f"strokes must be an RGBA picture of {_shown(self.size)} pixels, the photograph's; got "
                f"{self.strokes.mode} of {_shown(self.strokes.size)}. Draw them on a transparent layer of that size."
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Hints:
        """Read a hints file; its strokes must lie in its own folder or below.

        Raises ValueError, which names the file, for anything but the format above; OSError where it can not be read.
        """
        path = Path(path)
        try:
            return cls._from_json(json.loads(path.read_bytes()), path.parent)
        except RecursionError as error:
            raise ValueError(f"{path}: nested too deeply for a hints file") from error
        except ValueError as error:  # also of JSON and of Unicode
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def from_record(cls, record: object) -> Hints:
        """The hints of a file's content, read from JSON; without strokes, which are a file of their own.

        Raises ValueError for anything but the format above.
        """
        return cls._from_json(record, None)

    @classmethod
    def _from_json(cls, record: object, folder: Path | None) -> Hints:
        fields = _fields(record, "a hints file", {"format", "size", "points"}, {"strokes"})
        if type(fields["format"]) is not int or fields["format"] != FORMAT:
            raise ValueError(f"format must be {FORMAT}; got {fields['format']!r}. A newer version may read it.")
        size, points = fields["size"], fields["points"]
        if not isinstance(size, list):
            raise ValueError(f"size must be [width, height]; got {size!r}")
        if not isinstance(points, list):
            raise ValueError(f"points must be a list; got {points!r}")
        read = tuple(Point(**_fields(point, "a point", {"x", "y", "color"}, {"radius"})) for point in points)
        hints = cls(tuple(size), read)  # before the strokes are opened: their size is checked with it
        if "strokes" in fields:
            if folder is None:
                raise ValueError(f"strokes {fields['strokes']!r} are a picture beside the hints file, which is not at "
                                 "hand; leave them out")  # fmt: skip
            hints = replace(hints, strokes=_strokes(fields["strokes"], folder, hints.size))
        return hints

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the hints file and, where there are strokes, `<its name>.strokes.png` beside it."""
        path = Path(path)
        points = [{key: value for key, value in point._asdict().items() if value is not None} for point in self.points]
        record = {"format": FORMAT, "size": list(self.size), "points": points}
        if self.strokes is not None:
            strokes = path.with_name(f"{path.name}.strokes.png")
            record["strokes"] = strokes.name
            self.strokes.save(strokes)
        fresh = path.with_name(path.name + ".tmp")
        fresh.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        fresh.replace(path)

    def rasterized(self, gray: Tensor, side: int) -> Tensor:
        """The tensor `hints` of a square of `side` cells, whatever the photograph's aspect.

        A cell takes the average of what falls into it, by area; the cell of a point has weight 1. Where hints overlap,
        their colors are averaged. A color too vivid for the luma of its cell is drawn toward gray until it fits.
        gray: (1, H, W) in [0, 1], of the upright photograph -> (3, side, side): weight, then chroma * weight
        """
        width, height = self.size
        if gray.shape != (1, height, width):
            raise ValueError(
                f"these hints are for a photograph of {_shown(self.size)} pixels, gray (1, {height}, {width}); got "
                f"{tuple(gray.shape)}. Make them anew for this photograph, or turn it upright."
            )
        down, across = _coverage(height, side), _coverage(width, side)
        total = torch.zeros(3, side, side, dtype=torch.float64)
        for point in self.points:
            weight = self._disk(point, down, across)
            total += torch.cat([weight[None], weight * _chroma(point.color)])
        if self.strokes is not None:
            total += _averaged(self.strokes, side)
        weight = total[:1].clamp(max=1)
        chroma = total[1:] / total[:1].clamp_min(1e-12)
        in_gamut = chroma_from_rgb(merge(resize(gray[None].double().cpu(), (side, side))[0], chroma))
        return torch.cat([weight, in_gamut * weight]).float().to(gray.device)

    def _disk(self, point: Point, down: Tensor, across: Tensor) -> Tensor:
        """The share of each cell that a point's disk covers, 1 for the cell of the point: (side, side)."""
        width, height = self.size
        radius = max(self.size) * RADIUS_SHARE if point.radius is None else point.radius
        top, left = (max(0, math.floor(at - radius - 1)) for at in (point.y, point.x))
        bottom, right = min(height, math.ceil(point.y + radius + 1)), min(width, math.ceil(point.x + radius + 1))
        y, x = (torch.arange(a, b, dtype=torch.float64) + 0.5 for a, b in ((top, bottom), (left, right)))
        distance = torch.hypot(y[:, None] - point.y, x - point.x)
        inside = (radius + 0.5 - distance).clamp(0, 1)  # the rim of a disk cuts pixels
        weight = down[:, top:bottom] @ inside @ across[:, left:right].T
        side = len(down)
        weight[math.floor(point.y * side / height), math.floor(point.x * side / width)] = 1
        return weight


def _checked(point: Point, size: tuple[int, int]) -> Point:
    """The point with its color as RGB 0..255; raises ValueError."""
    for name, value, limit in (("x", point.x, size[0]), ("y", point.y, size[1])):
        if not _is_number(value) or not 0 <= value < limit:
            raise ValueError(f"{name} of a point must be a number from 0 to below {limit}, inside the photograph of "
                             f"{_shown(size)} pixels; got {value!r}")  # fmt: skip
    if point.radius is not None and not (_is_number(point.radius) and point.radius > 0):
        raise ValueError(f"radius of a point must be a number of pixels above 0, or left out; got {point.radius!r}")
    return point._replace(color=rgb_of(point.color))


def _is_number(value: object) -> bool:
    """Not a truth value, not NaN, and small enough to reckon with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def _fields(record: object, what: str, needed: set[str], optional: set[str]) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise ValueError(f"{what} must be an object with {', '.join(sorted(needed))}; got {type(record).__name__}")
    if missing := sorted(needed - record.keys()):
        raise ValueError(f"{what} must have {', '.join(sorted(needed))}; {', '.join(missing)} is missing")
    if unknown := sorted(record.keys() - needed - optional):
        known = ", ".join(sorted(needed | optional))
        raise ValueError(f"{what} may have {known}; got also {', '.join(unknown)}. Remove or correct it.")
    return record


def strokes_file(path: str | os.PathLike[str]) -> Path | None:
    """The file of the strokes that a hints file names; None for one without. Raises as `Hints.load`."""
    path = Path(path)
    try:
        record = json.loads(path.read_bytes())
        strokes = record.get("strokes") if isinstance(record, dict) else None
        return None if strokes is None else _named_strokes(strokes, path.parent)
    except RecursionError as error:
        raise ValueError(f"{path}: nested too deeply for a hints file") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _named_strokes(name: object, folder: Path) -> Path:
    if not isinstance(name, str) or not name:
        raise ValueError(f"strokes must be the name of a picture file; got {name!r}")
    file, home = (folder / name).resolve(), folder.resolve()
    if not file.is_relative_to(home):
        raise ValueError(f"strokes must lie in the folder of the hints file or below; got {name!r}. Move them there.")
    return file


def _strokes(name: object, folder: Path, size: tuple[int, int]) -> Image.Image:
    try:
        with Image.open(_named_strokes(name, folder)) as image:
            if image.size != size:  # from the header, before anything is decoded
                raise ValueError(f"strokes must have the photograph's {_shown(size)} pixels; got {_shown(image.size)}")
            image.load()
            return image.copy()
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"strokes {name!r} can not be read as a picture: {error}") from error


def _shown(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _chroma(color: str | Sequence[int]) -> Tensor:
    """Chroma of RGB 0..255: (2, 1, 1) float64."""
    rgb = torch.tensor(color, dtype=torch.float64) / 255
    return chroma_from_rgb(rgb[:, None, None])


def _coverage(length: int, side: int) -> Tensor:
    """Which share of each of `side` equal cells every one of `length` pixels fills: (side, length), rows sum to 1."""
    cell, pixel = torch.arange(side, dtype=torch.float64)[:, None], torch.arange(length, dtype=torch.float64)
    # In units of 1 / side of a pixel everything is a whole number.
    begin = torch.maximum(cell * length, pixel * side)
    end = torch.minimum((cell + 1) * length, (pixel + 1) * side)
    return (end - begin).clamp_min(0) / length


def area_averages(layers: Callable[[int, int], Tensor], height: int, width: int, side: int) -> Tensor:
    """Averages over each cell of a square, (C, side, side) float64, of a picture that is read in bands.

    layers(top, bottom): rows of the picture, (C, bottom - top, width) float64
    """
    down, across = _coverage(height, side), _coverage(width, side)
    rows = max(1, BAND_PIXELS // width)
    bands = ((top, min(top + rows, height)) for top in range(0, height, rows))
    return sum((down[:, top:bottom] @ layers(top, bottom) @ across.T for top, bottom in bands), start=torch.zeros(()))


def _averaged(strokes: Image.Image, side: int) -> Tensor:
    """Alpha and chroma * alpha of each cell: (3, side, side)."""
    width, height = strokes.size

    def layers(top: int, bottom: int) -> Tensor:
        band = torch.from_numpy(np.array(strokes.crop((0, top, width, bottom)))).permute(2, 0, 1).double() / 255
        return torch.cat([band[3:], chroma_from_rgb(band[:3]) * band[3:]])

    return area_averages(layers, height, width, side)
