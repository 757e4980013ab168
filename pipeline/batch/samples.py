"""The samples of a WebDataset shard: files side by side in a tar file, whose names agree up to their first dot."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

__all__ = ["samples"]

_END = 1024  # zeros that a tar file ends with


def samples(stream: Any) -> Iterator[tuple[str, dict[str, bytes]]]:  # Any: pyarrow has no types
    """Yields (key, {the rest of a name: content}) of each. Raises tarfile.ReadError for a file that is cut short."""
    watched = _Watched(stream)
    with tarfile.open(fileobj=cast(BinaryIO, watched), mode="r|") as tar:
        yield from _grouped(tar)
    if not watched.ends_well():
        raise tarfile.ReadError("it ends without the zeros that end a tar file: some of it is missing")


def _grouped(tar: tarfile.TarFile) -> Iterator[tuple[str, dict[str, bytes]]]:
    key, members = "", dict[str, bytes]()
    for member in tar:
        folder, slash, base = member.name.rpartition("/")
        stem, dot, extension = base.partition(".")
        if not member.isreg() or not stem or not dot or (stem.startswith("__") and not slash):
            continue  # hidden files, and notes on the shard itself
        if folder + slash + stem != key or extension in members:
            if members:
                yield key, members
            key, members = folder + slash + stem, {}
        file = tar.extractfile(member)
        assert file is not None
        members[extension] = file.read()
    if members:
        yield key, members


class _Watched:
    """A stream whose end can be judged, which tarfile does not do."""

    def __init__(self, stream: Any) -> None:  # Any: pyarrow has no types
        self._stream, self._tail = stream, b""

    def read(self, size: int) -> bytes:
        block = bytes(self._stream.read(size))
        self._tail = (self._tail + block)[-_END:]
        return block

    def ends_well(self) -> bool:
        while self.read(1 << 16):
            pass
        return self._tail == bytes(_END)
