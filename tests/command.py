"""The command as tests run it, and the files it is given and leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from standins import standin_pipeline

from pipeline import cli
from pipeline.color_pipeline import ColorPipeline
from pipeline.files.manifest import MANIFEST


class Trichrome:
    """Runs `trichrome colorize` with the pipeline `pipe`: (exit code, stdout, stderr lines but for what went well).

    What went well has a line for each photo outside a terminal: `told`.
    """

    told: list[str]

    def __init__(self, capsys: pytest.CaptureFixture[str], pipe: ColorPipeline) -> None:
        self.capsys, self.pipe = capsys, pipe

    def __call__(self, *arguments: object, pool: int | None = 1) -> tuple[int, str, list[str]]:
        draws = [] if pool is None or "--preview" in arguments else ["--pool", str(pool)]
        code = cli.main(["colorize", *map(str, arguments), "--device", "cpu", *draws])
        said = self.capsys.readouterr()
        lines = said.err.splitlines()
        self.told = [line for line in lines if any(f": {status}: " in line for status in ("colored", "ignored"))
                     or ": skipped (" in line]  # fmt: skip
        return code, said.out.strip(), [line for line in lines if line not in self.told]


def write(path: Path, seed: int = 0, size: tuple[int, int] = (20, 30), dtype: Any = np.uint8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    gray = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, size, dtype)
    Image.fromarray(gray).save(path)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    """The files in a folder, without the manifest."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def with_standins(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Trichrome:
    pipe = standin_pipeline()
    monkeypatch.setattr(ColorPipeline, "from_pretrained", lambda source=None, **_: pipe)
    return Trichrome(capsys, pipe)
