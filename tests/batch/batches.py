"""Batches as tests run them: with stand-in stages, and actors that are this very process."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from pyarrow import parquet
from standins import standin_pipeline

from pipeline.batch.run import color_batch
from pipeline.batch.units import Unit
from pipeline.batch.work import Task, Work
from pipeline.files.records import Report, Settings
from pipeline.files.telling import Listeners
from stages.options import SampleOptions

SETTINGS = Settings(options=SampleOptions(pool=1))


@dataclass
class Here:
    """A pool of one actor, this process.

    dies: whether the actor ends over a unit; given: the units, each time they are given; fresh: after each death
    """

    dies: Callable[[Unit], bool] = lambda unit: False
    given: list[Unit] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def answers(self, task: Task, units: Sequence[str], tries: int, stop: Callable[[], bool]) -> Iterator[str]:
        work = Work(task)
        try:
            for line in units:
                unit = Unit.of(line)
                for _ in range(tries):
                    self.given.append(unit)
                    if not self.dies(unit):
                        yield json.dumps({"unit": unit.name, **work(unit)})
                        break
        finally:
            work.close()


class Batch:
    """Runs a batch: its report, with what it said."""

    def __init__(self) -> None:
        self.pool = Here()
        self.said: list[str] = []

    def __call__(self, *inputs: object, out: object, settings: Settings = SETTINGS, **others: Any) -> Report:
        self.said = []
        self.pool.given.clear()
        others.setdefault("opened", lambda: (standin_pipeline(), None))
        return color_batch(
            standin_pipeline(), [str(one) for one in inputs], str(out), settings, pool=self.pool,
            threads=torch.get_num_threads(), listeners=Listeners(say=self.said.append), **others,
        )  # fmt: skip


def photo(seed: int, size: tuple[int, int] = (20, 30), kind: str = "png") -> bytes:
    """The bytes of the gray picture that `command.write` writes."""
    file = io.BytesIO()
    gray = np.random.default_rng(seed).integers(0, 255, size, np.uint8)
    Image.fromarray(gray).save(file, kind)
    return file.getvalue()


def write_parquet(path: Path, columns: dict[str, Any], rows_per_group: int = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns), path, row_group_size=rows_per_group)
    return path


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def members(path: Path) -> dict[str, bytes]:
    """Of a tar file, in its order."""
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
