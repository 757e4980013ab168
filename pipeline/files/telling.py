"""Who hears of a run, and what is told and counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.files.outputs import reason_of
from pipeline.files.records import Job, Report
from pipeline.files.report import Outcome
from pipeline.request import StepCallback

__all__ = ["Listeners", "Telling"]


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


class Telling:
    """Counts what became of the photos of one run, and tells it. total: of the jobs, once they are planned"""

    def __init__(self, out: Path, listeners: Listeners) -> None:
        self.out, self.listeners, self.report = out, listeners, Report()
        self.refused = self.total = 0

    def passed_over(self) -> None:
        """What was refused or ignored before any work."""
        self.refused = len(self.report.failed)
        for path, reason in self.report.failed:
            self.listeners.say(f"{path}: {reason}")
            self.listeners.each(Outcome(path, "failed", reason=reason))
        for path, reason in self.report.ignored:
            self.listeners.each(Outcome(path, "ignored", reason=reason))

    def skipped(self, job: Job, photos: int = 1) -> None:
        """photos: in it, where it is a shard"""
        self.report.skipped += photos
        self.listeners.each(Outcome(job.source, "skipped", self._outputs(job), page=job.page))
        self.advance()

    def planned(self, job: Job, photos: int = 1) -> None:
        """photos: in it, where it is a shard"""
        self.report.planned += photos
        self.listeners.each(Outcome(job.source, "planned", self._outputs(job), page=job.page))

    def colored(self, job: Job, notes: Sequence[str], quietly: bool = False) -> None:
        """quietly: the notes are said already"""
        self.report.colored += 1
        for note in notes:
            self.report.notes.append((job.source, note))
            if not quietly:
                self.listeners.say(f"{job.source}: note: {note}")
        self.listeners.each(Outcome(job.source, "colored", self._outputs(job), tuple(notes), page=job.page))
        self.advance()

    def failed(self, job: Job, error: Exception | str, quietly: bool = False) -> None:
        """quietly: who called says it, or has"""
        reason = error if isinstance(error, str) else reason_of(error, job.source)
        self.report.failed.append((job.source, reason))
        if not quietly:
            self.listeners.say(f"{job.source}: {reason}")
        self.listeners.each(Outcome(job.source, "failed", reason=reason, page=job.page))
        self.advance()

    def heard(self, job: Job, outcome: Mapping[str, Any]) -> None:
        """What a worker has made of a job, as `Outcome.record` has it; its lines were passed on already."""
        if outcome["status"] == "skipped":
            self.skipped(job)
        elif outcome["status"] == "colored":
            self.colored(job, outcome["notes"], quietly=True)
        else:
            self.failed(job, outcome["reason"], quietly=True)

    def advance(self) -> None:
        report = self.report
        self.listeners.progress(report.colored + report.skipped + len(report.failed), self.refused + self.total)

    def _outputs(self, job: Job) -> tuple[Path, ...]:
        return tuple(self.out / output for output in job.outputs)
