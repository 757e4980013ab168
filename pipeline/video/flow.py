"""Where a pixel of one frame is in another: optical flow on the luma, and how far it can be trusted.

Dense inverse search (DIS: Kroeger, Timofte, Dai, Van Gool 2016, arXiv 1603.03590), as OpenCV has it. It is taken both
ways. A pixel that does not come back to where it started is covered in the other frame, or not seen right (Sundaram,
Brox, Keutzer 2010); one that comes back to another luma is another thing.

All frames are squares of 256x256, whatever their aspect: what the last stage sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["SIDE", "Flow", "Link", "one_thread", "sampled"]

SIDE = 256
RETURN = 1.0  # pixels from the start after both ways at which trust falls to exp(-1/2)
DIFFERENCE = 0.06  # of luma, the same


@dataclass(frozen=True, eq=False)
class Link:
    """What each pixel of a frame has to do with another frame, the key.

    displacement: (2, 256, 256), how far right and down in the key it is; trust: (1, 256, 256) in [0, 1]
    ways: the flow from the frame to the key and back, as OpenCV has it: where the search for the next frame begins
    """

    displacement: Tensor
    trust: Tensor
    ways: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None


class Flow:
    """The search, with its buffers: for one thread at a time."""

    def __init__(self) -> None:
        self._search: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def link(self, frame: Tensor, key: Tensor, near: Link | None = None) -> Link:
        """How a frame hangs on a key frame: gray (1, 256, 256) in [0, 1] of each.

        near: the link of a frame beside this one to the same key
        """
        levels, key_levels = _levels(frame), _levels(key)
        # Always from somewhere: without a beginning the search takes what an earlier one has left in its buffers.
        nowhere = np.zeros((SIDE, SIDE, 2), np.float32)
        begin = (nowhere, nowhere) if near is None or near.ways is None else near.ways
        there = self._search.calc(levels, key_levels, begin[0].copy())
        back = self._search.calc(key_levels, levels, begin[1].copy())
        displacement = torch.from_numpy(there).permute(2, 0, 1)
        return Link(displacement, _trust(frame, key, displacement, torch.from_numpy(back).permute(2, 0, 1)),
                    (there, back))  # fmt: skip


def sampled(planes: Tensor, displacement: Tensor) -> Tensor:
    """Planes of the key as a frame shows them, linear between pixels: (C, S, S), (2, S, S) -> (C, S, S).

    Beyond the border lies what is at the border.
    """
    side = planes.shape[-1]
    place = torch.arange(side, dtype=torch.float32)
    x, y = place + displacement[0], place[:, None] + displacement[1]
    grid = torch.stack([x, y], dim=-1).add_(0.5).mul_(2 / side).sub_(1)
    return F.grid_sample(planes[None], grid[None], "bilinear", "border", align_corners=False)[0]


@contextmanager
def one_thread() -> Iterator[None]:
    """OpenCV on one thread for the block: its search runs in stripes, one for each thread, which changes digits."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _levels(gray: Tensor) -> NDArray[np.uint8]:
    return (gray[0] * 255).round().to(torch.uint8).numpy()


def _trust(frame: Tensor, key: Tensor, there: Tensor, back: Tensor) -> Tensor:
    """(1, S, S) in [0, 1]: exp(-1/2 (r/R)² - 1/2 (d/D)²), 0 for what lies outside of the key."""
    side = frame.shape[-1]
    place = torch.arange(side, dtype=torch.float32)
    x, y = place + there[0], place[:, None] + there[1]
    inside = (x > -1) & (x < side) & (y > -1) & (y < side)
    astray = (there + sampled(back, there)).square().sum(0, keepdim=True)
    # Grain is no reason for doubt, nor is a flicker of the whole picture.
    difference = F.avg_pool2d(frame - sampled(key, there), 3, 1, 1, count_include_pad=False)
    seen = inside[None] & (astray < RETURN)
    common = difference[seen].median() if seen.any() else difference.new_zeros(())
    unlike = (difference - common).square()
    return inside * torch.exp(-astray / (2 * RETURN**2) - unlike / (2 * DIFFERENCE**2))
