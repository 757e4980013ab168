from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from stages.stage import Stage
from stages.training.ema import Averaged, exponent_of, half_life, power


class Number(Stage):
    """One parameter and one buffer."""

    family, kind, config_class = "coarse", "number", type(None)
    steps: torch.Tensor

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.value = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros(1))


def value_of(averaged: Averaged) -> float:
    assert isinstance(averaged.stage, Number)
    return averaged.stage.value.item()


def shape_of(keep: Callable[[int, int], float], steps: int, batch: int = 10) -> np.ndarray:
    """How much the weights after each step count at the end."""
    shares = np.zeros(steps)
    for step in range(steps):
        kept = keep(batch, batch * (step + 1))
        shares *= kept
        shares[step] = 1 - kept
    return shares


def test_an_average_follows_its_closed_form():
    stage = Number()
    averaged = Averaged(stage, half_life(100))
    nn.init.ones_(stage.value)
    share = 1.0
    for step in range(1, 40):
        averaged.update(stage, 10, seen=10 * step)
        share *= 0.5 ** (10 / min(100, step))  # a tenth of what was seen, at most the half-life
        assert value_of(averaged) == pytest.approx(1 - share, abs=1e-12)
    nn.init.constant_(stage.value, 3.0)
    for _ in range(10):
        averaged.update(stage, 10, seen=100_000)
    assert value_of(averaged) == pytest.approx(3 - (2 + share) / 2, abs=1e-12)


def test_an_average_is_for_use_and_has_the_newest_buffers():
    stage = Number().train()
    averaged = Averaged(stage, half_life(100))
    stage.steps += 7
    averaged.update(stage, 10, 10)
    assert isinstance(averaged.stage, Number) and averaged.stage.steps == 7
    assert not averaged.stage.training and not averaged.stage.value.requires_grad and stage.value.requires_grad


@pytest.mark.parametrize("width", [0.02, 0.05, 0.1, 0.2])
def test_a_power_function_has_its_width_at_every_length(width):
    """Its shape is t^gamma, and the standard deviation of that is the width."""
    gamma = exponent_of(width)
    for steps in (2000, 6000):
        shares, time = shape_of(power(width), steps), (np.arange(steps) + 1) / steps
        assert shares.sum() == pytest.approx(1)
        mean = (shares * time).sum()
        assert mean == pytest.approx((gamma + 1) / (gamma + 2), abs=2e-3)
        assert np.sqrt((shares * (time - mean) ** 2).sum()) == pytest.approx(width, rel=2e-2)
        middle, later = steps // 2, 3 * steps // 4
        assert shares[later] / shares[middle] == pytest.approx(1.5**gamma, rel=2e-2)


def test_published_exponents():
    """EDM2's text: gamma is 6.94 at a width of 0.10 and 16.97 at 0.05."""
    assert exponent_of(0.10) == pytest.approx(6.94, abs=5e-3)
    assert exponent_of(0.05) == pytest.approx(16.97, abs=5e-3)


def test_the_first_step_of_a_power_function_takes_the_weights():
    stage = Number()
    averaged = Averaged(stage, power(0.1))
    nn.init.constant_(stage.value, 5.0)
    averaged.update(stage, 10, 10)
    assert value_of(averaged) == 5


@pytest.mark.parametrize("width", [0, -0.1, 0.3, 1])
def test_widths_that_no_power_function_has(width):
    with pytest.raises(ValueError, match=f"between 0 and 0.289 of the run; got {width}"):
        power(width)
