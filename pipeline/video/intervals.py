"""Frames between two key frames, with the links of each to both."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.images import Photo
from pipeline.video.flow import SIDE, Flow, Link
from stages.color.resample import resize

__all__ = ["LONGEST", "Frame", "Interval", "intervals"]

LONGEST, SHORTEST = 12, 3  # frames from one key to the next
HOLDS = 0.6  # mean trust below which a key frame is too far away


class Frame:
    """A frame as it was read. number: in its video, from 0; photo(): it as a photograph, upright."""

    number: int

    def gray(self) -> NDArray[np.float32]:
        """(H, W) in [0, 1], upright."""
        raise NotImplementedError

    def photo(self) -> Photo:
        return Photo(self.gray(), 8)

    @cached_property
    def gray256(self) -> Tensor:
        """(1, 256, 256), the same whatever its aspect: what stage 3 sees."""
        return resize(torch.from_numpy(self.gray())[None, None], (SIDE, SIDE))[0]


@dataclass(frozen=True, eq=False)
class Interval:
    """frames: from a key frame to the next one, both included; one link for each of them

    back: to the first frame, that of the first itself is None; on: to the last frame, that of the last is None
    """

    frames: list[Frame]
    back: list[Link | None]
    on: list[Link | None]


def intervals(frames: Iterable[Frame], flow: Flow, wanted: Collection[int] = ()) -> Iterator[Interval]:
    """A scene, or its rest from a key frame on, cut at its key frames; its first and last frames are key frames.

    A key frame comes when the one before is no longer a good guide, after 12 frames at the latest, and at the frames
    `wanted`, by their numbers. A scene of one frame has no interval.
    """
    gathered: list[Frame] = []
    back: list[Link | None] = []
    for frame in frames:
        near = back[-1] if back else None
        back.append(flow.link(frame.gray256, gathered[0].gray256, near) if gathered else None)
        gathered.append(frame)
        link, length = back[-1], len(gathered) - 1
        if link is None:
            continue
        lost = length >= SHORTEST and float(link.trust.mean()) < HOLDS
        if length == LONGEST or lost or frame.number in wanted:
            yield _closed(gathered, back, flow)
            gathered, back = [frame], [None]
    if len(gathered) > 1:
        yield _closed(gathered, back, flow)


def _closed(frames: list[Frame], back: list[Link | None], flow: Flow) -> Interval:
    on: list[Link | None] = [None]
    for frame in frames[-2::-1]:
        on.append(flow.link(frame.gray256, frames[-1].gray256, on[-1]))
    return Interval(frames, back, on[::-1])
