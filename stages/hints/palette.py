"""A palette: colors that a whole picture leans to, without saying where.

Each pixel's chroma c moves a share of the way to the mean of the palette's colors p_k, each counted by how near it is:

    c' = c + LEAN (sum_k w_k p_k - c),    w = softmax(-|c - p_k|^2 / 2 NEAR^2)

so what is near one color of the palette becomes that color, and what is between two stays between them. A gray in the
palette lets gray things be. Transport to equal shares of all colors did no better (docs/history.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stages.color.spaces import chroma_from_rgb
from stages.hints.words import rgb_of

__all__ = ["leaning", "palette_chroma"]

LEAN, NEAR = 0.7, 0.04  # chosen on photographs held out of training, given the five colors of their originals


def palette_chroma(colors: Sequence[str | Sequence[int]]) -> Tensor:
    """Chroma of the colors of a palette, (K, 2): names or codes that PIL.ImageColor reads, or RGB of 0..255.

    Raises ValueError for an empty palette and for what is no color.
    """
    if isinstance(colors, str) or not colors:
        raise ValueError(f"a palette must be a list of colors, at least one; got {colors!r}")
    return torch.stack([chroma_from_rgb(torch.tensor(rgb_of(one))[:, None, None] / 255)[:, 0, 0] for one in colors])


def leaning(chroma: Tensor, palette: Tensor) -> Tensor:
    """Chroma (B, 2, H, W) leaning to a palette (K, 2): the same shape."""
    with torch.autocast(chroma.device.type, enabled=False):  # color is float32 always
        chroma, palette = chroma.float(), palette.to(chroma.device)
        apart = (chroma[:, None] - palette[:, :, None, None]).square().sum(2)  # (B, K, H, W)
        near = (-apart / (2 * NEAR**2)).softmax(1)
        return torch.lerp(chroma, torch.einsum("bkhw,kc->bchw", near, palette), LEAN)
