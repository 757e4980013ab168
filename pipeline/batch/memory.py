"""What earlier runs have left of the units of work, and which of them are to be done."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.batch.journal import JOURNAL, Journal
from pipeline.batch.places import Place
from pipeline.batch.units import Entry, Form, Unit
from pipeline.files.coloring import Coloring
from pipeline.files.manifest import Manifest
from pipeline.files.records import Job
from pipeline.images.partial import remove_parts

__all__ = ["Memory"]


class Memory:
    """Of the output folder `out`: its manifest where units are colored directly, else its journal.

    coloring: gets the manifest, and tells of what is not wanted; key: what decides the outputs, beside their inputs
    """

    def __init__(
        self, units: Sequence[Unit], out: Place, to: Form, direct: bool, coloring: Coloring, key: Mapping[str, Any],
        overwrite: bool,
    ) -> None:  # fmt: skip
        self.units, self.out, self.to, self.direct = units, out, to, direct
        self.coloring, self.telling, self.overwrite = coloring, coloring.telling, overwrite
        self.key = json.loads(json.dumps(key))  # as the journal gives it back
        self.journal: Journal | None = None

    def look(self, dry: bool = False) -> int:
        """Reads it; removes, and counts, files that were not finished, but not of a `dry` run."""
        if self.direct:
            removed = self.tidy()
            self.coloring.manifest = manifest = Manifest(self.telling.out)
            unreadable, name = manifest.unreadable, str(manifest.path)
        else:
            files, removed = self.out.found() if self.out.is_folder() else [], 0
            if not dry:
                files, removed = self.out.without_parts(files)
            self.journal = Journal(self.out, files)
            unreadable, name = self.journal.unreadable, f"{self.out.name}/{JOURNAL}"
        if unreadable:
            self.telling.listeners.say(f"{name}: {unreadable} unreadable lines left out of account")
        return removed

    def tidy(self) -> int:
        """Removes what killed writers have left; returns how many files that were."""
        if not self.direct:
            return self.out.without_parts(self.out.found())[1]
        outputs = (output for unit in self.units for job in unit.jobs for output in job.outputs)
        return sum(map(remove_parts, {self.telling.out, *((self.telling.out / output).parent for output in outputs)}))

    def wanted(self) -> Iterator[Unit]:
        """What is left to do; tells of what was finished before, or has something in its way."""
        if self.journal is None:  # each actor looks at its own
            yield from self.units
            return
        for unit in self.units:
            entries = unit.entries(self.to)
            if not unit.by_photo(self.to):
                if self._is_wanted(self.journal, entries[0], unit.as_job(self.to)):
                    yield unit
                continue
            left = [
                place for place, (job, entry) in enumerate(zip(unit.jobs, entries, strict=True))
                if self._is_wanted(self.journal, entry, job)
            ]  # fmt: skip
            if left:
                yield replace(unit, jobs=tuple(unit.jobs[k] for k in left), stamps=tuple(unit.stamps[k] for k in left))

    def _is_wanted(self, journal: Journal, entry: Entry, job: Job) -> bool:
        if self.overwrite:
            return True
        if (record := journal.finished(entry, self.key)) is not None:
            if record["colored"]:
                self.telling.skipped(job, record["colored"])
            for name, reason in record["failed"]:  # it has no picture now either
                self.telling.failed(Job(Path(name), ()), reason)
            return False
        if (other := journal.in_the_way(entry)) is not None:
            self.telling.failed(job, f"{self.telling.out / other} is there already and is not what this program wrote; "
                                     "--overwrite replaces it")  # fmt: skip
            return False
        return True
