"""EXIF blocks: what they say of orientation and resolution, and the few bytes that must change."""

from __future__ import annotations

import io
import struct

from PIL import Image

from pipeline.images.notes import note
from pipeline.images.tiff import EXIF_IFD, GPS_IFD, Directory, TiffError, TiffFile, Value, encoded

_ORIENTATION = 0x0112
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 0x011A, 0x011B, 0x0128
# Of a TIFF's own directory: the layout of the file, and what is carried by other means or belongs to other programs
# (subfiles, color tables and profiles, XMP, IPTC, Photoshop's layers, the thumbnails of raw files).
_LAYOUT = {
    *range(0x00FE, 0x0104), *range(0x0106, 0x010B), 0x0111, _ORIENTATION, *range(0x0115, 0x011D),
    *range(0x0120, 0x0126), _RESOLUTION_UNIT, 0x0129, 0x012D, *range(0x013D, 0x014D), *range(0x0150, 0x0157), 0x015B,
    *range(0x0200, 0x020A), *range(0x0211, 0x0215), 0x02BC, 0x83BB, 0x8649, 0x8773, 0x935C, 0xC612,
}  # fmt: skip


def _opened(block: bytes) -> TiffFile:
    """The directories of an EXIF block, with or without b"Exif\\0\\0" in front. Raises TiffError where it is broken."""
    tiff = TiffFile(io.BytesIO(block.removeprefix(b"Exif\0\0")))
    if tiff.big:
        raise TiffError("an EXIF block is no BigTIFF")
    return tiff


def said_by_exif(block: bytes | None) -> tuple[int, tuple[float, float] | None]:
    """The orientation, 1 where none is stated, and the resolution of an EXIF block, pixels per inch."""
    try:
        tiff = _opened(block or b"")
        directory = tiff.directory(tiff.first, deep=False)
    except TiffError:
        return 1, None
    return said_by_tiff(directory)


def said_by_tiff(directory: Directory) -> tuple[int, tuple[float, float] | None]:
    """The orientation, 1 where none is stated, and the resolution of a directory, pixels per inch."""
    return _orientation_of(directory), _dpi_of(directory)


def _whole_number(directory: Directory, tag: int) -> int | None:
    value = directory.get(tag)
    return value.number() if isinstance(value, Value) else None


def _orientation_of(directory: Directory) -> int:
    return _whole_number(directory, _ORIENTATION) or 1


def _dpi_of(directory: Directory) -> tuple[float, float] | None:
    """Pixels per inch, None where they are not stated in full."""
    x, y = directory.get(_X_RESOLUTION), directory.get(_Y_RESOLUTION)
    unit = _whole_number(directory, _RESOLUTION_UNIT) or 2
    if not isinstance(x, Value) or not isinstance(y, Value) or unit == 1:
        return None
    scale = 2.54 if unit == 3 else 1.0
    figures = [scale * value.fractions()[0] if value.fractions() else 0.0 for value in (x, y)]
    return (figures[0], figures[1]) if min(figures) > 0 else None


def _neutral_exif(block: bytes | None) -> bytes | None:
    """The block with orientation 1 and without its thumbnail; everything else stays byte by byte.

    Maker notes hold offsets into the block: parsing and writing it anew would break them. Without the thumbnail,
    because that shows the old, uncolored, unturned picture. A broken block is dropped with a note.
    """
    if not block:
        return None
    data = bytearray(block.removeprefix(b"Exif\0\0"))
    try:
        tiff = _opened(block)
        count, second = tiff.end_of(tiff.first)
    except TiffError:
        note("the EXIF block is broken: dropped")
        return None
    end = tiff.first + 2 + 12 * count
    for entry in range(tiff.first + 2, end, 12):
        if struct.unpack_from(tiff.order + "H", data, entry)[0] == _ORIENTATION:
            struct.pack_into(tiff.order + "HIHH", data, entry + 2, 3, 1, 1, 0)  # one SHORT of value 1
    struct.pack_into(tiff.order + "I", data, end, 0)  # no second directory
    _blank_thumbnail(data, tiff, second)
    return b"Exif\0\0" + bytes(data)


def _blank_thumbnail(data: bytearray, tiff: TiffFile, offset: int) -> None:
    """Zeros in place of the JPEG that the second directory points to: nothing else in the block moves."""
    if not offset:
        return
    try:
        second = tiff.directory(offset, deep=False)
    except TiffError:
        return
    start, size = _whole_number(second, 0x0201), _whole_number(second, 0x0202)
    if start and size and data[start : start + 2] == b"\xff\xd8":
        stop = min(start + size, len(data))
        data[start:stop] = bytes(stop - start)


def _photographic(directory: Directory) -> Directory:
    """What a TIFF's own directory says about the photograph; its other tags describe the file."""
    return {tag: value for tag, value in directory.items() if tag not in _LAYOUT}


def block_of(directory: Directory, order: str) -> bytes | None:
    """An EXIF block of these entries; None for none."""
    if not directory:
        return None
    magic = {"<": b"II", ">": b"MM"}[order]
    return b"Exif\0\0" + magic + struct.pack(order + "HI", 42, 8) + encoded(directory, order, 8)


def with_resolution(block: bytes | None, dpi: tuple[float, float]) -> bytes:
    """The block, stating this resolution: for WebP, which has no other place for it.

    Where a block says another, its first directory is written again at its end; nothing else moves.
    """

    def inches(value: float) -> Value:
        return Value(5, 1, struct.pack("<II", round(value * 1000), 1000), "<")

    stated: Directory = {
        _X_RESOLUTION: inches(dpi[0]), _Y_RESOLUTION: inches(dpi[1]),
        _RESOLUTION_UNIT: Value(3, 1, struct.pack("<H", 2), "<"),
    }  # fmt: skip
    if block is None:
        block = block_of(stated, "<")
        assert block is not None
        return block
    tiff = _opened(block)
    directory = tiff.directory(tiff.first, deep=False)
    present = _dpi_of(directory)
    if present and all(abs(a - b) < 0.01 * b for a, b in zip(present, dpi, strict=True)):
        return block
    data = bytearray(block[6:])
    data += bytes(len(data) % 2)
    at = len(data)
    data += encoded({**directory, **stated}, tiff.order, at)
    struct.pack_into(tiff.order + "I", data, 4, at)
    return b"Exif\0\0" + bytes(data)


def _photographic_of_pil(tags: Image.Exif) -> Image.Exif:
    """Of a TIFF that Pillow has opened, whose tags it mixes with those of the photograph."""
    exif = Image.Exif()
    for tag, value in tags.items():
        if tag not in _LAYOUT and tag not in (EXIF_IFD, GPS_IFD) and isinstance(value, str):
            exif[tag] = value
    for tag in (EXIF_IFD, GPS_IFD):
        if values := {key: value for key, value in tags.get_ifd(tag).items() if key != 0xA005}:
            exif.get_ifd(tag).update(values)
    return exif
