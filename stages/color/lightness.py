"""Lab where only the luma is known: the lightness of a gray pixel, and the color of a luma that has given a and b."""

from __future__ import annotations

import torch
from torch import Tensor

from stages.color.spaces import chroma_from_rgb, gray_from_rgb, lab_from_rgb, rgb_from_lab

__all__ = ["chroma_at_luma", "lightness"]


def lightness(gray: Tensor) -> Tensor:
    """(L - 50) / 50 of gray pixels (B, 1, H, W) in [0, 1]: the same shape, in [-1, 1]."""
    return lab_from_rgb(gray.float().expand(-1, 3, -1, -1))[:, :1] / 50 - 1


def chroma_at_luma(gray: Tensor, ab: Tensor) -> Tensor:
    """Cb and Cr of the color that has the luma `gray` and Lab's `ab`.

    gray: (B, 1, H, W) in [0, 1]; ab: (B, 2, H, W) -> (B, 2, H, W). The luma grows with L where a and b stay: L is
    found by halving an interval; outside sRGB the color is one that `merge` brings back.
    """
    low, high = gray.new_full(gray.shape, -150.0), gray.new_full(gray.shape, 250.0)
    for _ in range(30):
        middle = (low + high) / 2
        dark = gray_from_rgb(rgb_from_lab(torch.cat([middle, ab], dim=1))) < gray
        low, high = torch.where(dark, middle, low), torch.where(dark, high, middle)
    return chroma_from_rgb(rgb_from_lab(torch.cat([(low + high) / 2, ab], dim=1)))
