"""The denoiser that knows a spectrum, and its integrator, against Gaussian fields, where both answers are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.fft
import torch
from torch import Tensor, nn

from stages.diffusion import (
    SAMPLERS,
    Denoiser,
    FewSteps,
    WienerDenoiser,
    denoising_loss,
    geometric_sigmas,
    karras_sigmas,
    keep_known,
    sample_exponential,
)
from stages.diffusion.wiener import BANDS

SHAPE = (2, 8, 12)


class Answer(nn.Module):
    """Says `value` and keeps what it was shown."""

    value = 0.0

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        self.seen, self.c_noise = x, c_noise
        return torch.full_like(x[:, : SHAPE[0]], self.value)


def falling_spectrum() -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(SHAPE[1]), torch.arange(SHAPE[2]), indexing="ij")
    return torch.stack([4.0 / (1 + rows**2 + columns**2), 1.0 / (1 + rows + columns)])


def fields(count: int, seed: int = 0) -> Tensor:
    """Gaussian fields with the falling spectrum, made by scipy."""
    coefficients = np.random.default_rng(seed).standard_normal((count, *SHAPE)) * falling_spectrum().sqrt().numpy()
    return torch.from_numpy(scipy.fft.idctn(coefficients, type=2, norm="ortho", axes=(-2, -1))).float()


def fitted() -> Any:  # a WienerDenoiser, with an Answer inside
    denoiser = WienerDenoiser(Answer(), *SHAPE)
    denoiser.spectrum.copy_(falling_spectrum())
    return denoiser


def test_the_spectrum_is_found_again():
    denoiser = WienerDenoiser(Answer(), *SHAPE)
    denoiser.fit(fields(20_000))
    torch.testing.assert_close(denoiser.spectrum, falling_spectrum(), rtol=0.06, atol=0)


def test_a_flat_spectrum_is_the_denoiser_of_karras():
    x, sigma = torch.randn(3, *SHAPE), torch.tensor([0.1, 1.0, 30.0])
    answer = Answer()
    ours, theirs = WienerDenoiser(answer, *SHAPE), Denoiser(answer, 1.0)
    for value in (0.0, 0.7):
        answer.value = value
        torch.testing.assert_close(ours(x, sigma), theirs(x, sigma))
    torch.testing.assert_close(ours.loss_weight(sigma), theirs.loss_weight(sigma))


@pytest.mark.parametrize("sigma", [0.05, 0.5, 5.0])
def test_a_silent_network_loses_what_the_best_linear_estimate_loses(sigma):
    denoiser, clean = fitted(), fields(4000)
    torch.manual_seed(0)
    error = denoiser(clean + sigma * torch.randn_like(clean), sigma) - clean
    best = (falling_spectrum() * sigma**2 / (falling_spectrum() + sigma**2)).mean()
    assert error.square().mean() == pytest.approx(best.item(), rel=0.02)
    assert denoiser.loss_weight(torch.tensor([sigma]))[0] == pytest.approx(1 / best.item(), rel=1e-4)
    # any other estimate of the same kind is worse
    for factor in (0.2, 5.0):
        denoiser.spectrum.copy_(falling_spectrum() * factor)
        torch.manual_seed(0)
        worse = denoiser(clean + sigma * torch.randn_like(clean), sigma) - clean
        assert worse.square().mean() > 1.0002 * error.square().mean()


@pytest.mark.parametrize("sigma", [0.05, 0.5, 5.0, 80.0])
def test_the_network_sees_unit_variance_and_its_level(sigma):
    denoiser, clean = fitted(), fields(2000)
    torch.manual_seed(0)
    denoiser(clean + sigma * torch.randn_like(clean), sigma)
    plain, guess = denoiser.network.seen.chunk(2, dim=1)
    assert plain.square().mean().sqrt() == pytest.approx(1, abs=0.02)
    assert guess.square().mean().sqrt() == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(denoiser.network.c_noise, torch.full((2000,), math.log(sigma) / 4))


def test_samples_of_a_silent_network_have_the_spectrum():
    torch.manual_seed(0)
    denoiser = fitted()
    for highest in (1.0, 80.0):  # also where much of the spectrum is above the noise that sampling begins with
        start = denoiser.start(torch.randn(3000, *SHAPE), highest)
        made = SAMPLERS["heun"](denoiser, start, karras_sigmas(60, 0.01, highest))
        found = torch.from_numpy(scipy.fft.dctn(made.numpy(), type=2, norm="ortho", axes=(-2, -1))).square().mean(0)
        torch.testing.assert_close(found.float(), falling_spectrum(), rtol=0.12, atol=1e-3)


def test_the_exponential_integrator_is_exact_for_a_silent_network():
    noise, denoiser = torch.randn(3, *SHAPE), fitted()
    deviations = falling_spectrum().sqrt().numpy()
    coefficients = scipy.fft.dctn(noise.numpy(), type=2, norm="ortho", axes=(-2, -1)) * deviations
    expected = torch.from_numpy(scipy.fft.idctn(coefficients, type=2, norm="ortho", axes=(-2, -1)))
    for steps in (1, 7):
        end = sample_exponential(denoiser, noise, geometric_sigmas(steps))
        torch.testing.assert_close(end, expected, rtol=0, atol=1e-5)


class Bent(nn.Module):
    """A smooth answer that depends on the picture and on the level."""

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return 0.6 * torch.tanh(x[:, SHAPE[0] :]) + 0.3 * torch.sin(2 * c_noise)[:, None, None, None]


def test_the_exponential_integrator_follows_the_same_path_as_the_others_and_is_of_second_order():
    torch.manual_seed(0)
    denoiser = WienerDenoiser(Bent(), *SHAPE)
    denoiser.spectrum.copy_(falling_spectrum())
    denoiser, noise = denoiser.double(), torch.randn(4, *SHAPE).double()
    truth = SAMPLERS["heun"](denoiser, denoiser.start(noise, 20.0), karras_sigmas(1500, 1e-4, 20.0))
    sigmas = [geometric_sigmas(steps, 1e-3 if steps > 8 else 0.05, 20.0) for steps in (8, 40, 80, 160)]
    errors = [(sample_exponential(denoiser, noise, one) - truth).std() for one in sigmas]
    assert errors[0] < 0.05 * truth.std()
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.3) and errors[2] / errors[3] == pytest.approx(4, rel=0.3)
    few = SAMPLERS["dpmpp_2m"](denoiser, denoiser.start(noise, 20.0), karras_sigmas(8, 0.05, 20.0))
    assert errors[0] < (few - truth).std()


def test_steps_of_the_exponential_integrator():
    denoiser, noise, seen = fitted(), torch.randn(2, *SHAPE), []
    denoiser.network.value = 0.4
    end = sample_exponential(denoiser, noise, [9.0, 1.0, 0.1, 0.0], lambda *step: seen.append(step))
    assert [(step, sigma) for step, sigma, _, _ in seen] == [(0, 1.0), (1, 0.1), (2, 0.0)]
    torch.testing.assert_close(seen[-1][2], end)
    torch.testing.assert_close(seen[0][3], denoiser(denoiser.start(noise, 9.0), 9.0))
    torch.testing.assert_close(seen[1][3], denoiser(seen[0][2], 1.0))
    for wrong, message in (([3.0, 1.0], "must be 0"), ([1.0, 3.0, 0.0], "falling"), ([0.0], "two or more")):
        with pytest.raises(ValueError, match=message):
            sample_exponential(denoiser, noise, wrong)


class Pattern(nn.Module):
    """Says the same field at any x, stronger where there is more noise: a step's pull and its change are then known."""

    def __init__(self) -> None:
        super().__init__()
        self.modulations: list[list[float]] = []

    def forward(self, x: Tensor, c_noise: Tensor, modulation: Tensor | None = None) -> Tensor:
        if modulation is not None:
            self.modulations.append(modulation.tolist())
        return (1 + c_noise[:, None, None, None]) * torch.linspace(-1, 1, math.prod(SHAPE)).view(1, *SHAPE)


