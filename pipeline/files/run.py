"""Coloring files and folders: what is finished already, and nothing half-written.

A manifest in the output folder (.trichrome.jsonl, one JSON object per line, only ever appended) remembers for
every photo: the input's SHA-256, the settings, the weights, the outputs with their SHA-256. A line "begin" is
written before the first output of a photo and a line "done" after the last, so that after an interruption it
is known which files are this program's own: those are redone or kept, any other file that is in the way is
not touched. While a command works, the folder is locked (lock.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.files.broken import OutputLost, check_output
from pipeline.files.coloring import Coloring
from pipeline.files.guidance import Guidance
from pipeline.files.lock import locked
from pipeline.files.manifest import Manifest
from pipeline.files.names import Chosen, find_inputs, plan, plan_single
from pipeline.files.records import Job, Report, Settings
from pipeline.files.team import Team
from pipeline.files.telling import Listeners, Telling
from pipeline.images.partial import remove_parts

if TYPE_CHECKING:
    from pipeline.color_pipeline import ColorPipeline
    from stages.faces import Scores

__all__ = ["Listeners", "color_file", "color_files"]


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
    team: Team | None = None,
    chosen: Chosen = Chosen(),  # noqa: B008  (frozen)
    dry: bool = False,
) -> Report:
    """Color all photos behind `paths` into the folder `out`; a bad file never stops the others.

    overwrite: color everything again, and replace files that are in the way (inputs never)
    rank_with: what candidates are put in order by
    guidance: hints, reference, colors to keep
    team: processes that do it; None: this one
    chosen: which photos of folders
    dry: write nothing, only tell what would be done, as "planned"
    Raises OptionError for settings that the pipeline can not honor, Locked where another command works in the folder,
    WorkerError where a team can not work.
    OutputLost, where the folder can not be written to, ends the run; its `report` says how far it came.
    """
    run = _Run(pipe, out, settings, overwrite, listeners, rank_with, guidance)
    run.jobs = plan(find_inputs(paths, out, run.report, chosen), out, settings, run.report)
    if dry or not run.jobs:
        run.telling.passed_over()
        return run.rehearsed()
    run.prepare()
    with locked(out, listeners.say) as lock:
        run.telling.passed_over()
        run.tidy()
        return run.color(team, lock)


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
    dry: bool = False,
) -> Report:
    """Color one photo into the file `output`, of several pictures into x-1.jpg to x-K.jpg; without a manifest.

    Raises as `color_files` does, but for Locked.
    """
    run = _Run(pipe, output.parent, settings, overwrite, listeners, rank_with, guidance)
    run.jobs = [plan_single(photo, output, settings)]
    if dry:
        return run.rehearsed(remembers=False)
    run.prepare()
    return run.color()


class _Run:
    """One run over planned jobs."""

    def __init__(
        self, pipe: ColorPipeline, out: Path, settings: Settings, overwrite: bool, listeners: Listeners,
        rank_with: Scores | None, guidance: Guidance,
    ) -> None:  # fmt: skip
        self.out, self.telling = out, Telling(out, listeners)
        self.coloring = Coloring(pipe, out, settings, overwrite, rank_with, guidance, self.telling)
        self.report = self.telling.report
        self.jobs: list[Job] = []
        self.start = time.monotonic()

    def prepare(self) -> None:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputLost(f"the output folder {self.out} can not be made: {error.strerror or error}") from error
        check_output(self.out)

    def tidy(self) -> None:
        """What an earlier run has left: its unfinished files, which go, and its manifest."""
        say = self.telling.listeners.say
        if removed := self._remove_parts():
            say(f"{self.out}: removed {removed} unfinished files of a run that was stopped")
        self.coloring.manifest = manifest = Manifest(self.out)
        if manifest.unreadable:
            say(f"{manifest.path}: {manifest.unreadable} unreadable lines left out of account")

    def rehearsed(self, remembers: bool = True) -> Report:
        """Tells of each job what would become of it; what is wrong inside a file shows when it is read."""
        self.coloring.manifest = Manifest(self.out) if remembers else None
        for job in self.jobs:
            try:
                if self.coloring.is_wanted(job, self.coloring.key(job)):
                    self.telling.planned(job)
                else:
                    self.telling.skipped(job)
            except Exception as error:
                self.telling.failed(job, error)
        return self.finished()

    def color(self, team: Team | None = None, lock: int = -1) -> Report:
        self.telling.total = len(self.jobs)
        self.telling.advance()
        try:
            if team is None:
                self.coloring.color(self.jobs)
            else:
                self._color_by(team, lock)
        except OutputLost as lost:
            lost.report = self.finished()
            raise
        return self.finished()

    def finished(self) -> Report:
        self.report.seconds = time.monotonic() - self.start
        return self.report

    def _color_by(self, team: Team, lock: int) -> None:
        listeners = self.telling.listeners
        weights = self.coloring.maker.weights()
        for job, outcome in team.color(self.jobs, weights, lock, listeners.stop, listeners.say):
            self.telling.heard(job, outcome)
        if team.died:
            self._remove_parts()

    def _remove_parts(self) -> int:
        folders = {self.out, *((self.out / output).parent for job in self.jobs for output in job.outputs)}
        return sum(map(remove_parts, folders))
