"""Is this checkout slower than another commit? The rows of benchmarks/cpu.py, both side by side.

    python benchmarks/compare.py --base v1.1 [--repeats 15] [--threads 2] [--bound 1.08] [--rows NAME ...] [--json FILE]

Rates of one machine drift by a third from one minute to the next, so two runs one after the other say little. Here
each commit has a process of its own that stays, with its weights loaded, and calls alternate: base, new, base, new …
The minimum of many calls is compared. The base is checked out into a temporary folder (`git worktree`), each process
sees its own checkout alone (PYTHONPATH), and both run `compare_child.py` of this one, which uses only what older
commits have too; what one side can not do is said to be missing. The exit status is 1 where a row takes more than
`--bound` times as long as at the base.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.cpu import BOUNDS, SIZES, parsed, picture, processor  # noqa: E402
from stages.provenance import commit  # noqa: E402

CHILD = Path(__file__).with_name("compare_child.py")


class CompareError(ValueError):
    """What can not be compared; the message says why."""


class Side(Protocol):
    """One checkout that answers calls."""

    def prepare(self, row: str) -> str | None:
        """One call that is not counted; None, or why this checkout can not do the row."""

    def seconds(self, row: str) -> float:
        """One call of a prepared row."""


class Process:
    """A checkout at work in a process of its own: one line of JSON for each call, one for each answer."""

    def __init__(self, name: str, checkout: Path, photos: Path, threads: int) -> None:
        count = str(threads)
        environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
        command = [sys.executable, str(CHILD), str(checkout), str(photos)]
        self.name = name
        self.process = subprocess.Popen(
            command, cwd=checkout, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe(self.process.stdin).close()  # which ends it
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._pipe(self.process.stdout).close()

    def prepare(self, row: str) -> str | None:
        missing: str | None = self._answer(row)["missing"]
        return missing

    def seconds(self, row: str) -> float:
        return float(self._answer(row)["seconds"])

    def _answer(self, row: str) -> dict[str, Any]:
        try:
            requests = self._pipe(self.process.stdin)
            requests.write(json.dumps(row) + "\n")
            requests.flush()
            line = self._pipe(self.process.stdout).readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise CompareError(f"the process of the {self.name} commit ended in row {row!r}: its error is above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


def compared(row: str, base: Side, new: Side, repeats: int, bound: float) -> dict[str, Any]:
    """Both minima of a row, their ratio, and whether it is met; `missing` instead where a side can not do it."""
    for name, side in (("base", base), ("new", new)):
        if (reason := side.prepare(row)) is not None:
            return {"name": row, "missing": f"{name}: {reason}"}
    calls = [(base.seconds(row), new.seconds(row)) for _ in range(repeats)]
    base_seconds, new_seconds = (min(seconds) for seconds in zip(*calls, strict=True))
    ratio = new_seconds / base_seconds
    return {
        "name": row, "base_seconds": base_seconds, "new_seconds": new_seconds, "ratio": ratio, "met": ratio <= bound
    }  # fmt: skip


def line(row: dict[str, Any]) -> str:
    if "missing" in row:
        return f"{row['name']:30s} missing, {row['missing']}"
    verdict = "" if row["met"] else "  SLOWER"
    seconds = f"{row['base_seconds']:8.3f} s -> {row['new_seconds']:8.3f} s"
    return f"{row['name']:30s} {seconds}  x {row['ratio']:.3f}{verdict}"


@contextmanager
def checkout_of(revision: str) -> Iterator[Path]:
    """A folder with the files of a commit, gone at the end. Raises CompareError where there is no such commit."""

    def git(*words: str) -> None:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
        if done.returncode:
            raise CompareError(f"git {' '.join(words)}: {done.stderr.strip()}")

    with tempfile.TemporaryDirectory(prefix="trichrome-compare-") as temporary:
        folder = Path(temporary) / "base"
        git("worktree", "add", "--detach", str(folder), revision)
        try:
            yield folder
        finally:
            git("worktree", "remove", "--force", str(folder))


def write_photos(folder: Path, rows: Sequence[str]) -> None:
    """The inputs of the rows: gray PNG and JPEG files named after their sizes, and a small one to warm up with."""
    picture((320, 240)).save(folder / "small.png")
    for name, size in SIZES.items():
        if any(row.startswith(name) for row in rows):
            photo = picture(size)
            photo.save(folder / f"{name}.png", compress_level=1)
            photo.save(folder / f"{name}.jpg", quality=95)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", required=True, metavar="REF", help="commit, tag or branch to compare with")
    parser.add_argument("--repeats", type=int, default=15, help="calls per row and side; the fastest counts (15)")
    parser.add_argument("--bound", type=float, default=1.08, help="most seconds of a row, as a share of the base's")
    parser.add_argument("--rows", nargs="+", choices=list(BOUNDS), default=list(BOUNDS), metavar="NAME")
    options = parsed(parser, arguments)
    if options.repeats < 1:
        parser.error(f"--repeats must be at least 1; got {options.repeats}")
    try:
        with ExitStack() as stack:
            photos = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trichrome-photos-")))
            write_photos(photos, options.rows)
            folder = stack.enter_context(checkout_of(options.base))
            base = stack.enter_context(Process("base", folder, photos, options.threads))
            new = stack.enter_context(Process("new", ROOT, photos, options.threads))
            result: dict[str, Any] = {
                "command": shlex.join(["python", "benchmarks/compare.py", *(arguments or sys.argv[1:])]),
                "base": commit(folder), "new": commit(), "threads": options.threads, "repeats": options.repeats,
                "bound": options.bound, "processor": processor(), "torch": importlib.metadata.version("torch"),
                "date": time.strftime("%Y-%m-%d"), "rows": [],
            }  # fmt: skip
            for name in options.rows:
                result["rows"].append(compared(name, base, new, options.repeats, options.bound))
                print(line(result["rows"][-1]), flush=True)
    except CompareError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if all(row.get("met", True) for row in result["rows"]) else 1


if __name__ == "__main__":
    sys.exit(main())
