"""Files as answers: under a name, in pieces, deleted once they are sent."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Iterator
from pathlib import PurePath
from typing import IO
from urllib.parse import quote

from fastapi.responses import StreamingResponse

__all__ = ["download", "free_name"]

PIECE = 1 << 20


def download(file: IO[bytes], name: str, headers: dict[str, str] | None = None) -> StreamingResponse:
    """The whole file, which is closed at the end."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    ascii_name = "".join(char if char.isascii() and char.isprintable() and char not in '"\\;' else "_" for char in name)
    disposition = f"attachment; filename=\"{ascii_name}\"; filename*=utf-8''{quote(name, safe='')}"
    sent = {"Content-Length": str(size), "Content-Disposition": disposition, **(headers or {})}
    media = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return StreamingResponse(_pieces(file), media_type=media, headers=sent)


def free_name(name: str, taken: set[str]) -> str:
    """The name, or one with a number where it is taken, and takes it; names that differ in case alone count as one."""
    path, number, free = PurePath(name), 1, name
    while free.lower() in taken:
        number += 1
        free = f"{path.stem}-{number}{path.suffix}"
    taken.add(free.lower())
    return free


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(PIECE):
            yield piece
