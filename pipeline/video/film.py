"""A video file: what is known of it before it is decoded, and the luma of its frames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipeline.images import Photo
from pipeline.video.errors import VideoError
from pipeline.video.intervals import Frame
from pipeline.video.planes import Coding

__all__ = ["Film", "FilmFrame", "levels_of"]

# Pixel format -> bits and subsampling of the output; of gray video that which every player knows.
_FORMATS = {
    f"{name}{word}": (depth, sampling)
    for depth, word in ((8, ""), (10, "10le"))
    for name, sampling in (("gray", "420"), ("yuv420p", "420"), ("yuv422p", "422"), ("yuv444p", "444"))
} | {"yuvj420p": (8, "420"), "yuvj422p": (8, "422"), "yuvj444p": (8, "444"), "nv12": (8, "420")}
# ITU-T H.273: codes of matrix coefficients, of transfer characteristics that are not those of ordinary video, of range.
_UNKNOWN = 2
_MATRICES = {1: "bt709", 5: "bt601", 6: "bt601"}
_HDR = {16: "PQ", 18: "HLG"}
_FULL = 2  # FFmpeg's, not of H.273
_CODE_OF = {"bt709": 1, "bt601": 6}
_HD_HEIGHT = 720  # from here on players take colors without a tag for BT.709


class FilmFrame(Frame):
    """luma: (H, W) levels, as stored; pts, duration: its time, in units of the stream
    turns: quarter turns that set it upright, counterclockwise
    """

    def __init__(
        self, number: int, luma: NDArray[np.unsignedinteger], pts: int, duration: int, coding: Coding, turns: int
    ) -> None:
        self.number, self.luma, self.pts, self.duration = number, luma, pts, duration
        self.coding, self.turns = coding, turns

    def gray(self) -> NDArray[np.float32]:
        return np.ascontiguousarray(np.rot90(self.coding.gray(self.luma), self.turns))

    def photo(self) -> Photo:
        return Photo(self.gray(), 8 if self.coding.depth == 8 else 16)


@dataclass(frozen=True)
class Film:
    """What is known of the pictures of a video file. Raises VideoError in `opened` for what is not read.

    size: (width, height) as stored; sampling: "420", "422" or "444", of the chroma that is written
    rotation: degrees, counterclockwise, by which players turn it
    tags: color range, primaries, transfer and matrix by their codes, as they are written
    frame_rate: on the average; steady: whether all frames come at it; sample_aspect: of a pixel, width to height
    """

    path: Path
    size: tuple[int, int]
    coding: Coding
    sampling: str
    rotation: int
    tags: tuple[int, int, int, int]
    time_base: Fraction
    frame_rate: Fraction
    steady: bool
    sample_aspect: Fraction
    interlaced: bool
    reported_frames: int

    @classmethod
    def opened(cls, path: Path) -> Film:
        """By the headers and the first frame."""
        with _container(path) as container:
            stream = _pictures(container, path)
            first = next(iter(_decoded(container, stream, path)), None)
            if first is None:
                raise VideoError(f"{path} holds no frame")
            name = first.format.name
            if name not in _FORMATS:
                raise VideoError(f"{path} has pixels of the format {name}; what is read is luma and chroma, or gray, "
                                 "of 8 or 10 bits. Convert it first, for example by ffmpeg -pix_fmt yuv420p10le")
            depth, sampling = _FORMATS[name]
            if first.width % 2 or first.height % 2:
                sampling = "444"  # what shares chroma among pixels must have pairs of them
            matrix = _matrix(first, path)
            full = first.color_range == _FULL or name.startswith("yuvj")
            coding = Coding(matrix, depth, full)
            code = first.colorspace if first.colorspace in _MATRICES else _CODE_OF[matrix]
            tags = (_FULL if full else 1, int(first.color_primaries), int(first.color_trc), int(code))
            if first.rotation % 90:
                raise VideoError(f"{path} is turned by {first.rotation} degrees; only quarter turns are read")
            assert stream.time_base is not None
            return cls(
                path, (first.width, first.height), coding, sampling, int(first.rotation) % 360, tags, stream.time_base,
                *_rate(stream), stream.sample_aspect_ratio or Fraction(0), bool(first.interlaced_frame), stream.frames,
            )  # fmt: skip

    def frames(self, first: int = 0) -> Iterator[FilmFrame]:
        """From the frame of this number on: what is before it is decoded too, and dropped."""
        with _container(self.path) as container:
            stream = _pictures(container, self.path)
            stream.thread_type = "AUTO"
            last: int | None = None
            for number, frame in enumerate(_decoded(container, stream, self.path)):
                if (frame.width, frame.height) != self.size or _FORMATS.get(frame.format.name) is None:
                    raise VideoError(f"{self.path} changes its pictures at frame {number}: from "
                                     f"{self.size[0]}x{self.size[1]} to {frame.width}x{frame.height} "
                                     f"{frame.format.name}. Split it there")  # fmt: skip
                if frame.is_corrupt:
                    raise VideoError(f"{self.path} is damaged at frame {number}")
                if frame.pts is None or (last is not None and frame.pts <= last):
                    raise VideoError(f"{self.path} has no time, or none after the last one, at frame {number}. Wrap it "
                                     "anew, for example by ffmpeg -fflags +genpts -i … -c copy")  # fmt: skip
                last = frame.pts
                if number >= first:
                    luma = levels_of(frame.planes[0], self.coding.dtype).copy()
                    yield FilmFrame(number, luma, frame.pts, frame.duration, self.coding, self.turns)

    def notes(self, codec: str) -> list[str]:
        """What goes another way than one would think, in words."""
        notes = []
        if self.interlaced:
            notes.append("it is interlaced, and colored as if it were not; deinterlace it first")
        if codec == "ffv1" and self.sample_aspect not in (0, 1):
            notes.append(f"its pixels are not square ({self.sample_aspect}), which FFV1 does not tell here; H.264 does")
        return notes

    @property
    def turns(self) -> int:
        """Quarter turns, counterclockwise, that set a stored picture upright."""
        return self.rotation // 90


def _rate(stream: VideoStream) -> tuple[Fraction, bool]:
    """Frames a second on the average, and whether the times of all frames fit to it."""
    average, base = stream.average_rate, stream.base_rate or stream.guessed_rate or None
    if base and (not average or average > base):  # a rate that is the unit of time: of H.264 in Matroska
        average = base
    rate = Fraction(average or 25)
    return rate, base is not None and abs(rate / base - 1) < Fraction(1, 1000)


@contextmanager
def _container(path: Path) -> Iterator[InputContainer]:
    try:
        with av.open(str(path)) as container:
            yield container
    except av.FFmpegError as error:
        raise VideoError(f"{path} can not be read as a video: {error.strerror or error}") from error


def _pictures(container: InputContainer, path: Path) -> VideoStream:
    """The first stream of pictures that is no cover."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    raise VideoError(f"{path} holds no moving pictures")


