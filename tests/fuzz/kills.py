"""Stops the command in the middle of its writes, and looks at what is left.

    python tests/fuzz/kills.py --count 100
    python tests/fuzz/kills.py --count 30 --photos 300 --workers 2
    python tests/fuzz/kills.py --count 30 --video

A round: photographs are colored into a folder, a signal comes while a file is half written. Then every file that has
its name is complete, none is doubled or lost, and the same command goes on to the same bytes as one that was let be.
A video, and in every second round a folder of frames, is stopped three times, at any moment, before it is let be.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.files.manifest import MANIFEST

COMMAND = [sys.executable, str(Path(__file__).resolve().parent / "plain.py")]
EXITS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
WORKER = "of a worker"  # SIGKILL, which its command survives
SECONDS = 120  # for one command


def large_photos(folder: Path, count: int = 2, side: int = 1600) -> None:
    """Grainy, so that their writes take a while."""
    for seed in range(count):
        grain = np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)
        Image.fromarray(grain).save(folder / f"{seed}.png", compress_level=1)


def files_of(out: Path) -> dict[str, bytes]:
    """By their names; of what is itself a file, that file."""
    if not out.is_dir():
        return {"": out.read_bytes()} if out.exists() else {}
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def start(source: Path, out: Path, workers: int = 1) -> subprocess.Popen:
    more = [] if workers == 1 else ["--threads", "1", "--workers", str(workers)]
    return subprocess.Popen([*COMMAND, str(source), "-o", str(out), "--preview", *more], stderr=subprocess.PIPE,
                            stdout=subprocess.DEVNULL, text=True)  # fmt: skip


def children(process: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def strike(
    source: Path, out: Path, kind: signal.Signals | str, delay: float, workers: int
) -> tuple[int, bool, str]:
    """(exit code, whether a file was half written when the signal came, stderr)."""
    child = start(source, out, workers)
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(child.stderr or ()))  # a full pipe would stop it
    reader.start()
    limit = time.monotonic() + SECONDS
    while child.poll() is None and time.monotonic() < limit and not list(out.glob(".*.part")):
        time.sleep(0.002)
    time.sleep(delay)
    writing = bool(list(out.glob(".*.part")))
    if child.poll() is None:
        if isinstance(kind, signal.Signals):
            child.send_signal(kind)
        elif at_work := children(child.pid):
            os.kill(at_work[0], signal.SIGKILL)
    code = child.wait(SECONDS)
    reader.join(SECONDS)
    return code, writing, "".join(said)


def faults(expected: dict[str, bytes], out: Path, code: int, kind: signal.Signals | str, said: str) -> list[str]:
    """What is wrong after a signal."""
    found = files_of(out)
    pictures = {name: data for name, data in found.items() if not name.startswith(".")}
    wrong = [f"{name} is not what it should be" for name, data in pictures.items() if expected.get(name) != data]
    if code not in ((EXITS[kind], 0) if isinstance(kind, signal.Signals) else (0,)):  # 0: the last photo was at hand
        wrong.append(f"exit code {code}")
    if kind != signal.SIGKILL and (parts := [name for name in found if name.endswith(".part")]):
        wrong.append(f"left {parts}")
    if kind == WORKER and pictures.keys() != expected.keys():
        wrong.append(f"{len(expected.keys() - pictures.keys())} photos went with the worker")
    if "Traceback" in said or "Exception ignored" in said:
        wrong.append(said)
    return wrong


def finished(source: Path, out: Path, workers: int) -> tuple[int, str]:
    """The command, run to its end: (exit code, stderr). The workers of a killed one may hold the folder a moment."""
    limit = time.monotonic() + SECONDS
    while True:
        child = start(source, out, workers)
        _, said = child.communicate(timeout=SECONDS)
        if child.returncode != 2 or "is in use by another" not in said or time.monotonic() > limit:
            return child.returncode, said
        time.sleep(0.2)


def rounds(
    count: int, seed: int = 0, kinds: Sequence[signal.Signals | str] = tuple(EXITS), photos: int = 2, workers: int = 1
) -> tuple[list[str], int]:
    """(findings, how many signals came while a file was half written) of `count` rounds.

    photos: many are small ones, and a signal may come at any moment of the run; workers: processes at work
    """
    rng = np.random.default_rng(seed)
    findings, hits = [], 0
    with tempfile.TemporaryDirectory() as place:
        source, whole = Path(place) / "in", Path(place) / "whole"
        source.mkdir()
        large_photos(source, photos, 1600 if photos <= 2 else 200)
        begun = time.monotonic()
        finished(source, whole, workers)
        expected = {name: data for name, data in files_of(whole).items() if not name.startswith(".")}
        assert len(expected) == len(list(source.iterdir())), "the command without signals"
        longest = (time.monotonic() - begun) / (10 if photos <= 2 else 1.5)
        for number in range(count):
            out, kind = Path(place) / f"out{number}", kinds[number % len(kinds)]
            code, writing, said = strike(source, out, kind, float(rng.uniform(0, longest)), workers)
            hits += writing
            wrong = faults(expected, out, code, kind, said)
            again, said = finished(source, out, workers)
            left = files_of(out)
            if again or {name: data for name, data in left.items() if name != MANIFEST} != expected:
                wrong.append(f"the next run: exit {again}, {sorted(left.keys() ^ expected.keys())}: {said}")
            findings += [f"round {number}, {getattr(kind, 'name', kind)}: {fault}" for fault in wrong]
            for path in out.iterdir():
                os.unlink(path)
    return findings, hits


def moving(place: Path) -> list[Path]:
    """A video of four scenes, with sound, and a folder of the frames of two of them."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "video"))
    import clips  # needs the extra `video`

    scenes = [clips.levels(clips.pan(40, (48, 64), 1, seed)) for seed in range(4)]
    frames = place / "in"
    frames.mkdir()
    for number, luma in enumerate(scenes[0] + scenes[1]):
        Image.fromarray(luma).save(frames / f"{number}.png")
    return [clips.write_film(place / "in.mkv", [luma for scene in scenes for luma in scene], sound=True), frames]


