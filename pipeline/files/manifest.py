"""The memory of an output folder: what is finished, and which files are this program's own."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

from pipeline.files.records import Job
from pipeline.provenance.record import RECIPE
from stages.checkpoint import sha256_of

MANIFEST = ".trichrome.jsonl"
MANIFEST_FORMAT = 1


class Manifest:
    """The memory of an output folder: for each output, the last line that names it."""

    def __init__(self, out: Path) -> None:
        self.out, self.path = out, out / MANIFEST
        self.last: dict[str, dict[str, Any]] = {}
        self.unreadable = 0
        self._newline = b""
        self._one_line = threading.Lock()
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return
        if content and not content.endswith(b"\n"):
            self._newline = b"\n"  # a line cut short by a power failure must not swallow the next one
        for line in content.splitlines():
            try:
                record = json.loads(line)
                if record["format"] != MANIFEST_FORMAT or record["event"] not in ("begin", "done"):
                    raise ValueError("another format")
                self._remember(record)
            except (ValueError, KeyError, TypeError, RecursionError):
                self.unreadable += bool(line.strip())

    def _remember(self, record: dict[str, Any]) -> None:
        names = [output["path"] for output in record["outputs"]]
        self.last.update(dict.fromkeys(names, record))

    def append(self, record: dict[str, Any]) -> None:
        """One line, in one write, on the disk when this returns."""
        with self._one_line:
            self._append({"format": MANIFEST_FORMAT, **record})

    def _append(self, record: dict[str, Any]) -> None:
        line = self._newline + json.dumps(record).encode() + b"\n"
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            written = os.write(handle, line)
            os.fsync(handle)
        finally:
            os.close(handle)
        if written != len(line):
            self._newline = b"\n"
            raise OSError(errno.ENOSPC, "could not be written to its end; is the disk full?", str(self.path))
        self._newline = b""
        self._remember(record)

    def is_finished(self, job: Job, key: dict[str, Any]) -> bool:
        """Whether the same input gave all outputs with the same settings and weights, and they are there."""
        records = [self.last.get(output.as_posix()) for output in job.outputs]
        record = records[0]
        if record is None or record["event"] != "done" or any(other is not record for other in records):
            return False
        try:
            return (record["key"] == key and _is_same(job.source, record["input"])
                    and all(_is_same(self.out / output["path"], output) for output in record["outputs"]))
        except (KeyError, TypeError):
            return False

    def replaced(self, job: Job, key: dict[str, Any]) -> str | None:
        """A sentence on what was colored before and with what, which now is replaced; None where nothing is."""
        record = self.last.get(job.outputs[0].as_posix())
        if record is None or record["event"] != "done" or not isinstance(record.get("key"), dict):
            return None
        before = record["key"]
        if (recipe := before.get("recipe", 1)) != RECIPE:
            return f"was colored by recipe {recipe}; today's is {RECIPE}, which gives other colors: colored again"
        changes = _changes(before.get("settings"), key["settings"])
        if before.get("weights") != key["weights"]:
            changes.append("other weights")
        if before.get("guidance") != key.get("guidance"):
            changes.append("other hints, reference or colors to keep")
        if not changes and not _is_same(job.source, record["input"]):
            changes.append("another photo under this name")
        if not changes:
            return None
        names = ", ".join(str(self.out / output) for output in job.outputs)
        return f"was colored with {', '.join(changes)}: colored again, {names} replaced"

    def is_own(self, output: Path) -> bool:
        """Whether the file in this place is as this program left it, or was being written when it stopped."""
        record = self.last.get(output.as_posix())
        if record is None:
            return False
        if record["event"] == "begin":
            return True
        entry = next(entry for entry in record["outputs"] if entry["path"] == output.as_posix())
        return _is_same(self.out / output, entry)


def stamp(path: Path) -> dict[str, Any]:
    """Size, time of change and SHA-256 of a file."""
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": sha256_of(path)}


def _is_same(path: Path, stamp: dict[str, Any]) -> bool:
    """The file is as stamped: at a glance (size and time to the nanosecond), else by its hash."""
    try:
        status = path.stat()
        if status.st_size != stamp["size"]:
            return False
        return status.st_mtime_ns == stamp["mtime_ns"] or sha256_of(path) == stamp["sha256"]
    except (OSError, KeyError):
        return False


def _changes(before: object, now: dict[str, Any]) -> list[str]:
    """Settings that differ: "seed 0 (now 3)"."""
    if not isinstance(before, dict):
        return ["other settings"]
    changes = []
    for name in now.keys() | before.keys():
        old, new = before.get(name), now.get(name)
        if isinstance(new, dict):
            changes += _changes(old, new)
        elif old != new:
            changes.append(f"{name} {_word(old)} (now {_word(new)})")
    return sorted(changes)


def _word(value: object) -> str:
    return "off" if value is None or value is False else "on" if value is True else str(value)
