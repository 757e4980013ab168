"""From a file, Pillow picture or array to a `Photo`."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyvips  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import Image

from pipeline.images.alone import together
from pipeline.images.arrays import load_array, load_pil
from pipeline.images.damage import strictly
from pipeline.images.heif import heic_pages, heif_kind, load_avif, load_heic
from pipeline.images.luma import _LUMA, check_size, photo_of
from pipeline.images.metadata import Metadata, metadata_of, metadata_of_page
from pipeline.images.notes import collected, pass_on
from pipeline.images.photo import ImageError, Photo
from pipeline.images.tiff import Directory, TiffError, TiffFile
from pipeline.images.tiff_page import check_page, corrected, page_directory
from pipeline.images.vips import _reason

__all__ = ["_LUMA", "load_photo", "page_count", "xmp_of"]

_SPACES = {"b-w": "gray", "grey16": "gray", "srgb": "rgb", "rgb": "rgb", "rgb16": "rgb", "cmyk": "cmyk"}


def load_photo(
    source: str | os.PathLike[str] | bytes | Image.Image | NDArray[Any],
    *,
    max_pixels: int | None = None,
    page: int | None = None,
    keep_rgb: bool = False,
) -> Photo:
    """Read a picture: a file or its bytes, a PIL image, or a numpy array.

    source: path or content of a JPEG, PNG, TIFF, WebP, AVIF or HEIC file (told by content, not by suffix); a PIL image;
        or an array (H, W) or (H, W, 1 | 2 | 3 | 4): gray, gray + alpha, RGB, RGBA; uint8, uint16 or float in [0, 1]
    max_pixels: refuse larger pictures before decoding them; None: see `check_size`
    page: of a TIFF or WebP file, counted from 1; None refuses files of several, rather than color the first only
    keep_rgb: keep the colors too, `Photo.rgb`
    raises ImageError with a one-line reason; TypeError for another kind of source

    What was odd but harmless is in the photo's `notes`, and a warning each.
    """
    if page is not None and (type(page) is not int or page < 1):
        raise ValueError(f"page must be a whole number from 1, or None; got {page!r}")
    with collected() as notes:
        if isinstance(source, str | os.PathLike):
            photo = _load_file(Path(source), None, max_pixels, page, keep_rgb)
        elif isinstance(source, bytes):
            photo = _load_file(Path("the bytes given"), source, max_pixels, page, keep_rgb)
        elif isinstance(source, Image.Image):
            photo = load_pil(source, max_pixels, keep_rgb)
        elif isinstance(source, np.ndarray):
            photo = load_array(source, max_pixels, keep_rgb)
        else:
            raise TypeError(f"a picture is a path, bytes, a PIL image or a numpy array; got {type(source).__name__}")
    photo.notes = tuple(notes)
    pass_on(notes)
    return photo


def page_count(path: Path) -> int:
    """How many pages or frames a file holds; 1 where that can not be told: reading it will say why."""
    try:
        with open(path, "rb") as file:
            kind = _format_of(file.read(64))
            if kind == "tiff":
                return max(1, len(TiffFile(file).pages()))
            return _frames(file, kind) if kind in ("webp", "avif") else heic_pages(file) if kind == "heic" else 1
    except (OSError, ImageError, TiffError, pyvips.Error, UnicodeDecodeError):
        return 1


def xmp_of(path: Path) -> bytes | None:
    """The XMP packet of a picture, of a TIFF file that of its first page; its pixels are not decoded.

    Raises ImageError for a file that can not be read or is no picture.
    """
    try:
        with collected(), open(path, "rb") as file:
            kind = _format_of(file.read(64))
            if kind == "tiff":
                tiff = TiffFile(file)
                return metadata_of_page(tiff, tiff.directory(tiff.first)).xmp
            return None if kind in ("avif", "heic") else metadata_of(file, kind).xmp  # no output has these formats
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}") from error
    except (TiffError, ImageError) as error:
        raise ImageError(f"{path}: {error}") from error


def _frames(file: BinaryIO, kind: str) -> int:
    file.seek(0)
    load = pyvips.Image.webpload_source if kind == "webp" else pyvips.Image.heifload_source
    with together():
        return _pages(load(pyvips.Source.new_from_descriptor(file.fileno())))


def _pages(image: pyvips.Image) -> int:
    return int(image.get("n-pages")) if "n-pages" in image.get_fields() else 1


def _load_file(
    path: Path, content: bytes | None, max_pixels: int | None, page: int | None, keep_rgb: bool
) -> Photo:
    """content: of the file, where it is none on disk; decoders want a file of its own then."""
    try:
        with open(path, "rb") if content is None else _file_of(content) as file:
            kind = _format_of(file.read(64))
            photo = _decode(file, kind, max_pixels, page, keep_rgb)
            file.seek(0)
            digest = _sha256_of(file)
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}") from error
    except (pyvips.Error, UnicodeDecodeError) as error:
        raise ImageError(f"{path}: damaged or truncated: {_reason(error)}") from error
    except TiffError as error:
        raise ImageError(f"{path}: damaged or truncated: {error}") from error
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    photo.format, photo.sha256, photo.page = kind, digest, page
    return photo


def _sha256_of(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _file_of(content: bytes) -> BinaryIO:
    file = tempfile.TemporaryFile()
    file.write(content)
    file.seek(0)
    return file


def _format_of(head: bytes) -> str:
    """The format that the first bytes of a file announce; only those that are read are let near a decoder."""
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if kind := heif_kind(head):
        return kind
    if not head:
        raise ImageError("the file is empty")
    others = {
        "GIF": head[:4] == b"GIF8", "BMP": head[:2] == b"BM", "PDF": head[:4] == b"%PDF",
        "JPEG 2000": head[:12] == b"\0\0\0\x0cjP  \r\n\x87\n" or head[:4] == b"\xff\x4f\xff\x51",
        "JPEG XL": head[:2] == b"\xff\x0a" or head[:12] == b"\0\0\0\x0cJXL \r\n\x87\n",
        "PSD": head[:4] == b"8BPS", "SVG": head.lstrip()[:4] == b"<svg",
    }  # fmt: skip
    name = next((name for name, found in others.items() if found), None)
    wanted = "JPEG, PNG, TIFF, WebP, AVIF and HEIC files are read"
    raise ImageError(f"a {name} file; {wanted}" if name else f"not an image; {wanted}")


def _decode(file: BinaryIO, kind: str, max_pixels: int | None, page: int | None, keep_rgb: bool) -> Photo:
    length = file.seek(0, os.SEEK_END)
    place = 0 if page is None else page - 1
    directory: Directory = {}
    if kind == "tiff":
        tiff = TiffFile(file)
        directory = page_directory(tiff, place)
        check_page(directory, length, place)
    if kind in ("webp", "avif") and place >= (frames := _frames(file, kind)):
        raise ImageError(f"there is no page {page}: it holds {frames}")

    def check_whole(width: int, height: int, pages: int) -> None:
        check_size(width, height, max_pixels, length)
        if page is None and pages > 1:
            raise ImageError(f"holds {pages} pages or frames; one picture per file is read, others by --page "
                             "N, or by colorize with --page all; in Python page=N")  # fmt: skip
        if place >= pages:
            raise ImageError(f"there is no page {page}: it holds {pages}")

    def check(image: pyvips.Image) -> None:
        check_whole(image.width, image.height, _pages(image))
        if image.format not in ("uchar", "ushort"):
            raise ImageError(f"pixels of type {image.format}; 8 and 16 bits per channel are read")
        if image.interpretation not in _SPACES:
            raise ImageError(f"color space {image.interpretation}; gray, RGB, YCbCr and CMYK are read")

    if kind in ("avif", "heic"):
        pixels, metadata, profile = (
            load_avif(file, place, check) if kind == "avif" else load_heic(file, place, check_whole)
        )  # fmt: skip
        space = "gray" if pixels.shape[2] < 3 else "rgb"
        return photo_of(pixels, space, metadata, profile, keep_rgb)
    image, pixels = strictly(file, kind, place, check)
    fields = set(image.get_fields())
    if kind == "tiff":
        metadata = metadata_of_page(tiff, directory)
        pixels = corrected(pixels, directory)
    else:
        metadata = metadata_of(file, kind)
    profile = image.get("icc-profile-data") if "icc-profile-data" in fields else None
    stated = _stated_dpi(image, fields, kind, metadata)
    metadata = dataclasses.replace(metadata, dpi=stated)
    return photo_of(pixels, _SPACES[image.interpretation], metadata, profile, keep_rgb)


def _stated_dpi(
    image: pyvips.Image, fields: set[str], kind: str, metadata: Metadata
) -> tuple[float, float] | None:
    if kind == "png" and image.xres != 2.834:  # what libvips gives a PNG without pHYs
        return image.xres * 25.4, image.yres * 25.4
    if kind in ("jpeg", "tiff") and "resolution-unit" in fields:
        return image.xres * 25.4, image.yres * 25.4
    return metadata.dpi
