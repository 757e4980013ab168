"""Corrections between steps: what they promise exactly, and the distribution that a corrector must leave alone."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stages.diffusion import (
    SAMPLERS,
    LinearSchedule,
    chained,
    draw_noise,
    ilvr,
    karras_sigmas,
    keep_known,
    langevin,
    sample_ancestral,
    sample_ddim,
)
from stages.diffusion.noise import ve_from_vp, vp_from_ve

STD = 0.5  # of the Gaussian data
EVERY = pytest.mark.parametrize("sample", [*SAMPLERS.values(), partial(sample_ddim, eta=1.0), sample_ancestral])


def gaussian(x: Tensor, sigma: Tensor) -> Tensor:
    """The exact denoiser of N(0, STD²)."""
    return x * STD**2 / (STD**2 + sigma**2)


def seeded(seed: int = 0, dtype: torch.dtype = torch.float64):
    return partial(draw_noise, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def level(sigma: float) -> Tensor:
    return torch.tensor(sigma, dtype=torch.float64)


def box(x: Tensor, factor: int = 4) -> Tensor:
    """Means of squares: a linear projection."""
    return F.interpolate(F.avg_pool2d(x, factor), scale_factor=factor, mode="nearest")


def bicubic(x: Tensor, factor: int = 4) -> Tensor:
    """ILVR's own low pass: linear, not a projection."""
    small = F.interpolate(x, scale_factor=1 / factor, mode="bicubic", antialias=True)
    return F.interpolate(small, scale_factor=float(factor), mode="bicubic", antialias=True)


# --- Langevin


@pytest.mark.parametrize("snr, annealed", [(0.16, False), (0.4, False), (0.16, True), (0.6, True)])
@pytest.mark.parametrize("start", [0.5, 1.0, 1.6])
def test_variance_after_each_langevin_step(snr, annealed, start):
    """Closed-form recursion for x ~ N(0, u V), V = STD² + sigma²: a step e makes u V into (1 - e / V)² u V + 2 e."""
    sigma = 0.8
    target = STD**2 + sigma**2
    noise = seeded()
    x = noise((4, 200_000)) * math.sqrt(start * target)
    variance = start * target
    for steps in (1, 3):
        x = langevin(snr, steps, annealed=annealed)(x, gaussian, level(sigma + 1), level(sigma), noise)
        for _ in range(steps):
            # |z|² / |score|² -> 1 / (variance / V²)
            e = 2 * snr**2 * (sigma**2 if annealed else target**2 / variance)
            variance = (1 - e / target) ** 2 * variance + 2 * e
        torch.testing.assert_close(x.var(dim=1), torch.full((4,), variance).double(), rtol=0.015, atol=0)


@pytest.mark.parametrize("annealed", [False, True])
def test_langevin_draws_x_to_the_noisy_data_and_leaves_it_there(annealed):
    sigma, snr = 0.8, 0.1
    target, noise = STD**2 + sigma**2, seeded()
    far = 3 + 0.1 * noise((2, 100_000))
    for begin in (far, noise((2, 100_000)) * math.sqrt(target)):
        # Without norms the step knows nothing of how far x is; both need a few relaxation times.
        end = langevin(snr, 500, annealed=annealed)(begin, gaussian, level(1.0), level(sigma), noise)
        # The bias of a finite step: V (1 + snr²), and V / (1 - e / 2 V) for a fixed one
        bias = 1 / (1 - (snr * sigma) ** 2 / target) if annealed else 1 + snr**2
        assert end.var(dim=1).tolist() == pytest.approx([target * bias] * 2, rel=0.015)
        assert end.mean(dim=1).abs().max() < 0.02


def test_a_row_is_corrected_as_it_would_be_alone():
    x, sigma = torch.randn(3, 2, 8, 8) * torch.tensor([0.1, 1.0, 30.0]).view(3, 1, 1, 1), level(0.5)
    rows = [torch.Generator().manual_seed(s) for s in (1, 2, 3)]
    together = langevin()(x, gaussian, level(1.0), sigma, partial(draw_noise, generator=rows))
    for i in range(3):
        alone = partial(draw_noise, generator=[torch.Generator().manual_seed(i + 1)])
        torch.testing.assert_close(together[i : i + 1], langevin()(x[i : i + 1], gaussian, level(1.0), sigma, alone))


