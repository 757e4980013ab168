"""Pixels to libvips and its errors to words."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyvips  # type: ignore[import-untyped]
from numpy.typing import NDArray

# It says things of profiles and EXIF, without the name of a file; what matters is said as a note or an error.
logging.getLogger("pyvips").addHandler(logging.NullHandler())

_UNKNOWN_DPI = 72.0  # the files libvips writes always state a resolution; 72 is the customary "none"
_STRIP = 1 << 20  # pixels worked on at a time: bounds the memory of temporaries


def _strips(height: int, width: int) -> Iterator[slice]:
    rows = max(1, _STRIP // width)
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def _vips(pixels: NDArray[Any]) -> pyvips.Image:
    """A libvips image over the memory of (H, W, bands) uint8 or uint16."""
    height, width, bands = pixels.shape
    kind = {"uint8": "uchar", "uint16": "ushort"}[pixels.dtype.name]
    return pyvips.Image.new_from_memory(np.ascontiguousarray(pixels).data, width, height, bands, kind)


def forget_messages() -> None:
    """Empties libvips' buffer of messages: what an earlier file left there would be blamed on the next."""
    pyvips.vips_lib.vips_error_clear()


def _reason(error: pyvips.Error | UnicodeDecodeError) -> str:
    """The first line of libvips' own words, without its own names: a broken file often brings dozens."""
    if isinstance(error, UnicodeDecodeError):
        return "its decoder has no words for it"
    lines = [line.strip() for line in str(error.detail).splitlines() if line.strip()]
    reason = lines[0] if lines else str(error.message)
    return "".join(char if char.isprintable() else "?" for char in re.sub(r"^(VipsJpeg|[a-z0-9]+2vips): ", "", reason))
