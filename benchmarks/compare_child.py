"""One side of benchmarks/compare.py: colors what it is told to and answers how long it took.

    python compare_child.py CHECKOUT PHOTOS        with PYTHONPATH=CHECKOUT

Reads the name of a row per line (JSON). The first time it makes a call that does not count and answers
{"missing": null or why}, from then on one call, {"seconds": …}. It is run on older commits than its own, too: it uses
nothing but `ColorPipeline` and the command line, and an argument only where the checkout has it, by any of its names.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

import pipeline
from pipeline import ColorPipeline, cli

SETTINGS: dict[str, dict[tuple[str, ...], object]] = {
    "PIL to PIL": {}, "8 photos": {}, "8 pictures": {("num_samples",): 8}, "preview": {("preview",): True},
    "uncertainty map": {("uncertainty", "doubt"): True},
}  # fmt: skip
"""By row, values of arguments, each with the names that it has had."""


class Missing(Exception):
    """A row that this checkout can not do."""


def settings_of(what: str) -> dict[str, Any]:  # Any: of the types of the arguments
    """The arguments of a row as this checkout calls them. Raises Missing."""
    known = inspect.signature(ColorPipeline.__call__).parameters
    settings = {}
    for names, value in SETTINGS[what].items():
        name = next((name for name in names if name in known), None)
        if name is None:
            raise Missing(f"ColorPipeline takes no argument {' or '.join(names)}")
        settings[name] = value
    return settings


def call_of(row: str, photos: Path, loaded: Callable[[], ColorPipeline]) -> Callable[[], object]:
    """What is timed. Raises Missing.

    loaded: the pipeline with its default weights, loaded once
    """
    if row == "cold start of the command":
        return lambda: run_command(photos / "small.png")
    size, what = row.split(", ")
    if what == "file to file":
        return lambda: color_file(photos / f"{size}.jpg")
    if what not in SETTINGS:
        raise Missing("unknown to compare_child.py")
    settings = settings_of(what)
    with Image.open(photos / f"{size}.png") as file:
        image = file.copy()
    images = [image] * (8 if what == "8 photos" else 1)
    pipe = loaded()
    return lambda: pipe(images, generator=0, **settings)


def command(photo: Path, out: str) -> list[str]:
    return ["colorize", str(photo), "-o", out, "--device", "cpu", "--dtype", "float32"]


def run_command(photo: Path) -> None:
    with tempfile.TemporaryDirectory() as out:
        words = [sys.executable, "-m", "pipeline.cli", *command(photo, out)]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def color_file(photo: Path) -> None:
    """The command in this process: the weights are read, nothing is imported any more."""
    with tempfile.TemporaryDirectory() as out:
        if status := cli.main(command(photo, out)):
            raise RuntimeError(f"the command ended with status {status}")


def main() -> None:
    checkout, photos = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    if not Path(pipeline.__file__).resolve().is_relative_to(checkout):
        sys.exit(f"{pipeline.__file__} was imported, which is not of {checkout}")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the code under test prints is no answer
    pipes: list[ColorPipeline] = []
    calls: dict[str, Callable[[], object]] = {}

    def loaded() -> ColorPipeline:
        if not pipes:
            pipes.append(ColorPipeline.from_pretrained())
        return pipes[0]

    def answered(row: str) -> dict[str, object]:
        if row not in calls:
            try:
                calls[row] = call_of(row, photos, loaded)
            except Missing as reason:
                return {"missing": str(reason)}
            calls[row]()
            return {"missing": None}
        start = time.perf_counter()
        calls[row]()
        return {"seconds": time.perf_counter() - start}

    for request in sys.stdin:
        answers.write(json.dumps(answered(json.loads(request))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