@EVERY
@pytest.mark.parametrize("order", ["predictor-corrector", "corrector-predictor"])
def test_both_orders_of_predictor_and_corrector(sample, order):
    """The same as calling the corrector between one-step runs of the predictor, where the order says."""
    sigmas, corrector = [4.0, 1.0, 0.3, 0.0], langevin(0.2, 2, order="corrector-predictor")
    start = torch.linspace(-9, 9, 30, dtype=torch.float64).view(2, 15)
    end = sample(gaussian, start, sigmas, noise=seeded(), correct=langevin(0.2, 2, order=order))
    x, noise = start, seeded()
    for i, (sigma, lower) in enumerate(zip(sigmas, sigmas[1:], strict=False)):
        if i or order == "corrector-predictor":
            x = corrector(x, gaussian, level(sigma), level(sigma), noise)
        x = sample(gaussian, x, [sigma, lower], noise=noise)
    torch.testing.assert_close(end, x)
    plain = sample(gaussian, start, sigmas, noise=seeded())
    assert not torch.allclose(end, plain)


def test_the_corrector_costs_its_steps_and_nothing_at_the_ends():
    asked = []

    def denoise(x, sigma):
        asked.append(sigma.item())
        return gaussian(x, sigma)

    cases: list[tuple[Any, list[int]]] = [
        ("predictor-corrector", [4, 1, 1, 1]), ("corrector-predictor", [4, 4, 4, 1, 1, 1])
    ]  # fmt: skip
    for order, expected in cases:
        asked.clear()
        sample_ddim(denoise, torch.ones(2, 3), [4.0, 1.0, 0.0], noise=torch.randn, correct=langevin(0.1, 2, order))
        assert asked == expected
    for wrong, match in (({"snr": 0.0}, "snr > 0"), ({"steps": 0}, "steps >= 1"), ({"order": "both"}, "order must be")):
        with pytest.raises(ValueError, match=match):
            langevin(**wrong)


# --- ILVR


@EVERY
def test_the_low_pass_of_the_result_is_that_of_the_reference(sample):
    reference, sigmas = torch.rand(2, 3, 16, 16, dtype=torch.float64), karras_sigmas(6, sigma_max=10.0)
    start = seeded(1)((2, 3, 16, 16)) * 10
    end = sample(gaussian, start, sigmas, noise=seeded(), correct=ilvr(reference, box))
    torch.testing.assert_close(box(end), box(reference))
    assert (end - box(end)).abs().max() > 0.01
    assert (box(sample(gaussian, start, sigmas, noise=seeded())) - box(reference)).abs().max() > 0.1
    same = sample(gaussian, start, sigmas, noise=seeded(), correct=ilvr(reference, lambda x: x))
    torch.testing.assert_close(same, reference)  # a low pass that keeps all
    tint = sample(gaussian, start, sigmas, noise=seeded(), correct=ilvr(reference, partial(box, factor=16)))
    torch.testing.assert_close(tint.mean((2, 3)), reference.mean((2, 3)))


def test_the_luma_of_a_picture_is_a_low_pass_too():
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).view(1, 3, 1, 1)

    def luma(x: Tensor) -> Tensor:
        return weights * (weights * x).sum(1, keepdim=True) / weights.square().sum()

    gray, start = torch.rand(2, 1, 8, 8, dtype=torch.float64), torch.randn(2, 3, 8, 8, dtype=torch.float64) * 5
    correct = ilvr(gray.expand(-1, 3, -1, -1), luma)
    end = sample_ddim(gaussian, start, karras_sigmas(5, sigma_max=5.0), noise=seeded(), correct=correct)
    torch.testing.assert_close((weights * end).sum(1, keepdim=True), gray)


