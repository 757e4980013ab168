"""How long one hint takes on the page, from the click on its color to the picture on the screen.

    python benchmarks/hint.py [--threads 2] [--repeats 5] [--weights FOLDER] [--json FILE]

A photograph of one megapixel is opened in Chromium, its versions are drawn, and then a hint gets one color after the
other. The clock is the browser's: it starts with the choice and ends when the canvas is drawn. Beside it stands the
same call without a server, of an open photo and of one that is not. The bound is stated for 200 GFLOP/s: see cpu.py.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cpu import REFERENCE, SIZES, calibration, parsed, picture, processor, timed

BOUND = 0.6  # seconds at the reference rate
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
COLORS = ["#a03428", "#28a034", "#3428a0", "#a08a28", "#2890a0", "#a02880", "#606060"]
CLOCK = """color => new Promise(done => {
  const [canvas, input] = ["#canvas", "#picker-any"].map((name) => document.querySelector(name));
  const start = performance.now();
  new MutationObserver((_, observer) => {
    observer.disconnect();
    requestAnimationFrame(() => done(performance.now() - start));
  }).observe(canvas, { attributes: true, attributeFilter: ["data-pictures"] });
  input.value = color;
  input.dispatchEvent(new Event("change"));
})"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="hints; the fastest counts, the middle one is told too")
    parser.add_argument("--weights", help="pipeline folder (default: the weights in the package)")
    options = parsed(parser)

    from stages.provenance import commit

    before = calibration(options.threads)
    calls = in_python(options)
    seconds = sorted(on_the_page(options))
    gflops = (before + calibration(options.threads)) / 2
    scaled = BOUND * REFERENCE / gflops
    result = {
        "threads": options.threads, "weights": options.weights or "package", "gflops": gflops,
        "reference_gflops": REFERENCE,
        "click_to_picture": {"fastest": seconds[0], "middle": seconds[len(seconds) // 2]}, **calls,
        "bound_seconds": BOUND, "scaled_bound_seconds": scaled, "met": seconds[len(seconds) // 2] <= scaled,
        "torch": importlib.metadata.version("torch"), "commit": commit(), "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python", "benchmarks/hint.py", *sys.argv[1:]]), "processor": processor(),
    }  # fmt: skip
    text = json.dumps(result, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0 if result["met"] else 1


def in_python(options: argparse.Namespace) -> dict[str, float]:
    """Seconds of a call with one hint more, PIL to PIL, the fastest of the repeats."""
    from pipeline import ColorPipeline, OpenPhoto

    pipe, photo = ColorPipeline.from_pretrained(options.weights), picture(SIZES["1 megapixel"])
    opened = OpenPhoto.of(photo)
    candidate = pipe(opened, generator=0).info[0].candidate

    def fastest(source: Any) -> float:
        hints = ([(300, 300, color)] for color in COLORS)
        return min(timed(lambda: pipe(source, generator=0, candidate=candidate, hints=next(hints)))
                   for _ in range(options.repeats))  # fmt: skip

    return {"call_open_photo": fastest(opened), "call_photo": fastest(photo)}


def on_the_page(options: argparse.Namespace) -> list[float]:
    from playwright.sync_api import sync_playwright

    threads = str(options.threads)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pipeline.cli", "serve", "--port", str(port)]
    command += ["--weights", options.weights] if options.weights else []
    with (
        tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright,
        subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as server,
    ):  # fmt: skip
        assert server.stdout is not None
        server.stdout.readline()
        try:
            picture(SIZES["1 megapixel"]).save(photo := Path(folder) / "photo.jpg", quality=95)
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(f"http://127.0.0.1:{port}/")
            page.set_input_files("#file", photo)
            page.wait_for_selector(".version img")
            page.mouse.click(400, 400)
            page.wait_for_selector("#picker-colors .swatch")
            seconds = [page.evaluate(CLOCK, color) / 1000 for color in COLORS[: options.repeats]]
            browser.close()
        finally:
            server.terminate()
    return seconds


if __name__ == "__main__":
    sys.exit(main())
