"""Coloring files and folders: what is finished already, and nothing half-written.

A manifest in the output folder (.trichrome.jsonl, one JSON object per line, only ever appended) remembers for
every photo: the input's SHA-256, the settings, the weights, the outputs with their SHA-256. A line "begin" is
written before the first output of a photo and a line "done" after the last, so that after an interruption it
is known which files are this program's own: those are redone or kept, any other file that is in the way is
not touched. While a command works, the folder is locked (lock.py).
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.files.broken import OutputLost, check_output
from pipeline.files.guidance import Guidance
from pipeline.files.lock import locked
from pipeline.files.manifest import RECIPE, Manifest
from pipeline.files.names import find_inputs, plan, plan_single
from pipeline.files.outputs import check_way, reason_of, write_outputs
from pipeline.files.records import Job, Loaded, Refused, Report, Settings
from pipeline.files.report import Outcome, Status
from pipeline.images.partial import remove_parts
from pipeline.images.read import load_photo
from pipeline.request import Request, StepCallback
from pipeline.sources import noise_sources
from stages.hints.palette import palette_chroma

if TYPE_CHECKING:
    from pipeline.color_pipeline import ColorPipeline
    from pipeline.output import SmallPhoto
    from stages.faces import Scores

__all__ = ["GROUP_PIXELS", "Listeners", "color_file", "color_files"]

GROUP_PIXELS = 64_000_000  # photos colored together on a GPU hold at most this many pixels


@dataclass(frozen=True)
class Listeners:
    """Who hears of a run.

    say: gets each line worth reading as it happens, "path: reason" of failures among them
    each: gets what became of each input
    progress: called as progress(done, total)
    step: the pipeline's `callback_on_step_end`
    stop: asked after each photo whether to end
    """

    say: Callable[[str], None] = lambda line: None
    each: Callable[[Outcome], None] = lambda outcome: None
    progress: Callable[[int, int], None] = lambda done, total: None
    step: StepCallback | None = None
    stop: Callable[[], bool] = lambda: False


def color_files(
    pipe: ColorPipeline,
    paths: Iterable[Path],
    out: Path,
    settings: Settings,
    *,
    overwrite: bool = False,
    rank_with: Scores | None = None,
    guidance: Guidance = Guidance(),  # noqa: B008  (frozen)
    listeners: Listeners = Listeners(),  # noqa: B008  (frozen)
) -> Report:
    """Color all photos behind `paths` into the folder `out`; a bad file never stops the others.

    overwrite: color everything again, and replace files that are in the way (inputs never)
    rank_with: what candidates are put in order by
    guidance: hints, reference, colors to keep
    Raises OptionError for settings that the pipeline can not honor, Locked where another command works in the folder.
    OutputLost, where the folder can not be written to, ends the run; its `report` says how far it came.
    """
    run = _Run(pipe, out, settings, overwrite, listeners, rank_with, guidance)
    run.jobs = plan(find_inputs(paths, out, run.report), out, settings, run.report)
    if not run.jobs:
        run.tell_passed_over()
        return run.finished()
    run.prepare()
    with locked(out, listeners.say):
        run.tell_passed_over()
        run.tidy()
        return run.color()


def color_file(
    pipe: ColorPipeline,
    photo: Path,
    output: Path,
    settings: Settings,
    *,
    overwrite: bool = False,
    rank_with: Scores | None = None,
    guidance: Guidance = Guidance(),  # noqa: B008  (frozen)
    listeners: Listeners = Listeners(),  # noqa: B008  (frozen)
) -> Report:
    """Color one photo into the file `output`, of several pictures into x-1.jpg to x-K.jpg; without a manifest.

    Raises as `color_files` does, but for Locked.
    """
    run = _Run(pipe, output.parent, settings, overwrite, listeners, rank_with, guidance)
    run.jobs = [plan_single(photo, output, settings)]
    run.prepare()
    return run.color()


class _Run:
    """One run over planned jobs; `manifest` is None where nothing is remembered."""

    def __init__(
        self, pipe: ColorPipeline, out: Path, settings: Settings, overwrite: bool, listeners: Listeners,
        rank_with: Scores | None, guidance: Guidance,
    ) -> None:  # fmt: skip
        self.guidance = guidance
        self.pipe, self.out, self.settings, self.overwrite, self.listeners = pipe, out, settings, overwrite, listeners
        self.request = Request(
            settings.samples, settings.preview, settings.uncertainty or settings.overlay, settings.options, rank_with,
            listeners.step, palette_chroma(settings.palette) if settings.palette else None, settings.strength,
            settings.candidate,
        ).checked_for(pipe.coarse, pipe.superres)
        self.weights = pipe.fingerprint(rank_with)
        self.report = Report()
        self.jobs: list[Job] = []
        self.refused = 0  # before any work
        self.manifest: Manifest | None = None
        self.start = time.monotonic()

    def prepare(self) -> None:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputLost(f"the output folder {self.out} can not be made: {error.strerror or error}") from error
        check_output(self.out)

    def tidy(self) -> None:
        """What an earlier run has left: its unfinished files, which go, and its manifest."""
        folders = {self.out, *((self.out / output).parent for job in self.jobs for output in job.outputs)}
        if removed := sum(map(remove_parts, folders)):
            self.listeners.say(f"{self.out}: removed {removed} unfinished files of a run that was stopped")
        self.manifest = Manifest(self.out)
        if self.manifest.unreadable:
            self.listeners.say(f"{self.manifest.path}: {self.manifest.unreadable} unreadable lines left out of account")

    def tell_passed_over(self) -> None:
        self.refused = len(self.report.failed)
        for path, reason in self.report.failed:
            self.listeners.say(f"{path}: {reason}")
            self.listeners.each(Outcome(path, "failed", reason=reason))
        for path, reason in self.report.ignored:
            self.listeners.each(Outcome(path, "ignored", reason=reason))

    def color(self) -> Report:
        try:
            self._color()
        except OutputLost as lost:
            lost.report = self.finished()
            raise
        return self.finished()

    def finished(self) -> Report:
        self.report.seconds = time.monotonic() - self.start
        return self.report

    def _color(self) -> None:
        self._advance()
        group: list[Loaded] = []
        for job in self.jobs:
            if self.listeners.stop():
                return
            try:
                key = self._key(job)
                if not self.overwrite and self.manifest is not None and self.manifest.is_finished(job, key):
                    self.report.skipped += 1
                    self._tell(job, "skipped")
                else:
                    group.append(self._loaded(job, key))
            except Exception as error:
                self._fail(job, error)
            pixels = sum(loaded.photo.gray.size for loaded in group)
            if group and (len(group) >= self.pipe.batch_size or pixels >= GROUP_PIXELS):
                self._color_group(group)
                group = []
            self._advance()
        if group:
            self._color_group(group)

    def _key(self, job: Job) -> dict[str, Any]:
        """What decides the outputs of a photo. Raises ValueError for hints that can not be read."""
        key = {"recipe": RECIPE, "settings": self.settings.record(job.pictures[0].suffix), "weights": self.weights}
        guidance = self.guidance.key(job.source)  # younger than other manifests, which have no such entry
        return key | ({"guidance": guidance} if guidance else {})

    def _loaded(self, job: Job, key: dict[str, Any]) -> Loaded:
        """The photo, with what was wrong with its file but not enough to refuse it."""
        check_way(job, self.out, self.manifest, self.overwrite)
        if self.manifest is not None and (before := self.manifest.replaced(job, key)):
            self.listeners.say(f"{job.source}: {before}")
        if not job.source.is_file():
            raise Refused("not a regular file" if job.source.exists() else "no such file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are the photo's notes
            photo = load_photo(job.source, max_pixels=self.settings.max_pixels, page=job.page,
                               keep_rgb=self.guidance.keep is not None)  # fmt: skip
            guide, notes = self.guidance.guide(job.source, photo, self.settings.page == "all")
        return Loaded(job, photo, photo.notes + notes, key, guide)

    def _color_group(self, group: list[Loaded]) -> None:
        """The networks for all photos of the group at once, then each photo at full size, picture by picture."""
        photos = [loaded.photo for loaded in group]
        try:
            noise = noise_sources(photos, [self.settings.seed] * len(group), [None] * len(group))
            small = self.pipe.small_photos(photos, noise, self.request, [loaded.guide for loaded in group])
        except Exception as error:
            if len(group) == 1:
                self._fail(group[0].job, error)
                self._advance()
                return
            for loaded in group:  # one bad photo must not take the others with it
                self._color_group([loaded])
            return
        for place, (loaded, one) in enumerate(zip(group, small, strict=True)):
            if place and self.listeners.stop():
                return
            self._write(loaded, one)
            self._advance()

    def _write(self, loaded: Loaded, small: SmallPhoto) -> None:
        try:
            notes = write_outputs(self.pipe, loaded, small, self.out, self.settings, self.manifest)
        except OutputLost as lost:
            self._fail(loaded.job, lost, quietly=True)
            raise
        except Exception as error:
            self._fail(loaded.job, error)
            return
        self.report.colored += 1
        for note in notes:
            self.report.notes.append((loaded.job.source, note))
            self.listeners.say(f"{loaded.job.source}: note: {note}")
        self._tell(loaded.job, "colored", tuple(notes))

    def _tell(self, job: Job, status: Status, notes: tuple[str, ...] = ()) -> None:
        outputs = tuple(self.out / output for output in job.outputs)
        self.listeners.each(Outcome(job.source, status, outputs, notes, page=job.page))

    def _fail(self, job: Job, error: Exception, quietly: bool = False) -> None:
        reason = reason_of(error, job.source)
        self.report.failed.append((job.source, reason))
        if not quietly:
            self.listeners.say(f"{job.source}: {reason}")
        self.listeners.each(Outcome(job.source, "failed", reason=reason, page=job.page))

    def _advance(self) -> None:
        report = self.report
        self.listeners.progress(report.colored + report.skipped + len(report.failed), self.refused + len(self.jobs))
