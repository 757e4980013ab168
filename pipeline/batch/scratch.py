"""Folders for the files of a unit under way; those of processes that were killed are removed by the next one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.files.lock import Locked, locked

__all__ = ["scratch", "sweep"]

_PREFIX = "trichrome-batch-"


@contextmanager
def scratch() -> Iterator[Path]:
    """A new folder for the block; its lock ends with the process, however that ends."""
    sweep()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        with locked(folder, lambda line: None):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep() -> None:
    """Removes the folders that nobody holds."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            with locked(folder, lambda line: None):
                shutil.rmtree(folder, ignore_errors=True)
        except (Locked, OSError):  # somebody works in it, or removes it too
            pass
