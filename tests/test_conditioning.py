"""What conditioning augmentation does to chroma, and how much of it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stages.corruptions.conditioning import disturbed_chroma, stray_detail


def disturbed(chroma: Tensor, strength: float, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return disturbed_chroma(chroma, strength)


def some_chroma(batch: int = 4, height: int = 16, width: int = 16) -> Tensor:
    torch.manual_seed(99)
    return 0.1 * torch.randn(batch, 2, height, width)


def test_strength_zero_changes_nothing():
    chroma = some_chroma()
    state = torch.get_rng_state()
    assert disturbed_chroma(chroma, 0) is chroma
    assert torch.equal(state, torch.get_rng_state())  # and draws nothing


def test_a_quarter_stays_untouched():
    chroma = some_chroma(2000, 4, 4)
    out = disturbed(chroma, 0.04)
    untouched = (out == chroma).flatten(1).all(1)
    assert 0.21 < untouched.float().mean() < 0.29  # four standard errors around 1/4
    assert not (out == chroma).flatten(1).any(1)[~untouched].any()  # a picture is taken as a whole or left


@pytest.mark.parametrize("strength", [0.01, 0.04])
def test_noise_is_bounded_in_strength(strength):
    # A flat chroma has nothing to blur: all that comes is noise.
    flat = torch.full((600, 2, 16, 16), 0.07)
    error = disturbed(flat, strength) - flat
    deviation = error.flatten(1).square().mean(1).sqrt()
    # The bound holds for the standard deviation a picture is drawn with; the coarsest grain has few draws per picture.
    assert deviation.max() < 1.5 * strength
    assert 0.15 * strength < deviation[deviation > 0].median() < 0.6 * strength
    assert error.mean().abs() < 0.02 * strength  # no tint of its own
    assert (error[:, 0] * error[:, 1]).mean().abs() < 0.1 * error.square().mean()  # Cb and Cr apart


def test_noise_reaches_its_strength_and_no_more(monkeypatch):
    """With every amount and share at its largest the standard deviation of each pixel is at most the strength."""
    monkeypatch.setattr(torch, "rand", lambda *shape: torch.full(shape, 1.0))
    flat = torch.zeros(4000, 2, 8, 8)
    deviation = disturbed(flat, 0.04).std(0)
    assert deviation.max() < 1.06 * 0.04
    assert deviation.max() > 0.7 * 0.04


def test_noise_has_several_grains():
    flat = torch.zeros(800, 2, 32, 32)
    error = disturbed(flat, 0.04)
    power = error.square().mean()
    for grain in (2, 4, 8):  # single-pixel noise alone would keep 1 / grain^2 of its power
        assert F.avg_pool2d(error, grain).square().mean() > 2 / grain**2 * power
    assert (error[..., 1:] - error[..., :-1]).square().mean() > 0.2 * power  # and there is noise of single pixels


def test_blur_softens_edges():
    edge = torch.zeros(200, 2, 12, 12)
    edge[..., 6:] = 0.2
    out = disturbed(edge, 1e-9)  # no noise to speak of
    step = (out[..., 6] - out[..., 5]).mean((1, 2))
    assert step.max() == pytest.approx(0.2, abs=1e-6) and step.min() < 0.1
    assert out.min() > -1e-6 and out.max() < 0.2 + 1e-6
    assert (out[..., 0] - 0).abs().max() < 1e-6 and (out[..., -1] - 0.2).abs().max() < 1e-6  # the border does not fade


@pytest.mark.parametrize("size", [(64, 64), (7, 13), (1, 1)])
def test_deterministic_and_any_size(size):
    chroma = some_chroma(8, *size)
    first = disturbed(chroma, 0.04, seed=3)
    assert first.shape == chroma.shape and first.isfinite().all()
    assert torch.equal(first, disturbed(chroma, 0.04, seed=3))
    assert not torch.equal(first, disturbed(chroma, 0.04, seed=4))


def test_every_call_draws_its_own_noise():
    flat = torch.zeros(300, 2, 8, 8)
    first, second = disturbed(flat, 0.04, seed=3), disturbed(flat, 0.04, seed=4)
    assert (first * second).mean().abs() < 0.05 * first.square().mean()
    assert (first[1:] * first[:-1]).mean().abs() < 0.05 * first.square().mean()  # and every picture of a batch


def test_stray_detail_is_a_share_of_the_grays_detail():
    torch.manual_seed(0)
    flat = torch.full((3, 1, 24, 40), 0.3)
    assert stray_detail(flat, 1.0, 0.0).abs().max() < 1e-6  # nothing fine, nothing to stray
    gray = torch.rand(500, 1, 24, 40)
    stray = stray_detail(gray, 0.2, 0.0)
    assert stray.shape == (500, 2, 24, 40)
    detail = gray - F.avg_pool2d(gray, 9, 1, 4, count_include_pad=False)
    fine = gray - F.avg_pool2d(gray, 3, 1, 1, count_include_pad=False)
    assert (stray.abs() <= 5 * 0.2 * (detail.abs() + fine.abs()) + 1e-6).all()  # five standard deviations
    # Each share is the product of a uniform amount (mean square 1/3) and interpolated normal draws (0.4 to 1).
    power = stray.square().mean() / (0.2**2 * (detail.square().mean() + fine.square().mean()))
    assert 0.4 / 3 < power < 1 / 3
    assert stray.mean().abs() < 1e-3 and (stray[:, 0] * stray[:, 1]).mean().abs() < 0.1 * stray.square().mean()
    near = (stray * detail).mean((2, 3))  # one sign in a place, as an edge that is read wrongly has
    assert near.square().mean() > 0.01 * stray.square().mean() * detail.square().mean()


def test_a_share_of_the_pictures_gets_no_stray_detail():
    torch.manual_seed(0)
    stray = stray_detail(torch.rand(2000, 1, 8, 8), 0.2, 0.3)
    assert 0.26 < (stray == 0).flatten(1).all(1).float().mean() < 0.34  # four standard errors around 0.3
