"""Files that get their name when all of them is on the disk: `.NAME.xxxxxxxx.part` until then."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pyvips  # type: ignore[import-untyped]

from pipeline.images.photo import FORMATS, ImageError
from pipeline.images.vips import _reason

_KEPT = 100  # bytes of a name: with what is added it must stay below the 255 that file systems allow
_PART = re.compile(rf"\..+({'|'.join(map(re.escape, FORMATS))})\.[0-9a-f]{{8}}\.part", re.IGNORECASE | re.DOTALL)


@contextmanager
def _appearing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that gets the name `path` when all of it is on the disk, and none if that fails."""
    temporary = path.with_name(f".{_cut(path.stem)}{path.suffix}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise ImageError(f"{path}: could not be written: {error.strerror or error}") from error
    except pyvips.Error as error:
        raise ImageError(f"{path}: could not be written: {_reason(error)}") from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_parts(folder: Path) -> int:
    """Removes what a killed run has left in the folder, its own kind only; returns how many files that were."""
    removed = 0
    try:
        names = os.listdir(folder)
    except OSError:  # not there yet
        return 0
    for name in names:
        if _PART.fullmatch(name):
            (folder / name).unlink(missing_ok=True)
            removed += 1
    return removed


def _cut(name: str) -> str:
    while len(os.fsencode(name)) > _KEPT:
        name = name[:-1]
    return name