def video_rounds(count: int, seed: int = 0, stops: int = 3) -> tuple[list[str], int]:
    """(findings, how many signals came while frames were colored) of `count` rounds. stops: signals in each"""
    from pipeline.video.work import work_folder  # needs the extra `video`

    rng = np.random.default_rng(seed)
    findings, hits = [], 0
    with tempfile.TemporaryDirectory() as place:
        inputs, wholes = moving(Path(place)), [Path(place) / "whole.mp4", Path(place) / "whole"]

        def run(source: Path, out: Path) -> subprocess.Popen:
            return subprocess.Popen([*COMMAND, "video", str(source), "-o", str(out)], stderr=subprocess.PIPE,
                                    stdout=subprocess.DEVNULL, text=True)  # fmt: skip

        longest = []
        for source, whole in zip(inputs, wholes, strict=True):
            begun = time.monotonic()
            assert run(source, whole).wait(SECONDS) == 0, "the command without signals"
            longest.append(time.monotonic() - begun)
        for number in range(count):
            source, expected = inputs[number % 2], files_of(wholes[number % 2])
            out, kinds = Path(place) / f"out{number}{wholes[number % 2].suffix}", list(EXITS)
            wrong: list[str] = []
            for stop in range(stops):
                kind, child = kinds[(number // 2 + stop) % len(kinds)], run(source, out)
                try:
                    child.wait(rng.uniform(0, longest[number % 2]))
                except subprocess.TimeoutExpired:
                    hits += work_folder(out).exists()
                    child.send_signal(kind)
                _, said = child.communicate(timeout=SECONDS)
                if child.returncode not in (EXITS[kind], 0, -kind):  # -kind: before Python hears signals
                    wrong.append(f"exit code {child.returncode}: {said}")
                if "Exception ignored" in said:
                    wrong.append(said)
                wrong += [f"{name or out.name} has its name and is not what it should be"
                          for name, data in files_of(out).items() if name[:1] != "." and data != expected.get(name)]
            child = run(source, out)
            _, said = child.communicate(timeout=SECONDS)
            if child.returncode or files_of(out) != expected:
                wrong.append(f"the last run: exit {child.returncode}: {said}")
            wrong += [f"left {path.name}" for path in Path(place).iterdir() if path not in (*inputs, *wholes, out)]
            findings += [f"round {number}: {fault}" for fault in wrong]
            if out.is_dir():
                shutil.rmtree(out)
            out.unlink(missing_ok=True)
    return findings, hits


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--photos", type=int, default=2, help="2 large ones, or more that are small")
    parser.add_argument("--workers", type=int, default=1, help="processes at work: then all, or one of them, is killed")
    parser.add_argument("--video", action="store_true", help="a video in place of photos")
    options = parser.parse_args()
    if options.video:
        findings, hits = video_rounds(options.count, options.seed)
        print(f"{options.count} rounds, {hits} signals during the work, {len(findings)} findings")
        print("\n".join(findings))
        return 1 if findings else 0
    kinds: tuple[signal.Signals | str, ...] = tuple(EXITS) if options.workers == 1 else (signal.SIGKILL, WORKER)
    findings, hits = rounds(options.count, options.seed, kinds, options.photos, options.workers)
    print(f"{options.count} rounds, {hits} signals during a write, {len(findings)} findings")
    print("\n".join(findings))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
