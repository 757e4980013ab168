"""Writing a video: segments that are encoded one by one, joined in the end beside the sound of the input.

A segment is a file of its own, so a run that is killed keeps what is finished. Segments have no frames that refer
backward (B-frames), so the packets of one follow those of the other without a gap in time, and they are joined as they
are. They lie in NUT, FFmpeg's own container, which keeps every unit of time.
"""

from __future__ import annotations

import heapq
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import torch
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray
from torch import Tensor

from pipeline.full_resolution import full_size_rgb
from pipeline.video.errors import VideoError
from pipeline.video.film import Film, FilmFrame, levels_of

__all__ = ["CODECS", "Segment", "check_container", "codec_of", "join", "planes_of"]

CODECS = {"h264": "libx264", "hevc": "libx265", "ffv1": "ffv1"}
KEY_EVERY = 48  # frames: where players can jump to
_CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
# Of the container that was read; the muxer writes its own.
_NOT_COPIED = {"major_brand", "minor_version", "compatible_brands", "encoder", "comment"}


def codec_of(film: Film, output: Path, wanted: str | None) -> str:
    """The codec of the output, by its name in CODECS. wanted: None: H.264, of 10 bits HEVC. Raises VideoError."""
    codec = wanted or ("h264" if film.coding.depth == 8 else "hevc")
    if codec == "ffv1" and output.suffix.lower() != ".mkv":
        raise VideoError(f"FFV1 is written to Matroska; name the output {output.stem}.mkv")
    return codec


def check_container(film: Film, output: Path) -> None:
    """Raises VideoError, before any work, where the container of the output can not hold the sound of the film."""
    kind = _CONTAINERS[output.suffix.lower()]
    with av.open(str(film.path)) as source:
        # Nothing is written to it: streams are refused as they are added.
        target: Any = av.open(io.BytesIO(), "w", format=kind)
        for stream in source.streams.audio:
            try:
                target.add_stream_from_template(stream)
            except (ValueError, av.FFmpegError) as error:
                name = stream.codec_context.name
                raise VideoError(f"{output.suffix} can not hold the sound of {film.path}, which is {name}; name an "
                                 "output .mkv or .mov, or convert the sound first, for example by ffmpeg -c:v copy "
                                 "-c:a aac") from error  # fmt: skip


def planes_of(
    film: Film, frame: FilmFrame, rgb256: Tensor, strength: float, device: torch.device | str
) -> NDArray[Any]:
    """The two planes of chroma of a frame, as they are stored: (2, h, w) levels. strength: factor on the chroma"""
    gray: NDArray[Any] = film.coding.gray(frame.luma)
    if film.sampling != "444":
        gray = (gray[:, ::2] + gray[:, 1::2]) / 2
    if film.sampling == "420":
        gray = (gray[::2] + gray[1::2]) / 2
    upright = np.ascontiguousarray(np.rot90(gray, film.turns))
    rgb = full_size_rgb(upright, rgb256, None, strength=strength, device=device).rgb
    levels = film.coding.chroma(torch.from_numpy(upright)[None], rgb)
    return np.rot90(levels, -film.turns, axes=(1, 2))


