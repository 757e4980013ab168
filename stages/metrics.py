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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from stages import color

__all__ = [
    "CandidateScores",
    "Estimate",
    "HalfSplits",
    "MetricsError",
    "Reference",
    "Scores",
    "SqueezeNetFeatures",
    "ciede2000",
    "colorfulness",
    "luma_error",
    "mmd2_unbiased",
    "picture_from_rgb",
    "polynomial_kernel",
    "psnr",
]

SHORT_SIDE, ENLARGED_SIDE = 128, 192  # a short side under 128 px is first enlarged to 192
CHUNK_PIXELS = 1 << 20  # pixels worked on at once: bounds the memory of every metric

Pictures = Tensor | Sequence[Tensor]  # (N, 3, H, W) uint8, or N pictures (3, H, W) uint8 of any sizes


class MetricsError(ValueError):
    """What was measured does not fit the metric; the message says what to change."""


def picture_from_rgb(rgb: Tensor) -> Tensor:
    """The 8-bit picture that would be saved: (..., 3, H, W) float in [0, 1] -> uint8, rounded to nearest."""
    return (rgb.float() * 255).round().clamp(0, 255).to(torch.uint8)


# Pixel metrics: one number per picture -------------------------------------------------------------


def ciede2000(outputs: Pictures, originals: Pictures) -> Tensor:
    """CIEDE2000 against the original, mean over pixels: -> (N,) float64."""
    return _per_picture(
        lambda a, b: color.ciede2000(color.lab_from_rgb(_unit(a)), color.lab_from_rgb(_unit(b))).flatten(1),
        outputs,
        originals,
    )


def psnr(outputs: Pictures, originals: Pictures) -> Tensor:
    """Peak signal-to-noise ratio over pixels and channels in dB, infinite when equal: -> (N,) float64."""
    error = _per_picture(lambda a, b: (a.double() - b.double()).square().flatten(1), outputs, originals)
    return 10 * torch.log10(255**2 / error)


def luma_error(outputs: Pictures, gray: Pictures) -> Tensor:
    """Largest |luma of the output - gray| of each picture, in 8-bit levels: -> (N,) float64.

    gray: (N, 1, H, W) uint8 or N of (1, H, W), the gray that was colored
    """
    worst = []
    for a, b in _pairs(outputs, gray):
        luma = color.gray_from_rgb(a.double())
        worst.append((luma - b.double()).abs().flatten(1).amax(1))
    return torch.cat(worst)


def colorfulness(pictures: Pictures) -> Tensor:
    """Colorfulness of Hasler and Suesstrunk on the 8-bit scale: -> (N,) float64."""
    return torch.cat([color.colorfulness(_unit(batch)).double() for batch in _batches(pictures)])


def _unit(pictures: Tensor) -> Tensor:
    return pictures.float() / 255


def _per_picture(measure, outputs: Pictures, originals: Pictures) -> Tensor:
    return torch.cat([measure(a, b).double().mean(1) for a, b in _pairs(outputs, originals)])


def _pairs(outputs: Pictures, originals: Pictures) -> Iterator[tuple[Tensor, Tensor]]:
    if len(outputs) != len(originals):
        raise MetricsError(f"{len(outputs)} outputs for {len(originals)} originals: one each is needed")
    for a, b in zip(outputs, originals, strict=True):
        if a.shape[-2:] != b.shape[-2:]:
            raise MetricsError(f"an output is {_size(a)}, its original {_size(b)}: sizes must be equal")
    return zip(_batches(outputs), _batches(originals), strict=True)


def _size(picture: Tensor) -> str:
    return f"{picture.shape[-1]}x{picture.shape[-2]}"


