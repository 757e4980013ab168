"""Another picture in color as a guide: places that look alike in both take its colors.

Both are compared at 32x32, place i of the photograph with every place j of the reference:

    k_ij = exp(-|f_i - f_j|^2 / 2 F^2 - (y_i - y_j)^2 / 2 Y^2),

where f are the encoder's features, less their mean over both pictures and of length 1, and y the luma. The chroma of a
place is the mean of the reference's, each counted by k_ij; its weight is s / (s + DOUBT), s = sum_j k_ij: 0 where the
reference has nothing like it. A picture is drawn to that chroma by that weight.

The low pass of the reference's chroma in place of the picture's (ILVR, arXiv 2108.02938) knows nothing of what is
where: docs/research/hints.md has both in figures.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.color.resample import resize

__all__ = ["drawn_to", "matched"]

GRID = 32
FEATURE_LENGTH, LUMA_LENGTH, DOUBT = 0.3, 0.1, 1.0  # chosen on photographs held out of training


def matched(gray: Tensor, features: Tensor, other_gray: Tensor, other_features: Tensor, other_chroma: Tensor) -> Tensor:
    """The colors of a reference at the places of a photograph that are like its own: (1, 3, 32, 32) like `hints`.

    gray: (1, 1, S, S), features: (1, C, h, w) of the photograph; the other's likewise, and its chroma (1, 2, S, S)
    returns: weight in [0, 1), then chroma * weight
    """
    with torch.autocast(gray.device.type, enabled=False):  # color is float32 always
        return _matched(gray, features, other_gray, other_features, other_chroma)


def _matched(
    gray: Tensor, features: Tensor, other_gray: Tensor, other_features: Tensor, other_chroma: Tensor
) -> Tensor:
    f = torch.cat([features, other_features])
    f = F.normalize(f - f.mean((0, 2, 3), keepdim=True), dim=1)
    f = F.interpolate(f, (GRID, GRID), mode="bilinear", align_corners=False) / FEATURE_LENGTH
    y = torch.cat([resize(one, (GRID, GRID)) for one in (gray, other_gray)]) / LUMA_LENGTH
    here, there = torch.cat([f, y], dim=1).flatten(2).mT
    alike = torch.exp(-torch.cdist(here, there).square() / 2)
    total = alike.sum(1, keepdim=True)
    known = alike @ resize(other_chroma, (GRID, GRID))[0].flatten(1).T  # chroma * total
    return (torch.cat([total, known], dim=1) / (total + DOUBT)).T.reshape(1, 3, GRID, GRID)


def drawn_to(chroma: Tensor, match: Tensor) -> Tensor:
    """Chroma (B, 2, H, W) as far on its way to what `matched` gave, (B, 3, 32, 32), as the weight says."""
    size = (chroma.shape[-2], chroma.shape[-1])
    match = F.interpolate(match.to(chroma), size, mode="bilinear", align_corners=False)
    return (1 - match[:, :1]) * chroma + match[:, 1:]
