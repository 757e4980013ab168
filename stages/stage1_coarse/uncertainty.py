"""How wrong a picture is to be expected, pixel by pixel, by how far other draws of its photograph are from it."""

from __future__ import annotations

import torch
from torch import Tensor

from stages.color.difference import ciede2000
from stages.color.resample import resize
from stages.color.spaces import lab_from_rgb, merge

GRAY_SHARE = 0.15  # of the truths that are reckoned with: strong colors are wrong more often than draws know


def expected_error(gray: Tensor, chroma: Tensor, pictures: Tensor) -> Tensor:
    """What the error of pictures is, pixel by pixel, if the truth is gray with probability GRAY_SHARE and else as
    likely to be any of the draws: the mean of their CIEDE2000 differences.

    gray: (1, H, W) in [0, 1]; chroma: of draws, (N, 2, h, w); pictures: their chroma, (K, 2, h', w'); both are
        enlarged or reduced to the size of the gray -> (K, H, W)
    """
    for name, planes in (("chroma", chroma), ("pictures", pictures)):
        if gray.ndim != 3 or len(gray) != 1 or planes.ndim != 4 or planes.shape[1] != 2:
            shapes = f"{tuple(gray.shape)} and {tuple(planes.shape)}"
            raise ValueError(f"gray must be (1, H, W) and {name} (N, 2, h, w); got {shapes}")
    size = (gray.shape[-2], gray.shape[-1])
    judged = lab_from_rgb(merge(gray, resize(pictures, size)))
    apart = torch.zeros_like(judged[:, 0])
    for one in chroma:  # many draws at once would leave the processor's caches
        apart += ciede2000(lab_from_rgb(merge(gray, resize(one[None], size))).expand_as(judged), judged)
    from_gray = ciede2000(lab_from_rgb(gray.expand(3, -1, -1)).expand_as(judged), judged)
    return (1 - GRAY_SHARE) * apart / len(chroma) + GRAY_SHARE * from_gray
