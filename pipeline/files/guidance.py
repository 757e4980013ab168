"""What a person gives beside the photos of a run: hints, colors to keep, a reference; what of it counts as finished.

A file `photo.jpg.hints.json` beside a photo keeps a correction: every run takes it, see `stages.hints.hints`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from PIL import Image

from pipeline.files.records import Refused
from pipeline.guides import guide_for, reference_from
from pipeline.images import Photo
from pipeline.known_colors import Guide
from stages.checkpoint import sha256_of
from stages.hints.hints import Hints, Point, strokes_file

__all__ = ["HINTS", "Guidance", "hints_beside", "hints_files"]

HINTS = ".hints.json"
STROKES = f"{HINTS}.strokes.png"  # as `Hints.save` names them


def hints_beside(photo: Path) -> Path | None:
    """The hints file of a photo, None where there is none."""
    path = photo.with_name(photo.name + HINTS)
    return path if path.is_file() else None


def hints_files(folder: Path, names: Sequence[str]) -> dict[str, bool]:
    """Of the names in a folder those that are hints files or strokes named by one: whether they belong to a photo."""
    files = {name: False for name in names if name.endswith(STROKES)}
    for name in names:
        photo = name.removesuffix(HINTS)
        if photo == name:
            continue
        files[name] = photo in names
        try:
            strokes = strokes_file(folder / name)
        except (ValueError, OSError):  # the photo will say what is wrong with it
            continue
        if strokes is not None and strokes.name != photo and strokes.parent == folder.resolve():
            files[strokes.name] = files[name]
    return files


@dataclass(frozen=True)
class Guidance:
    """points: (x, y, color) or (x, y, color, radius), hints: a hints file or a picture of strokes, keep: a mask; these
    three of the only photo of a run. Where neither points nor hints are given, the file beside each photo counts.
    reference: a picture in color, of all photos; reference_sha256: of its file
    """

    points: tuple[tuple[object, ...], ...] = ()
    hints: Path | None = None
    keep: Path | None = None
    reference: Photo | None = None
    reference_sha256: str | None = None

    def with_reference(self, path: Path | None) -> Self:
        """With the picture in this file as the reference. Raises ValueError, OSError where it is none in color."""
        if path is None:
            return self
        try:
            reference = reference_from(path)
        except ValueError as error:
            raise ValueError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
        return dataclasses.replace(self, reference=reference, reference_sha256=sha256_of(path))

    def key(self, photo: Path) -> dict[str, Any]:
        """What the manifest remembers of it for a photo; empty where there is nothing. Raises ValueError, OSError."""
        key: dict[str, Any] = {}
        if self.points:
            key["points"] = [list(point) for point in self.points]
        if (hints := self._hints_of(photo)) is not None:
            key["hints"] = sha256_of(hints)
            if hints.name.endswith(".json") and (strokes := strokes_file(hints)) is not None:
                key["strokes"] = sha256_of(strokes)
        if self.keep is not None:
            key["keep"] = sha256_of(self.keep)
        if self.reference_sha256 is not None:
            key["reference"] = self.reference_sha256
        return key

    def guide(self, file: Path, photo: Photo, pages: bool) -> tuple[Guide, tuple[str, ...]]:
        """What is given for one photo, and notes on it. pages: the photo is one of several that the file may hold.

        Raises ValueError, OSError, Refused.
        """
        path = self._hints_of(file)
        if pages and path is not None:
            raise Refused(f"{path} is for one picture, --page all asks for all of a file; color its page by --page N")
        hints = None if path is None else _hints(path, photo)
        if self.points:
            points = [Point(*point) for point in self.points]  # type: ignore[arg-type]  # `Hints` checks them
            hints = Hints(_size(photo), points) if hints is None else dataclasses.replace(
                hints, points=[*hints.points, *points])  # fmt: skip
        notes = () if path is None or path == self.hints else (f"with the hints of {path.name}",)
        return guide_for(photo, hints, self.keep, self.reference), notes

    def _hints_of(self, photo: Path) -> Path | None:
        return self.hints if self.hints is not None or self.points else hints_beside(photo)


def _hints(path: Path, photo: Photo) -> Hints:
    if path.name.endswith(".json"):
        return Hints.load(path)
    try:
        with Image.open(path) as strokes:
            return Hints(_size(photo), strokes=strokes.copy())
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: {error}") from error


def _size(photo: Photo) -> tuple[int, int]:
    return photo.gray.shape[1], photo.gray.shape[0]
