"""AVIF and HEIC: depth, orientation, metadata, and what is refused."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import pyvips
from PIL import Image

from pipeline.files.names import find_inputs, plan
from pipeline.files.records import Report, Settings
from pipeline.images.icc import srgb_profile
from pipeline.images.photo import ImageError
from pipeline.images.read import load_photo, page_count

heif = pytest.importorskip("pillow_heif", reason="HEIC needs the extra heif")
RAMP = np.add.outer(np.arange(40) * 100, np.arange(56)).astype(np.uint16)  # 12 bits
RAMP[-1, -1] = 4095
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>kept</x:xmpmeta>"


def avif(path, bits, **more):
    """A lossless file of RAMP in `bits` bits; returns its levels."""
    levels = RAMP >> (12 - bits)
    wide = np.dstack([levels << (16 - bits) if bits > 8 else levels] * 3)
    image = pyvips.Image.new_from_array(wide.astype(np.uint16 if bits > 8 else np.uint8))
    image = image.copy(interpretation="rgb16" if bits > 8 else "srgb")
    image.heifsave(str(path), compression="av1", bitdepth=bits, lossless=True, **more)
    return levels


def heic(path, bits, **more):
    levels = RAMP >> (12 - bits)
    wide = np.dstack([levels << (16 - bits) if bits > 8 else levels] * 3)
    mode, pixels = ("RGB;16", wide.astype(np.uint16)) if bits > 8 else ("RGB", wide.astype(np.uint8))
    file = heif.from_bytes(mode, (56, 40), pixels.tobytes())
    file.save(str(path), quality=-1, chroma=444, matrix_coefficients=0, **more)
    return levels


@pytest.mark.parametrize("make, bits", [(avif, 8), (avif, 10), (avif, 12), (heic, 8), (heic, 10)])
def test_levels_are_exact_and_white_is_white(tmp_path, make, bits):
    path = tmp_path / f"a.{make.__name__}"
    levels = make(path, bits)
    photo = load_photo(path)
    peak = 2**bits - 1
    assert levels.max() == peak and photo.gray.max() == 1 and photo.format == make.__name__
    assert photo.depth == (8 if bits == 8 else 16) and len(photo.sha256 or "") == 64
    assert np.abs(photo.gray - levels / peak).max() < (1e-6 if bits == 8 else 1e-5)


def test_the_container_says_what_is_up(tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Graflex"
    levels = RAMP >> 4
    image = Image.fromarray(np.dstack([levels] * 3).astype(np.uint8))
    more: dict[str, Any] = {"exif": exif.tobytes(), "xmp": XMP, "icc_profile": srgb_profile()}
    file = heif.from_pillow(image)
    file.save(str(tmp_path / "a.heic"), quality=-1, chroma=444, matrix_coefficients=0, **more)
    photo = load_photo(tmp_path / "a.heic")
    assert photo.gray.shape == (56, 40), "turned once"
    assert np.abs(photo.gray - np.rot90(levels, -1) / 255).max() < 1e-6
    assert photo.exif is not None and b"Graflex" in photo.exif and photo.xmp == XMP
    again = Image.Exif()
    again.load(photo.exif)
    assert again.get(0x0112, 1) == 1

    avif(tmp_path / "plain.avif", 8)
    image.save(tmp_path / "b.avif", quality=100, **more)
    photo = load_photo(tmp_path / "b.avif")
    assert photo.gray.shape == (56, 40) and photo.exif is not None and b"Graflex" in photo.exif and photo.xmp == XMP


def test_what_is_refused(tmp_path, monkeypatch):
    for make in (avif, heic):
        path = tmp_path / f"a.{make.__name__}"
        make(path, 8)
        with pytest.raises(ImageError, match="more than the limit"):
            load_photo(path, max_pixels=100)
        with pytest.raises(ImageError, match="there is no page 2: it holds 1"):
            load_photo(path, page=2)
        path.write_bytes(path.read_bytes()[:-600])
        with pytest.raises(ImageError, match="damaged or truncated"):
            load_photo(path)
    many = heif.HeifFile()
    for level in (50, 100):
        many.add_from_pillow(Image.new("RGB", (64, 64), (level,) * 3))
    many.save(str(tmp_path / "many.heic"), quality=-1)
    with pytest.raises(ImageError, match="holds 2 pages"):
        load_photo(tmp_path / "many.heic")
    assert page_count(tmp_path / "many.heic") == 2
    assert load_photo(tmp_path / "many.heic", page=2).gray.mean() == pytest.approx(100 / 255, abs=0.01)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"needs pillow-heif: pip install 'trichrome\[heif\]'"):
        load_photo(tmp_path / "many.heic")
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7")
    with pytest.raises(ImageError, match="a PDF file; "):
        load_photo(tmp_path / "a.pdf")


def test_they_become_png_unless_told_otherwise(tmp_path):
    for name in ("a.heic", "b.AVIF", "c.png", "c.heif"):
        (tmp_path / name).write_bytes(b"x")
    inputs = find_inputs([tmp_path], tmp_path / "out", Report())
    names = [job.outputs[0].name for job in plan(inputs, tmp_path / "out", Settings(), Report())]
    assert names == ["a.png", "b.png", "c.heif.png", "c.png"]
    names = [job.outputs[0].name for job in plan(inputs, tmp_path / "out", Settings(format="jpeg"), Report())]
    assert names == ["a.jpg", "b.jpg", "c.heif.jpg", "c.png.jpg"]
