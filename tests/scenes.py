"""Pictures that tests of reading and writing are made of, and what is looked for in their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image

from pipeline.images.photo import Photo
from pipeline.images.vips import _vips
from stages.color.spaces import LUMA_BLUE, LUMA_GREEN, LUMA_RED

LUMA = np.array([LUMA_RED, LUMA_GREEN, LUMA_BLUE])
SUFFIXES = [".jpg", ".png", ".tif", ".webp"]
HEIGHT, WIDTH = 40, 56


def scene(channels=3, dtype=np.uint8):
    """A smooth picture (H, W, channels) that lossy formats keep well."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] / [[[HEIGHT]], [[WIDTH]]]
    waves = [0.5 + 0.4 * np.sin(3 * x + k) * np.cos(2 * y - k) for k in range(channels)]
    return np.rint(np.stack(waves, -1) * np.iinfo(dtype).max).astype(dtype)


def photo_of(rgb, **fields):
    return Photo(gray=np.zeros(rgb.shape[:2], np.float32), depth=8 * rgb.itemsize, **fields)


def vips(pixels, interpretation):
    return _vips(pixels).copy(interpretation=interpretation)


def camera_exif(orientation=1):
    """EXIF with a text, an exposure, a maker note, a position and a thumbnail."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x0132] = "Graflex", orientation, "1936:03:01 12:00:00"
    exif.get_ifd(0x8769).update({0x829A: 0.008, 0x8827: 400, 0x927C: b"private"})
    exif.get_ifd(0x8769)[0x9003] = "1936:03:01 12:00:00"
    exif.get_ifd(0x8825).update({1: "N", 2: (35.0, 2.0, 26.0)})
    return exif.tobytes()


def assert_camera_exif(path, orientation=1):
    with Image.open(path) as image:
        exif = image.getexif()
        assert exif[0x010F] == "Graflex" and exif[0x0132] == "1936:03:01 12:00:00"
        assert exif.get(0x0112, 1) == orientation
        details = exif.get_ifd(0x8769)
        assert details[0x829A] == pytest.approx(0.008) and details[0x8827] == 400
        assert details[0x9003] == "1936:03:01 12:00:00"
        assert exif.get_ifd(0x8825)[2] == (35.0, 2.0, 26.0)


def vips_pixels(path):
    source = pyvips.Image.new_from_buffer(Path(path).read_bytes(), "")  # not by name: libvips caches those
    return source.numpy()
