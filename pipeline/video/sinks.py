"""Where colored frames go, segment by segment: into a video, or into a folder of pictures."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.images import save_photo
from pipeline.images.write import written_as
from pipeline.known_colors import Guide
from pipeline.output import ImageInfo, SmallPicture
from pipeline.provenance.maker import Maker, shown_as
from pipeline.provenance.record import with_record
from pipeline.video.coloring import Colored, Draw
from pipeline.video.encoding import Segment, join, planes_of
from pipeline.video.film import Film, FilmFrame
from pipeline.video.frames import FrameFolder
from pipeline.video.work import Work

if TYPE_CHECKING:
    from pipeline.color_pipeline import ColorPipeline

__all__ = ["FilmSink", "FolderSink", "Sink"]


class Sink(ABC):
    """Takes the frames of one segment after the other, each between `begin` and `end`."""

    @abstractmethod
    def begin(self) -> None: ...

    @abstractmethod
    def write(self, colored: Colored, draw: Draw) -> None:
        """draw: of the frame's scene"""

    @abstractmethod
    def end(self) -> None:
        """All of the segment is written, as the file `under_way` of the work folder too."""

    @abstractmethod
    def finish(self) -> None:
        """Gives the output its name, when all segments are finished."""


class FilmSink(Sink):
    """record: for the comment of the video; None: without"""

    def __init__(
        self, film: Film, output: Path, work: Work, pipe: ColorPipeline, strength: float, codec: str, crf: int,
        record: str | None,
    ) -> None:  # fmt: skip
        self.film, self.output, self.work, self.pipe, self.strength = film, output, work, pipe, strength
        self.codec, self.crf, self.record = codec, crf, record
        self.segment: Segment | None = None

    def begin(self) -> None:
        self.segment = Segment(self.work.under_way, self.film, self.codec, self.crf)

    def write(self, colored: Colored, draw: Draw) -> None:
        assert self.segment is not None and isinstance(colored.frame, FilmFrame)
        chroma = planes_of(self.film, colored.frame, colored.rgb256, self.strength, self.pipe.device)
        self.segment.write(colored.frame, chroma)

    def end(self) -> None:
        assert self.segment is not None
        self.segment.close()
        self.segment = None

    def finish(self) -> None:
        segments = [path for _, path in self.work.segments()]
        joined, kind = self.work.folder / f"joined{self.output.suffix}", self.output.suffix.lower()
        join(self.film, segments, self.codec, self.record, joined, kind)
        with open(joined, "ab") as file:
            os.fsync(file.fileno())
        os.replace(joined, self.output)


class FolderSink(Sink):
    """maker: of the records of the pictures; None: without"""

    def __init__(
        self, frames: FrameFolder, output: Path, work: Work, pipe: ColorPipeline, strength: float, quality: int,
        seed: int, maker: Maker | None, guide: Guide,
    ) -> None:  # fmt: skip
        self.output, self.names, self.work, self.pipe, self.strength = output, frames.names(), work, pipe, strength
        self.quality, self.seed, self.maker, self.guide = quality, seed, maker, guide

    def begin(self) -> None:
        self.work.under_way.touch()

    def write(self, colored: Colored, draw: Draw) -> None:
        path = self.output / self.names[colored.frame.number]
        photo = written_as(path, colored.frame.photo())
        info = ImageInfo(0, draw.candidate, self.seed, draw.noise_key)
        full, _ = self.pipe.full_size(photo, SmallPicture(colored.rgb256, info), photo.depth, self.strength)
        if self.maker is not None:
            file: dict[str, Any] = shown_as("frame", path, self.quality)
            photo = with_record(photo, self.maker.record(photo, info, 1, file, self.guide))
        save_photo(path, full.rgb, photo, quality=self.quality)

    def end(self) -> None:
        pass  # each picture has its name since it was written

    def finish(self) -> None:
        pass
