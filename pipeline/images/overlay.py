"""The uncertainty map over its picture, with a legend."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_HEAT = np.array([(70, 0, 160), (200, 0, 130), (255, 110, 0), (255, 240, 60)], np.float32)  # from sure to unsure
_COVER = 0.8  # of the picture where the map is white
_TICKS = 5


def overlaid(rgb: NDArray[np.uint8], levels: NDArray[np.uint8], white: float) -> NDArray[np.uint8]:
    """The picture, covered by color the more, the less sure it is, above a scale in CIEDE2000.

    rgb: (H, W, 3); levels: (H, W), 255 for a difference of `white` or more
    returns: (H + height of the legend, W, 3)
    """
    share = levels[..., None].astype(np.float32) / 255
    covered = rgb + _COVER * share * (_heat(share[..., 0]) - rgb)
    return np.vstack([np.rint(covered).astype(np.uint8), _legend(rgb.shape[1], white)])


def _heat(share: NDArray[np.floating]) -> NDArray[np.float32]:
    """(...) in [0, 1] -> (..., 3) in [0, 255]."""
    place = np.linspace(0, 1, len(_HEAT))
    return np.stack([np.interp(share, place, _HEAT[:, k]) for k in range(3)], axis=-1).astype(np.float32)


def _legend(width: int, white: float) -> NDArray[np.uint8]:
    size = max(8, min(40, width // 40))
    image = Image.new("RGB", (width, 4 * size), "white")
    scale = _heat(np.linspace(0, 1, width, dtype=np.float32))
    image.paste(Image.fromarray(np.broadcast_to(np.rint(scale).astype(np.uint8), (size, width, 3))))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size)
    for tick in range(_TICKS + 1):
        at = width * tick / _TICKS
        text = f"{white * tick / _TICKS:g}" + ("+" if tick == _TICKS else "")
        draw.text((at, 1.2 * size), text, "black", font, "la" if tick == 0 else "ra" if tick == _TICKS else "ma")
    draw.text((0, 2.5 * size), "difference in color to be expected (CIEDE2000)", "black", font, "la")
    return np.asarray(image)
