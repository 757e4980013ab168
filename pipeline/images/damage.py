"""Pixels of a file, or the reason why they can not be trusted.

libvips is asked to refuse at its "warning" level: at "error" a JPEG cut in half that ends with a marker passes, and so
does a fax page or a JPEG inside a TIFF with zeros in it. Some warnings say nothing about the pixels:

- JPEG: anomalies of the header are mended in a copy, which is read as strictly again, since libjpeg speaks of the first
  anomaly only: another may hide behind it.
- TIFF: libtiff speaks of all it sees. The file is read again at "error", and every word must be of the short list.

What no decoder can know: Huffman codes have no checksum. Flipped bits of a JPEG or WebP often decode to other pixels
without a word; PNG has checksums, and TIFF only what its compression notices.
"""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import pyvips  # type: ignore[import-untyped]
from numpy.typing import NDArray

from pipeline.images.alone import alone, together
from pipeline.images.notes import note
from pipeline.images.photo import ImageError
from pipeline.images.vips import _reason, forget_messages

Loaded = tuple[pyvips.Image, NDArray[Any]]
_BASELINE = (0xC0, 0xC1)
# Tags that pixels depend on: a doubt about one of them is damage.
_LAYOUT = "Image|Bits|Samples|Compression|Photometric|Planar|Rows|Strip|Tile|Predictor|Fill|Color|Extra|YCbCr|Reference"
_HARMLESS_TIFF = re.compile(
    "Sum of Photometric type-related color channels and ExtraSamples doesn't match SamplesPerPixel"
    '|ASCII value for tag ".*" (does not end in null byte|contains null byte)'
    "|Invalid TIFF directory; tags are not sorted in ascending order"
    "|Unknown field with tag "
    f'|(Incompatible type for|incorrect count for field|Wrong data type [0-9]+ for) "(?!{_LAYOUT})'
    "|Nonstandard tile (width|length)"
    "|Old-style LZW codes"
)


def strictly(file: BinaryIO, kind: str, page: int, check: Callable[[pyvips.Image], None]) -> Loaded:
    """The image (for its fields) and its pixels (H, W, bands); notes what was odd. Raises ImageError for damage.

    page: counted from 0; check: called before anything is decoded, may raise
    """
    options = {"page": page} if kind in ("tiff", "webp", "heif") else {}

    def load(source: pyvips.Source, level: str = "warning") -> Loaded:
        forget_messages()
        image = getattr(pyvips.Image, f"{kind}load_source")(source, access="sequential", fail_on=level, **options)
        check(image)
        return image, image.numpy().reshape(image.height, image.width, image.bands)

    def from_file(level: str = "warning") -> Loaded:
        # By descriptor, not by name: libvips would answer from its cache although the file has changed since.
        file.seek(0)
        return load(pyvips.Source.new_from_descriptor(file.fileno()), level)

    with suppress(pyvips.Error, UnicodeDecodeError), together():
        return from_file()
    with alone(), _overheard() as words:
        try:
            return from_file()
        except (pyvips.Error, UnicodeDecodeError) as error:  # its messages may quote bytes of the file
            reason = _reason(error)
        try:
            if kind == "jpeg":
                mended, anomalies = _mended_jpeg(file)
                loaded = load(pyvips.Source.new_from_memory(mended)) if anomalies else None
            elif kind == "tiff":
                words.clear()
                loaded = from_file("error")
                anomalies = list(dict.fromkeys(words))
                serious = [word for word in anomalies if not _HARMLESS_TIFF.match(word)]
                if serious or not anomalies:
                    reason, loaded = (serious or [reason])[0], None
            else:
                loaded = None
        except (pyvips.Error, UnicodeDecodeError) as error:
            raise ImageError(f"damaged or truncated: {_reason(error)}") from error
    if loaded is None:
        raise ImageError(f"damaged or truncated: {reason}")
    note(f"its header is odd, the pixels are whole: {', '.join(anomalies)}")
    return loaded


@contextmanager
def _overheard() -> Iterator[list[str]]:
    """What libvips logs in the block: the warnings of libtiff, which are in none of its errors."""
    words: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            words.append(record.getMessage().removeprefix("VIPS: "))

    ear, logger = Ear(), logging.getLogger("pyvips")
    logger.addHandler(ear)
    try:
        yield words
    finally:
        logger.removeHandler(ear)


def _mended_jpeg(file: BinaryIO) -> tuple[bytes, list[str]]:
    """A JPEG without the harmless anomalies before its first scan, and what they were.

    Harmless: bytes between segments, an unknown revision of JFIF, parameters of a progressive scan in a file that
    is not progressive, and zeros before the end marker. Source: ITU-T T.81, B.1.1.2, B.2.3.
    """
    file.seek(0)
    data = file.read()
    parts, anomalies, at, baseline = [data[:2]], [], 2, False
    while True:
        start = data.find(b"\xff", at)
        while 0 <= start < len(data) - 1 and data[start + 1] in (0x00, 0xFF):
            start = data.find(b"\xff", start + 1)
        if start < 0 or start + 4 > len(data):
            return data, []
        if data[at:start].strip(b"\xff"):
            anomalies.append(f"{start - at} bytes between its segments")
        marker, length = data[start + 1], struct.unpack_from(">H", data, start + 2)[0]
        segment = bytearray(data[start : start + 2 + length])
        baseline |= marker in _BASELINE
        if marker == 0xE0 and segment[4:9] == b"JFIF\0" and segment[9] not in (1, 2):
            anomalies.append(f"JFIF revision {segment[9]}")
            segment[9] = 1
        if marker == 0xDA and baseline and segment[-3:] != b"\0\x3f\0":
            anomalies.append("scan parameters of a progressive file")
            segment[-3:] = b"\0\x3f\0"
        parts.append(bytes(segment))
        at = start + 2 + length
        if marker == 0xDA:
            break
        if marker == 0xD9:
            return data, []
    scans = data[at:]
    if scans.endswith(b"\xff\xd9") and (body := scans[:-2].rstrip(b"\0")) != scans[:-2]:
        body += b"\0" * body.endswith(b"\xff")  # FF 00 is a coded FF
        if len(body) + 2 < len(scans):
            anomalies.append(f"{len(scans) - 2 - len(body)} zeros before its end")
            scans = body + b"\xff\xd9"
    return b"".join([*parts, scans]), anomalies

