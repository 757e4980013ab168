"""The work of one actor, which knows nothing of Ray: a unit in, what became of its photos out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pipeline.batch.journal import Journal
from pipeline.batch.places import Place
from pipeline.batch.rows import Piece, pieces
from pipeline.batch.scratch import scratch
from pipeline.batch.shards import write_shard
from pipeline.batch.units import SUFFIXES, Form, Unit
from pipeline.files.broken import OutputLost
from pipeline.files.coloring import Coloring
from pipeline.files.guidance import Guidance
from pipeline.files.manifest import Manifest
from pipeline.files.outputs import reason_of
from pipeline.files.records import Job, Settings
from pipeline.files.report import Outcome
from pipeline.files.team import WorkerError
from pipeline.files.telling import Listeners, Telling
from pipeline.provenance.record import software

if TYPE_CHECKING:
    from pipeline.color_pipeline import ColorPipeline
    from stages.faces import Scores

__all__ = ["Task", "Work"]

Answer = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What all actors are told.

    opened: loads the pipeline, where it runs, and what candidates are put in order by
    to: the form of what is written to `out`
    direct: photos and outputs are files of this machine: as `trichrome colorize` does it, manifest and all
    key: what decides the outputs, for the journal; weights, software: what every actor must have
    threads: of the networks on a CPU
    """

    opened: Callable[[], tuple[ColorPipeline, Scores | None]]
    settings: Settings
    guidance: Guidance
    out: Place
    to: Form
    direct: bool
    overwrite: bool
    column: str | None
    key: Mapping[str, Any]
    weights: Mapping[str, str]
    software: str
    threads: int


class Work:
    """To be closed. Raises WorkerError where an actor can not work as the command does."""

    def __init__(self, task: Task) -> None:
        self.task = task
        if software() != task.software:
            raise WorkerError(f"an actor has {software()}, the command {task.software}: install one on all machines")
        torch.set_num_threads(task.threads)
        pipe, rank_with = task.opened()
        with ExitStack() as stack:
            self.scratch = stack.enter_context(scratch())
            self.out = task.out.local if task.direct and task.out.local is not None else self.scratch / "out"
            overwrite = task.overwrite or not task.direct  # what a scratch folder holds is nobody's
            telling = Telling(self.out, Listeners())
            self.coloring = Coloring(pipe, self.out, task.settings, overwrite, rank_with, task.guidance, telling)
            if self.coloring.maker.weights() != task.weights:
                raise WorkerError("an actor has loaded other weights than the command: they differ between machines, "
                                  "or changed meanwhile")  # fmt: skip
            self._stack = stack.pop_all()
        if task.direct:
            self.coloring.manifest = Manifest(self.out)

    def close(self) -> None:
        self._stack.close()

    def __call__(self, unit: Unit) -> Answer:
        """{"outcomes": …} with a record for each photo (`Outcome.record`) and, where it is direct, the lines `said`;
        {"failed": …} with the reason for which a whole unit failed; or {"lost": …}, where the output is.
        """
        try:
            return self._directly(unit) if self.task.direct else self._packed(unit)
        except OutputLost as lost:
            return {"lost": str(lost)}
        except Exception as error:  # an actor that raises has no answer, and would be asked again
            return {"failed": self._without_scratch(reason_of(error, unit.shown()))}

    def _directly(self, unit: Unit) -> Answer:
        said: list[str] = []
        outcomes = self._colored(unit.jobs, said)
        return {"outcomes": [json.loads(outcome.record()) for outcome in outcomes.values()], "said": said}

    def _packed(self, unit: Unit) -> Answer:
        task, out = self.task, self.scratch / "out"
        inside = self.scratch / "in"
        for folder in (inside, out):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        read: list[Piece] = []
        broken: list[Exception] = []

        def jobs() -> Iterator[Job]:
            try:
                for piece in pieces(unit, task.settings, task.column, inside):
                    read.append(piece)
                    if piece.job is not None:
                        yield piece.job
            except Exception as error:  # in a thread where nobody would hear of it
                broken.append(error)

        outcomes = self._colored(jobs(), [])
        if broken:
            return {"failed": f"can not be read: {reason_of(broken[0], unit.shown())}"}
        for piece in read:
            if piece.job is not None:
                outcome = outcomes[str(piece.job.source), piece.job.page]
                piece.notes = outcome.notes
                piece.error = None if outcome.reason is None else self._without_scratch(outcome.reason)
        entries = unit.entries(task.to)
        Journal.begin(task.out, entries, self.scratch)
        written = self._written(unit, read, out)
        results: list[Answer | None] = [_result(read, written)]
        if unit.by_photo(task.to):  # one that failed is tried again by the next run
            results = [None if piece.error is not None else _result([piece], [files])
                       for piece, files in zip(read, written, strict=True)]  # fmt: skip
        Journal.done(task.out, entries, task.key, results, self.scratch)
        return {"outcomes": [_record(piece, files) for piece, files in zip(read, written, strict=True)]}

    def _colored(self, jobs: Sequence[Job] | Iterator[Job], said: list[str]) -> dict[tuple[str, int | None], Outcome]:
        outcomes: dict[tuple[str, int | None], Outcome] = {}

        def each(outcome: Outcome) -> None:
            outcomes[str(outcome.input), outcome.page] = outcome

        # Anew, or it would remember all photos of the actor's life.
        self.coloring.telling = Telling(self.out, Listeners(say=said.append, each=each))
        self.coloring.color(jobs)
        return outcomes

    def _written(self, unit: Unit, read: Sequence[Piece], out: Path) -> list[dict[str, int]]:
        """The files that each piece has become, with their sizes; of a shard it is one for all."""
        task = self.task
        if task.to != "folder":
            shard, name = self.scratch / "shard", unit.name + SUFFIXES[task.to]
            write_shard(task.to, shard, read, out, task.settings, task.column)
            size = task.out.put(shard, name)
            shard.unlink()
            return [{name: size} for _ in read]
        folder = f"{unit.name}/" if unit.form != "folder" else ""
        return [
            {} if piece.job is None or piece.error is not None else {
                folder + output.as_posix(): task.out.put(out / output, folder + output.as_posix())
                for output in piece.job.outputs}
            for piece in read
        ]  # fmt: skip

    def _without_scratch(self, reason: str) -> str:
        """A reason that is the same at every try."""
        for folder in ("in", "out"):
            reason = reason.replace(f"{self.scratch / folder}/", "")
        return reason


def _result(read: Sequence[Piece], written: Sequence[Mapping[str, int]]) -> Answer:
    """For the journal."""
    files = {name: size for one in written for name, size in one.items()}
    return {
        "outputs": [{"path": name, "size": size} for name, size in files.items()],
        "colored": sum(piece.error is None for piece in read),
        "failed": [[piece.shown, piece.error] for piece in read if piece.error is not None],
    }


def _record(piece: Piece, files: Mapping[str, int]) -> Answer:
    """As `Outcome.record` has it; outputs are below the output folder."""
    failed = piece.error is not None
    return {
        "input": piece.shown, "status": "failed" if failed else "colored", "outputs": [] if failed else list(files),
        "notes": list(piece.notes), "reason": piece.error, "page": None if piece.job is None else piece.job.page,
    }  # fmt: skip
