"""What one call costs on this processor: seconds and peak memory, beside the speed of the processor itself, and where
the time goes.

    python benchmarks/cpu.py [--threads 2] [--dtype bfloat16] [--compile] [--weights FOLDER] [--json FILE]

Bounds are stated for 200 GFLOP/s (two AVX-512 cores): the rate of a 2048 x 2048 x 2048 float32 matrix
product on the same threads, taken right before and after each row, scales the bounds in seconds for this
machine. Every row runs in a process of its own, whose peak memory is everything: Python, torch, weights,
photo, result. The parts of a row are of one more call, with clocks around them. All of it stands in one file, so that
it can be copied beside another version and run there.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from pipeline import ColorPipeline

# torch takes more than a second to import: nothing up here may load it.

REFERENCE = 200.0  # GFLOP/s
SIZES = {"1 megapixel": (1152, 864), "24 megapixels": (6000, 4000)}
# name: (seconds at the reference rate, GB)
BOUNDS = {
    "1 megapixel, PIL to PIL": (1.5, 1.5),
    "1 megapixel, 8 pictures": (3.0, 1.5),
    "1 megapixel, preview": (None, 1.5),
    "1 megapixel, uncertainty map": (None, 1.5),
    "1 megapixel, 8 photos": (None, 1.5),
    "24 megapixels, PIL to PIL": (5.0, 1.5),
    "24 megapixels, file to file": (None, 1.5),
    "cold start of the command": (6.0, None),
}
CALLS: dict[str, dict[str, Any]] = {"8 pictures": {"num_samples": 8}, "preview": {"preview": True},
                                    "uncertainty map": {"uncertainty": True}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="warm calls per row; the fastest counts")
    parser.add_argument("--weights", help="pipeline folder (default: the weights in the package)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of the networks")
    parser.add_argument("--compile", action="store_true", help="the networks; calls before the measured ones do it")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parsed(parser)
    if options.row:
        print(json.dumps(measure(options.row, options)))
        return 0

    import torch

    from pipeline.placement import why_not
    from stages.provenance import commit

    if reason := why_not(torch.device("cpu"), dtype_of(options)):
        parser.error(f"--dtype {options.dtype}: {reason}")
    rows = []
    for name in BOUNDS:
        if options.compile and name.startswith("cold start"):
            continue
        before = child("calibration", options)["gflops"]
        row = child(name, options)
        row["gflops"] = (before + child("calibration", options)["gflops"]) / 2
        rows.append(judged(name, row))
        print(line(rows[-1]), flush=True)
        if spent := rows[-1].get("parts"):
            print("    " + ", ".join(f"{name} {seconds:.3f}" for name, seconds in spent.items()), flush=True)
    result = {
        "reference_gflops": REFERENCE, "threads": options.threads, "repeats": options.repeats,
        "weights": options.weights or "package", "dtype": options.dtype, "compile": options.compile,
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"), "commit": commit(),
        "date": time.strftime("%Y-%m-%d"), "command": " ".join(["python", "benchmarks/cpu.py", *sys.argv[1:]]),
        "processor": processor(), "rows": rows,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0 if all(row["met"] for row in rows) else 1


def parsed(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments, with the two that every benchmark has."""
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args(arguments)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    return options


def judged(name: str, row: dict[str, float]) -> dict[str, Any]:
    """The measured row with its bounds: seconds scaled to this machine's rate, memory as it is."""
    seconds, memory = BOUNDS[name]
    scaled = None if seconds is None else seconds * REFERENCE / row["gflops"]
    met = (scaled is None or row["seconds"] <= scaled) and (memory is None or row["peak_gb"] <= memory)
    return {"name": name, **row, "bound_seconds": seconds, "scaled_bound_seconds": scaled,
            "bound_gb": memory, "met": met}


def line(row: dict[str, Any]) -> str:
    bound = "" if row["bound_seconds"] is None else (
        f" (bound {row['bound_seconds']:g} s, here {row['scaled_bound_seconds']:.1f} s)")
    memory = "" if row.get("peak_gb") is None else f"  {row['peak_gb']:.2f} GB"
    memory += "" if row["bound_gb"] is None else f" (bound {row['bound_gb']:.1f} GB)"
    return (f"{row['name']:30s} {row['seconds']:6.2f} s{bound}{memory}  at {row['gflops']:.0f} GFLOP/s: "
            + ("met" if row["met"] else "NOT MET"))


def child(row: str, options: argparse.Namespace) -> dict[str, float]:
    """One row in its own process, with the number of threads fixed from its start."""
    threads = str(options.threads)
    command = [sys.executable, __file__, "--row", row, "--threads", threads]
    command += ["--repeats", str(options.repeats), "--dtype", options.dtype]
    command += ["--compile"] if options.compile else []
    if options.weights:
        command += ["--weights", options.weights]
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(row: str, options: argparse.Namespace) -> dict[str, float]:
    if row == "calibration":
        return {"gflops": calibration(options.threads)}
    if row == "cold start of the command":
        return cold_start(options)
    size, what = row.split(", ")
    return from_file(SIZES[size], options) if what == "file to file" else from_pil(SIZES[size], what, options)


def calibration(threads: int) -> float:
    """GFLOP/s of the product of two 2048 x 2048 float32 matrices: the best of 20."""
    import torch

    torch.set_num_threads(threads)
    a, b = torch.randn(2, 2048, 2048)
    best = min(timed(lambda: a @ b) for _ in range(20))
    return 2 * 2048**3 / best / 1e9


