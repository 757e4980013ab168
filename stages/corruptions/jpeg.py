"""JPEG compression, for the restoration task of Palette (arXiv 2111.05826, appendix B): quality from 5 to 30, low ones
more often, p(Q) ∝ exp(-Q / 10). Whole numbers with both ends, which the paper leaves open; libjpeg's tables, 4:2:0.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

__all__ = ["QUALITIES", "drawn_qualities", "jpeg_compressed"]

QUALITIES = range(5, 31)
DECAY = 10.0


def drawn_qualities(count: int) -> list[int]:
    """Qualities of `count` pictures, from torch's global stream."""
    chances = torch.exp(-torch.tensor(QUALITIES, dtype=torch.float64) / DECAY)
    return [QUALITIES[index] for index in torch.multinomial(chances, count, replacement=True).tolist()]


def jpeg_compressed(rgb: Tensor, qualities: list[int]) -> Tensor:
    """Pictures as they come back from JPEG files: (B, 3, H, W) in [0, 1], one quality for each -> (B, 3, H, W)."""
    if len(qualities) != len(rgb):
        raise ValueError(f"there must be a quality for each of {len(rgb)} pictures; got {len(qualities)}")
    levels = (rgb.detach().float() * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    decoded = []
    for picture, quality in zip(levels, qualities, strict=True):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=quality)
        with Image.open(file) as image:
            decoded.append(torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1))
    return (torch.stack(decoded).float() / 255).to(rgb)
