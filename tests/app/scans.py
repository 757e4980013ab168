"""Gray levels that tests send."""

from __future__ import annotations

import numpy as np


def gray(seed: int = 0, dtype: type = np.uint8) -> np.ndarray:
    """(48, 64), noise over the whole range."""
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (48, 64), dtype)
