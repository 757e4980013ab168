"""Blocks of metadata in JPEG, PNG and WebP files, found and put in without touching the pixels.

libvips writes EXIF anew on its way out, which loses what it does not know, and sees in a PNG file only what stands
before the pixels. Source: ITU-T T.81, B.1 and JFIF 1.02 (JPEG); XMP, part 3, 1.1.3; PNG, third edition, 11.3;
RFC 9649 (WebP).
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.images.notes import note
from pipeline.images.vips import _UNKNOWN_DPI

EXIF_HEAD, XMP_HEAD, IPTC_HEAD = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"Photoshop 3.0\0"
_PNG_XMP = b"XML:com.adobe.xmp\0"
_LONGEST = 64 << 20  # of a block that is held in memory
_BLOCK = 8 << 20
_SEGMENT = 65533  # bytes that a JPEG segment holds
JPEG_XMP_ROOM = _SEGMENT - len(XMP_HEAD)  # bytes of a packet in one segment


@dataclass(frozen=True)
class Blocks:
    """Metadata as it stands in a file; None for what is not there.

    exif: TIFF structure after b"Exif\\0\\0"; xmp: an XMP packet; iptc: Photoshop's image resources (8BIM …), which
    hold the IPTC data of a JPEG; profile: the ICC profile of a PNG, of which libpng hides those that it does not like;
    dpi: of a JPEG's JFIF segment, which libvips overlooks where there is EXIF, and does not write without it
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    profile: bytes | None = None
    dpi: tuple[float, float] | None = None


def blocks_of(file: BinaryIO, kind: str) -> Blocks:
    """The blocks of a file of this kind ("jpeg", "png", "webp"); a damaged file gives those in front of the damage."""
    try:
        return {"jpeg": _of_jpeg, "png": _of_png, "webp": _of_webp}[kind](file)
    except struct.error:  # the file ends inside a header; the decoder of the pixels says so
        return Blocks()


def put_blocks(file: BinaryIO, kind: str, blocks: Blocks) -> None:
    """Put blocks into a file of this kind that holds none; what it has no room for is a note."""
    {"jpeg": _into_jpeg, "png": _into_png, "webp": _into_webp}[kind](file, blocks)


