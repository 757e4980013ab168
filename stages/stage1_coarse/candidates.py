"""The order of several draws of one photograph: what most agree on first."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.color.spaces import chroma_from_rgb, lab_from_rgb, merge, rgb_from_coarse

COMPARED_SIDE = 16  # draws are compared as small pictures: where the colors are, not how they are grained
EVENED_STRENGTH = 0.9  # exponent: with 0 the palest draw is the most central one, with 1 rather a strong one


def spread_order(
    gray64: Tensor, coarse: Tensor, pool: int | None = None, evened: float = EVENED_STRENGTH
) -> Tensor:
    """Indices that sort draws so that the first K, for every K, stand for all of them.

    The first is the medoid of the first `pool`. One random sample of an honest model is as far from the truth as two
    samples are from each other. The sample in the middle of several is nearer to it, yet still a real sample and no
    average: its colors do not fade. The palest draw is near to everything, so draws are brought nearly to equal
    strength before: what is compared is where which hues are.

    Each further one is the draw that most lowers the mean distance of all draws from the nearest one before it
    (k-medoids, the greedy BUILD phase of PAM: Kaufman and Rousseeuw 1990): a near-copy of what is there already lowers
    it by nothing and comes late, an answer that many draws share comes early.

    gray64: (B, 1, H, W) in [0, 1]; coarse: (B, N, H, W) int64; pool: 1 to N, None: N -> (B, N) int64 on the CPU
    evened: how equal the strengths are made before the first is chosen, 0: not at all, 1: quite
    """
    if gray64.ndim != 4 or coarse.ndim != 4 or gray64.shape != (len(coarse), 1, *coarse.shape[2:]):
        raise ValueError(
            f"gray64 must be (B, 1, H, W) and coarse (B, N, H, W); got {tuple(gray64.shape)} and {tuple(coarse.shape)}"
        )
    count = coarse.shape[1]
    pool = count if pool is None else pool
    if not 1 <= pool <= count:
        raise ValueError(f"pool must be from 1 to the {count} draws; got {pool}")
    rgb = merge(gray64[:, None], chroma_from_rgb(rgb_from_coarse(coarse)))
    ab = lab_from_rgb(F.adaptive_avg_pool2d(rgb.flatten(0, 1), COMPARED_SIDE))[:, 1:].unflatten(0, coarse.shape[:2])
    strength = ab.square().sum(2).sqrt().mean((-2, -1))[:, :, None, None, None]
    apart = _distances((ab / strength.clamp_min(1e-3) ** evened)[:, :pool]).sum(-1)
    # No exponent makes a gray draw stronger, and unlike hues are further from each other than from gray.
    gray = strength[:, :pool, 0, 0, 0].cpu() < 1e-3
    chosen = [apart.masked_fill(gray & ~gray.all(1, keepdim=True), torch.inf).argmin(-1)]
    distance = _distances(ab)
    photos = torch.arange(len(coarse))
    nearest = distance[photos, chosen[0]]  # of each draw from those chosen, (B, N)
    left = torch.ones_like(nearest, dtype=torch.bool)
    for _ in range(1, count):
        left[photos, chosen[-1]] = False
        lowered = (nearest[:, None] - distance).clamp_min(0).sum(-1)
        chosen.append(lowered.masked_fill(~left, -1).argmax(-1))
        nearest = torch.minimum(nearest, distance[photos, chosen[-1]])
    return torch.stack(chosen, dim=1)


def _distances(ab: Tensor) -> Tensor:
    """Mean distance between each two of N pictures' a and b, (B, N, 2, s, s) -> (B, N, N) on the CPU."""
    rows = [(ab - ab[:, k : k + 1]).square().sum(2).sqrt().mean((-2, -1)) for k in range(ab.shape[1])]
    return torch.stack(rows, dim=1).cpu()
