"""Where one scene ends and another begins: cuts, by statistics of the luma.

Two frames are compared by the earth mover's distance between the gray levels of each sixteenth of the picture. Moving
things change where levels are inside a part more than which there are, so pans and people walking count little; a cut
changes both. A frame begins a scene where it is far from the two before it, by itself and beside the distances just
before, and where the one after it is far from them too: a flash returns to what was there. A cut that is missed costs
little, since its flow is not trusted; one that is none costs a jump of colors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["scenes", "signature"]

SIDE, PARTS = 64, 4
# Photographs of one size are 0.14 to 0.30 apart; a pan by a twentieth of their width a frame is 0.02 to 0.06.
LEAST = 0.06
TIMES = 2.0  # as much as is usual just before: shaky and fast scenes are no cuts
REMEMBERED = 8  # distances that say what is usual
SHORTEST = 3  # frames of a scene


def signature(gray: NDArray[np.float32]) -> NDArray[np.float32]:
    """What is compared of a frame: (64, 64) gray in [0, 1] -> the sorted levels of each part, (16, 256)."""
    step = SIDE // PARTS
    parts = gray.reshape(PARTS, step, PARTS, step).swapaxes(1, 2).reshape(PARTS * PARTS, step * step)
    return np.sort(parts, axis=1)


def distance(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Mean earth mover's distance of the parts of two signatures, in [0, 1]: of as many levels each, that is the mean
    difference of the sorted ones.
    """
    return float(np.abs(one - other).mean())


def scenes(signatures: Iterable[NDArray[np.float32]]) -> Iterator[range]:
    """The numbers of the frames of each scene; every frame is in one."""
    before: deque[NDArray[np.float32]] = deque(maxlen=2)
    usual: deque[float] = deque(maxlen=REMEMBERED)
    first = number = 0
    for number, (here, after) in enumerate(_with_next(signatures)):
        if before:
            steps = [distance(one, other) for one in before for other in (here, after) if other is not None]
            if number - first >= SHORTEST and min(steps) > max(LEAST, TIMES * float(np.median(usual))):
                yield range(first, number)
                first = number
                usual.clear()
            else:
                usual.append(distance(before[-1], here))
        before.append(here)
    if before:
        yield range(first, number + 1)


def _with_next(
    signatures: Iterable[NDArray[np.float32]],
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32] | None]]:
    here: NDArray[np.float32] | None = None
    for after in signatures:
        if here is not None:
            yield here, after
        here = after
    if here is not None:
        yield here, None
