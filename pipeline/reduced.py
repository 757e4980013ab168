"""A photo in fewer pixels, for a look at what its colors will be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.images import Photo
from pipeline.kept import Kept
from pipeline.open_photo import cache_of
from stages.color.resample import resize
from stages.options import OptionError

__all__ = ["reduced"]


def reduced(photo: Photo, kept: Kept | None, max_side: int | None) -> tuple[Photo, Kept | None]:
    """The photo's gray, and what is kept of it, with at most `max_side` pixels on the longer side; None: as they are.

    What is left of the photo is its depth. Raises OptionError for a side that is none.
    """
    if max_side is None:
        return photo, kept
    if type(max_side) is not int or max_side < 1:
        raise OptionError(f"max_side must be a whole number of pixels from 1; got {max_side!r}")
    height, width = photo.gray.shape
    if max(height, width) <= max_side:
        return photo, kept
    share = max_side / max(height, width)
    size = max(1, round(height * share)), max(1, round(width * share))
    gray = cache_of([photo]).within("reduced")(size, lambda: _resized(photo.gray[..., None], size)[..., 0])
    if kept is not None:
        kept = replace(kept, mask=_resized(kept.mask[..., None], size)[..., 0], rgb=_resized(kept.rgb, size))
    return Photo(gray, photo.depth), kept


def _resized(plane: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """(H, W, C) -> (*size, C), averaged by area."""
    small = resize(torch.from_numpy(plane).permute(2, 0, 1)[None], size)[0].permute(1, 2, 0)
    return np.ascontiguousarray(small.numpy())
