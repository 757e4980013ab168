"""The memory of an output that nothing can be appended to: each unit of work leaves a file of lines.

`OUT/.trichrome/DIGEST.jsonl` has a line "begin" for each entry before anything is written, and is replaced by one with
lines "done" afterwards. Of several lines on one entry the latest counts.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.batch.places import Found, Place
from pipeline.batch.units import Entry

__all__ = ["JOURNAL", "Journal"]

JOURNAL = ".trichrome"
FORMAT = 1
_READERS = 16  # an object store takes its time for each file, not for their bytes


class Journal:
    """What an output folder holds, and what of it is finished.

    files: all that is in it, the journal's own among them
    """

    def __init__(self, out: Place, files: Iterable[Found]) -> None:
        self.out, self.unreadable = out, 0
        self._sizes: dict[str, int] = {}
        self._folders: dict[str, str] = {}  # to a file in each
        self._last: dict[str, dict[str, Any]] = {}
        self._claims: set[str] = set()
        own = []
        for file in files:
            if file.place.startswith(f"{JOURNAL}/"):
                own.append(file.path)
            else:
                self._sizes[file.place] = file.size
                for folder in PurePosixPath(file.place).parents:
                    self._folders.setdefault(folder.as_posix(), file.place)
        with ThreadPoolExecutor(_READERS) as readers:
            for content in readers.map(out.read, own):
                self._take(content)

    def _take(self, content: bytes) -> None:
        for line in content.splitlines():
            try:
                record = json.loads(line)
                if record["format"] != FORMAT or record["event"] not in ("begin", "done"):
                    raise ValueError("another format")
                self._claims.update(record["claims"])
                if record["time"] > self._last.get(record["name"], {"time": -1})["time"]:
                    self._last[record["name"]] = record
            except (ValueError, KeyError, TypeError, RecursionError):
                self.unreadable += bool(line.strip())

    def finished(self, entry: Entry, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """The line of an entry that was made of the same with the same settings and weights, and is there; or None."""
        record = self._last.get(entry.name)
        if record is None or record["event"] != "done":
            return None
        try:
            same = record["key"] == key and record["stamp"] == entry.stamp
            present = all(self._sizes.get(output["path"]) == output["size"] for output in record["outputs"])
        except (KeyError, TypeError):
            return None
        return record if same and present else None

    def in_the_way(self, entry: Entry) -> str | None:
        """What the entry would replace and this program has not made; None: nothing."""
        for claim in entry.claims:
            if claim in self._claims:
                continue
            if claim in self._sizes:
                return claim
            if (other := self._folders.get(claim.rstrip("/"))) is not None:
                return other
        return None

    @staticmethod
    def begin(out: Place, entries: Sequence[Entry], scratch: Path) -> None:
        Journal._write(out, entries, [{"event": "begin"} for _ in entries], scratch)

    @staticmethod
    def done(
        out: Place, entries: Sequence[Entry], key: Mapping[str, Any], results: Sequence[Mapping[str, Any] | None],
        scratch: Path,
    ) -> None:  # fmt: skip
        """results: of each entry its `outputs` (path, size), `colored` (how many) and `failed` (name, reason of each);
        None: it failed, and the next run tries it again"""
        events = [
            {"event": "begin"} if result is None else {
                "event": "done", "key": dict(key), "stamp": dict(entry.stamp), **result}
            for entry, result in zip(entries, results, strict=True)
        ]  # fmt: skip
        Journal._write(out, entries, events, scratch)

    @staticmethod
    def _write(out: Place, entries: Sequence[Entry], events: Sequence[dict[str, Any]], scratch: Path) -> None:
        now = time.time_ns()
        file = scratch / "journal"
        file.write_text("".join(
            json.dumps({"format": FORMAT, "name": entry.name, "claims": entry.claims, "time": now, **event}) + "\n"
            for entry, event in zip(entries, events, strict=True)
        ))  # fmt: skip
        digest = hashlib.sha256(json.dumps([entry.name for entry in entries]).encode()).hexdigest()[:32]
        out.put(file, f"{JOURNAL}/{digest}.jsonl")
