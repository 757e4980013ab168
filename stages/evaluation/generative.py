"""What is measured of generated pictures from features and class probabilities, whichever network gave them.

The functions know no network: whoever reports a number names it after the network of its features, and says crop,
resize, format, number and split of the pictures beside it (docs/research/image-to-image.md). "FID" is the Fréchet
distance of the pool features of one Inception file and of nothing else.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stages.evaluation.pixel import MetricsError

__all__ = ["best_of", "class_accuracy", "consecutive_diversity", "frechet_distance", "inception_score",
           "perceptual_distance"]  # fmt: skip


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """Squared Fréchet distance of the Gaussians that fit two sets of features (N, D), (M, D); in float64.

    |m1 - m2|² + tr(S1 + S2 - 2 (S1 S2)^(1/2)), Heusel et al. 2017 (arXiv 1706.08500). Biased in N and M: they must be
    the same wherever distances are compared. Raises MetricsError for fewer than two pictures, or other widths.
    """
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1] or min(len(one), len(other)) < 2:
        raise MetricsError(
            f"features must be (N, D) and (M, D), N and M at least 2; got {tuple(one.shape)} and {tuple(other.shape)}"
        )
    one, other = one.double(), other.double()
    covariances = [torch.atleast_2d(torch.cov(features.T)) for features in (one, other)]
    # tr (S1 S2)^(1/2) is the sum of the singular values of S1^(1/2) S2^(1/2), which needs no root of a product.
    roots = [_root(covariance) for covariance in covariances]
    shared = torch.linalg.svdvals(roots[0] @ roots[1]).sum()
    moved = (one.mean(0) - other.mean(0)).square().sum()
    return float((moved + covariances[0].trace() + covariances[1].trace() - 2 * shared).clamp_min(0))


def inception_score(probabilities: Tensor, splits: int = 10) -> tuple[float, float]:
    """exp of the mean KL(p(y | x) || p(y)) (Salimans et al. 2016, arXiv 1606.03498): mean and standard deviation over
    splits, which are cut in the order of the pictures.

    probabilities: (N, classes), rows sum to 1
    """
    if probabilities.ndim != 2 or splits < 1 or len(probabilities) < splits:
        raise MetricsError(f"probabilities must be (N, classes), N at least {splits}; got {tuple(probabilities.shape)}")
    if not torch.allclose(probabilities.sum(1), torch.ones(len(probabilities)).to(probabilities), atol=1e-3):
        raise MetricsError("each row of probabilities must sum to 1")
    scores = []
    for part in probabilities.double().tensor_split(splits):
        ratio = part.clamp_min(1e-300).log() - part.mean(0).clamp_min(1e-300).log()
        scores.append((part * ratio).sum(1).mean().exp())
    values = torch.stack(scores)
    return float(values.mean()), float(values.std(correction=0))


def class_accuracy(scores: Tensor, labels: Tensor) -> float:
    """Share of pictures whose highest score (N, classes) is that of their label (N,)."""
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or len(scores) == 0:
        shapes = f"{tuple(scores.shape)} and {tuple(labels.shape)}"
        raise MetricsError(f"scores must be (N, classes) and labels (N,); got {shapes}")
    return float((scores.argmax(1) == labels).double().mean())


def perceptual_distance(outputs: Tensor, originals: Tensor) -> float:
    """Mean Euclidean distance of the features of outputs and of their originals, (N, D) both: Palette's PD."""
    if outputs.ndim != 2 or outputs.shape != originals.shape or len(outputs) == 0:
        raise MetricsError(f"features must be (N, D) twice; got {tuple(outputs.shape)} and {tuple(originals.shape)}")
    return float((outputs.double() - originals.double()).norm(dim=1).mean())


def consecutive_diversity(draws: Tensor) -> float:
    """Mean Euclidean distance of the features (N, K, D) of consecutive draws of a picture, over pictures and pairs."""
    if draws.ndim != 3 or draws.shape[1] < 2:
        raise MetricsError(f"features of draws must be (N, K, D), K at least 2; got {tuple(draws.shape)}")
    return float(draws.double().diff(dim=1).norm(dim=2).mean())


def best_of(values: Tensor, largest: bool) -> float:
    """Mean over pictures of the best of K values, (N, K). largest: as for PSNR; else as for a distance."""
    if values.ndim != 2 or values.numel() == 0:
        raise MetricsError(f"values must be (N, K); got {tuple(values.shape)}")
    return float((values.amax(1) if largest else values.amin(1)).double().mean())


def _root(covariance: Tensor) -> Tensor:
    """The symmetric root of a covariance, whose smallest eigenvalues may round below 0."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp_min(0).sqrt() @ vectors.T
