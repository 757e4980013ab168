"""A folder by the command against a loop over single calls, both with all cores.

    python benchmarks/folder.py [--photos 200] [--rounds 2] [--threads 2] [--command-threads 1] [--json FILE]
    python benchmarks/folder.py --memory 1000 [--json FILE]

JPEG files of one megapixel become JPEG files. The loop is `pipe(path)` and `output.save(path)` in this process, which
has its weights loaded; the command is a process of its own, from its start to its end. They take turns, a share of the
photographs each, because rates drift; all seconds of each are added. `--command-threads` is the command's `--threads`:
with 1 it colors as many photographs side by side as there are cores.

With `--memory` previews of so many photographs are made, and the memory of the command and its workers together is
looked at after each tenth of them (Linux).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.cpu import SIZES, parsed, picture, processor  # noqa: E402
from stages.provenance import commit  # noqa: E402

BOUND = 1.4  # times the throughput of the loop
FLAT = 1.1  # times the memory of the second tenth


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--command-threads", type=int, default=1)
    parser.add_argument("--memory", type=int, metavar="N", help="memory over so many photographs instead")
    options = parsed(parser)
    if options.memory:
        return memory(options)
    import torch

    from pipeline import ColorPipeline

    torch.set_num_threads(options.threads)
    pipe = ColorPipeline.from_pretrained()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        folders = photographs(Path(place), options.photos, options.rounds)
        pipe(picture((320, 240)), generator=0)  # the first call of all
        for number, folder in enumerate(folders):
            rows.append(round_of(pipe, folder, Path(place) / f"out{number}", options.command_threads))
            print(json.dumps(rows[-1]), flush=True)
    loop, command = (sum(row[name] for row in rows) for name in ("loop_seconds", "command_seconds"))
    result = {
        "photos": options.photos, "threads": options.threads, "command_threads": options.command_threads,
        "loop_seconds_per_photo": loop / options.photos, "command_seconds_per_photo": command / options.photos,
        "ratio": loop / command, "bound": BOUND, "met": loop / command >= BOUND, "rows": rows,
        "processor": processor(), "torch": importlib.metadata.version("torch"), "commit": commit(),
        "date": time.strftime("%Y-%m-%d"), "command": " ".join(["python", "benchmarks/folder.py", *sys.argv[1:]]),
    }  # fmt: skip
    verdict = f"x {loop / command:.2f} ({'met' if result['met'] else 'NOT MET'}: {BOUND})"
    print(f"loop {loop / options.photos:.3f} s a photo, command {command / options.photos:.3f} s: {verdict}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if result["met"] else 1


def memory(options: argparse.Namespace) -> int:
    """Whether the command needs more memory for the last tenth of many photographs than for the second one."""
    with tempfile.TemporaryDirectory() as place:
        (folder,) = photographs(Path(place), options.memory, 1)
        command = [sys.executable, "-m", "pipeline.cli", "colorize", str(folder), "-o", f"{place}/out", "--preview",
                   "--device", "cpu", "--threads", str(options.command_threads)]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        tenths: dict[int, float] = {}
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while process.poll() is None:
                done = len(list(Path(place).glob("out/*.jpg"))) * 10 // options.memory
                if done and done not in tenths and (used := _used(process.pid)):
                    tenths[done] = used
                time.sleep(0.1)
        assert process.returncode == 0
    early, late = tenths[2], max(value for done, value in tenths.items() if done >= 8)
    result = {
        "photos": options.memory, "gigabytes_after_tenths": tenths, "late_by_early": late / early,
        "processor": processor(), "commit": commit(), "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python", "benchmarks/folder.py", *sys.argv[1:]]),
    }  # fmt: skip
    print(json.dumps(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if late <= FLAT * early else 1


def _used(pid: int) -> float:
    """Gigabytes that a process and its children hold; 0 where one of them has just ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        parts = [_used(int(child)) for child in children]
        return resident / 1e6 + sum(parts) if all(parts) else 0.0
    except (OSError, StopIteration):
        return 0.0


def photographs(place: Path, count: int, rounds: int) -> list[Path]:
    """A folder for each round; no two photographs are the same."""
    import numpy as np
    from PIL import Image

    pixels = np.asarray(picture(SIZES["1 megapixel"]))
    folders = [place / f"in{number}" for number in range(rounds)]
    for folder in folders:
        folder.mkdir()
    for number in range(count):
        moved = np.roll(pixels, 5 * number, axis=1)
        Image.fromarray(moved).save(folders[number % rounds] / f"{number:04d}.jpg", quality=95)
    return folders


def round_of(pipe: Any, folder: Path, out: Path, threads: int) -> dict[str, float]:
    """Seconds of both on the photographs of a folder."""
    (out / "loop").mkdir(parents=True)
    start = time.perf_counter()
    for photo in sorted(folder.iterdir()):
        pipe(photo, generator=0).save(out / "loop" / photo.name)
    loop = time.perf_counter() - start
    command = [sys.executable, "-m", "pipeline.cli", "colorize", str(folder), "-o", str(out / "command")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    subprocess.run([*command, "--device", "cpu", "--threads", str(threads)], check=True, env=environment,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    seconds = time.perf_counter() - start
    assert {path.name for path in (out / "command").glob("*.jpg")} == {path.name for path in folder.iterdir()}
    return {"photos": len(list(folder.iterdir())), "loop_seconds": loop, "command_seconds": seconds}


if __name__ == "__main__":
    sys.exit(main())
