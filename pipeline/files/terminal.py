"""What a run says: progress and lines on stderr, a report of JSON lines, the summary."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.files.interruptions import GOES_ON
from pipeline.files.manifest import MANIFEST
from pipeline.files.records import Report
from pipeline.files.report import Outcome, ignored_sentence, shown


class Lines:
    """Lines on stderr; while there is a bar of progress, above it. show: whether there may be one"""

    def __init__(self, show: bool) -> None:
        self.show = show
        self.bar: Any = None  # Any: tqdm has no types

    def say(self, line: str) -> None:
        if self.bar is None:
            print(shown(line), file=sys.stderr, flush=True)
        else:
            self.bar.write(shown(line), file=sys.stderr)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class Terminal(Lines):
    """Progress on stderr, made at the first photo.

    show: the bar; without it each photo has its line; unit: what it counts
    """

    def __init__(self, show: bool, unit: str = "photo") -> None:
        super().__init__(show)
        self.unit = unit

    def update(self, done: int, total: int) -> None:
        if not self.show or total == 0:
            return
        if self.bar is None:
            from tqdm import tqdm

            self.bar = tqdm(total=total, unit=self.unit, file=sys.stderr, dynamic_ncols=True)
        self.bar.update(done - self.bar.n)

    def each(self, outcome: Outcome) -> None:
        if not self.show and outcome.status != "failed":  # failures are said anyway
            self.say(outcome.line())


class ReportFile:
    """`--report`: a line of JSON for each input, on the disk as it happens. Raises OSError where it can not be made.

    An older report is replaced when the first line comes, not by a command that is refused.
    """

    def __init__(self, path: Path) -> None:
        if reason := _why_no_report(path):
            raise ValueError(f"--report {path}: {reason}; name a new file that ends in .jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.file = path.open("a", encoding="utf-8")
        self.lines = 0

    def each(self, outcome: Outcome) -> None:
        if self.lines == 0:
            self.file.truncate(0)
        self.lines += 1
        self.file.write(outcome.record())
        self.file.flush()

    def close(self) -> None:
        self.file.close()

    def give_up(self) -> None:
        with suppress(OSError):  # of what could not be written before
            self.file.close()


def _why_no_report(path: Path) -> str | None:
    """Why a report must not be written there: whatever stands there and is no report would be lost."""
    if path.suffix != ".jsonl":
        return "a report is lines of JSON"
    if path.name == MANIFEST:
        return "that is the memory of an output folder"
    if path.exists():
        with path.open("rb") as file:
            line = file.readline(1 << 16)
        try:
            is_report = not line or {"input", "status"} <= json.loads(line).keys()
        except (ValueError, AttributeError, RecursionError):
            is_report = False
        if not is_report:
            return "there is a file that is no report"
    return None


def print_summary(report: Report, dry: bool = False) -> None:
    """On stdout; what was passed over has a line of its own."""
    what = f"{report.planned} would be colored" if dry else f"{report.colored} colored"
    print(f"{what}, {report.skipped} skipped (finished before), "
          f"{len(report.failed)} failed, {report.seconds:.1f} s")  # fmt: skip
    if sentence := ignored_sentence(report.ignored):
        print(shown(sentence))


def summed_up(
    terminal: Terminal, report: Report, signal: int | None, paths: Sequence[object], code: int, dry: bool
) -> int:
    """The summary, and what is to be said of the end of a run over `paths`; returns the exit code.

    signal: that has stopped it; code: 1 where its output folder, report or sheet was lost, else 0
    """
    print_summary(report, dry)
    if signal is not None:
        terminal.say(GOES_ON)
        return 128 + signal
    if code == 0 and report.colored + report.planned + report.skipped + len(report.failed) == 0:
        terminal.say(f"no photograph was found in {', '.join(map(str, paths))}")
        return 1
    return 1 if report.failed else code
