"""Augmentation: photographs are cut at random places and aspects, squeezed to the square, and mirrored.

Photographs that are not square are squeezed to one when they are colored, so cuts have aspects up to 3:2 either way.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

MAX_ASPECT = 1.5
SMALLEST = 0.5  # area of a cut from a picture that has more to show than one square of the side
SMALLEST_ENLARGED = 0.6  # of one that has not: every cut but the whole is enlarged
WHOLE_SHARE = 0.5  # of those, how many are shown as they are


def random_boxes(sizes: Tensor, larger: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """A part of each picture of a batch, and whether it is mirrored.

    sizes: (B, 2), height and width; larger: (B,) bool, pictures that are not square or have more pixels than are taken.
    Area shares are uniform from `SMALLEST`, aspects log-uniform; a box wider or higher than the picture is cut off.
    returns: boxes (B, 4) of top, left, height, width, inside of the pictures; mirrored (B,) bool; both on the CPU
    """
    mirror, whole, area, aspect, y, x = torch.rand(6, len(sizes), generator=generator, dtype=torch.float64)
    smallest = torch.where(larger, SMALLEST, SMALLEST_ENLARGED)
    area = (smallest + (1 - smallest) * area) * sizes.prod(1)
    stretch = MAX_ASPECT ** (aspect - 0.5)  # square root of the aspect
    wanted = torch.stack([area.sqrt() / stretch, area.sqrt() * stretch], dim=1)
    taken = torch.minimum(wanted, sizes.to(wanted))
    taken = torch.where((~larger & (whole < WHOLE_SHARE))[:, None], sizes.to(wanted), taken)
    corner = (sizes - taken) * torch.stack([y, x], dim=1)
    return torch.cat([corner, taken], dim=1), mirror < 0.5
