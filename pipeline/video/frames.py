"""A folder of frames: each a picture file, in the order of the numbers in their names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.files.guidance import hints_beside, hints_files
from pipeline.images import FORMATS, Photo, load_photo
from pipeline.images.photo import READ_ONLY
from pipeline.video.errors import VideoError
from pipeline.video.intervals import Frame

__all__ = ["FrameFolder", "PhotoFrame"]


class PhotoFrame(Frame):
    def __init__(self, number: int, photo: Photo) -> None:
        self.number, self._photo = number, photo

    def gray(self) -> NDArray[np.float32]:
        return self._photo.gray

    def photo(self) -> Photo:
        return self._photo


@dataclass(frozen=True)
class FrameFolder:
    """files: of the frames, in order"""

    path: Path
    files: tuple[Path, ...]

    @classmethod
    def opened(cls, path: Path) -> FrameFolder:
        """Raises VideoError where the folder holds no picture."""
        suffixes, there = (*FORMATS, *READ_ONLY), list(path.iterdir())
        of_hints = hints_files(path, [one.name for one in there])
        files = [one for one in there if one.suffix.lower() in suffixes
                 and not one.name.startswith(".") and one.name not in of_hints]  # fmt: skip
        if not files:
            raise VideoError(f"{path} holds no frames: pictures whose names end in {', '.join(suffixes)}")
        return cls(path, tuple(sorted(files, key=_order)))

    def frames(self, first: int = 0) -> Iterator[PhotoFrame]:
        """From the frame of this number on, counted from 0."""
        size: tuple[int, ...] | None = None
        for number, file in enumerate(self.files[first:], first):
            photo = load_photo(file)
            if size not in (None, photo.gray.shape):
                raise VideoError(f"{file} has another size than the frames before it; color it by itself")
            size = photo.gray.shape
            yield PhotoFrame(number, photo)

    def hints(self) -> dict[int, Path]:
        """The hints files beside frames, by their numbers."""
        beside = {number: hints_beside(file) for number, file in enumerate(self.files)}
        return {number: path for number, path in beside.items() if path is not None}

    def names(self) -> list[str]:
        """Of the outputs, one for each frame: theirs, PNG where their format is not written. Raises VideoError."""
        names = [file.name if file.suffix.lower() in FORMATS else f"{file.stem}.png" for file in self.files]
        if len({name.lower() for name in names}) < len(names):
            raise VideoError(f"{self.path} holds frames that would be written to one name; rename them")
        return names


def _order(path: Path) -> tuple[list[tuple[int, str]], str]:
    """frame9 before frame10."""
    parts = re.split(r"(\d+)", path.stem)
    return [(int(part), "") if part.isdigit() and part.isascii() else (-1, part) for part in parts], path.suffix
