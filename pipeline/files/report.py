"""What became of each input: one line of JSON each (`--report`), and the last sentences of a run."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Status = Literal["colored", "skipped", "failed", "ignored", "planned"]
NAMED = 3  # of the ignored of one kind in the summary; the report has them all


@dataclass(frozen=True)
class Outcome:
    """Of one input: what it became, and why not.

    outputs: the files, of "colored", "skipped" and "planned"; notes: of "colored"; reason: of "failed" and "ignored"
    """

    input: Path
    status: Status
    outputs: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    reason: str | None = None
    page: int | None = None

    def line(self) -> str:
        """For a person."""
        name = f"{self.input}" if self.page is None else f"{self.input}, page {self.page}"
        if self.outputs:
            what = {"skipped": "skipped (finished before)", "planned": "would be colored"}.get(self.status, self.status)
            return f"{name}: {what}: {', '.join(map(str, self.outputs))}"
        return f"{name}: {self.status}: {self.reason}"

    def record(self) -> str:
        """A line of JSON; names that are no Unicode are written with surrogates, as Python has them."""
        record: dict[str, object] = {
            "input": str(self.input), "status": self.status, "outputs": [str(path) for path in self.outputs],
            "notes": list(self.notes), "reason": self.reason,
        }  # fmt: skip
        if self.page is not None:
            record["page"] = self.page
        return json.dumps(record) + "\n"


def ignored_sentence(ignored: Iterable[tuple[Path, str]]) -> str | None:
    """How many inputs were left out, of which kind, and the first of each by name; None for none."""
    kinds: defaultdict[str, list[Path]] = defaultdict(list)
    for path, reason in ignored:
        kinds[reason].append(path)
    if not kinds:
        return None
    parts = []
    for reason, paths in kinds.items():
        names = ", ".join(str(path) for path in paths[:NAMED]) + (", …" if len(paths) > NAMED else "")
        parts.append(f"{len(paths)} {reason} ({names})")
    return f"{sum(map(len, kinds.values()))} ignored: {'; '.join(parts)}"


def misuse(command: str, message: object) -> int:
    """Says on stderr why a command can not be done as it was called; returns its exit code, 2."""
    print(f"trichrome {command}: error: {shown(message)}", file=sys.stderr)
    return 2


def shown(text: object) -> str:
    """Text as one safe line of a terminal: newlines, escape sequences and bytes that are no UTF-8 are written out."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text)
    )
