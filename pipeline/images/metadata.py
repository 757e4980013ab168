"""EXIF, XMP and IPTC from one file to another, byte for byte where the format allows.

What is changed: the orientation, since outputs are upright, and thumbnails, which show the picture without colors.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.images.containers import Blocks, blocks_of, put_blocks
from pipeline.images.exif import (
    _neutral_exif,
    _opened,
    _photographic,
    block_of,
    said_by_exif,
    said_by_tiff,
    with_resolution,
)
from pipeline.images.notes import note
from pipeline.images.photo import Photo
from pipeline.images.tiff import Directory, TiffError, TiffFile, Value, append_directory

_XMP, _IPTC, _RESOURCES = 0x02BC, 0x83BB, 0x8649  # tags of TIFF
_IPTC_RESOURCE, _THUMBNAILS = 0x0404, (0x0409, 0x040C)
_XMP_ORIENTATION = re.compile(rb"(<tiff:Orientation>\s*|\btiff:Orientation\s*=\s*[\"'])[1-8](?=\s*[<\"'])")


@dataclass(frozen=True)
class Metadata:
    """What a file says about its photograph.

    exif, xmp, iptc: blocks as in `Photo`; orientation: 1 to 8; dpi: of EXIF or JFIF; profile: see `Blocks`
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    orientation: int = 1
    dpi: tuple[float, float] | None = None
    profile: bytes | None = None


def metadata_of(file: BinaryIO, kind: str) -> Metadata:
    """Of a JPEG, PNG or WebP file."""
    blocks = blocks_of(file, kind)
    orientation, dpi = said_by_exif(blocks.exif)
    return Metadata(
        _neutral_exif(blocks.exif), _neutral_xmp(blocks.xmp), _neutral_resources(blocks.iptc), orientation,
        dpi or blocks.dpi, blocks.profile,
    )  # fmt: skip


def metadata_of_page(tiff: TiffFile, directory: Directory) -> Metadata:
    """Of a page of a TIFF file, whose own directory holds all of it."""
    if tiff.lost:
        note(f"{tiff.lost} entries of its metadata are broken: dropped")
    xmp, iptc, resources = (
        value.data if isinstance(value := directory.get(tag), Value) else None for tag in (_XMP, _IPTC, _RESOURCES)
    )
    if resources is None and iptc is not None:
        resources = _resource(_IPTC_RESOURCE, iptc)
    orientation, dpi = said_by_tiff(directory)
    exif = block_of(_photographic(directory), tiff.order)
    return Metadata(exif, _neutral_xmp(xmp), _neutral_resources(resources), orientation, dpi)


def write_metadata(file: BinaryIO, kind: str, photo: Photo) -> None:
    """Put the metadata of a photo into a file that libvips has written without; what can not be carried is a note."""
    exif = photo.exif
    try:
        if kind == "tiff":
            _into_tiff(file, photo)
            return
        if kind == "webp" and photo.dpi is not None:
            exif = with_resolution(exif, photo.dpi)
    except TiffError as error:
        note(f"the EXIF is broken ({error}): dropped")
        exif = None
    put_blocks(file, kind, Blocks(exif, photo.xmp, photo.iptc, dpi=photo.dpi))


def _into_tiff(file: BinaryIO, photo: Photo) -> None:
    added: Directory = {}
    if photo.exif is not None:
        tiff = _opened(photo.exif)
        added = _photographic(tiff.directory(tiff.first))
        if tiff.lost:
            note(f"{tiff.lost} entries of the EXIF are broken: dropped")
    if photo.xmp is not None:
        added[_XMP] = Value(1, len(photo.xmp), photo.xmp, "<")
    if photo.iptc is not None:
        added[_RESOURCES] = Value(1, len(photo.iptc), photo.iptc, "<")
        iptc = b"".join(data for number, data, _ in _resources(photo.iptc) if number == _IPTC_RESOURCE)
        if iptc:
            added[_IPTC] = Value(7, len(iptc), iptc, "<")
    if added:
        append_directory(file, added)


def _neutral_xmp(packet: bytes | None) -> bytes | None:
    return None if packet is None else _XMP_ORIENTATION.sub(rb"\g<1>1", packet)


def _neutral_resources(block: bytes | None) -> bytes | None:
    """Image resources without thumbnails, byte for byte where they hold none."""
    if block is None:
        return None
    parts = list(_resources(block))
    if not any(number in _THUMBNAILS for number, _, _ in parts):
        return block
    return b"".join(whole for number, _, whole in parts if number not in _THUMBNAILS) or None


def _resources(block: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(number, content, all its bytes) of each image resource. Source: Adobe Photoshop file formats, 2019."""
    at = 0
    while block[at : at + 4] == b"8BIM" and at + 12 <= len(block):
        (number,) = struct.unpack_from(">H", block, at + 4)
        name = 1 + block[at + 6]
        size_at = at + 6 + name + name % 2
        if size_at + 4 > len(block):
            return
        (size,) = struct.unpack_from(">I", block, size_at)
        end = size_at + 4 + size
        yield number, block[size_at + 4 : end], block[at : end + size % 2]
        at = end + size % 2


def _resource(number: int, data: bytes) -> bytes:
    return b"8BIM" + struct.pack(">HHI", number, 0, len(data)) + data + bytes(len(data) % 2)
