"""Pixels to libvips and its errors to words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyvips  # type: ignore[import-untyped]
from numpy.typing import NDArray

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


def _reason(error: pyvips.Error) -> str:
    """The first line of libvips' own words: a broken file often brings dozens."""
    lines = [line.strip() for line in str(error.detail).splitlines() if line.strip()]
    return lines[0] if lines else str(error.message)
