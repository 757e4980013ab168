"""Stops the command in the middle of its writes, and looks at what is left.

    python tests/fuzz/kills.py --count 100

A round: photographs are colored into a folder, a signal comes while a file is half written. Then every file that has
its name is complete, none is doubled or lost, and the same command goes on to the same bytes as one that was let be.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.files.manifest import MANIFEST

COMMAND = [sys.executable, str(Path(__file__).resolve().parent / "plain.py")]
EXITS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
SECONDS = 120  # for one command


def large_photos(folder: Path, count: int = 2, side: int = 1600) -> None:
    """Grainy, so that their writes take a while."""
    for seed in range(count):
        grain = np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)
        Image.fromarray(grain).save(folder / f"{seed}.png", compress_level=1)


def files_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()} if out.exists() else {}


def start(source: Path, out: Path) -> subprocess.Popen:
    return subprocess.Popen([*COMMAND, str(source), "-o", str(out), "--preview"], stderr=subprocess.PIPE,
                            stdout=subprocess.DEVNULL, text=True)  # fmt: skip


def strike(source: Path, out: Path, number: signal.Signals, delay: float) -> tuple[int, bool, str]:
    """(exit code, whether a file was half written when the signal came, stderr)."""
    child = start(source, out)
    limit = time.monotonic() + SECONDS
    while child.poll() is None and time.monotonic() < limit and not list(out.glob(".*.part")):
        time.sleep(0.002)
    time.sleep(delay)
    writing = bool(list(out.glob(".*.part")))
    child.send_signal(number)
    _, said = child.communicate(timeout=SECONDS)
    return child.returncode, writing, said


def faults(expected: dict[str, bytes], out: Path, code: int, number: signal.Signals, said: str) -> list[str]:
    """What is wrong after a signal."""
    found = files_of(out)
    pictures = {name: data for name, data in found.items() if not name.startswith(".")}
    wrong = [f"{name} is not what it should be" for name, data in pictures.items() if expected.get(name) != data]
    if code not in (EXITS[number], 0):  # 0: the last photo was at hand
        wrong.append(f"exit code {code} after {number.name}")
    if number != signal.SIGKILL and (parts := [name for name in found if name.endswith(".part")]):
        wrong.append(f"left {parts}")
    if "Traceback" in said or "Exception ignored" in said:
        wrong.append(said)
    return wrong


def rounds(count: int, seed: int = 0, signals: Sequence[signal.Signals] = tuple(EXITS)) -> tuple[list[str], int]:
    """(findings, how many signals came while a file was half written) of `count` rounds."""
    rng = np.random.default_rng(seed)
    findings, hits = [], 0
    with tempfile.TemporaryDirectory() as place:
        source, whole = Path(place) / "in", Path(place) / "whole"
        source.mkdir()
        large_photos(source)
        begun = time.monotonic()
        start(source, whole).communicate(timeout=SECONDS)
        expected = {name: data for name, data in files_of(whole).items() if not name.startswith(".")}
        assert len(expected) == len(list(source.iterdir())), "the command without signals"
        write = (time.monotonic() - begun) / 10
        for number in range(count):
            out, kind = Path(place) / f"out{number}", signals[number % len(signals)]
            code, writing, said = strike(source, out, kind, float(rng.uniform(0, write)))
            hits += writing
            wrong = faults(expected, out, code, kind, said)
            again = start(source, out)
            _, said = again.communicate(timeout=SECONDS)
            left = files_of(out)
            if again.returncode or {name: data for name, data in left.items() if name != MANIFEST} != expected:
                wrong.append(f"the next run: exit {again.returncode}, {sorted(left)}: {said}")
            findings += [f"round {number}, {kind.name}: {fault}" for fault in wrong]
            for path in out.iterdir():
                os.unlink(path)
    return findings, hits


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    findings, hits = rounds(options.count, options.seed)
    print(f"{options.count} rounds, {hits} signals during a write, {len(findings)} findings")
    print("\n".join(findings))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
