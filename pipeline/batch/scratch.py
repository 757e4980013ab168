"""Folders for the files of a unit under way; those of processes that were killed are removed by the next one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.files.lock import Locked, locked

__all__ = ["scratch", "sweep"]

_FRESH, _PREFIX = "trichrome-fresh-", "trichrome-batch-"


@contextmanager
def scratch() -> Iterator[Path]:
    """A new folder for the block; its lock ends with the process, however that ends."""
    sweep()
    fresh = Path(tempfile.mkdtemp(prefix=_FRESH))  # a name that nobody sweeps, until it is locked
    with locked(fresh, lambda line: None):
        folder = fresh.rename(fresh.with_name(_PREFIX + fresh.name.removeprefix(_FRESH)))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def sweep() -> int:
    """Removes the folders that nobody holds; returns how many are held."""
    held = 0
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            with locked(folder, lambda line: None):
                shutil.rmtree(folder, ignore_errors=True)
        except Locked:
            held += 1
        except OSError:  # another's, or somebody removes it too
            pass
    return held
