"""A video or a folder of frames from beginning to end: scenes, colors, segments, and what is finished of them."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipeline.files.guidance import Guidance
from pipeline.images import Photo
from pipeline.images.partial import remove_parts
from pipeline.known_colors import Guide
from pipeline.provenance.record import RECIPE, RecordError
from pipeline.provenance.settings import settings_of
from pipeline.video.coloring import KeyColoring, color_scene
from pipeline.video.corrections import Keys, color_keys, guide_of
from pipeline.video.encoding import check_container, codec_of
from pipeline.video.errors import SUFFIXES, VideoError
from pipeline.video.film import Film
from pipeline.video.flow import Flow, one_thread
from pipeline.video.frames import FrameFolder, PhotoFrame
from pipeline.video.record import read_record, video_record
from pipeline.video.scenes import SIDE, scenes, signature
from pipeline.video.settings import Summary, Telling, VideoSettings
from pipeline.video.sinks import FilmSink, FolderSink, Sink
from pipeline.video.work import Work, work_folder
from stages.checkpoint import sha256_of
from stages.color.resample import resize

if TYPE_CHECKING:
    from pipeline.color_pipeline import ColorPipeline

__all__ = ["color_video"]

SEGMENT = 48  # frames after which a segment ends at the next key frame: what a kill costs


class _Stopped(Exception):
    """By the person who runs it."""


def color_video(
    pipe: ColorPipeline, source: Path, output: Path, settings: VideoSettings, telling: Telling = Telling()  # noqa: B008
) -> Summary:
    """Colors a video file into a video file, or a folder of frames into a folder.

    Raises VideoError, ImageError, OSError for what can not be read, colored or written, OptionError for settings that
    the pipeline can not honor, Locked where another command is at work on the same output.
    """
    with one_thread():
        return _Run(pipe, source, output, settings, telling).color()


class _Run:
    def __init__(
        self, pipe: ColorPipeline, source: Path, output: Path, settings: VideoSettings, telling: Telling
    ) -> None:
        self.pipe, self.source, self.output, self.settings, self.telling = pipe, source, output, settings, telling
        self.begun = time.monotonic()
        self.colored = 0
        self.scenes: list[range] = []
        request = settings.request.checked_for(pipe.coarse, pipe.superres)
        self.maker, self.guide = pipe.maker(request), Guide(reference=settings.reference)
        self.coloring, self.flow = KeyColoring(pipe, request, settings.seed, settings.reference), Flow()
        self.frames: Film | FrameFolder
        files = dict(settings.hints)
        if source.is_dir():
            if output.suffix.lower() in SUFFIXES:
                raise VideoError(f"{source} is a folder of frames, which become a folder of frames; name one with -o, "
                                 "and make a video of them, for example by ffmpeg")  # fmt: skip
            self.frames = FrameFolder.opened(source)
            self.digest = _digest_of(self.frames)
            output.mkdir(parents=True, exist_ok=True)
            files = self.frames.hints() | files
        else:
            if output.suffix.lower() not in SUFFIXES or output.is_dir():
                raise VideoError(f"-o {output} must name a file that ends in {', '.join(SUFFIXES)}")
            self.frames = Film.opened(source)
            self.digest = sha256_of(source)
            self.codec = codec_of(self.frames, output, settings.codec)
            check_container(self.frames, output)
            for note in self.frames.notes(self.codec):
                telling.say(f"{source}: note: {note}")
        self.hints_files = files
        self.hints = {number: Guidance(hints=path).key(path) for number, path in files.items()}
        self.work = Work(work_folder(output), ".nut" if isinstance(self.frames, Film) else ".done")

    def color(self) -> Summary:
        record = self._record()
        key = self._key(record)
        if self.work.read("key.json") != key:
            if self._is_finished(record, key):
                return Summary(0, 0, 0, 0.0)
            self._check_way()
        try:
            with self.work.opened(key, self.telling.say):
                if isinstance(self.frames, FrameFolder):
                    remove_parts(self.output)
                self.scenes = self._survey()
                self._check_hints()
                self._color(self._sink(record))
        except _Stopped:
            return self._summary(finished=False)
        self.work.end(key if isinstance(self.frames, FrameFolder) else None)
        return self._summary()

    def _color(self, sink: Sink) -> None:
        done = self.work.segments()
        first = number = done[-1][0].stop if done else 0
        total = self.scenes[-1].stop
        if first:
            self.telling.say(f"{self.output}: goes on with frame {first} of {total}")
        frames = self.frames.frames(first)
        for scene in self.scenes:
            if scene.stop <= first:
                continue
            begin = max(scene.start, first)
            hints = {frame: path for frame, path in self.hints_files.items() if frame in scene}
            keys = self._keys(scene, hints) if hints else None
            start = self.work.start(begin) if begin > scene.start and keys is None else None
            colored = color_scene(islice(frames, scene.stop - begin), self.coloring, self.flow, start, keys, hints)
            part = begin
            for number, one in enumerate(colored, begin):
                self._watch("colored", number, total)
                if one.start is not None:
                    draw = one.start.draw
                    if number - part >= SEGMENT:
                        self._end(sink, range(part, number), one.start)
                        part = number
                if number == part:
                    sink.begin()
                sink.write(one, draw)
                self.colored += 1
            self._end(sink, range(part, scene.stop), None)
        self.telling.progress("colored", total, total)
        sink.finish()

    def _end(self, sink: Sink, part: range, start: Any) -> None:
        sink.end()
        self.work.finish(part, start)

    def _keys(self, scene: range, hints: Mapping[int, Path]) -> Keys:
        """Of a scene with hints, all of them, before any other frame."""
        keys = Keys(self.work.folder / f"keys-{scene.start:09d}")
        if not keys.complete:
            frames = islice(self.frames.frames(scene.start), len(scene))
            for number, _ in enumerate(color_keys(frames, self.coloring, self.flow, hints, keys)):
                self._watch("key frames", number, len(scene))
        return keys

    def _survey(self) -> list[range]:
        """The scenes."""
        if (known := self.work.read("survey.json")) is not None:
            return [range(*one) for one in known]
        total = self.frames.reported_frames or None if isinstance(self.frames, Film) else len(self.frames.files)

        def signatures() -> Iterator[np.ndarray]:
            for frame in self.frames.frames():
                self._watch("seen", frame.number, total)
                yield signature(resize(torch.from_numpy(frame.gray())[None, None], (SIDE, SIDE))[0, 0].numpy())

        survey = list(scenes(signatures()))
        self.work.write("survey.json", [[one.start, one.stop] for one in survey])
        return survey

    def _watch(self, what: str, done: int, total: int | None) -> None:
        if self.telling.stop():
            raise _Stopped
        self.telling.progress(what, done, total)

    def _check_hints(self) -> None:
        """Before hours are spent. Raises VideoError."""
        if not self.hints_files:
            return
        count = self.scenes[-1].stop
        first = next(self.frames.frames())
        blank = Photo(np.zeros_like(first.gray()), 8)
        for number, path in self.hints_files.items():
            if number >= count:
                raise VideoError(f"hints for frame {number}: {self.source} has frames 0 to {count - 1}")
            guide_of(path, PhotoFrame(number, blank))

    def _sink(self, record: dict[str, Any] | None) -> Sink:
        settings, strength = self.settings, self.settings.request.strength
        if isinstance(self.frames, Film):
            comment = None if record is None else json.dumps(record)
            return FilmSink(self.frames, self.output, self.work, self.pipe, strength, self.codec, settings.crf, comment)
        maker = self.maker if settings.provenance else None
        return FolderSink(self.frames, self.output, self.work, self.pipe, strength, settings.quality, settings.seed,
                          maker, self.guide)  # fmt: skip

    def _record(self) -> dict[str, Any] | None:
        """Of a video; the frames of a folder have each its own."""
        if not isinstance(self.frames, Film) or not self.settings.provenance:
            return None
        file = {"format": self.codec} | ({} if self.codec == "ffv1" else {"crf": self.settings.crf})
        return video_record(self.maker, self.guide, self.digest, self.settings.seed, self.hints, file)

    def _key(self, record: dict[str, Any] | None) -> dict[str, Any]:
        """What decides the output, as JSON gives it back."""
        settings = self.settings
        key = {
            "recipe": RECIPE, "record": record, "input": self.digest, "weights": dict(self.maker.weights()),
            "seed": settings.seed, "settings": settings_of(self.maker.request, self.guide), "hints": self.hints,
            "reference": settings.reference_sha256, "run": dict(self.maker.run), "quality": settings.quality,
            "codec": self.codec if isinstance(self.frames, Film) else None, "crf": settings.crf,
            "provenance": settings.provenance,
            "libraries": {name: metadata.version(name) for name in ("av", "opencv-python-headless")},
        }  # fmt: skip
        return json.loads(json.dumps(key))

    def _is_finished(self, record: dict[str, Any] | None, key: dict[str, Any]) -> bool:
        """Whether the output is there: a video by the same record, frames by the same key."""
        if self.settings.overwrite:
            return False
        if isinstance(self.frames, FrameFolder):
            return self.work.is_finished(key) and all((self.output / name).exists() for name in self.frames.names())
        if record is None or not self.output.is_file():
            return False
        try:
            return read_record(self.output) == json.loads(json.dumps(record))
        except (RecordError, VideoError):
            return False

    def _check_way(self) -> None:
        """Raises VideoError for files that are no work of this run."""
        if isinstance(self.frames, Film):
            if os.path.realpath(self.source) == os.path.realpath(self.output):
                raise VideoError(f"-o {self.output} is the video itself; an input is never overwritten")
            outputs = [self.output]
        else:
            if os.path.realpath(self.source) == os.path.realpath(self.output):
                raise VideoError(f"-o {self.output} is the folder of the frames; an input is never overwritten")
            outputs = [self.output / name for name in self.frames.names()]
        there = next((path for path in outputs if path.exists()), None)
        if there is not None and not self.settings.overwrite:
            raise VideoError(f"{there} is there already; --overwrite replaces it")

    def _summary(self, finished: bool = True) -> Summary:
        seconds = time.monotonic() - self.begun
        frames = self.scenes[-1].stop if self.scenes else 0
        return Summary(frames, len(self.scenes), self.colored, seconds, finished)


def _digest_of(frames: FrameFolder) -> str:
    digest = hashlib.sha256()
    for file in frames.files:
        digest.update(f"{file.name} {sha256_of(file)}\n".encode())
    return digest.hexdigest()