@pytest.mark.parametrize("lagging", [False, True])
@pytest.mark.parametrize("free", [0, 1, 7])
def test_ilvr_against_its_algorithm_in_vp_form(lagging, free):
    """DDPM in VP form, then phi(y) + x - phi(x), as in the paper or, lagging, in the authors' code."""
    schedule, shape = LinearSchedule(25, 1e-3, 0.3), (2, 3, 16, 16)
    reference, network = torch.rand(shape, dtype=torch.float64), torch.tanh
    x = start = seeded(1)(shape)
    noise = seeded(2)
    for t in range(24, -1, -1):
        beta, gamma = schedule.betas[t], schedule.gammas[t]
        before = schedule.gammas[t - 1] if t else torch.ones((), dtype=torch.float64)
        x0 = network(x)
        x = (before.sqrt() * beta * x0 + (1 - beta).sqrt() * (1 - before) * x) / (1 - gamma)
        if t:
            x = x + (beta * (1 - before) / (1 - gamma)).sqrt() * noise(shape)
        if t >= free:
            own = gamma if lagging else before
            y = own.sqrt() * reference + ((1 - own).sqrt() * noise(shape) if own < 1 else 0)
            x = bicubic(y) + x - bicubic(x)
    sigmas = schedule.sigmas()
    until = 0.0 if free == 0 else sigmas[25 - free].item()
    end = sample_ancestral(
        lambda x, sigma: network(vp_from_ve(x, sigma)), ve_from_vp(start, sigmas[0]), sigmas, noise=seeded(2),
        correct=ilvr(reference, bicubic, until, lagging),
    )  # fmt: skip
    torch.testing.assert_close(end, x, rtol=1e-9, atol=1e-9)


def test_ilvr_leaves_the_start_and_what_is_below_its_range_alone():
    x, correct = torch.randn(1, 1, 8, 8), ilvr(torch.zeros(1, 1, 8, 8), box, until=0.5)
    assert correct(x, gaussian, level(3.0), level(3.0), torch.randn) is x
    assert correct(x, gaussian, level(0.5), level(0.4), torch.randn) is x
    assert correct(x, gaussian, level(0.6), level(0.5), torch.randn) is not x
    late = ilvr(torch.zeros(1, 1, 8, 8), box, since=2.0)
    assert late(x, gaussian, level(2.1), level(1.9), torch.randn) is x
    assert late(x, gaussian, level(2.0), level(1.9), torch.randn) is not x
    for until, since in ((-1.0, 2.0), (1.0, 0.5)):
        with pytest.raises(ValueError, match="noise levels, 0 <= until <= since"):
            ilvr(x, box, until, since=since)


# --- known pixels


@EVERY
@pytest.mark.parametrize("noised", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_known_pixels_are_kept_to_the_bit(sample, noised, dtype):
    known, mask = torch.rand(3, 8, 8, dtype=dtype), torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[..., :3] = True
    levels = []

    def watch(step, sigma, x, x0):
        inside = x[:, :, :, :3]
        if noised:
            std = (inside - known[:, :, :3]).std().item()
            assert std == pytest.approx(sigma, rel=0.15, abs=1e-12)
        else:
            torch.testing.assert_close(vp_from_ve(inside, sigma), known[:, :, :3].expand_as(inside))
        levels.append(sigma)

    start, sigmas = torch.randn(4, 3, 8, 8, dtype=dtype) * 10, karras_sigmas(6, 0.05, 10.0)
    run = partial(sample, gaussian, start, sigmas, noise=seeded(dtype=dtype))
    end = run(watch, correct=keep_known(known, mask, noised))
    wide = mask.expand_as(end)
    assert torch.equal(end[wide], known.expand_as(end)[wide]) and end.dtype == dtype and len(levels) == 6
    assert not torch.equal(end[wide], run()[wide])
    if sample is not sample_ancestral and not isinstance(sample, partial) and not noised:
        first_order = SAMPLERS["ddim"] if sample is SAMPLERS["dpmpp_2m"] else sample  # it forgets at each step
        torch.testing.assert_close(end[~wide], first_order(gaussian, start, sigmas)[~wide])  # pixel by pixel
    with pytest.raises(ValueError, match="mask must be bool"):
        keep_known(known, mask.float())


def test_corrections_in_a_row():
    known, mask = torch.zeros(1, 1, 4, 4), torch.zeros(4, 4, dtype=torch.bool)
    mask[0, 0] = True
    both = chained(langevin(order="corrector-predictor"), keep_known(known + 7, mask, noised=False))
    x = torch.randn(2, 1, 4, 4)
    start = both(x, gaussian, level(1.0), level(1.0), torch.randn)
    assert (start != x).all()
    end = both(x, gaussian, level(1.0), level(0.0), torch.randn)  # the corrector has no part in the end
    assert (end[..., 0, 0] == 7).all() and torch.equal(end[:, :, 1:], x[:, :, 1:])
    nothing = chained(langevin(), ilvr(known, box))
    assert nothing(x, gaussian, level(1.0), level(1.0), torch.randn) is x
    assert chained()(x, gaussian, level(1.0), level(0.5), torch.randn) is x