def with_gains(sigmas: list[float], gains: Tensor) -> FewSteps:
    tuned = FewSteps(sigmas[:-1], 4)
    tuned.gains.copy_(gains)
    return tuned


def test_gains_scale_both_parts_of_each_step_by_frequency():
    denoiser = WienerDenoiser(Pattern(), *SHAPE)
    denoiser.spectrum.copy_(falling_spectrum())
    noise, sigmas = torch.randn(2, *SHAPE), [20.0, 4.0, 0.625, 0.0]  # exact in float32
    shape = (3, 2, len(BANDS))
    plain = sample_exponential(denoiser, noise, sigmas)
    none = sample_exponential(denoiser, noise, with_gains(sigmas, torch.zeros(shape)))
    assert torch.equal(sample_exponential(denoiser, noise, FewSteps(sigmas[:-1], 4)), plain)
    silent = sample_exponential(fitted(), noise, sigmas)
    torch.testing.assert_close(none, silent, rtol=0, atol=1e-5)  # nothing of the answers is taken
    total = torch.zeros_like(plain)
    frequency = np.hypot(*np.mgrid[: SHAPE[1], : SHAPE[2]])
    below = [-1.0, *BANDS]
    for step in range(3):
        for part in range(2):
            for band in range(len(BANDS)):
                gains = torch.zeros(shape)
                gains[step, part, band] = 1.0
                alone = sample_exponential(denoiser, noise, with_gains(sigmas, gains)) - none
                total += alone
                moved = np.abs(scipy.fft.dctn(alone.numpy(), type=2, norm="ortho", axes=(-2, -1))).max((0, 1)) > 1e-5
                inside = (frequency > below[band]) & (frequency <= below[band + 1])
                assert not moved[~inside].any()
                assert moved.any() == (inside.any() and (step, part) != (0, 1)), "a first step knows of no change"
    torch.testing.assert_close(none + total, plain, rtol=0, atol=1e-4)


