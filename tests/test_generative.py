"""Numbers of generated pictures: closed forms, and scipy's square root of a matrix."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from stages.evaluation.generative import (
    best_of,
    class_accuracy,
    consecutive_diversity,
    frechet_distance,
    inception_score,
    perceptual_distance,
)
from stages.evaluation.pixel import MetricsError


@pytest.mark.parametrize("count, width", [(200, 16), (12, 40), (50, 1)])
def test_frechet_distance_against_its_formula(count, width):
    torch.manual_seed(0)
    one, other = torch.randn(count, width), 0.5 + torch.randn(count + 3, width) @ torch.randn(width, width)
    m1, m2 = (x.double().numpy().mean(0) for x in (one, other))
    s1, s2 = (np.atleast_2d(np.cov(x.double().numpy().T)) for x in (one, other))
    root = sqrtm(s1 @ s2 + 1e-10 * np.eye(width)).real
    expected = ((m1 - m2) ** 2).sum() + np.trace(s1 + s2 - 2 * root)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-3)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(one, one + 2) == pytest.approx(4 * width, rel=1e-6)


def test_frechet_distance_of_halves_falls_with_their_size():
    torch.manual_seed(0)
    features = torch.randn(4000, 16)
    distances = [frechet_distance(features[:n], features[2000 : 2000 + n]) for n in (50, 300, 2000)]
    assert distances[0] > distances[1] > distances[2] > 0


def test_inception_score_in_closed_form():
    sure = torch.eye(10).repeat(20, 1)
    assert inception_score(sure, splits=1) == (pytest.approx(10), 0.0)
    assert inception_score(torch.full((40, 10), 0.1))[0] == pytest.approx(1)
    assert inception_score(sure[:, [0] * 10] * 0 + torch.eye(10)[0], splits=4) == (pytest.approx(1), 0.0)
    half = torch.tensor([[0.75, 0.25], [0.25, 0.75]]).repeat(10, 1)
    expected = math.exp(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert inception_score(half, splits=5) == (pytest.approx(expected), pytest.approx(0, abs=1e-12))
    with pytest.raises(MetricsError, match="sum to 1"):
        inception_score(torch.ones(10, 4))


def test_accuracy_distance_diversity_and_best():
    scores = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    assert class_accuracy(scores, torch.tensor([1, 0, 0])) == pytest.approx(2 / 3)
    assert perceptual_distance(torch.zeros(2, 2), torch.tensor([[3.0, 4.0], [0.0, 1.0]])) == 3
    draws = torch.tensor([[[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]]])
    assert consecutive_diversity(draws) == 2.5
    assert consecutive_diversity(draws[:, :1].expand(-1, 3, -1)) == 0
    values = torch.tensor([[1.0, 5.0], [4.0, 2.0]])
    assert best_of(values, largest=True) == 4.5 and best_of(values, largest=False) == 1.5


@pytest.mark.parametrize("call", [
    lambda: frechet_distance(torch.zeros(1, 4), torch.zeros(9, 4)),
    lambda: frechet_distance(torch.zeros(9, 4), torch.zeros(9, 5)),
    lambda: inception_score(torch.full((5, 2), 0.5)),
    lambda: class_accuracy(torch.zeros(3, 2), torch.zeros(2)),
    lambda: perceptual_distance(torch.zeros(3, 2), torch.zeros(2, 2)),
    lambda: consecutive_diversity(torch.zeros(3, 1, 2)),
    lambda: best_of(torch.zeros(0, 2), True),
])  # fmt: skip
def test_what_does_not_fit(call):
    with pytest.raises(MetricsError, match="got"):
        call()
