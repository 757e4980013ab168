"""EXIF and resolution, read and written without a change to what they say."""

from __future__ import annotations

import os
import struct
import warnings
from typing import BinaryIO

import numpy as np
import pyvips  # type: ignore[import-untyped]
from PIL import Image, TiffImagePlugin

from pipeline.images.photo import ImageError

_ORIENTATION, _EXIF_IFD, _GPS_IFD, _INTEROP_IFD = 0x0112, 0x8769, 0x8825, 0xA005
# What a TIFF's own directory says about the photograph; its other tags describe the file.
_SUBFILE_TYPE, _DNG_VERSION = 0x00FE, 0xC612
_TIFF_STRIPS, _TIFF_TILES = (0x0111, 0x0117), (0x0144, 0x0145)  # offsets, byte counts
_TIFF_TEXTS = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)


def _dpi_of(image: pyvips.Image, fields: set[str], kind: str) -> tuple[float, float] | None:
    if kind == "webp":  # libvips reports a unit, but no figure
        return None
    stated = image.xres != 2.834 if kind == "png" else "resolution-unit" in fields  # 2.834: PNG without pHYs
    return (image.xres * 25.4, image.yres * 25.4) if stated else None


def _parsed_exif(block: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(block)
    return exif


def _dpi_of_exif(block: bytes | None) -> tuple[float, float] | None:
    if not block:
        return None
    try:
        exif = _parsed_exif(block)
        scale = 2.54 if exif.get(0x0128, 2) == 3 else 1.0
        x, y = float(exif[0x011A]) * scale, float(exif[0x011B]) * scale
    except Exception:  # Pillow raises whatever a broken tag makes it stumble over
        return None
    return (x, y) if x > 0 and y > 0 else None


def _neutral_exif(block: bytes | None) -> bytes | None:
    """The block with orientation 1 and without its thumbnail; everything else stays byte by byte.

    Maker notes hold offsets into the block: parsing and writing it anew would break them. Without the
    thumbnail, because that shows the old, uncolored, unturned picture.
    Source: TIFF 6.0, section 2; Exif 2.32, section 4.6.
    """
    if not block:
        return None
    start = 6 if block[:6] == b"Exif\0\0" else 0
    data = bytearray(block[start:])
    try:
        order = {b"II": "<", b"MM": ">"}[bytes(data[:2])]
        (directory,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            if struct.unpack_from(order + "H", data, entry)[0] == _ORIENTATION:
                struct.pack_into(order + "HIHH", data, entry + 2, 3, 1, 1, 0)  # one SHORT of value 1
        struct.pack_into(order + "I", data, directory + 2 + 12 * count, 0)  # no second directory
    except (KeyError, struct.error):
        warnings.warn("the EXIF block is broken: dropped", stacklevel=2)
        return None
    return b"Exif\0\0" + bytes(data)


def _photographic(tags: Image.Exif) -> Image.Exif:
    """The EXIF of a TIFF directory, without the tags that describe the file's own layout."""
    exif = Image.Exif()
    for tag in _TIFF_TEXTS:
        if isinstance(tags.get(tag), str):
            exif[tag] = tags[tag]
    for tag in (_EXIF_IFD, _GPS_IFD):
        if values := {key: value for key, value in tags.get_ifd(tag).items() if key != _INTEROP_IFD}:
            exif.get_ifd(tag).update(values)
    return exif


def _read_tiff_tags(file: BinaryIO) -> bytes | None:
    """The EXIF of a TIFF file, which libvips does not read.

    Refuses what libvips would take for a picture: camera raw files (it would read their preview), and files
    that end before their pixels (it would leave them black).
    """
    tags = Image.Exif()
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    try:
        tags.load_from_fp(file)
        if tags.get(_DNG_VERSION) or tags.get(_SUBFILE_TYPE, 0) & 1:
            raise ImageError("a camera raw file, or a TIFF that begins with a preview; develop it first")
        for starts, sizes in (_TIFF_STRIPS, _TIFF_TILES):
            if starts in tags and np.max(np.add(tags[starts], tags[sizes])) > length:
                raise ImageError("damaged or truncated: the file ends before its pixels")
        exif = _photographic(tags)
        return exif.tobytes() if len(exif) or exif.get_ifd(_EXIF_IFD) or exif.get_ifd(_GPS_IFD) else None
    except ImageError:
        raise
    except Exception as error:  # Pillow raises whatever a broken tag makes it stumble over
        warnings.warn(f"the EXIF of the TIFF file is broken: dropped ({error})", stacklevel=2)
        return None


def _add_exif_to_tiff(file: BinaryIO, block: bytes) -> None:
    """Put EXIF into a TIFF file that libvips has written without it.

    A copy of the directory, with the EXIF entries, goes to the end of the file, and the header, changed last,
    points to it; the pixels stay where they are. Source: TIFF 6.0, section 2; Exif 2.32, section 4.6.
    """
    exif = _parsed_exif(block)
    file.seek(0)
    head = file.read(8)
    order = "<" if head[:2] == b"II" else ">"
    file.seek(struct.unpack(order + "I", head[4:])[0])
    (count,) = struct.unpack(order + "H", file.read(2))
    entries = {}
    for _ in range(count):
        entry = file.read(12)
        entries[struct.unpack_from(order + "H", entry)[0]] = entry

    def append(data: bytes) -> int:
        offset = file.seek(0, os.SEEK_END)
        file.write(data + b"\0" * (len(data) % 2))  # directories and values start at even offsets
        return offset

    for tag in _TIFF_TEXTS:
        if isinstance(exif.get(tag), str):
            text = exif[tag].encode() + b"\0"
            value = text.ljust(4, b"\0") if len(text) <= 4 else struct.pack(order + "I", append(text))
            entries[tag] = struct.pack(order + "HHI", tag, 2, len(text)) + value
    for tag in (_EXIF_IFD, _GPS_IFD):
        directory = TiffImagePlugin.ImageFileDirectory_v2(ifh=head)
        for key, value in exif.get_ifd(tag).items():
            if key != _INTEROP_IFD:
                directory[key] = value
        if len(directory):
            offset = file.seek(0, os.SEEK_END)
            append(directory.tobytes(offset))
            entries[tag] = struct.pack(order + "HHII", tag, 4, 1, offset)
    table = b"".join(entries[tag] for tag in sorted(entries))
    offset = append(struct.pack(order + "H", len(entries)) + table + bytes(4))
    file.seek(4)
    file.write(struct.pack(order + "I", offset))
