"""The work of one process on photos: read ahead, the networks, the merge, written behind."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.files.broken import OutputLost
from pipeline.files.guidance import Guidance
from pipeline.files.manifest import Manifest
from pipeline.files.outputs import PhotoFiles, check_way, steps
from pipeline.files.overlap import Ahead, Behind, Budget, Chain
from pipeline.files.records import Job, Loaded, Refused, Settings
from pipeline.files.telling import Telling
from pipeline.images.notes import collected
from pipeline.images.read import load_photo
from pipeline.provenance.record import RECIPE
from pipeline.request import Request
from pipeline.sources import noise_sources
from stages.hints.palette import palette_chroma

if TYPE_CHECKING:
    from pipeline.color_pipeline import ColorPipeline
    from pipeline.output import SmallPhoto
    from stages.faces import Scores

__all__ = ["GROUP_PIXELS", "Coloring"]

GROUP_PIXELS = 64_000_000  # photos in memory, and those colored together on a GPU, hold at most this many pixels
WRITERS = max(1, min(4, (os.cpu_count() or 1) // 2))


class Coloring:
    """Colors jobs into `out`. Raises OptionError for settings that the pipeline can not honor.

    overwrite: color everything again, and replace files that are in the way (inputs never)
    manifest: to be set before `color`; None where nothing is remembered
    """

    def __init__(
        self, pipe: ColorPipeline, out: Path, settings: Settings, overwrite: bool, rank_with: Scores | None,
        guidance: Guidance, telling: Telling,
    ) -> None:  # fmt: skip
        self.pipe, self.out, self.settings, self.overwrite, self.telling = pipe, out, settings, overwrite, telling
        self.guidance = guidance
        self.request = Request(
            settings.samples, settings.preview, settings.uncertainty or settings.overlay, settings.options, rank_with,
            telling.listeners.step, palette_chroma(settings.palette) if settings.palette else None, settings.strength,
            settings.candidate,
        ).checked_for(pipe.coarse, pipe.superres)
        self.maker = pipe.maker(self.request)
        self.manifest: Manifest | None = None

    def color(self, jobs: Iterable[Job]) -> None:
        """All of them, or until the listeners say stop. Raises OutputLost."""
        budget = Budget(photos=2 * self.pipe.batch_size + WRITERS, pixels=GROUP_PIXELS)
        reading: Ahead[Job, Loaded | None] = Ahead(jobs, self._loaded, budget, _pixels)
        writing: Behind[PhotoFiles] = Behind(WRITERS)
        with writing, reading:
            self._color(reading, writing, budget)
        self._tell_ended(writing)

    def _color(self, reading: Ahead[Job, Loaded | None], writing: Behind[PhotoFiles], budget: Budget) -> None:
        group: list[Loaded] = []
        for job, loaded in reading:
            if self.telling.listeners.stop():
                return
            if isinstance(loaded, Loaded):
                if loaded.said:
                    self.telling.listeners.say(f"{job.source}: {loaded.said}")
                group.append(loaded)
            else:
                budget.give(0)
                self._not_colored(job, loaded)
            pixels = sum(map(_pixels, group))
            if group and (len(group) >= self.pipe.batch_size or pixels >= GROUP_PIXELS):
                self._color_group(group, writing, budget)
                group = []
            self._tell_ended(writing)
        if group:
            self._color_group(group, writing, budget)

    def _not_colored(self, job: Job, why: BaseException | None) -> None:
        if why is None:
            self.telling.skipped(job)
        elif isinstance(why, Exception):
            self.telling.failed(job, why)
        else:
            raise why

    def key(self, job: Job) -> dict[str, Any]:
        """What decides the outputs of a photo. Raises ValueError for hints that can not be read."""
        settings = self.settings.record(job.pictures[0].suffix)
        key = {"recipe": RECIPE, "settings": settings, "weights": self.maker.weights()}
        guidance = self.guidance.key(job.source)  # younger than other manifests, which have no such entry
        return key | ({"guidance": guidance} if guidance else {})

    def is_wanted(self, job: Job, key: dict[str, Any]) -> bool:
        """Whether there is work on it: not where it is finished. Raises Refused where it can not be done."""
        if not self.overwrite and self.manifest is not None and self.manifest.is_finished(job, key):
            return False
        check_way(job, self.out, self.manifest, self.overwrite)
        if not job.source.is_file():
            raise Refused("not a regular file" if job.source.exists() else "no such file")
        return True

    def _loaded(self, job: Job) -> Loaded | None:
        """The photo, with what was wrong with its file but not enough to refuse it; None where it is finished."""
        key = self.key(job)
        if not self.is_wanted(job, key):
            return None
        said = None if self.manifest is None else self.manifest.replaced(job, key)
        status = job.source.stat()
        with collected():  # they are the photo's own notes
            photo = load_photo(job.source, max_pixels=self.settings.max_pixels, page=job.page,
                               keep_rgb=self.guidance.keep is not None)  # fmt: skip
            guide, notes = self.guidance.guide(job.source, photo, self.settings.page == "all")
        # Of the moment before it was read: a file that changes meanwhile is another one at the next run.
        stamp = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": photo.sha256}
        source = {"path": str(job.source.resolve()), **stamp}
        return Loaded(job, photo, photo.notes + notes, key, source, said, guide)

    def _color_group(self, group: list[Loaded], writing: Behind[PhotoFiles], budget: Budget) -> None:
        """The networks for all photos of the group at once, then each photo at full size, picture by picture."""
        photos = [loaded.photo for loaded in group]
        try:
            noise = noise_sources(photos, [self.settings.seed] * len(group), [None] * len(group))
            small = self.pipe.small_photos(photos, noise, self.request, [loaded.guide for loaded in group])
        except Exception as error:
            if len(group) == 1:
                budget.give(_pixels(group[0]))
                self.telling.failed(group[0].job, error)
                return
            for loaded in group:  # one bad photo must not take the others with it
                self._color_group([loaded], writing, budget)
            return
        for place, (loaded, one) in enumerate(zip(group, small, strict=True)):
            if place and self.telling.listeners.stop():
                return
            self._write(loaded, one, writing, budget)
            self._tell_ended(writing)

    def _write(self, loaded: Loaded, small: SmallPhoto, writing: Behind[PhotoFiles], budget: Budget) -> None:
        """The merge, whose files are written behind it."""
        maker = self.maker if self.settings.provenance else None
        run = {"device": str(self.pipe.device), "dtype": str(self.pipe.dtype).removeprefix("torch.")}
        files = PhotoFiles(loaded, self.out, self.settings, self.manifest, maker, run)
        chain = Chain(writing, files, partial(budget.give, _pixels(loaded)))
        error = None
        try:
            for step in steps(self.pipe, files, small):
                chain.add(step)
        except Exception as failure:
            error = failure
        chain.end(error)

    def _tell_ended(self, writing: Behind[PhotoFiles]) -> None:
        """What became of the photos whose writing has ended."""
        for files, error in writing.ended():
            if error is None:
                self.telling.colored(files.job, list(files.notes))
            else:
                self.telling.failed(files.job, error, quietly=isinstance(error, OutputLost))


def _pixels(loaded: Loaded | None) -> int:
    return 0 if loaded is None else loaded.photo.gray.size