def _batches(pictures: Pictures) -> Iterator[Tensor]:
    """Neighbors of one size, stacked: uint8 (B, C, H, W). The same sizes always give the same batches."""
    batch: list[Tensor] = []
    for picture in pictures:
        if picture.dtype != torch.uint8 or picture.ndim != 3:
            raise MetricsError(
                f"metrics take uint8 pictures (3, H, W), got {picture.dtype} {tuple(picture.shape)}; "
                "picture_from_rgb makes them from float rgb"
            )
        pixels = picture.shape[-1] * picture.shape[-2]
        if batch and (batch[0].shape != picture.shape or (len(batch) + 1) * pixels > CHUNK_PIXELS):
            yield torch.stack(batch)
            batch = []
        batch.append(picture)
    if batch:
        yield torch.stack(batch)


# The feature network -------------------------------------------------------------------------------


class _Fire(nn.Module):
    """Squeeze to few channels, expand by 1x1 and 3x3 side by side (Iandola et al. 2016, section 3.2)."""

    def __init__(self, channels: int, squeezed: int, expanded: int):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x).relu(), self.expand3x3(x).relu()], dim=1)


class SqueezeNetFeatures(nn.Module):
    """SqueezeNet 1.1 up to `features.12`, averaged over space: 8-bit pictures -> 512 numbers each.

    Input of the network is BGR, 0..255, minus (104, 117, 123); the first convolution has no padding and the
    pools round their size up. Pictures with a short side under 128 px are first enlarged (bicubic, clamped to
    0..255) until it is 192; a square becomes 192x192. Parameter names are torchvision's.
    """

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, stride=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            _Fire(64, 16, 64),
            _Fire(128, 16, 64),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            _Fire(128, 32, 128),
            _Fire(256, 32, 128),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            _Fire(256, 48, 192),
            _Fire(384, 48, 192),
            _Fire(384, 64, 256),
            _Fire(512, 64, 256),
        )
        self.register_buffer("mean", torch.tensor([104.0, 117.0, 123.0]).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    @classmethod
    def from_file(cls, path: str | Path) -> SqueezeNetFeatures:
        """Read the weights from a safetensors file; names and shapes must match exactly.

        Raises MetricsError when the file is missing, not safetensors, or of another network.
        """
        path = Path(path)
        if not path.is_file():
            raise MetricsError(
                f"no feature network at {path}: give a safetensors file of SqueezeNet 1.1 (torchvision's "
                "parameter names) with --features"
            )
        network = cls()
        try:
            network.load_state_dict(load_file(path), strict=True)
        except (SafetensorError, RuntimeError) as error:
            raise MetricsError(f"{path} does not hold the weights of SqueezeNet 1.1: {error}") from error
        return network

    @torch.inference_mode()
    def forward(self, pictures: Tensor) -> Tensor:
        """uint8 RGB (B, 3, H, W) -> float32 (B, 512)."""
        x = pictures.float()
        short = min(x.shape[-2:])
        if short < SHORT_SIDE:
            size = [round(side * ENLARGED_SIDE / short) for side in x.shape[-2:]]
            x = F.interpolate(x, size, mode="bicubic", align_corners=False).clamp(0, 255)
        return self.features(x.flip(1) - self.mean).mean((2, 3))

    def of(self, pictures: Pictures) -> Tensor:
        """Features of many pictures, in batches: -> float32 (N, 512)."""
        # 2^18 pixels per call keep the activations in cache on a CPU, and equal sizes give equal batches, so
        # equal pictures at equal places have bit-equal features.
        return torch.cat([self(part) for batch in _batches(pictures) for part in batch.split(32)])


# MMD^2 over half-splits ----------------------------------------------------------------------------


def polynomial_kernel(x: Tensor, y: Tensor) -> Tensor:
    """k(x, y) = (x.y / features + 1)^3: (n, d), (m, d) -> (n, m) float64."""
    return (x.double() @ y.double().T / x.shape[1] + 1) ** 3


def mmd2_unbiased(x: Tensor, y: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy of two samples, cubic kernel: (n, d), (m, d) -> a number.

    sum_{i != j} k(x_i, x_j) / n(n-1) + sum_{i != j} k(y_i, y_j) / m(m-1) - 2 mean k(x_i, y_j), which
    may be negative. Source: Gretton et al. 2012 (JMLR 13), equation 3.
    """
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise MetricsError(f"unbiased MMD^2 needs two pictures on each side, got {n} and {m}")
    inside = [(k.sum() - k.diagonal().sum()) for k in (polynomial_kernel(x, x), polynomial_kernel(y, y))]
    return float(inside[0] / (n * (n - 1)) + inside[1] / (m * (m - 1)) - 2 * polynomial_kernel(x, y).mean())


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


# Everything about one list of originals ------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """One system's outputs, one per photograph: (N,) float64 each, in the order of the list."""

    ciede2000: Tensor
    psnr: Tensor
    colorfulness: Tensor
    original_colorfulness: Tensor
    squeezenet_distance: Tensor
    kid: Estimate

    def means(self, first: int | None = None) -> dict[str, float]:
        """The metrics over the first photographs (default: all)."""
        part = slice(None, first)
        return {
            "ciede2000": float(self.ciede2000[part].mean()),
            "psnr": float(self.psnr[part].mean()),
            "colorfulness_ratio": float(
                self.colorfulness[part].mean() / self.original_colorfulness[part].mean()
            ),
            "squeezenet_distance": float(self.squeezenet_distance[part].mean()),
        }


@dataclass(frozen=True)
class CandidateScores:
    """Best of K and diversity of n photographs' candidates: (n,) float64 each, in the order of the list."""

    ciede2000: Tensor  # of the nearest candidate
    squeezenet_distance: Tensor  # of the nearest one in features, maybe another
    diversity: Tensor  # mean feature distance between consecutive candidates

    def means(self) -> dict[str, float]:
        return {field.name: float(getattr(self, field.name).mean()) for field in fields(self)}

    def minus(self, other: CandidateScores) -> dict[str, tuple[float, float, float]]:
        """Mean difference on the same photographs, and its 95 % interval by the normal distribution."""
        found = {}
        for field in fields(self):
            more = getattr(self, field.name) - getattr(other, field.name)
            half = 1.96 * float(more.std()) / len(more) ** 0.5
            found[field.name] = (float(more.mean()), float(more.mean()) - half, float(more.mean()) + half)
        return found


class Reference:
    """The originals of an evaluation, measured once, and the half-splits that every system shares.

    A feature that is constant over the originals has no deviation to divide by and is left out; `used` counts
    the others (512 for any real list).
    """

    def __init__(self, originals: Pictures, network: SqueezeNetFeatures, *, splits: int = 20, seed: int = 0):
        self.originals, self.network = originals, network
        self.splits = HalfSplits(len(originals), splits=splits, seed=seed)
        features = network.of(originals).double()
        deviation = features.std(0)
        self.scale = torch.where(deviation > 0, 1 / deviation, 0.0)
        self.used = int((deviation > 0).sum())
        self.features = features * self.scale
        self.colorfulness = colorfulness(originals)

    def features_of(self, pictures: Pictures) -> Tensor:
        """Standardized features: -> (N, 512) float64."""
        return self.network.of(pictures).double() * self.scale

    def score(self, outputs: Pictures) -> Scores:
        """All metrics of one output per photograph, in the originals' order and sizes."""
        features = self.features_of(outputs)
        return Scores(
            ciede2000=ciede2000(outputs, self.originals),
            psnr=psnr(outputs, self.originals),
            colorfulness=colorfulness(outputs),
            original_colorfulness=self.colorfulness,
            squeezenet_distance=(features - self.features).norm(dim=1),
            kid=self.splits.kid(self.features, features),
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
        # One candidate of every photo at a time: equal candidates then have bit-equal features.
        features = torch.stack([self.features_of(pictures) for pictures in drawn], dim=1)
        differences = torch.stack([ciede2000(pictures, originals) for pictures in drawn], dim=1)
        distances = (features - self.features[:n, None]).norm(dim=2)
        return CandidateScores(
            ciede2000=differences.amin(1),
            squeezenet_distance=distances.amin(1),
            diversity=(features[:, 1:] - features[:, :-1]).norm(dim=2).mean(1),
        )


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
    spread = ranks[0].norm() * ranks[1].norm()
    return float(ranks[0] @ ranks[1] / spread) if spread else 0.0
