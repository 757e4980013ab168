"""Networks that generated pictures are measured with, each given by path, and what their figures are called.

A figure carries the name of the network that it was made with. "fid" is the Fréchet distance of pool features of
pytorch-fid's Inception file, and its SHA-256 is looked at; of any other file of this layout it is
"inception_v3_frechet".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from stages.checkpoint import sha256_of
from stages.evaluation.classifiers import CLASSES, classifier_of
from stages.evaluation.generative import (
    best_of,
    class_accuracy,
    consecutive_diversity,
    frechet_distance,
    inception_score,
    perceptual_distance,
)
from stages.evaluation.inception import FID_FILE, InceptionV3
from stages.evaluation.pixel import MetricsError, PictureList, same_size_batches

__all__ = ["Judge", "Judgement", "Seen", "classifier_judge", "inception_judge", "score_splits"]

BATCH = 16  # pictures that a network sees at once
SPLITS = 10  # of the inception score, where each has a hundred pictures


@dataclass(frozen=True)
class Seen:
    """What a network makes of N pictures: features (N, D) or None, probabilities of classes (N, C)."""

    features: Tensor | None
    probabilities: Tensor


@dataclass(frozen=True)
class Judge:
    """name: how names of its figures begin; frechet: what the Fréchet distance of its features is called
    look: uint8 pictures (B, 3, H, W) -> features (B, D) or None, scores of classes (B, C)
    knows_imagenet: whether its classes are ImageNet's 1000, in their order
    about: for results.json
    """

    name: str
    frechet: str
    look: Callable[[Tensor], tuple[Tensor | None, Tensor]]
    knows_imagenet: bool
    about: dict[str, Any]

    def see(self, pictures: PictureList) -> Seen:
        parts = [self.look(part) for batch in same_size_batches(pictures) for part in batch.split(BATCH)]
        features = [part for part, _ in parts if part is not None]
        probabilities = torch.cat([scores for _, scores in parts]).double().softmax(1)
        return Seen(torch.cat(features) if features else None, probabilities)


class Judgement:
    """Figures of one judge on one list of photographs.

    originals: of the outputs; real: other photographs, which Fréchet distances are to
    classes: (N,) number of the class of each original, -1 where it is not known; None: no accuracy is measured
    """

    def __init__(self, judge: Judge, originals: PictureList, real: PictureList, classes: Tensor | None = None):
        self.judge, self.originals, self.real = judge, judge.see(originals), judge.see(real)
        self.classes = classes if judge.knows_imagenet else None

    def of(self, outputs: PictureList) -> dict[str, float]:
        """Of one output per original, in their order."""
        name, seen = self.judge.name, self.judge.see(outputs)
        figures: dict[str, float] = {}
        if seen.features is not None and self.real.features is not None and self.originals.features is not None:
            figures[self.judge.frechet] = frechet_distance(seen.features, self.real.features)
            figures[f"{name}_distance"] = perceptual_distance(seen.features, self.originals.features)
        score, deviation = inception_score(seen.probabilities, score_splits(len(outputs)))
        figures |= {f"{name}_score": score, f"{name}_score_deviation": deviation}
        if self.classes is not None:
            known = self.classes >= 0
            figures[f"{name}_accuracy"] = class_accuracy(seen.probabilities[known], self.classes[known])
        return figures

    def of_draws(self, draws: Tensor) -> dict[str, float]:
        """Diversity, and the best of K, of uint8 draws (n, K, 3, H, W) of the first n originals."""
        seen = [self.judge.see(draws[:, k]).features for k in range(draws.shape[1])]
        features = [one for one in seen if one is not None]
        if not features or self.originals.features is None:
            return {}
        drawn = torch.stack(features, dim=1).double()
        distances = (drawn - self.originals.features[: len(draws), None].double()).norm(dim=2)
        return {
            f"{self.judge.name}_distance": best_of(distances, largest=False),
            f"{self.judge.name}_diversity": consecutive_diversity(drawn),
        }


def score_splits(count: int) -> int:
    """Parts that an inception score of `count` pictures is the mean over."""
    return SPLITS if count >= 100 * SPLITS else 1


def inception_judge(path: Path) -> Judge:
    """The Inception-v3 of a file, see `InceptionV3`. Raises MetricsError where it holds anything else."""
    network = InceptionV3()
    _load(path, "Inception-v3 of Fréchet inception distances, pytorch-fid's names", network.load_state_dict)
    digest = sha256_of(path)
    own = digest.startswith(FID_FILE)
    about = {"sha256": digest, "resize": "bilinear, not antialiased, to 299x299", "is_the_fid_file": own}
    name, frechet = ("inception", "fid") if own else ("inception_v3", "inception_v3_frechet")
    return Judge(name, frechet, network, False, about)


def classifier_judge(path: Path) -> Judge:
    """The classifier of a file, see `classifier_of`. Raises MetricsError where it holds anything else."""
    network = _load(path, "a classifier", classifier_of)
    about = {"sha256": sha256_of(path), "resize": "bilinear, antialiased, to a short side of 256; central 224x224"}
    return Judge(network.name, "", lambda pictures: (None, network(pictures)), True, about)


def imagenet_classes(path: Path, labels: list[str]) -> Tensor:
    """Numbers of classes by their WordNet ids, -1 for the label "": (N,) int64.

    path: text of 1000 lines that begin with the ids, in the order of the classes (ImageNet's LOC_synset_mapping.txt)
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MetricsError(f"{path} can not be read as a list of classes: {error}") from error
    numbers = {line.split()[0]: number for number, line in enumerate(lines) if line.strip()}
    unknown = sorted({label for label in labels if label} - numbers.keys())
    if len(numbers) != CLASSES or unknown:
        raise MetricsError(
            f"{path} must have {CLASSES} lines that begin with the WordNet id of a class; got {len(numbers)} ids, and "
            f"of the photographs' classes it lacks {', '.join(unknown[:3]) or 'none'}"
        )
    return torch.tensor([numbers[label] if label else -1 for label in labels])


def _load(path: Path, what: str, use: Callable[[dict[str, Tensor]], Any]) -> Any:  # Any: what `use` gives
    """`use` of the tensors in a safetensors file, or in a state dict of torch.save, of which only tensors are read."""
    if not path.is_file():
        raise MetricsError(f"no file {path}; it must hold {what}")
    try:
        if path.suffix == ".safetensors":
            weights = load_file(path)
        else:
            weights = torch.load(path, weights_only=True, map_location="cpu")
            if not isinstance(weights, dict) or not all(isinstance(one, Tensor) for one in weights.values()):
                raise MetricsError(f"{path} must hold a state dict, names and tensors")
        return use({name: one for name, one in weights.items() if not name.endswith("num_batches_tracked")})
    except (SafetensorError, UnpicklingError, RuntimeError, ValueError, KeyError, EOFError) as error:
        raise MetricsError(f"{path} does not hold the weights of {what}: {str(error)[:500]}") from error
