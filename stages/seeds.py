"""Seeds: from words and numbers to random streams, the same on every machine.

The draws of a photograph come from SHA-256 of (seed, noise key, candidate, purpose). The noise key says whose noise it
is: by default the photograph's own, a hash of its pixels, so that two photographs share no noise, and the same
photograph and seed give the same picture alone, in a batch, and in another order. (One noise for all leans a whole
folder to one tint: docs/history.md.)
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Generator

__all__ = ["NoiseSource", "noise_key", "seed_of"]


def seed_of(*parts: object) -> int:
    """A 63-bit seed from anything printable: the same parts, the same seed, on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def noise_key(gray: NDArray[np.float32], depth: int) -> str:
    """SHA-256, in hexadecimal, of a photograph's shape, depth and gray levels.

    gray: (H, W) in [0, 1]; depth: 8 or 16, bits of the levels that are hashed
    """
    digest = hashlib.sha256(f"{gray.shape[0]} {gray.shape[1]} {depth}\n".encode())
    rows = max(1, 2**17 // gray.shape[1])  # strips that stay in the caches
    scaled = np.empty((rows, gray.shape[1]), np.float32)
    levels = np.empty(scaled.shape, "<u1" if depth == 8 else "<u2")
    for top in range(0, len(gray), rows):
        strip = gray[top : top + rows]
        part = slice(len(strip))
        np.multiply(strip, np.float32(2**depth - 1), out=scaled[part])
        levels[part] = np.rint(scaled[part], out=scaled[part])
        digest.update(levels[part].tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class NoiseSource:
    """Where the noise of one photograph comes from: seed, and noise key (any text)."""

    seed: int
    key: str

    def generator(self, candidate: int, purpose: str = "stage1") -> Generator:
        """The stream of one candidate, purpose and photograph.

        torch keeps 32 bits of a seed on the CPU: of n streams about n² / 2³³ pairs are the same one by chance.
        """
        return Generator().manual_seed(seed_of(self.seed, self.key, candidate, purpose))
