"""The order of several candidates of one photograph: from what most of them agree on to the most unusual."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from stages.color import chroma_from_rgb, lab_from_rgb, merge, rgb_from_coarse

COMPARED_SIDE = 16  # candidates are compared as small pictures: where the colors are, not how they are grained
# The palest candidate is near to everything. So before they are compared, candidates are brought this far (as an
# exponent) toward the mean chroma of the pool; train_scripts/choose_candidate.py and docs/results.md have the choice.
EVENED_CHROMA = 0.75


def central_order(gray64: Tensor, coarse: Tensor, evened: float = EVENED_CHROMA) -> Tensor:
    """Indices that sort candidates by their mean distance to the others; the first is the medoid.

    One random sample of an honest model is as far from the truth as two samples are from each other. The sample in the
    middle of several is nearer to it, yet still a real sample and no average: its colors do not fade. What is compared
    is where which hues are, and only in part how strong they are.

    gray64: (B, 1, 64, 64) in [0, 1]; coarse: (B, N, 64, 64) int64; evened: exponent, see EVENED_CHROMA -> (B, N) int64
    """
    if gray64.ndim != 4 or coarse.ndim != 4 or gray64.shape != (len(coarse), 1, *coarse.shape[2:]):
        raise ValueError(
            f"gray64 must be (B, 1, H, W) and coarse (B, N, H, W); got {tuple(gray64.shape)} and {tuple(coarse.shape)}"
        )
    rgb = merge(gray64[:, None], chroma_from_rgb(rgb_from_coarse(coarse)))
    small = F.adaptive_avg_pool2d(rgb.flatten(0, 1), COMPARED_SIDE)
    ab = lab_from_rgb(small)[:, 1:].unflatten(0, coarse.shape[:2])  # (B, N, 2, s, s)
    strength = ab.square().sum(2).sqrt().mean((-2, -1))  # (B, N)
    factor = (strength.mean(1, keepdim=True) / strength.clamp_min(1e-3)) ** evened
    ab = ab * factor[:, :, None, None, None]
    distance = (ab[:, :, None] - ab[:, None]).square().sum(3).sqrt().mean((-2, -1))  # (B, N, N)
    return distance.sum(-1).argsort(dim=-1, stable=True)
