"""What a run over a video is told, and what it tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.images import Photo
from pipeline.request import Request

__all__ = ["Summary", "Telling", "VideoSettings"]


@dataclass(frozen=True)
class VideoSettings:
    """request: of each frame; seed: of all; reference: a picture in color, of all frames, and the SHA-256 of its file
    hints: files by the number of the frame that they are for, from 0
    codec: of a video, None: by its depth; crf: its quality, less is better; quality: of JPEG and WebP frames
    provenance: whether outputs say how they were made; overwrite: what is in the way
    """

    request: Request = field(default_factory=Request)
    seed: int = 0
    reference: Photo | None = None
    reference_sha256: str | None = None
    hints: Mapping[int, Path] = field(default_factory=dict)
    codec: str | None = None
    crf: int = 16
    quality: int = 95
    provenance: bool = True
    overwrite: bool = False


@dataclass(frozen=True)
class Telling:
    """say: takes a line; progress: what is done, frames done and all of them, None where that is not known; stop:
    whether to stop
    """

    say: Callable[[str], None] = lambda line: None
    progress: Callable[[str, int, int | None], None] = lambda what, done, total: None
    stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Summary:
    """frames: of the whole video; colored: by this run; finished: False where it was told to stop"""

    frames: int
    scenes: int
    colored: int
    seconds: float
    finished: bool = True
