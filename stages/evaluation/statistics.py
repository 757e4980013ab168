"""Intervals: estimates over random halves of the photographs, paired differences, rank correlation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stages.evaluation.features import polynomial_kernel
from stages.evaluation.pixel import MetricsError


@dataclass(frozen=True)
class Estimate:
    """A value, its 95 % interval, and the bootstrap's values in the order of its draws, (R,)."""

    value: float
    low: float
    high: float
    replicates: Tensor

    def minus(self, other: Estimate) -> Estimate:
        """Difference of two systems measured with the same splits and the same draws of photographs."""
        return _estimate(self.value - other.value, self.replicates - other.replicates)


def _estimate(value: float, replicates: Tensor) -> Estimate:
    low, high = torch.quantile(replicates, torch.tensor([0.025, 0.975], dtype=replicates.dtype)).tolist()
    return Estimate(value, low, high, replicates)


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share among `count` trials (Wilson 1927; Brown, Cai and DasGupta 2001, eq. 4)."""
    square = 1.959964**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = math.sqrt(square * (share * (1 - share) / count + square / (4 * count**2))) / (1 + square / count)
    return middle - half, middle + half


class HalfSplits:
    """Random halves of `count` photographs and draws for the bootstrap, the same for every system.

    The mean of unbiased MMD^2 over all splits and both directions needs no loop: let P_ij count the halves
    that hold photographs i and j (i != j), and Q_ij the splits that separate them. Then with kernel matrices
    K between originals (o) and outputs (s)

        mean MMD^2 = sum P (K_oo + K_ss) / sum P - 2 sum Q K_os / sum Q.

    The bootstrap draws `count` photographs with replacement and weighs the pair (i, j) by c_i c_j, c_i being
    how often photograph i was drawn. Copies of a photograph stay in its half, and a photograph is never
    paired with its own copy, so the estimate stays unbiased; the interval spans the 2.5 % and 97.5 %
    quantiles of the replicates. Of an odd number, another photograph sits out in each split.

    splits: number of half-splits; replicates: draws of the bootstrap
    """

    def __init__(self, count: int, *, splits: int = 20, replicates: int = 1000, seed: int = 0):
        if count < 4:
            raise MetricsError(f"squeezenet_kid needs at least 4 photographs (two per half), got {count}")
        generator = torch.Generator().manual_seed(seed)
        order = torch.stack([torch.randperm(count, generator=generator) for _ in range(splits)])
        half = count // 2
        ones = torch.ones(splits, half, dtype=torch.float64)
        self.first = torch.zeros(splits, count, dtype=torch.float64).scatter_(1, order[:, :half], ones)
        self.second = torch.zeros(splits, count, dtype=torch.float64).scatter_(
            1, order[:, half : 2 * half], ones
        )
        self.together = self.first.T @ self.first + self.second.T @ self.second
        self.together.fill_diagonal_(0)
        across = self.first.T @ self.second
        self.apart = across + across.T

        drawn = torch.randint(count, (replicates, count), generator=generator)
        self.counts = torch.zeros(replicates, count, dtype=torch.float64)
        self.counts.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
        # A handful of photographs can leave no pair to compare: such draws say nothing.
        usable = (self._weigh(self.together) > 0) & (self._weigh(self.apart) > 0)
        self.counts = self.counts[usable]
        self.seed, self.splits, self.replicates = seed, splits, len(self.counts)

    def _weigh(self, pairs: Tensor) -> Tensor:
        """sum_ij c_i c_j pairs_ij of every draw: (N, N) -> (R,)."""
        return ((self.counts @ pairs) * self.counts).sum(1)

    def kid(self, originals: Tensor, outputs: Tensor) -> Estimate:
        """squeezenet_kid (times 1000) of standardized features, both (N, 512), row i of both from photograph
        i.
        """
        if len(originals) != len(outputs) or len(originals) != self.together.shape[0]:
            raise MetricsError(
                f"splits of {self.together.shape[0]} photographs, got {len(originals)} and {len(outputs)}"
            )
        within = self.together * (
            polynomial_kernel(originals, originals) + polynomial_kernel(outputs, outputs)
        )
        between = self.apart * polynomial_kernel(originals, outputs)
        value = within.sum() / self.together.sum() - 2 * between.sum() / self.apart.sum()
        replicates = self._weigh(within) / self._weigh(self.together)
        replicates -= 2 * self._weigh(between) / self._weigh(self.apart)
        return _estimate(1000 * float(value), 1000 * replicates)


def paired_ratio(values: Tensor, others: Tensor, *, replicates: int = 1000, seed: int = 0) -> dict[str, Any]:
    """mean(values) / mean(others), both (N,) of the same photographs, and its 95 % interval over draws of them."""
    drawn = torch.randint(len(values), (replicates, len(values)), generator=torch.Generator().manual_seed(seed))
    estimate = _estimate(float(values.mean() / others.mean()), values[drawn].mean(1) / others[drawn].mean(1))
    return {"value": estimate.value, "interval_95": [estimate.low, estimate.high]}


def paired_difference(values: Tensor, others: Tensor, *, replicates: int = 1000, seed: int = 0) -> dict[str, Any]:
    """mean(values) - mean(others), both (N,) of the same photographs, and its 95 % interval over draws of them."""
    drawn = torch.randint(len(values), (replicates, len(values)), generator=torch.Generator().manual_seed(seed))
    estimate = _estimate(float((values - others).mean()), (values - others)[drawn].mean(1))
    return {"value": estimate.value, "interval_95": [estimate.low, estimate.high]}


def spearman(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation of two tensors of one shape; equal values share their mean rank. One that is constant
    ranks nothing: 0.
    """
    if a.shape != b.shape or a.numel() < 2:
        raise MetricsError(f"two tensors of one shape with two values or more are needed; got {a.shape} and {b.shape}")
    ranks = []
    for x in (a, b):
        _, place, counts = x.flatten().unique(return_inverse=True, return_counts=True)
        mean_rank = counts.cumsum(0).double() - (counts - 1) / 2
        rank = mean_rank[place]
        ranks.append(rank - rank.mean())
    norms = ranks[0].norm() * ranks[1].norm()
    return float(ranks[0] @ ranks[1] / norms) if norms else 0.0
