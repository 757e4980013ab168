"""The record of an output: JSON in its XMP, with a digest of itself, without a time or a path.

{"format": 1, "colors": "synthesized", "software": …, "recipe": …, "input": {"sha256": …}, "weights": {…}, "seed": …,
"noise_key": …, "candidate": …, "picture": …, "settings": {…}, "run": {…}, "file": {…}, "digest": …}; what each
means is in docs/use/provenance.md. The digest shows what was changed by chance or by hand. It is no signature: who
means to forge a record can make a digest too.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline.images.containers import JPEG_XMP_ROOM
from pipeline.images.notes import note
from pipeline.images.photo import Photo
from pipeline.images.read import xmp_of
from pipeline.images.xmp import Property, XmpError, property_of, with_properties

__all__ = ["NAMESPACE", "RECIPE", "SOURCE_TYPE", "RecordError", "checked", "read_record", "sealed", "software",
           "with_record"]  # fmt: skip

# Of coloring: raised whenever the same photo, settings and weights would give other pictures than before.
# 1: one noise for all photos of a seed; 2: each photo has its own.
RECIPE = 2
FORMAT = 1
NAMESPACE, PREFIX, NAME = "urn:trichrome:provenance:1#", "trichrome", "Record"
# Source: IPTC Photo Metadata Standard 2023.1, Digital Source Type, and the IPTC NewsCodes of that name.
SOURCE_TYPE = Property(
    "http://iptc.org/std/Iptc4xmpExt/2008-02-29/", "Iptc4xmpExt", "DigitalSourceType",
    "http://cv.iptc.org/newscodes/digitalsourcetype/algorithmicallyEnhanced",
)  # fmt: skip
_NONE = type(None)
_KEYS: dict[str, tuple[type, ...]] = {
    "format": (int,), "colors": (str,), "software": (str,), "recipe": (int,), "input": (dict, _NONE),
    "weights": (dict,), "seed": (int, _NONE), "noise_key": (str, _NONE), "candidate": (int, _NONE),
    "picture": (int, _NONE), "settings": (dict,), "run": (dict,), "file": (dict,), "digest": (str,),
}  # fmt: skip
_INNER = {"file": {"shows", "format"}, "run": {"device", "dtype"}}


class RecordError(ValueError):
    """A record that is missing or edited, or that can not be repeated; the message is a sentence."""


def software() -> str:
    """Name and version of this program."""
    try:
        return f"trichrome {metadata.version('trichrome')}"
    except metadata.PackageNotFoundError:  # the sources, not installed
        return "trichrome, not installed"


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with its digest."""
    return {**record, "digest": _digest(record)}


def with_record(photo: Photo, record: Mapping[str, Any]) -> Photo:
    """The photo, whose XMP has the record too, for a file as the record says. What was in the way is a note."""
    properties = [SOURCE_TYPE, Property(NAMESPACE, PREFIX, NAME, json.dumps(record))]
    try:
        packet = with_properties(photo.xmp, properties, own=NAMESPACE)
    except XmpError as error:
        note(f"its XMP is broken ({error}): replaced by the record of its coloring")
        packet = with_properties(None, properties, own=NAMESPACE)
    if record["file"]["format"] == "jpeg" and len(packet) > JPEG_XMP_ROOM:
        if photo.xmp is not None and len(photo.xmp) <= JPEG_XMP_ROOM:
            note("its XMP leaves no room in JPEG, which holds 64 kB, for the record of its coloring; PNG and TIFF do")
            return photo
        note("its XMP is too long for JPEG, which holds 64 kB: dropped")
        packet = with_properties(None, properties, own=NAMESPACE)
    return dataclasses.replace(photo, xmp=packet)


def read_record(path: Path) -> dict[str, Any]:
    """The record in a file, whether it is intact or not, see `checked`.

    Raises RecordError where there is none, ImageError for a file that is no picture.
    """
    packet = xmp_of(path)
    try:
        text = None if packet is None else property_of(packet, NAMESPACE, NAME)
    except XmpError as error:
        raise RecordError(f"{path} has no record: its XMP is broken ({error})") from error
    if text is None:
        raise RecordError(f"{path} has no record of trichrome: it is no output of it, was made with --no-provenance, "
                          "or has lost its XMP")  # fmt: skip
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"the record of {path} was edited: it is no JSON any more ({error})") from error
    if not isinstance(record, dict):
        raise RecordError(f"the record of {path} was edited: it is no object of JSON any more")
    return record


def checked(record: Mapping[str, Any], path: Path) -> None:
    """Raises RecordError for a record that was edited, or that this version does not know."""
    if record.get("format") != FORMAT:
        raise RecordError(f"the record of {path} has format {record.get('format')!r}; this version reads {FORMAT}")
    if record.get("digest") != _digest({key: value for key, value in record.items() if key != "digest"}):
        raise RecordError(f"the record of {path} was edited: its digest does not fit it")
    if record.keys() != _KEYS.keys():
        unlike = ", ".join(sorted(record.keys() ^ _KEYS.keys()))
        raise RecordError(f"the record of {path} is of another version, which differs in {unlike}; update trichrome")
    wrong = [name for name, kinds in _KEYS.items() if not isinstance(record[name], kinds)]
    wrong = wrong or [name for name, keys in _INNER.items() if not keys <= record[name].keys()]
    if wrong:
        raise RecordError(f"the record of {path} is none that trichrome has written: its {wrong[0]} is "
                          f"{record[wrong[0]]!r}")  # fmt: skip


def _digest(record: Mapping[str, Any]) -> str:
    canonical = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
