"""Units of work: what one actor does as a whole, and again from its start where it dies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline.files.records import Job
from pipeline.files.worker import job_from, line_of

__all__ = ["SUFFIXES", "Entry", "Form", "Unit"]

Form = Literal["folder", "parquet", "webdataset"]
SUFFIXES: dict[Form, str] = {"folder": "/", "parquet": ".parquet", "webdataset": ".tar"}


@dataclass(frozen=True)
class Entry:
    """What is finished as a whole, or not. name: of what it becomes, below the output; of a folder with a slash

    stamp: of what it is made of; claims: all that it may write
    """

    name: str
    stamp: Mapping[str, Any]
    claims: tuple[str, ...]


@dataclass(frozen=True)
class Unit:
    """Photos of a folder, a row group of a Parquet file, or a WebDataset shard.

    name: of what it becomes, below the output and without a suffix
    source: the name of a place in whose file system the input lies; None: photos of this machine, read where they are
    path: of a shard; group: of its rows, rows: how many there are, first: number of the first one in its file
    stamps: of each photo, or of the shard
    """

    name: str
    form: Form
    source: str | None = None
    path: str = ""
    group: int = 0
    rows: int | None = None
    first: int = 0
    jobs: tuple[Job, ...] = ()
    stamps: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)

    def by_photo(self, to: Form) -> bool:
        """Whether each photo is finished by itself: those that stay files are; what becomes a shard or is one is not.
        """
        return self.form == "folder" and to == "folder"

    def entries(self, to: Form) -> list[Entry]:
        """Of the journal."""
        if self.by_photo(to):
            pairs = zip(self.jobs, self.stamps, strict=True)
            return [Entry(names[0], stamp, names) for job, stamp in pairs if (names := _names(job))]
        name = self.name + SUFFIXES[to]
        stamp = self.stamps[0] if self.form != "folder" else {"photos": self._digest()}
        return [Entry(name, stamp, (name,))]

    def _digest(self) -> str:
        pairs = [[_names(job), stamp] for job, stamp in zip(self.jobs, self.stamps, strict=True)]
        return hashlib.sha256(json.dumps(pairs, sort_keys=True).encode()).hexdigest()

    def alone(self) -> list[Unit]:
        """Units of one photo each, of photos that stay files; they go on without one that takes its actor with it."""
        pairs = zip(self.jobs, self.stamps or ({},) * len(self.jobs), strict=True)
        return [
            Unit(f"{self.name}-{number}", self.form, self.source, jobs=(job,), stamps=(stamp,))
            for number, (job, stamp) in enumerate(pairs)
        ]

    def line(self) -> str:
        """As JSON, for an actor."""
        kept = {name: getattr(self, name) for name in ("name", "form", "source", "path", "group", "rows", "first")}
        jobs = [json.loads(line_of(job))["job"] for job in self.jobs]
        return json.dumps(kept | {"jobs": jobs, "stamps": [dict(stamp) for stamp in self.stamps]})

    @classmethod
    def of(cls, line: str) -> Unit:
        """The unit of `line`."""
        record = json.loads(line)
        jobs, stamps = tuple(map(job_from, record.pop("jobs"))), tuple(record.pop("stamps"))
        return cls(**record, jobs=jobs, stamps=stamps)

    def as_job(self, to: Form) -> Job:
        """As one photo, to tell of."""
        (entry,) = self.entries(to)
        return Job(Path(self.name) if self.form == "folder" else self.shown(), (Path(entry.name),))

    def shown(self, piece: str | None = None) -> Path:
        """As people are told of it, or of a piece of it."""
        return Path(self.path) if piece is None else Path(self.path, piece)


def _names(job: Job) -> tuple[str, ...]:
    return tuple(output.as_posix() for output in job.outputs)
