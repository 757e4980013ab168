"""Several draws of one photograph: their order, what most agree on first, and how far they are from a picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.color import chroma_from_rgb, ciede2000, lab_from_rgb, merge, rgb_from_coarse
from stages.resize import resize

COMPARED_SIDE = 16  # draws are compared as small pictures: where the colors are, not how they are grained
EVENED_STRENGTH = 0.9  # exponent: with 0 the palest draw is the most central one, with 1 rather a strong one

GRAY_SHARE = 0.15  # of the truths that a map of doubt reckons with: strong colors are wrong more often than draws know


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


def expected_error(gray: Tensor, chroma: Tensor, pictures: Tensor) -> Tensor:
    """What the error of pictures is, pixel by pixel, if the truth is gray with probability GRAY_SHARE and else as
    likely to be any of the draws: the mean of their CIEDE2000 differences.

    gray: (1, H, W) in [0, 1]; chroma: of draws, (N, 2, h, w); pictures: their chroma, (K, 2, h', w'); both are
        enlarged or reduced to the size of the gray -> (K, H, W)
    """
    for name, planes in (("chroma", chroma), ("pictures", pictures)):
        if gray.ndim != 3 or len(gray) != 1 or planes.ndim != 4 or planes.shape[1] != 2:
            found = f"{tuple(gray.shape)} and {tuple(planes.shape)}"
            raise ValueError(f"gray must be (1, H, W) and {name} (N, 2, h, w); got {found}")
    size = (gray.shape[-2], gray.shape[-1])
    judged = lab_from_rgb(merge(gray, resize(pictures, size)))
    apart = torch.zeros_like(judged[:, 0])
    for one in chroma:  # many draws at once would leave the processor's caches
        apart += ciede2000(lab_from_rgb(merge(gray, resize(one[None], size))).expand_as(judged), judged)
    from_gray = ciede2000(lab_from_rgb(gray.expand(3, -1, -1)).expand_as(judged), judged)
    return (1 - GRAY_SHARE) * apart / len(chroma) + GRAY_SHARE * from_gray


def _distances(ab: Tensor) -> Tensor:
    """Mean distance between each two of N pictures' a and b, (B, N, 2, s, s) -> (B, N, N) on the CPU."""
    rows = [(ab - ab[:, k : k + 1]).square().sum(2).sqrt().mean((-2, -1)) for k in range(ab.shape[1])]
    return torch.stack(rows, dim=1).cpu()