class Segment:
    """A file of frames under way. crf: quality of H.264 and HEVC, less is better; FFV1 has no loss."""

    def __init__(self, path: Path, film: Film, codec: str, crf: int) -> None:
        self.film = film
        self.container: OutputContainer = av.open(str(path), "w", format="nut")
        self.stream = cast(VideoStream, self.container.add_stream(CODECS[codec], rate=film.frame_rate))
        context = self.stream.codec_context
        context.width, context.height = film.size
        context.pix_fmt = self.pixels = f"yuv{film.sampling}p" + ("" if film.coding.depth == 8 else "10le")
        context.time_base = self.stream.time_base = film.time_base
        _describe(context, film)
        context.max_b_frames, context.gop_size = 0, 1 if codec == "ffv1" else KEY_EVERY
        context.options = {
            # Of varying times the stream tells the unit of time as its rate: players go by the container's.
            "h264": {"crf": str(crf), "preset": "medium"} | ({"x264-params": "force-cfr=1"} if film.steady else {}),
            "hevc": {"crf": str(crf), "preset": "fast", "x265-params": "log-level=none"},
            "ffv1": {"level": "3", "slicecrc": "1"},
        }[codec]

    def write(self, frame: FilmFrame, chroma: NDArray[Any]) -> None:
        """chroma: of `planes_of`"""
        width, height = self.film.size
        picture = av.VideoFrame(width, height, self.pixels)
        for plane, levels in zip(picture.planes, (frame.luma, *chroma), strict=True):
            levels_of(plane, self.film.coding.dtype)[:] = levels
        picture.pts, picture.duration, picture.time_base = frame.pts, frame.duration, self.film.time_base
        with _told("a segment"):
            self.container.mux(self.stream.encode(picture))

    def close(self) -> None:
        with _told("a segment"):
            self.container.mux(self.stream.encode(None))
            self.container.close()


def join(film: Film, segments: Sequence[Path], codec: str, comment: str | None, path: Path, kind: str) -> None:
    """Writes the finished video. comment: for its container; kind: suffix of the container"""
    faststart = {"movflags": "faststart"} if kind != ".mkv" else {}  # so that it plays while it is loaded
    with _told(path), ExitStack() as stack:
        source = stack.enter_context(av.open(str(film.path)))
        target: Any = stack.enter_context(av.open(str(path), "w", format=_CONTAINERS[kind], options=faststart))
        pictures = stack.enter_context(av.open(str(segments[0]))).streams.video[0]
        video = target.add_stream_from_template(pictures)
        video.time_base = film.time_base
        _describe(video.codec_context, film)  # NUT knows nothing of it
        if codec == "hevc" and kind != ".mkv":
            video.codec_context.codec_tag = "hvc1"  # Apple's players know no other name
        if film.rotation:
            video.set_display_rotation(film.rotation)
        sounds = {}
        for stream in source.streams.audio:
            sounds[stream.index] = target.add_stream_from_template(stream)
            sounds[stream.index].metadata.update(stream.metadata)
        said = {name: value for name, value in source.metadata.items() if name.lower() not in _NOT_COPIED}
        before = next((value for name, value in source.metadata.items() if name.lower() == "comment"), None)
        if comments := [one for one in (before, comment) if one]:
            said["comment"] = "\n".join(comments)
        target.metadata.update(said)
        target.set_chapters(source.chapters())
        streams = [_of_segments(segments, video)]
        if sounds:
            streams.append(_of_sound(source, sounds))
        for packet in heapq.merge(*streams, key=_time):  # so that sound lies beside its pictures
            target.mux(packet)


def _describe(context: Any, film: Film) -> None:
    context.color_range, context.color_primaries, context.color_trc, context.colorspace = film.tags
    if film.sample_aspect:
        context.sample_aspect_ratio = film.sample_aspect


@contextmanager
def _told(what: object) -> Iterator[None]:
    try:
        yield
    except av.FFmpegError as error:
        raise VideoError(f"{what} can not be written: {error.strerror or error}") from error


def _of_segments(segments: Iterable[Path], stream: Any) -> Iterator[Packet]:
    for path in segments:
        with av.open(str(path)) as container:
            for packet in container.demux(video=0):
                if packet.dts is not None:  # the last one is empty
                    packet.stream = stream
                    yield packet


def _of_sound(source: InputContainer, streams: dict[int, Any]) -> Iterator[Packet]:
    for packet in source.demux(*(source.streams[index] for index in streams)):
        if packet.dts is not None:
            packet.stream = streams[packet.stream.index]
            yield packet


def _time(packet: Packet) -> Any:
    return packet.dts * packet.time_base  # type: ignore[operator]  # those without a time are left out