def _decoded(container: InputContainer, stream: VideoStream, path: Path) -> Iterator[VideoFrame]:
    number = 0
    try:
        for frame in container.decode(stream):
            yield frame
            number += 1
    except av.FFmpegError as error:
        raise VideoError(f"{path} is damaged after frame {number}: {error.strerror or error}") from error


def _matrix(frame: VideoFrame, path: Path) -> str:
    if (transfer := _HDR.get(int(frame.color_trc))) is not None:
        raise VideoError(f"{path} is HDR ({transfer}), which is not colored; convert it to BT.709 first")
    gray = frame.format.name.startswith("gray")
    if frame.colorspace in _MATRICES:
        return _MATRICES[frame.colorspace]
    if frame.colorspace == _UNKNOWN or gray:
        return "bt709" if frame.height >= _HD_HEIGHT else "bt601"
    raise VideoError(f"{path} has colors of the matrix {int(frame.colorspace)} (ITU-T H.273), what is read is BT.601 "
                     "and BT.709; convert it to BT.709 first")  # fmt: skip


def levels_of(plane: Any, dtype: type[np.unsignedinteger]) -> NDArray[Any]:  # Any: NumPy does not know its type
    """The pixels of a plane, (H, W), in the memory that they are in."""
    return np.frombuffer(plane, dtype).reshape(plane.height, -1)[:, : plane.width]
