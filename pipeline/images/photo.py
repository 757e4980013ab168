"""A photograph in memory: its upright gray and what must survive to the output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stages.color.tint import has_one_tint

# Read from the header, before anything is decoded: pixels, and pixels to a byte of the file where there are more than
# RATIO_FROM. A blank page has 660 to a byte as PNG, at most 512 as JPEG; only bilevel ones reach more.
MAX_PIXELS, MAX_RATIO, RATIO_FROM = 300_000_000, 1000, 32_000_000
FORMATS = {  # suffix -> format of the file written
    ".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".tif": "tiff", ".tiff": "tiff", ".webp": "webp",
}  # fmt: skip
READ_ONLY = (".avif", ".heic", ".heif")  # suffixes of what is read and not written: PNG holds what they hold
_PEAK = {8: 255, 16: 65535}


class ImageError(ValueError):
    """A picture that cannot be read or written; the message is one line: which picture, what is wrong."""


@dataclass(eq=False)
class Photo:
    """A picture ready to be colored.

    gray: (H, W) float32 in [0, 1], Rec. 601 luma of the sRGB picture, upright
    depth: bits per channel of the input, 8 or 16
    alpha: (H, W) uint8 or uint16 (by depth), upright, None without an alpha channel
    exif: the EXIF block, starting with b"Exif\\0\\0", its orientation reset to 1 and its thumbnail unlinked
    xmp: the XMP packet, its orientation reset to 1
    iptc: Photoshop's image resources (8BIM …), which hold the IPTC data
    dpi: horizontal and vertical pixels per inch of the upright picture, None where the input does not say
    sample: (h, w, 3) levels of some pixels of an input in color, see `is_color`; None for a gray one
    format: "jpeg", "png", "tiff", "webp", "avif", "heic", or "" for a picture that was not a file
    rgb: (H, W, 3) float32 in [0, 1], upright, where `load_photo` was asked to keep it; else None
    sha256: of the file that it was read from; None for a picture that was not a file
    page: of that file, where one was asked for
    notes: what was odd about its file but harmless, and what of it was not read, in words
    """

    gray: NDArray[np.float32]
    depth: int
    alpha: NDArray[Any] | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    sample: NDArray[Any] | None = None
    format: str = ""
    xmp: bytes | None = None
    iptc: bytes | None = None
    rgb: NDArray[np.float32] | None = None
    sha256: str | None = None
    page: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_color(self) -> bool:
        """The input shows more than one tint (`has_one_tint`); the stages use its luma all the same."""
        # Only when asked: photographs are read beside the networks, which threads of torch would slow down.
        if self.sample is None:
            return False
        peak = 1.0 if self.sample.dtype.kind == "f" else float(np.iinfo(self.sample.dtype).max)
        rgb = self.sample.astype(np.float32) / peak
        return not has_one_tint(torch.from_numpy(rgb.transpose(2, 0, 1).copy()))
