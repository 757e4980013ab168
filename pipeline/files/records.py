"""What a run over files is told, plans and reports."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline.images.photo import FORMATS, Photo
from pipeline.known_colors import Guide
from stages.options import SampleOptions


@dataclass(frozen=True)
class Settings:
    """What decides the outputs. A photo is finished only for the settings it was colored with.

    page: of files of several pages: its number from 1, or "all", each a picture; None refuses such files
    max_pixels: of pictures that are read, see `load_photo`
    palette: colors that pictures lean to, as people write them; strength: factor on the chroma at the end
    candidate: number of the draw that is the one picture; None: it is chosen
    provenance: outputs carry the record of their coloring
    """

    samples: int = 1
    seed: int = 0
    dtype: str = "auto"
    preview: bool = False
    uncertainty: bool = False
    overlay: bool = False
    options: SampleOptions = field(default_factory=SampleOptions)
    format: str = "keep"
    quality: int = 95
    page: int | Literal["all"] | None = None
    max_pixels: int | None = None
    palette: tuple[str, ...] = ()
    strength: float = 1.0
    candidate: int | None = None
    provenance: bool = True

    def record(self, suffix: str) -> dict[str, Any]:
        """As the manifest keeps them for an output of this suffix: `format` shows in the name, `quality`
        counts only where it is used."""
        kept = dataclasses.asdict(self)
        del kept["format"], kept["max_pixels"]
        kept["palette"] = list(self.palette)  # as JSON gives it back
        if self.strength == 1:
            del kept["strength"]
        if self.candidate is None:
            del kept["candidate"]
        # Younger than other manifests, which have no such entries.
        for name in ("page", "overlay", "palette", "provenance"):
            if not kept[name]:
                del kept[name]
        if FORMATS[suffix.lower()] in ("png", "tiff"):
            del kept["quality"]
        return kept


@dataclass(frozen=True)
class Job:
    """One photo: where it is and, relative to the output folder, what it becomes: pictures, an uncertainty map and the
    same over the first picture.

    page: of its file, counted from 1; None: the file holds one picture
    """

    source: Path
    pictures: tuple[Path, ...]
    uncertainty: Path | None = None
    overlay: Path | None = None
    page: int | None = None

    @property
    def outputs(self) -> tuple[Path, ...]:
        return (*self.pictures, *(path for path in (self.uncertainty, self.overlay) if path is not None))


@dataclass(frozen=True)
class Loaded:
    """A job under way: its photo, notes on its file, what the manifest will call finished, and what guides its colors.

    source: the manifest's entry of the input
    said: on what was colored before and now is replaced
    """

    job: Job
    photo: Photo
    notes: tuple[str, ...]
    key: dict[str, Any]
    source: dict[str, Any]
    said: str | None = None
    guide: Guide = field(default_factory=Guide)


@dataclass
class Report:
    """What happened, or would: `planned`.

    `failed` and `ignored` are (path, one-line reason); `notes` likewise, of photos that went well.
    """

    colored: int = 0
    skipped: int = 0
    planned: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)
    notes: list[tuple[Path, str]] = field(default_factory=list)
    ignored: list[tuple[Path, str]] = field(default_factory=list)
    seconds: float = 0.0


class Refused(Exception):
    """A photo that is not colored, and why, in one line."""