def test_the_network_is_given_the_modulation_of_each_step():
    denoiser, tuned = WienerDenoiser(Pattern(), *SHAPE), FewSteps([20.0, 4.0], 3)
    tuned.modulation.copy_(torch.arange(6.0).view(2, 3))
    sample_exponential(denoiser, torch.randn(2, *SHAPE), tuned)
    assert denoiser.network.modulations == [[0, 1, 2], [3, 4, 5]]


def test_autocast_does_not_reach_the_filter():
    denoiser, x = fitted(), torch.randn(2, *SHAPE)
    with torch.autocast("cpu", torch.bfloat16):
        low, start = denoiser(x, 0.5), denoiser.start(x, 0.5)
    assert torch.equal(low, denoiser(x, 0.5)) and torch.equal(start, denoiser.start(x, 0.5))
    plain, under = [], []
    end = sample_exponential(denoiser, x, [9.0, 1.0, 0.0], lambda *step: plain.append(step))
    with torch.autocast("cpu", torch.bfloat16):
        low = sample_exponential(denoiser, x, [9.0, 1.0, 0.0], lambda *step: under.append(step))
    assert low.dtype == torch.float32 and torch.equal(low, end)
    for (*_, x_plain, x0_plain), (*_, x_under, x0_under) in zip(plain, under, strict=True):
        assert torch.equal(x_plain, x_under) and torch.equal(x0_plain, x0_under)


def test_each_row_has_its_own_level():
    denoiser, x, sigma = fitted(), torch.randn(3, *SHAPE), torch.tensor([0.1, 1.0, 30.0])
    denoiser.network.value = 0.3
    for i in range(3):
        torch.testing.assert_close(denoiser(x, sigma)[i : i + 1], denoiser(x[i : i + 1], sigma[i].item()))


def test_the_loss_is_one_for_a_silent_network_on_its_own_fields():
    torch.manual_seed(0)
    assert denoising_loss(fitted(), fields(4000), 0.0, 1.0) == pytest.approx(1, abs=0.02)


def test_corrections_between_exponential_steps():
    """Known places stay known, calls follow the protocol, and a correction that changes nothing changes nothing."""
    denoiser, white, calls = WienerDenoiser(Bent(), *SHAPE), torch.randn(3, *SHAPE), []
    denoiser.spectrum.copy_(falling_spectrum())
    sigmas = geometric_sigmas(6, 0.05, 20.0)
    plain = sample_exponential(denoiser, white, sigmas)

    def watch(x, denoise, before, sigma, noise):
        calls.append((before.item(), sigma.item()))
        if sigma:
            assert torch.equal(denoise(x, sigma), denoiser(x, sigma))
        return x

    assert torch.equal(sample_exponential(denoiser, white, sigmas, correct=watch), plain)
    levels = sigmas.tolist()
    assert calls == [(levels[0], levels[0]), *zip(levels, levels[1:], strict=False)]

    known, mask = torch.full(SHAPE, 0.25), torch.zeros(SHAPE, dtype=torch.bool)
    mask[:, :3] = True
    end = sample_exponential(denoiser, white, sigmas, noise=torch.randn, correct=keep_known(known, mask))
    assert (end[:, mask] == 0.25).all() and not torch.equal(end[:, ~mask], plain[:, ~mask])


@pytest.mark.parametrize("moved", [0.0, 0.3])
def test_after_a_correction_the_exponential_integrator_starts_anew(moved):
    """Any new tensor counts: the whole is then a chain of first steps, with the correction between them."""
    denoiser, white = WienerDenoiser(Bent(), *SHAPE).double(), torch.randn(2, *SHAPE).double()
    denoiser.spectrum.copy_(falling_spectrum())
    sigmas = [20.0, 5.0, 1.0, 0.0]
    end = sample_exponential(denoiser, white, sigmas, correct=lambda x, *_: x + moved)
    x = denoiser.start(white, 20.0) + moved
    for sigma, lower in zip(sigmas, sigmas[1:], strict=False):
        reached: list[Tensor] = []
        from_here = denoiser.fields(denoiser.whitened(x, sigma))
        levels = [sigma, lower, 0.0] if lower else [sigma, 0.0]
        sample_exponential(denoiser, from_here, levels, lambda *step, reached=reached: reached.append(step[2]))
        x = reached[0] + moved
    torch.testing.assert_close(end, x, rtol=1e-5, atol=1e-5)  # the bases are float32
    assert (sample_exponential(denoiser, white, sigmas) - end).abs().max() > 1e-3


def test_distilled_steps_refuse_a_correction():
    with pytest.raises(ValueError, match="distilled steps .* take sample_dpmpp_2m"):
        sample_exponential(fitted(), torch.randn(1, *SHAPE), FewSteps([9.0, 1.0], 4), correct=lambda x, *_: x)


def test_names_in_the_files_of_weights():
    denoiser = WienerDenoiser(nn.Conv2d(4, 2, 1), *SHAPE)
    assert sorted(denoiser.state_dict()) == ["network.bias", "network.weight", "spectrum"]
    assert sorted(FewSteps([9.0, 1.0], 4).state_dict()) == ["gains", "levels", "modulation"]