def from_pil(size: tuple[int, int], what: str, options: argparse.Namespace) -> dict[str, Any]:
    """A warm call, PIL image in, PIL image out, with all defaults or those of CALLS; or eight photos in one call."""
    pipe, settings = opened(options), CALLS.get(what, {})
    photos = [picture(size)] * (8 if what == "8 photos" else 1)
    pipe(picture((320, 240)), generator=0, **settings)  # the first call of all
    seconds = min(timed(lambda: pipe(photos, generator=0, **settings)) for _ in range(options.repeats))
    peak = peak_memory()
    return {"seconds": seconds, "peak_gb": peak, "parts": parts(pipe, lambda: pipe(photos, generator=0, **settings))}


def opened(options: argparse.Namespace) -> ColorPipeline:
    from pipeline import ColorPipeline
    from stages.stage1_coarse.diffusion import DiffusionColorizer
    from stages.stage3_superres.diffusion import DiffusionSuperResolver

    pipe = ColorPipeline.from_pretrained(options.weights).to(dtype_of(options))
    if options.compile:
        for stage in pipe.stages.values():
            if isinstance(stage, DiffusionColorizer | DiffusionSuperResolver):
                stage.encoder.compile()
                stage.network.compile()
    return pipe


def dtype_of(options: argparse.Namespace) -> torch.dtype:
    import torch

    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[options.dtype]


def parts(pipe: ColorPipeline, call: Callable[[], object]) -> dict[str, float]:
    """Seconds of one call, part by part; what is left is reducing the photo, and Python."""
    from pipeline import cascade, sources
    from pipeline.files import coloring, outputs

    spent: dict[str, float] = {}
    here = threading.local()  # reading and writing have threads of their own

    def clocked(owner: Any, name: str, part: str | Callable[..., str]) -> None:
        whole = getattr(owner, name)

        def measured(*args: Any, **kwargs: Any) -> Any:
            running: list[str] = here.__dict__.setdefault("running", [])
            if running:  # within another part, whose seconds these are
                return whole(*args, **kwargs)
            running.append(part if isinstance(part, str) else part(*args, **kwargs))
            start = time.perf_counter()
            try:
                return whole(*args, **kwargs)
            finally:
                spent[running[-1]] = spent.get(running[-1], 0.0) + time.perf_counter() - start
                running.pop()

        patches.enter_context(mock.patch.object(owner, name, measured))

    def drawn_for(self: Any, encoding: Any, noise: Any, candidates: range, options: Any, purpose: str, *_: Any) -> str:
        return "uncertainty map" if purpose == "uncertainty" else "draws"

    with ExitStack() as patches:
        for module in (sources, coloring):
            clocked(module, "load_photo", "read")
        clocked(pipe.coarse, "encode", "encode")
        clocked(pipe.coarse, "preview", "preview")
        clocked(cascade.Cascade, "_draws", drawn_for)
        clocked(cascade, "spread_order", "order")
        clocked(pipe.color, "upsample", "stage 2")
        clocked(pipe.superres, "sample", "stage 3")
        clocked(cascade, "uncertainty_map", "uncertainty map")
        clocked(pipe, "full_size", "merge")
        clocked(outputs, "save_photo", "write")
        start = time.perf_counter()
        call()
        seconds = time.perf_counter() - start
    return spent | {"other": seconds - sum(spent.values())}


def from_file(size: tuple[int, int], options: argparse.Namespace) -> dict[str, Any]:
    """The command's own work, JPEG in, JPEG out: reading, coloring, writing."""
    from pipeline.files.records import Settings
    from pipeline.files.run import color_files

    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.jpg"
        code = "import sys; sys.path.insert(0, sys.argv[1]); from cpu import picture; " \
               f"picture({size!r}).save(sys.argv[2], quality=95)"
        subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent), str(photo)], check=True)
        pipe = opened(options)
        pipe(picture((320, 240)), generator=0)  # the first call of all
        seconds = []
        for number in range(options.repeats):
            report = color_files(pipe, [photo], Path(folder) / f"out{number}", Settings())
            if report.failed:
                raise RuntimeError(report.failed[0][1])
            seconds.append(report.seconds)
        peak = peak_memory()
        spent = parts(pipe, lambda: color_files(pipe, [photo], Path(folder) / "again", Settings()))
    return {"seconds": min(seconds), "peak_gb": peak, "parts": spent}


def cold_start(options: argparse.Namespace) -> dict[str, float]:
    """The whole command on a small photo, from nothing to the end of the process; the fastest run."""
    seconds = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            picture((320, 240)).save(f"{folder}/photo.png")
            command = [sys.executable, "-m", "pipeline.cli", "colorize", f"{folder}/photo.png"]
            command += ["-o", f"{folder}/out", "--device", "cpu", "--dtype", options.dtype]
            command += ["--weights", options.weights] if options.weights else []
            run = partial(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
            seconds.append(timed(run))
    return {"seconds": min(seconds)}


def picture(size: tuple[int, int]) -> Image.Image:
    """A gray PIL image, smooth with grain, (width, height)."""
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0)
    rough = Image.fromarray(noise.integers(0, 256, (24, 36), np.uint8))
    smooth = rough.resize(size, Image.Resampling.BICUBIC)
    grain = noise.integers(-8, 9, (size[1], size[0]), np.int16)
    return Image.fromarray(np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8))


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak_memory() -> float:
    """Largest resident memory of this process so far, in GB (10^9 bytes)."""
    try:  # getrusage would count the parent's memory too, from before the program was loaded
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9
    except (OSError, IndexError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
        flags = next(line for line in lines if line.startswith("flags")).split()
        fast = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
        return f"{model} ({', '.join(fast)}), {os.cpu_count()} CPUs"
    except (OSError, StopIteration):
        return f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs"


if __name__ == "__main__":
    if importlib.util.find_spec("pipeline") is None:
        sys.exit("trichrome is not installed: pip install -e .")
    sys.exit(main())
