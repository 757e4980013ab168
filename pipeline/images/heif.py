"""HEIC and AVIF files: AVIF by libvips, HEIC by pillow-heif, since the libvips of the wheel knows no HEVC.

Both decoders turn the picture upright by the container's own words, so what the EXIF says of it counts no more.
Source: ISO/IEC 23008-12 (HEIF), 6.5.10 and 10.2; AV1 Image File Format 1.1, section 6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.images.containers import EXIF_HEAD
from pipeline.images.damage import strictly
from pipeline.images.exif import _neutral_exif, said_by_exif
from pipeline.images.metadata import Metadata, _neutral_xmp
from pipeline.images.photo import ImageError

__all__ = ["heic_pages", "heif_kind", "load_avif", "load_heic"]

_AVIF, _HEIC = {b"avif", b"avis"}, {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
Check = Callable[[int, int, int], None]
"""Of width, height and the number of pictures, before anything is decoded; raises ImageError."""


def heif_kind(head: bytes) -> str | None:
    """ "avif", "heic", or None, by the brands in the first bytes of a file."""
    if head[4:8] != b"ftyp":
        return None
    size = int.from_bytes(head[:4], "big")
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, min(size, len(head)), 4))}
    return "avif" if brands & _AVIF else "heic" if brands & _HEIC else None


def load_avif(file: BinaryIO, place: int, check: Callable[[Any], None]) -> tuple[NDArray[Any], Metadata, bytes | None]:
    """Pixels (H, W, bands), metadata and profile. check: gets libvips' image, see `strictly`"""
    image, pixels = strictly(file, "heif", place, check)
    told = {name: image.get(name) for name in image.get_fields()}
    metadata = _metadata(told.get("exif-data"), told.get("xmp-data"))
    return _rescaled(pixels, int(told.get("bits-per-sample", 8))), metadata, told.get("icc-profile-data")


def heic_pages(file: BinaryIO) -> int:
    """How many pictures a file holds. Raises ImageError as `load_heic` does."""
    return len(_opened(file))


def load_heic(file: BinaryIO, place: int, check: Check) -> tuple[NDArray[Any], Metadata, bytes | None]:
    """As `load_avif`. Raises ImageError without pillow-heif."""
    pictures = _opened(file)
    width, height = pictures[min(place, len(pictures) - 1)].size
    check(width, height, len(pictures))
    picture = pictures[place]
    with _refusing():
        pixels = np.asarray(picture)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    info: dict[str, Any] = picture.info
    return _rescaled(pixels, info["bit_depth"]), _metadata(info.get("exif"), info.get("xmp")), info.get("icc_profile")


def _opened(file: BinaryIO) -> Any:  # Any: a class of an extra
    """The pictures of a HEIC file, not decoded yet."""
    try:
        import pillow_heif
    except ImportError:
        raise ImageError("a HEIC file, which needs pillow-heif: pip install 'trichrome[heif]'") from None
    file.seek(0)
    with _refusing():
        return pillow_heif.open_heif(file, convert_hdr_to_8bit=False)


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError, EOFError, SyntaxError) as error:
        raise ImageError(f"damaged or truncated: {' '.join(str(error).split())}") from error


def _metadata(exif: bytes | None, xmp: bytes | None) -> Metadata:
    block = EXIF_HEAD + exif.removeprefix(EXIF_HEAD) if exif else None
    return Metadata(_neutral_exif(block), _neutral_xmp(xmp), dpi=said_by_exif(block)[1])


def _rescaled(pixels: NDArray[Any], bits: int) -> NDArray[Any]:
    """Levels of 10 or 12 bits, which both decoders shift to the top of 16, so that the highest is white."""
    if pixels.dtype != np.uint16 or not 8 < bits < 16:
        return pixels
    peak = (1 << bits) - 1
    table = np.rint(np.arange(peak + 1) * (65535 / peak)).astype(np.uint16)
    return table[pixels >> (16 - bits)]
