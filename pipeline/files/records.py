"""What a run over files is told, plans and reports."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.images.photo import FORMATS
from stages.options import SampleOptions


@dataclass(frozen=True)
class Settings:
    """What decides the outputs. A photo is finished only for the settings it was colored with."""

    samples: int = 1
    seed: int = 0
    dtype: str = "auto"
    preview: bool = False
    uncertainty: bool = False
    options: SampleOptions = field(default_factory=SampleOptions)
    format: str = "keep"
    quality: int = 95

    def record(self, suffix: str) -> dict[str, Any]:
        """As the manifest keeps them for an output of this suffix: `format` shows in the name, `quality`
        counts only where it is used."""
        kept = dataclasses.asdict(self)
        del kept["format"]
        if FORMATS[suffix.lower()] in ("png", "tiff"):
            del kept["quality"]
        return kept


@dataclass(frozen=True)
class Job:
    """One photo: where it is and, relative to the output folder, what it becomes: pictures, and an uncertainty map."""

    source: Path
    pictures: tuple[Path, ...]
    uncertainty: Path | None = None

    @property
    def outputs(self) -> tuple[Path, ...]:
        return self.pictures if self.uncertainty is None else (*self.pictures, self.uncertainty)


@dataclass
class Report:
    """What happened. `failed` are (path, one-line reason); `notes` likewise, of photos that went well."""

    colored: int = 0
    skipped: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)
    notes: list[tuple[Path, str]] = field(default_factory=list)
    seconds: float = 0.0


class Refused(Exception):
    """A photo that is not colored, and why, in one line."""
