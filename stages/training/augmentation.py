"""Augmentation: mirrored, cropped, squeezed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def augmented(rgb: Tensor, generator: Generator, crop_share: float = 0.5, smallest: float = 0.6) -> Tensor:
    """Mirrored at random, and a share of the pictures cropped to another aspect and squeezed back to the square.

    Photographs that are not square are squeezed to one when they are colored, so crops have aspects up to 3:2
    either way.
    rgb: (B, 3, S, S); smallest: of a crop's area -> (B, 3, S, S)
    """
    batch = len(rgb)
    mirror, chosen, area, aspect, x, y = torch.rand(6, batch, generator=generator).to(rgb.device)
    area = smallest + (1 - smallest) * area
    stretch = 1.5 ** (aspect - 0.5)  # square root of an aspect from 2:3 to 3:2
    width, height = (area.sqrt() * stretch).clamp(max=1), (area.sqrt() / stretch).clamp(max=1)
    whole = chosen >= crop_share
    width, height = torch.where(whole, 1.0, width), torch.where(whole, 1.0, height)
    theta = rgb.new_zeros(batch, 2, 3)
    theta[:, 0, 0] = torch.where(mirror < 0.5, -width, width)
    theta[:, 1, 1] = height
    theta[:, 0, 2] = (2 * x - 1) * (1 - width)
    theta[:, 1, 2] = (2 * y - 1) * (1 - height)
    grid = F.affine_grid(theta, list(rgb.shape), align_corners=False)
    return F.grid_sample(rgb, grid, mode="bilinear", padding_mode="border", align_corners=False).clamp(0, 1)
