"""TIFF directories, of TIFF files and of EXIF blocks: read and written value for value, as bytes.

Nothing is interpreted on the way, so what no library knows (maker notes, private tags, the code of a user comment)
arrives as it was. Source: TIFF 6.0, section 2; BigTIFF (Adobe, 2007); Exif 2.32, section 4.6.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO, TypeAlias, Union

import numpy as np

EXIF_IFD, GPS_IFD, INTEROP_IFD = 0x8769, 0x8825, 0xA005
_POINTERS = (EXIF_IFD, GPS_IFD, INTEROP_IFD)
_SIZE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_UNIT = {**_SIZE, 5: 4, 10: 4}  # bytes that turn round together in the other byte order: a fraction is two numbers
_WHOLE = {1: "u1", 3: "u2", 4: "u4", 6: "i1", 8: "i2", 9: "i4", 13: "u4", 16: "u8", 17: "i8", 18: "u8"}
_MAX_PAGES = 10_000


class TiffError(ValueError):
    """A directory that is not one: it points out of its file, or round in a circle."""


@dataclass(frozen=True)
class Value:
    """One entry: its type, its number of items, and their bytes in the order "<" or ">"."""

    type: int
    count: int
    data: bytes
    order: str

    def numbers(self) -> np.ndarray:
        """The items, (count,), of a whole-number type; empty for another type."""
        code = _WHOLE.get(self.type)
        return np.frombuffer(self.data, self.order + code) if code else np.empty(0, np.uint8)

    def number(self) -> int | None:
        """The first item, None where it is no whole number."""
        numbers = self.numbers()
        return int(numbers[0]) if len(numbers) else None

    def fractions(self) -> list[float]:
        """The items of a rational type as floats, a zero denominator as 0."""
        if self.type not in (5, 10):
            return []
        pairs = np.frombuffer(self.data, self.order + ("u4" if self.type == 5 else "i4")).reshape(-1, 2)
        return [float(top) / float(bottom) if bottom else 0.0 for top, bottom in pairs]

    def ordered(self, order: str) -> bytes:
        """The bytes in this order."""
        if order == self.order or _UNIT[self.type] == 1:
            return self.data
        return np.frombuffer(self.data, np.uint8).reshape(-1, _UNIT[self.type])[:, ::-1].tobytes()


Directory: TypeAlias = dict[int, Union[Value, "Directory"]]  # a directory inside another stands at its tag


class TiffFile:
    """The directories of a file, or of a block in `io.BytesIO`. Raises TiffError where it is broken."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.length = file.seek(0, os.SEEK_END)
        self.lost = 0  # entries that `directory` had to leave out
        head = self._bytes(0, min(16, self.length))
        self.order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        version = self._unpack("H", head[2:4]) if self.order and len(head) >= 8 else 0
        if version not in (42, 43) or (version == 43 and len(head) < 16):
            raise TiffError("no TIFF header")
        self.big = version == 43
        self.first = self._unpack("Q", head[8:16]) if self.big else self._unpack("I", head[4:8])

    def pages(self, limit: int = _MAX_PAGES) -> list[int]:
        """Where the directories of the main chain are, at most `limit` of them."""
        offsets: list[int] = []
        offset = self.first
        while offset and len(offsets) < limit:
            if offset in offsets:
                raise TiffError("its directories go round in a circle")
            offsets.append(offset)
            offset = self.end_of(offset)[1]
        return offsets

    def directory(self, offset: int, deep: bool = True, depth: int = 0) -> Directory:
        """The entries of the directory at `offset`; what points out of the file is left out and counted in `lost`.

        deep: directories inside it are read too, in place of the entries that point to them
        """
        result: Directory = {}
        width, start, code = (20, 8, "Q") if self.big else (12, 2, "I")
        count, _ = self.end_of(offset)
        table = self._bytes(offset + start, count * width)
        for at in range(0, len(table), width):
            tag, kind = struct.unpack_from(self.order + "HH", table, at)
            (items,) = struct.unpack_from(self.order + code, table, at + 4)
            field = table[at + 4 + struct.calcsize(code) : at + width]
            try:
                size = items * _SIZE[kind]
                data = field[:size] if size <= len(field) else self._bytes(self._unpack(code, field), size)
                value = Value(kind, items, data, self.order)
                if tag not in _POINTERS or not deep:
                    result[tag] = value
                elif depth < 2:
                    result[tag] = self.directory(value.number() or 0, True, depth + 1)
            except (KeyError, TiffError):
                self.lost += 1
        return result

    def end_of(self, offset: int) -> tuple[int, int]:
        """The number of entries of a directory, and where the next one is."""
        if self.big:
            count = self._unpack("Q", self._bytes(offset, 8))
            return count, self._unpack("Q", self._bytes(offset + 8 + 20 * count, 8))
        count = self._unpack("H", self._bytes(offset, 2))
        return count, self._unpack("I", self._bytes(offset + 2 + 12 * count, 4))

    def _bytes(self, offset: int, size: int) -> bytes:
        if offset + size > self.length:  # before a made-up size is asked for
            raise TiffError("a directory points beyond the end")
        self.file.seek(offset)
        return self.file.read(size)

    def _unpack(self, code: str, data: bytes) -> int:
        return int(struct.unpack(self.order + code, data)[0])


def encoded(directory: Directory, order: str, at: int) -> bytes:
    """The directory as bytes that stand at the even offset `at`, its values and inner directories after its table."""
    size = 2 + 12 * len(directory) + 4
    table, tail = struct.pack(order + "H", len(directory)), b""
    for tag, value in sorted(directory.items(), key=lambda entry: entry[0]):
        if isinstance(value, dict):
            offset = at + size + len(tail)
            tail += encoded(value, order, offset)
            table += struct.pack(order + "HHII", tag, 4, 1, offset)
            continue
        data = value.ordered(order)
        if len(data) <= 4:
            field = data.ljust(4, b"\0")
        else:
            field = struct.pack(order + "I", at + size + len(tail))
            tail += data + b"\0" * (len(data) % 2)
        table += struct.pack(order + "HHI", tag, value.type, value.count) + field
    return table + bytes(4) + tail


def append_directory(file: BinaryIO, added: Directory) -> None:
    """Give the first directory of an ordinary TIFF file more entries.

    A copy of it with the new ones goes to the end of the file and the header, changed last, points to it; pixels and
    values stay where they are.
    """
    tiff = TiffFile(file)
    if tiff.big:
        raise TiffError("BigTIFF is not written to")
    directory = {**tiff.directory(tiff.first), **added}
    at = tiff.length + tiff.length % 2
    file.seek(0, os.SEEK_END)
    file.write(b"\0" * (at - tiff.length) + encoded(directory, tiff.order, at))
    file.seek(4)
    file.write(struct.pack(tiff.order + "I", at))
