"""How good are the colors? The project's metrics, each with exactly one definition.

All of them look at 8-bit pictures, (3, H, W) uint8 RGB, because that is what is shown and saved. Pixel
metrics (`ciede2000`, `psnr`) compare an output with its own original. Feature metrics compare pictures
through the 512 averaged channels of SqueezeNet 1.1 (`features.12`), each divided by its standard deviation
over the originals:

    squeezenet_distance = |f(output) - f(its original)|
    squeezenet_kid      = 1000 MMD^2 between one half of the originals and the other half's outputs,
                          kernel k(x, y) = (x.y / 512 + 1)^3

so that no picture meets its own truth in the second one: it asks whether the colors look like the colors of
photographs, the first whether they are the right ones. They are named after the network: they are neither
FID, KID on Inception, nor LPIPS, and their values compare only with values of this definition.
Sources: Binkowski et al. 2018 (arXiv 1801.01401) for MMD^2 with the cubic kernel, Iandola et al. 2016
(arXiv 1602.07360) for the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from stages.evaluation.features import SqueezeNetFeatures
from stages.evaluation.pixel import MetricsError, PictureList, ciede2000, colorfulness, psnr
from stages.evaluation.statistics import Estimate, HalfSplits


@dataclass(frozen=True)
class Scores:
    """One system's outputs, one per photograph: (N,) float64 each, in the order of the list."""

    ciede2000: Tensor
    psnr: Tensor
    colorfulness: Tensor
    original_colorfulness: Tensor
    squeezenet_distance: Tensor | None  # None without a feature network, as are the two below
    kid: Estimate | None
    features: Tensor | None  # standardized, (N, 512)

    def means(self, first: int | None = None) -> dict[str, float]:
        """The metrics over the first photographs (default: all)."""
        part = slice(None, first)
        means = {
            "ciede2000": float(self.ciede2000[part].mean()),
            "psnr": float(self.psnr[part].mean()),
            "colorfulness_ratio": float(
                self.colorfulness[part].mean() / self.original_colorfulness[part].mean()
            ),
        }
        if self.squeezenet_distance is not None:
            means["squeezenet_distance"] = float(self.squeezenet_distance[part].mean())
        return means


@dataclass(frozen=True)
class CandidateScores:
    """Best of K and diversity of n photographs' candidates: (n,) float64 each, in the order of the list; None where a
    figure needs a feature network and there is none.
    """

    ciede2000: Tensor  # of the nearest candidate
    squeezenet_distance: Tensor | None  # of the nearest one in features, maybe another
    diversity: Tensor | None  # mean feature distance between consecutive candidates

    @property
    def measured(self) -> dict[str, Tensor]:
        return {one.name: values for one in fields(self) if (values := getattr(self, one.name)) is not None}

    def means(self) -> dict[str, float]:
        return {name: float(values.mean()) for name, values in self.measured.items()}

    def minus(self, other: CandidateScores) -> dict[str, tuple[float, float, float]]:
        """Mean difference on the same photographs, and its 95 % interval by the normal distribution."""
        differences = {}
        for name, values in self.measured.items():
            more = values - other.measured[name]
            half = 1.96 * float(more.std()) / len(more) ** 0.5
            differences[name] = (float(more.mean()), float(more.mean()) - half, float(more.mean()) + half)
        return differences


class Reference:
    """The originals of an evaluation, measured once, and the half-splits that every system shares.

    A feature that is constant over the originals has no deviation to divide by and is left out; `used` counts
    the others (512 for any real list). Without a network (None) what needs its features is None in all scores.
    """

    def __init__(self, originals: PictureList, network: SqueezeNetFeatures | None, *, splits: int = 20, seed: int = 0):
        self.originals, self.network = originals, network
        self.splits = HalfSplits(len(originals), splits=splits, seed=seed)
        self.colorfulness = colorfulness(originals)
        self.used = 0
        if network is not None:
            features = network.of(originals).double()
            deviation = features.std(0)
            self.scale = torch.where(deviation > 0, 1 / deviation, 0.0)
            self.used = int((deviation > 0).sum())
            self.features = features * self.scale

    def features_of(self, pictures: PictureList) -> Tensor:
        """Standardized features: -> (N, 512) float64."""
        assert self.network is not None
        return self.network.of(pictures).double() * self.scale

    def score(self, outputs: PictureList) -> Scores:
        """All metrics of one output per photograph, in the originals' order and sizes."""
        features = None if self.network is None else self.features_of(outputs)
        return Scores(
            ciede2000=ciede2000(outputs, self.originals),
            psnr=psnr(outputs, self.originals),
            colorfulness=colorfulness(outputs),
            original_colorfulness=self.colorfulness,
            squeezenet_distance=None if features is None else (features - self.features).norm(dim=1),
            kid=None if features is None else self.splits.kid(self.features, features),
            features=features,
        )

    def candidates(self, candidates: Tensor | Sequence[Sequence[Tensor]]) -> CandidateScores:
        """Best of K and diversity of the first n photographs' candidates, uint8 (n, K, 3, H, W) in drawing
        order.
        """
        n, k = len(candidates), len(candidates[0])
        if k < 2:
            raise MetricsError("diversity needs at least two candidates per photograph")
        originals = self.originals[:n]
        drawn = [[row[i] for row in candidates] for i in range(k)]
        nearest = torch.stack([ciede2000(pictures, originals) for pictures in drawn], dim=1).amin(1)
        if self.network is None:
            return CandidateScores(nearest, None, None)
        # One candidate of every photo at a time: equal candidates then have bit-equal features.
        features = torch.stack([self.features_of(pictures) for pictures in drawn], dim=1)
        return CandidateScores(
            ciede2000=nearest,
            squeezenet_distance=(features - self.features[:n, None]).norm(dim=2).amin(1),
            diversity=(features[:, 1:] - features[:, :-1]).norm(dim=2).mean(1),
        )
