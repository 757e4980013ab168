"""Coloring a batch: the plan, what is finished before, the actors' answers.

Photos of this machine that become files of this machine go the way of `trichrome colorize`, with its manifest. All else
is colored in a scratch folder, put in its place by the actor, and remembered by the journal.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.batch.memory import Memory
from pipeline.batch.places import Found, Place
from pipeline.batch.planning import Shape, form_of, photos_of, shards_of, units_of_photos
from pipeline.batch.units import Form, Unit
from pipeline.batch.work import Task
from pipeline.files.broken import OutputLost, check_output
from pipeline.files.coloring import Coloring
from pipeline.files.guidance import Guidance
from pipeline.files.lock import locked
from pipeline.files.manifest import Manifest
from pipeline.files.names import Chosen
from pipeline.files.records import Job, Report, Settings
from pipeline.files.team import TRIES, WorkerError
from pipeline.files.telling import Listeners, Telling
from pipeline.provenance.record import RECIPE, software

if TYPE_CHECKING:
    from pipeline.color_pipeline import ColorPipeline
    from stages.faces import Scores

__all__ = ["Pool", "color_batch"]

AT_A_TIME = 32  # photos of a folder that an actor is given at most
PARTS = 16  # of a small folder, so that no actor is left without work


class Pool(Protocol):
    """Actors. To be entered only when there is work."""

    def __enter__(self) -> Pool: ...

    def __exit__(self, *_: object) -> None: ...

    def answers(self, task: Task, units: Sequence[str], tries: int, stop: Callable[[], bool]) -> Iterator[str]:
        """The answers to units, lines of JSON (`Unit.line`, `Work.__call__` and the name of the `unit`), as they come.

        tries: of each; one whose actor died so often has no answer
        """
        ...


def color_batch(
    pipe: ColorPipeline, inputs: Sequence[str], out: str, settings: Settings, *, pool: Pool,
    opened: Callable[[], tuple[ColorPipeline, Scores | None]], threads: int = 1, shape: Shape = Shape(),  # noqa: B008
    overwrite: bool = False, rank_with: Scores | None = None, guidance: Guidance = Guidance(),  # noqa: B008  (frozen)
    listeners: Listeners = Listeners(), chosen: Chosen = Chosen(), dry: bool = False,  # noqa: B008
) -> Report:  # fmt: skip
    """Color all photos behind `inputs` into `out`, by actors; a bad one never stops the others.

    inputs: folders, files, shards; out: a folder; each a path, or a name with a scheme such as s3://
    opened: how an actor opens the pipeline, and what it puts candidates in order by; pipe, rank_with: the same here
    threads: of each actor's networks, on a CPU
    listeners: progress counts units of work
    Others: see `pipeline.files.run.color_files`, also for what is raised. ValueError and OSError: inputs that can not
    be told apart, opened or found.
    """
    batch = _Batch(pipe, Place(out), settings, overwrite, rank_with, guidance, listeners, shape)
    batch.plan([Place(name) for name in inputs], chosen)
    if dry or not batch.units:
        batch.telling.passed_over()
        return batch.rehearsed() if dry else batch.finished()
    with batch.prepared():
        batch.telling.passed_over()
        task = batch.task(opened, threads)
        batch.color(pool, task)
        return batch.finished()


class _Batch:
    """One run."""

    def __init__(
        self, pipe: ColorPipeline, out: Place, settings: Settings, overwrite: bool, rank_with: Scores | None,
        guidance: Guidance, listeners: Listeners, shape: Shape,
    ) -> None:  # fmt: skip
        self.out, self.settings, self.overwrite, self.guidance = out, settings, overwrite, guidance
        self.shape, self.listeners = shape, listeners
        folder = out.local or Path(out.path)
        self.telling = Telling(folder, replace(listeners, progress=lambda done, total: None))
        self.coloring = Coloring(pipe, folder, settings, overwrite, rank_with, guidance, self.telling)
        self.report = self.telling.report
        self.units: list[Unit] = []
        self.direct = False
        self.start = time.monotonic()

    def plan(self, inputs: Sequence[Place], chosen: Chosen) -> None:
        """The units, and the memory of them."""
        form, found = form_of(inputs, self.out, self.shape)
        self.to = self.shape.write or form
        here = all(place.local is not None for place in inputs)
        self.direct = form == self.to == "folder" and here and self.out.local is not None
        self.units = self._units(form, inputs, found, chosen)
        self.memory = Memory(self.units, self.out, self.to, self.direct, self.coloring, self._key(), self.overwrite)

    def _units(
        self, form: Form, inputs: Sequence[Place], found: Sequence[Sequence[Found]], chosen: Chosen
    ) -> list[Unit]:
        if form != "folder":
            if self.settings.page == "all":
                raise ValueError("--page all: of photos in folders; a row or sample is one picture. Name one page")
            return shards_of(form, inputs, found, self.out, self.to, self.shape, chosen, self.report)
        jobs, stamps = photos_of(inputs, found, self.out, self.settings, chosen, self.report)
        at_a_time = max(1, min(AT_A_TIME, len(jobs) // PARTS))
        size = at_a_time if self.to == "folder" else self.shape.per_shard
        guidance = None if self.direct else self.guidance
        source = None if inputs[0].local is not None else inputs[0].name
        return units_of_photos(jobs, stamps, source, size, guidance, self.report)

    def task(self, opened: Callable[[], tuple[ColorPipeline, Scores | None]], threads: int) -> Task:
        return Task(opened, self.settings, self.guidance, self.out, self.to, self.direct, self.overwrite,
                    self.shape.column, self._key(), self.coloring.maker.weights(), software(), threads)  # fmt: skip

    def _key(self) -> dict[str, Any]:
        """What decides the outputs, beside their inputs."""
        settings = self.settings.record(".jpg") | {"format": self.settings.format}
        key = {"recipe": RECIPE, "settings": settings, "weights": dict(self.coloring.maker.weights()),
               "to": self.to, "column": self.shape.column}  # fmt: skip
        reference = self.guidance.reference_sha256
        return key | ({"reference": reference} if reference is not None else {})

    def prepared(self) -> ExitStack:
        """The output folder is there, locked where it is of this machine, and tidy; for a block."""
        local, say = self.out.local, self.listeners.say
        with ExitStack() as stack:
            self.out.prepare()
            if local is not None:
                check_output(local)
                stack.enter_context(locked(local, say))
            if removed := self.memory.look():
                say(f"{self.out.name}: removed {removed} unfinished files of a run that was stopped")
            return stack.pop_all()

    def rehearsed(self) -> Report:
        """Tells what would be done, as "planned"; what is wrong inside a file shows when it is read."""
        if not self.direct:
            self.memory.look(dry=True)
            for unit in self.memory.wanted():
                if unit.by_photo(self.to):
                    for job in unit.jobs:
                        self.telling.planned(job)
                else:
                    self.telling.planned(unit.as_job(self.to), unit.rows or len(unit.jobs) or 1)
            return self.finished()
        self.coloring.manifest = Manifest(self.telling.out)
        for job in (job for unit in self.units for job in unit.jobs):
            try:
                wanted = self.coloring.is_wanted(job, self.coloring.key(job))
                (self.telling.planned if wanted else self.telling.skipped)(job)
            except Exception as error:
                self.telling.failed(job, error)
        return self.finished()

    def color(self, pool: Pool, task: Task) -> None:
        """Raises OutputLost, WorkerError."""
        left = {unit.name: unit for unit in self.memory.wanted()}
        self.total = len(left)
        if not left:
            return
        try:
            with pool:
                self._by(pool, task, left, TRIES - 1)
                if left and not self.listeners.stop():
                    again = [one for unit in left.values()
                             for one in (unit.alone() if unit.by_photo(self.to) else [unit])]  # fmt: skip
                    self.listeners.say("an actor ended more than once with the same work: it is tried in smaller parts")
                    left = {unit.name: unit for unit in again}
                    self._by(pool, task, left, 1)
            if not self.listeners.stop():
                self._given_up(left)
        except OutputLost as lost:
            lost.report = self.finished()
            raise
        self.memory.tidy()  # of actors that were killed

    def _by(self, pool: Pool, task: Task, left: dict[str, Unit], tries: int) -> None:
        """What is answered is no longer left."""
        for line in pool.answers(task, [unit.line() for unit in left.values()], tries, self.listeners.stop):
            answer = json.loads(line)
            if "misfit" in answer:
                raise WorkerError(answer["misfit"])
            if "lost" in answer:
                raise OutputLost(answer["lost"])
            unit = left.pop(answer["unit"], None)
            if unit is not None:
                self._heard(unit, answer)
            self.listeners.progress(max(0, self.total - len(left)), self.total)

    def _heard(self, unit: Unit, answer: Mapping[str, Any]) -> None:
        if answer.get("again"):
            self.listeners.say("an actor ended and was started again; its photos were given to it once more")
        for line in answer.get("said", ()):
            self.listeners.say(line)
        if "failed" in answer:
            self.telling.failed(unit.as_job(self.to), answer["failed"])
            return
        jobs = {(str(job.source), job.page): job for job in unit.jobs} if self.direct else {}
        for outcome in answer["outcomes"]:
            page = outcome.get("page")
            if self.direct:
                self._heard_of(jobs[outcome["input"], page], outcome)
                continue
            job = Job(Path(outcome["input"]), tuple(map(Path, outcome["outputs"])), page=page)
            if outcome["status"] == "colored":
                self.telling.colored(job, outcome["notes"])
            else:
                self.telling.failed(job, outcome["reason"])

    def _heard_of(self, job: Job, outcome: Mapping[str, Any]) -> None:
        """Of a photo that was colored directly; its lines were said already."""
        manifest = self.coloring.manifest
        if outcome["status"] == "skipped" and manifest is not None:
            # Finished by an actor that died, and not by an earlier run, whose lines were read before this one began.
            if not manifest.is_finished(job, self.coloring.key(job)):
                outcome = {**outcome, "status": "colored"}
        self.telling.heard(job, outcome)

    def _given_up(self, left: Mapping[str, Unit]) -> None:
        for unit in left.values():
            for job in unit.jobs if unit.by_photo(self.to) else (unit.as_job(self.to),):
                self.telling.failed(job, f"its actor ended {TRIES} times with it at hand, for want of memory perhaps")

    def finished(self) -> Report:
        self.report.seconds = time.monotonic() - self.start
        return self.report
