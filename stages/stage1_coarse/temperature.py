"""The temperature of draws: what every kind of stage 1 asks of it, whatever it means there."""

from __future__ import annotations

import math


def checked_temperature(value: float) -> float:
    """The value itself; ValueError where it is negative, infinite or no number."""
    if not 0 <= value < math.inf:
        raise ValueError(f"temperature must be 0 or more; got {value}")
    return value