def jpeg_segments(file: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """(marker, offset, bytes) of the content of each segment before the first scan."""
    at = 2
    while True:
        file.seek(at)
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF:
            return
        if head[1] == 0xFF:  # a fill byte
            at += 1
            continue
        if head[1] in (0xD8, 0xD9, 0xDA):
            return
        length = struct.unpack(">H", head[2:])[0]
        if length < 2:
            return
        yield head[1], at + 4, length - 2
        at += 2 + length


def _of_jpeg(file: BinaryIO) -> Blocks:
    exif = xmp = dpi = None
    iptc = b""
    for marker, at, size in jpeg_segments(file):
        if marker not in (0xE0, 0xE1, 0xED):
            continue
        file.seek(at)
        data = file.read(size)
        if marker == 0xE0 and data.startswith(b"JFIF\0") and size >= 12:
            unit, x, y = struct.unpack_from(">BHH", data, 7)
            inch = {1: 1.0, 2: 2.54}.get(unit)
            dpi = (inch * x, inch * y) if inch and x and y else None
        elif marker == 0xE1 and data.startswith(EXIF_HEAD):
            exif = exif or data
        elif marker == 0xE1 and data.startswith(XMP_HEAD):
            xmp = xmp or data[len(XMP_HEAD) :]
        elif marker == 0xE1 and data.startswith(b"http://ns.adobe.com/xmp/extension/\0"):
            note("the second part of its XMP (over 64 kB) is not carried over")
        elif marker == 0xED and data.startswith(IPTC_HEAD):
            iptc += data[len(IPTC_HEAD) :]
    return Blocks(exif, xmp, iptc or None, dpi=dpi)


def _of_png(file: BinaryIO) -> Blocks:
    exif = xmp = profile = None
    at, length = 8, file.seek(0, os.SEEK_END)
    while at + 12 <= length:
        file.seek(at)
        size, name = struct.unpack(">I4s", file.read(8))
        if name in (b"eXIf", b"iTXt", b"iCCP") and size <= min(_LONGEST, length - at):
            data = file.read(size)
            if name == b"eXIf":
                exif = exif or EXIF_HEAD + data.removeprefix(EXIF_HEAD)
            elif name == b"iCCP":
                profile = _inflated(data.partition(b"\0")[2][1:]) or b"broken"
            elif data.startswith(_PNG_XMP):
                xmp = xmp or _text_of(data)
        at += 12 + size
    return Blocks(exif, xmp, None, profile)


def _text_of(data: bytes) -> bytes | None:
    """The text of an iTXt chunk: keyword, compression, language and translated keyword stand before it."""
    flags = len(_PNG_XMP)
    parts = data[flags + 2 :].split(b"\0", 2)
    if len(parts) < 3:
        return None
    if data[flags] == 0:
        return parts[2]
    text = _inflated(parts[2])
    if text is None:
        note("its XMP is broken: dropped")
    return text


def _inflated(data: bytes) -> bytes | None:
    try:
        return zlib.decompressobj().decompress(data, _LONGEST)
    except zlib.error:
        return None


def _of_webp(file: BinaryIO) -> Blocks:
    found: dict[bytes, bytes] = {}
    at, length = 12, file.seek(0, os.SEEK_END)
    while at + 8 <= length:
        file.seek(at)
        name, size = struct.unpack("<4sI", file.read(8))
        if name in (b"EXIF", b"XMP ") and size <= min(_LONGEST, length - at - 8):
            found.setdefault(name, file.read(size))
        at += 8 + size + size % 2
    exif = found.get(b"EXIF")
    return Blocks(EXIF_HEAD + exif.removeprefix(EXIF_HEAD) if exif else None, found.get(b"XMP "))


def _into_jpeg(file: BinaryIO, blocks: Blocks) -> None:
    x, y = (min(65535, max(1, round(value))) for value in blocks.dpi or (_UNKNOWN_DPI, _UNKNOWN_DPI))
    jfif = b"JFIF\0" + struct.pack(">BBBHHBB", 1, 1, 1, x, y, 0, 0)
    segments = struct.pack(">BBH", 0xFF, 0xE0, len(jfif) + 2) + jfif
    for name, marker, head, block in (
        ("EXIF", 0xE1, b"", blocks.exif), ("XMP", 0xE1, XMP_HEAD, blocks.xmp), ("IPTC", 0xED, IPTC_HEAD, blocks.iptc),
    ):  # fmt: skip
        if block is None:
            continue
        if marker == 0xED:  # may be cut into several segments
            room = _SEGMENT - len(head)
            parts = [head + block[start : start + room] for start in range(0, len(block), room)]
        else:
            parts = [head + block]
        if len(parts[0]) > _SEGMENT:
            note(f"its {name} is too long for JPEG, which holds 64 kB: dropped")
            continue
        for part in parts:
            segments += struct.pack(">BBH", 0xFF, marker, len(part) + 2) + part
    _insert(file, 2, segments)


def _into_png(file: BinaryIO, blocks: Blocks) -> None:
    chunks = b""
    if blocks.exif is not None:
        chunks += _chunk(b"eXIf", blocks.exif.removeprefix(EXIF_HEAD))
    if blocks.xmp is not None:
        chunks += _chunk(b"iTXt", _PNG_XMP + bytes(4) + blocks.xmp)
    if blocks.iptc is not None:
        note("IPTC has no place in PNG: dropped; JPEG and TIFF hold it")
    _insert(file, 33, chunks)  # after IHDR


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _into_webp(file: BinaryIO, blocks: Blocks) -> None:
    if blocks.iptc is not None:
        note("IPTC has no place in WebP: dropped; JPEG and TIFF hold it")
    exif = None if blocks.exif is None else blocks.exif.removeprefix(EXIF_HEAD)
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(21)
    assert head[12:16] == b"VP8X", "a WebP file with an ICC profile begins with VP8X"
    flags, tail = head[20], b""
    for name, flag, data in ((b"EXIF", 8, exif), (b"XMP ", 4, blocks.xmp)):
        if data is not None:
            flags |= flag
            tail += name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
    file.seek(20)
    file.write(bytes([flags]))
    file.seek(length)
    file.write(tail)
    file.seek(4)
    file.write(struct.pack("<I", length + len(tail) - 8))


def _insert(file: BinaryIO, at: int, data: bytes) -> None:
    """Bytes in the middle of a file: what is behind moves, block by block from its end."""
    end = file.seek(0, os.SEEK_END) if data else at
    while end > at:
        start = max(at, end - _BLOCK)
        file.seek(start)
        moved = file.read(end - start)
        file.seek(start + len(data))
        file.write(moved)
        end = start
    file.seek(at)
    file.write(data)
