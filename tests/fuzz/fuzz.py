"""Reads thousands of damaged files in child processes and sums up what came of them.

    python tests/fuzz/fuzz.py --count 10000 --seed 0
"""

from __future__ import annotations

import argparse
import json
import selectors
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
SECONDS = 20  # for one file; starting the child has a minute


@dataclass
class Summary:
    """findings: what must not happen; outcomes: how many were read, refused …, by format and outcome."""

    findings: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    silent: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0


def fuzz(seed: int, count: int) -> Summary:
    """Mutants 0 to count - 1 of a seed. A child that dies or hangs costs one of them, and a new child goes on."""
    summary, number = Summary(), 0
    with tempfile.TemporaryDirectory() as folder:
        while number < count:
            number = _child(seed, number, count, Path(folder), summary)
    return summary


def _child(seed: int, first: int, last: int, folder: Path, summary: Summary) -> int:
    """The number after the last that was judged."""
    command = [sys.executable, str(HERE / "reader.py"), str(seed), str(first), str(last), str(folder)]
    errors = folder / "stderr"
    begun = first
    with errors.open("w+") as stderr, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr) as child:
        assert child.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            limit = 60.0
            while True:
                if not selector.select(limit):
                    child.kill()
                    summary.findings.append(f"mutant {begun} of seed {seed}: hangs")
                    return begun + 1
                line = child.stdout.readline()
                if not line:
                    break
                record, limit = json.loads(line), SECONDS
                begun = record["number"]
                if "name" in record:
                    _count(record, seed, summary)
                    begun += 1
        child.wait()
        said = errors.read_text(errors="replace")
        if limit > SECONDS:  # it has judged none
            raise RuntimeError(f"the child of the fuzz does not start: {said[-1000:]}")
        if child.returncode:
            summary.findings.append(f"mutant {begun} of seed {seed}: exit {child.returncode}: {said[-500:]}")
            return begun + 1
        if "Traceback" in said:
            summary.findings.append(f"a traceback on stderr: {said[-500:]}")
    return last


def _count(record: dict, seed: int, summary: Summary) -> None:
    kind = record["name"].split()[0]
    if "finding" in record:
        summary.findings.append(f"mutant {record['number']} of seed {seed} ({record['name']}): {record['finding']}")
    summary.outcomes[f"{kind} {record['outcome']}"] += 1
    summary.silent[kind] += record.get("changed", 0) > 0.01 and not record["notes"]
    summary.slowest = max(summary.slowest, record["seconds"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    summary = fuzz(options.seed, options.count)
    for outcome, number in sorted(summary.outcomes.items()):
        print(f"{outcome}: {number}")
    for kind, number in sorted(summary.silent.items()):
        print(f"{kind} read with other pixels and no word: {number}")
    print(f"slowest: {summary.slowest:.2f} s; findings: {len(summary.findings)}")
    print("\n".join(summary.findings))
    return 1 if summary.findings else 0


if __name__ == "__main__":
    sys.exit(main())
