"""Noise levels, denoisers, losses and guidance against closed forms and published numbers."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.diffusion import (
    SAMPLERS,
    Denoiser,
    LinearSchedule,
    VPDenoiser,
    clamped,
    denoising_loss,
    diffusion_loss,
    draw_noise,
    geometric_sigmas,
    guided,
    karras_sigmas,
    lognormal_sigmas,
)
from stages.diffusion.losses import PREDICTED, l1, l2, pseudo_huber
from stages.diffusion.noise import (
    gamma_from_sigma,
    rows_like,
    sigma_from_gamma,
    ve_from_vp,
    vp_from_sigma,
    vp_from_ve,
)

PALETTE_TRAIN, PALETTE_USE = LinearSchedule(2000, 1e-6, 0.01), LinearSchedule(1000, 1e-4, 0.09)
DDPM = LinearSchedule(1000, 1e-4, 0.02)
SCHEDULES = pytest.mark.parametrize("schedule", [PALETTE_TRAIN, PALETTE_USE, DDPM])

# --- noise


def test_karras_levels():
    sigmas = karras_sigmas(3)
    assert sigmas.dtype == torch.float64 and sigmas.shape == (4,) and sigmas[-1] == 0
    middle = ((80 ** (1 / 7) + 0.002 ** (1 / 7)) / 2) ** 7  # halfway in the seventh root
    torch.testing.assert_close(sigmas[:3], torch.tensor([80, middle, 0.002], dtype=torch.float64))
    torch.testing.assert_close(
        karras_sigmas(5, 1.0, 9.0, rho=1.0), torch.tensor([9, 7, 5, 3, 1, 0], dtype=torch.float64)
    )
    assert karras_sigmas(1).tolist() == pytest.approx([80, 0])
    assert (karras_sigmas(50).diff() < 0).all()
    for wrong in (dict(steps=0), dict(steps=5, sigma_min=0.0), dict(steps=5, sigma_min=2.0, sigma_max=1.0)):
        for levels in (karras_sigmas, geometric_sigmas):
            with pytest.raises(ValueError, match=f"{levels.__name__} needs"):
                levels(**wrong)
    torch.testing.assert_close(geometric_sigmas(4, 0.01, 10.0), torch.tensor([10, 1, 0.1, 0.01, 0]).double())
    assert geometric_sigmas(1).tolist() == [80, 0]


def test_lognormal_levels():
    sigmas = lognormal_sigmas((200, 100), mean=-0.7, std=1.5, generator=torch.Generator().manual_seed(1))
    assert sigmas.shape == (200, 100) and sigmas.dtype == torch.float32
    assert abs(sigmas.log().mean() + 0.7) < 0.05 and abs(sigmas.log().std() - 1.5) < 0.05
    again = lognormal_sigmas((200, 100), mean=-0.7, std=1.5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(sigmas, again) and lognormal_sigmas(4).shape == (4,)


def test_a_row_of_noise_depends_on_its_own_generator_only():
    def seeded(*seeds):
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    shape = (2, 5, 5)
    alone = [draw_noise((1, *shape), seeded(s))[0] for s in (3, 4, 5)]
    assert torch.equal(draw_noise((3, *shape), seeded(3, 4, 5)), torch.stack(alone))
    assert torch.equal(draw_noise((2, *shape), seeded(5, 3)), torch.stack([alone[2], alone[0]]))
    assert not torch.equal(alone[0], alone[1])
    with pytest.raises(ValueError, match="one per row; got 2"):
        draw_noise((3, *shape), seeded(3, 4))


def test_noise_of_one_generator_or_none():
    one = draw_noise((4, 1000), torch.Generator().manual_seed(7))
    assert torch.equal(one, torch.randn(4, 1000, generator=torch.Generator().manual_seed(7)))
    half = draw_noise((4, 1000), torch.Generator().manual_seed(7), dtype=torch.bfloat16)
    assert torch.equal(half, one.bfloat16())
    rows = [torch.Generator(), torch.Generator()]
    assert draw_noise((2, 3), rows, dtype=torch.float64).dtype == torch.float64
    torch.manual_seed(7)
    assert torch.equal(draw_noise((4, 1000)), one)
    assert draw_noise((0, 2), []).shape == (0, 2)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_noise_on_cuda_is_that_of_the_cpu():
    noise = draw_noise((2, 3), [torch.Generator().manual_seed(s) for s in (1, 2)], device="cuda")
    assert torch.equal(noise.cpu(), draw_noise((2, 3), [torch.Generator().manual_seed(s) for s in (1, 2)]))


# --- discrete schedules


@pytest.mark.parametrize("schedule, last", [(PALETTE_TRAIN, 4.4e-5), (PALETTE_USE, 6.6e-21), (DDPM, 4.0e-5)])
def test_schedules_end_where_the_papers_do(schedule, last):
    assert schedule.betas[0] == schedule.first and schedule.betas[-1] == schedule.last
    assert schedule.gammas.dtype == torch.float64 and schedule.gammas.shape == (schedule.steps,)
    assert schedule.gammas[0].item() == pytest.approx(1 - schedule.first, rel=1e-15)
    assert schedule.gammas[-1].item() == pytest.approx(last, rel=0.02)
    expected, product = [], 1.0
    for i in range(schedule.steps):
        product *= 1 - (schedule.first + (schedule.last - schedule.first) * i / (schedule.steps - 1))
        expected.append(product)
    torch.testing.assert_close(schedule.gammas, torch.tensor(expected, dtype=torch.float64), rtol=1e-11, atol=0)


@SCHEDULES
def test_levels_of_a_sampler_are_those_of_the_schedule(schedule):
    sigmas = schedule.sigmas()
    assert len(sigmas) == schedule.steps + 1 and sigmas[-1] == 0 and (sigmas.diff() < 0).all()
    torch.testing.assert_close(gamma_from_sigma(sigmas[:-1]).flip(0), schedule.gammas, rtol=1e-11, atol=0)
    few = schedule.sigmas(7)
    assert few[0] == sigmas[0] and few[-2] == sigmas[-2] and few[-1] == 0 and len(few) == 8
    widths = schedule.timestep(few[:-1]).diff()
    assert widths.min() >= widths.max() - 1 - 1e-6
    assert schedule.sigmas(1).tolist() == [sigmas[0].item(), 0]
    for wrong in (0, schedule.steps + 1):
        with pytest.raises(ValueError, match=f"1 to {schedule.steps} can be taken; got {wrong}"):
            schedule.sigmas(wrong)


@SCHEDULES
def test_timesteps_are_whole_at_the_levels_of_the_schedule(schedule):
    sigmas = schedule.sigmas()[:-1]
    whole = torch.arange(schedule.steps - 1, -1, -1, dtype=torch.float64)
    assert torch.equal(schedule.timestep(sigmas), whole)
    torch.testing.assert_close(schedule.timestep(sigmas.float()), whole, rtol=0, atol=0.01)
    between = schedule.timestep((sigmas[:-1] * sigmas[1:]).sqrt())
    torch.testing.assert_close(between, whole[:-1] - 0.5, rtol=0, atol=1e-6)
    assert schedule.timestep(sigmas[3].item()).shape == ()
    for outside in (sigmas[0] * 1.01, sigmas[-1] * 0.99, math.nan):
        with pytest.raises(ValueError, match="knows sigma from"):
            schedule.timestep(outside)


@pytest.mark.parametrize("root", [False, True])
def test_levels_between_steps_are_uniform_within_each(root):
    schedule = LinearSchedule(4, 0.5, 0.9)  # steps so wide that uniform in gamma is not uniform in its root
    gammas = schedule.draw_gammas(40_000, torch.Generator().manual_seed(0), root)
    assert gammas.dtype == torch.float64 and gammas.shape == (40_000,) and (gammas < 1).all()
    ends = torch.cat([torch.ones(1, dtype=torch.float64), schedule.gammas])
    drawn, ends = (gammas.sqrt(), ends.sqrt()) if root else (gammas, ends)
    for upper, lower in zip(ends, ends[1:], strict=False):
        inside = drawn[(drawn >= lower) & (drawn < upper)]
        share = (inside - lower) / (upper - lower)
        assert len(inside) / 40_000 == pytest.approx(0.25, abs=0.01)
        assert share.mean().item() == pytest.approx(0.5, abs=0.01)
        assert share.square().mean().item() == pytest.approx(1 / 3, abs=0.01)


def test_drawn_levels_depend_on_their_own_generators_and_reach_one_end_only():
    rows = [torch.Generator().manual_seed(s) for s in (1, 2)]
    both = PALETTE_TRAIN.draw_gammas(2, rows)
    assert torch.equal(both[1:], PALETTE_TRAIN.draw_gammas(1, [torch.Generator().manual_seed(2)]))
    many = sigma_from_gamma(LinearSchedule(2, 1e-7, 2e-7).draw_gammas(200_000, torch.Generator().manual_seed(0)))
    assert many.isfinite().all() and (many > 0).all()


@pytest.mark.parametrize("wrong", [(1, 0.1, 0.2), (10, 0.0, 0.2), (10, 0.3, 0.2), (10, 0.1, 1.0)])
def test_schedules_that_are_none(wrong):
    with pytest.raises(ValueError, match="a linear schedule needs"):
        LinearSchedule(*wrong)


# --- conversions


@SCHEDULES
def test_gamma_and_sigma(schedule):
    torch.testing.assert_close(sigma_from_gamma(0.2), torch.tensor(2.0, dtype=torch.float64))
    assert sigma_from_gamma(1.0) == 0 and gamma_from_sigma(3.0) == pytest.approx(0.1)
    gammas = schedule.gammas
    torch.testing.assert_close(gamma_from_sigma(sigma_from_gamma(gammas)), gammas, rtol=1e-11, atol=0)
    alpha, std = vp_from_sigma(sigma_from_gamma(gammas))
    torch.testing.assert_close(alpha, gammas.sqrt(), rtol=1e-11, atol=0)
    torch.testing.assert_close(std, (1 - gammas).sqrt(), rtol=1e-11, atol=0)
    assert sigma_from_gamma(gammas.float()).dtype == torch.float64


def test_the_same_picture_in_both_forms():
    x0, epsilon = torch.randn(2, 3, 2, 4, 4, dtype=torch.float64)
    gamma = torch.tensor([0.99, 0.3, 1e-4], dtype=torch.float64)
    sigma = sigma_from_gamma(gamma)
    g = gamma.view(3, 1, 1, 1)
    in_vp = g.sqrt() * x0 + (1 - g).sqrt() * epsilon
    in_ve = x0 + ((1 - g) / g).sqrt() * epsilon
    torch.testing.assert_close(ve_from_vp(in_vp, sigma), in_ve, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(vp_from_ve(in_ve, sigma), in_vp, rtol=1e-12, atol=1e-12)
    assert vp_from_ve(in_ve.float(), sigma).dtype == torch.float32


def test_levels_must_fit_the_rows():
    with pytest.raises(ValueError, match="one per row"):
        rows_like(torch.ones(2), torch.ones(3, 2))
    assert rows_like(torch.ones(3), torch.ones(3, 2, 4, 4)).shape == (3, 1, 1, 1)


# --- preconditioning


class Small(nn.Module):
    """A network that uses everything it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2, 2, 3, padding=1)
        self.level = nn.Linear(1, 2)

    def forward(self, x: Tensor, c_noise: Tensor, shift: Tensor | float = 0.0) -> Tensor:
        assert c_noise.shape == x.shape[:1] and c_noise.dtype == x.dtype
        self.seen = x, c_noise
        return torch.tanh(self.mix(x) + self.level(c_noise[:, None])[:, :, None, None] + shift)


@pytest.mark.parametrize("sigma", [0.003, 0.1, 0.5, 3.0, 80.0])
@pytest.mark.parametrize("sigma_data", [0.5, 0.12])
def test_the_network_sees_and_learns_unit_standard_deviation(sigma, sigma_data):
    torch.manual_seed(0)
    network = Small()
    denoiser = Denoiser(network, sigma_data)
    x0, noise = torch.randn(8, 2, 64, 64) * sigma_data, torch.randn(8, 2, 64, 64)
    x = x0 + sigma * noise
    estimate = denoiser(x, sigma)
    seen, c_noise = network.seen
    assert abs(seen.std() - 1) < 0.02
    torch.testing.assert_close(c_noise, torch.full((8,), math.log(sigma) / 4))
    # what the network's answer should have been, by solving for it where it enters
    answer = network(*network.seen)
    slope = (denoiser(x, sigma, shift=0.1) - estimate) / (denoiser.network(seen, c_noise, shift=0.1) - answer)
    target = answer + (x0 - estimate) / slope.median()
    assert abs(target.std() - 1) < 0.03
    assert abs((target * seen).mean()) < 0.03  # and nothing of the input is left in it to learn


@pytest.mark.parametrize("sigma", [0.003, 0.5, 80.0])
def test_the_loss_weight_makes_every_level_count_the_same(sigma):
    """lambda · (change of the estimate)² = (change of the network's answer)²."""
    network = Constant()
    denoiser = Denoiser(network, 0.12)
    x = torch.zeros(3, 2, dtype=torch.float64)
    low = denoiser(x, sigma)
    network.value = 1.0
    weighted = denoiser.loss_weight(sigma) * (denoiser(x, sigma) - low) ** 2
    torch.testing.assert_close(weighted, torch.ones_like(x))
    rows = denoiser.loss_weight(torch.tensor([sigma, 2.0]))
    assert rows.shape == (2,) and rows.dtype == torch.float32
    assert rows[0] == pytest.approx((sigma**2 + 0.12**2) / (sigma * 0.12) ** 2)


class Constant(nn.Module):
    value = 0.0

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return torch.full_like(x, self.value)


def test_a_silent_network_is_the_exact_denoiser_of_gaussian_data():
    x = torch.randn(4, 3, dtype=torch.float64)
    for sigma in (0.01, 0.5, 20.0):
        torch.testing.assert_close(Denoiser(Constant(), 0.5)(x, sigma), x * 0.25 / (0.25 + sigma**2))


def test_rows_with_levels_of_their_own_are_calls_of_their_own():
    torch.manual_seed(0)
    denoiser, x = Denoiser(Small(), 0.2), torch.randn(3, 2, 5, 5)
    sigma, shift = torch.tensor([0.01, 0.4, 30.0]), torch.randn(3, 2, 1, 1)
    together = denoiser(x, sigma, shift=shift)
    for i in range(3):
        alone = denoiser(x[i : i + 1], sigma[i].item(), shift=shift[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone)
    assert not torch.allclose(together, denoiser(x, sigma))  # the condition arrived
    with pytest.raises(ValueError, match="one per row"):
        denoiser(x, torch.ones(2))
    with pytest.raises(ValueError, match="must be positive"):
        Denoiser(Small(), 0.0)


def test_every_parameter_gets_a_finite_gradient():
    denoiser, sigma = Denoiser(Small(), 0.2), lognormal_sigmas(6)
    x0 = torch.randn(6, 2, 5, 5) * 0.2
    error = denoiser(x0 + sigma.view(-1, 1, 1, 1) * torch.randn_like(x0), sigma) - x0
    (denoiser.loss_weight(sigma).view(-1, 1, 1, 1) * error**2).mean().backward()
    for name, parameter in denoiser.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 1e-6, name


def test_a_network_in_another_precision_leaves_x_alone():
    denoiser, x = Denoiser(Small(), 0.2), torch.randn(2, 2, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        estimate = denoiser(x, 0.3)
    assert estimate.dtype == torch.float32
    assert 0 < (estimate - denoiser(x, 0.3)).abs().max() < 0.05
    wide = Constant()
    wide.register_forward_hook(lambda module, inputs, answer: answer.double())
    assert Denoiser(wide, 0.2)(x, 0.3).dtype == torch.float32


# --- networks of the variance-preserving form


class Truth(nn.Module):
    """Answers with what is true of one clean picture, from x_vp and gamma alone."""

    def __init__(self, x0: Tensor, predicts: str) -> None:
        super().__init__()
        self.x0, self.predicts = x0, predicts

    def forward(self, x_vp: Tensor, gamma: Tensor, scale: float = 1.0) -> Tensor:
        assert gamma.shape == x_vp.shape[:1] and gamma.dtype == x_vp.dtype
        gamma = gamma.view(-1, 1, 1, 1)
        epsilon = (x_vp - gamma.sqrt() * self.x0) / (1 - gamma).sqrt()
        answer = {"clean": self.x0, "epsilon": epsilon, "v": gamma.sqrt() * epsilon - (1 - gamma).sqrt() * self.x0}
        return scale * answer[self.predicts]


@pytest.mark.parametrize("predicts", ["clean", "epsilon", "v"])
@pytest.mark.parametrize("per_row", [False, True])
def test_whatever_a_network_predicts_the_clean_picture_comes_out(predicts, per_row):
    x0, noise = torch.randn(2, 3, 2, 4, 4, dtype=torch.float64)
    sigma = torch.tensor([0.05, 1.0, 150.0], dtype=torch.float64) if per_row else 0.8
    x = x0 + rows_like(sigma, x0) * noise
    denoise = VPDenoiser(Truth(x0, predicts), predicts)
    torch.testing.assert_close(denoise(x, sigma), x0, rtol=1e-9, atol=1e-9)
    assert (denoise(x, sigma, scale=0.9) - x0).abs().max() > 0.01  # the condition arrived
    assert denoise(x.float(), sigma).dtype == torch.float32
    with pytest.raises(ValueError, match="predicts one of .* got 'noise'"):
        VPDenoiser(denoise.network, "noise")  # type: ignore[arg-type]


def test_a_network_is_told_the_level_it_asks_for():
    class Listens(nn.Module):
        def forward(self, x: Tensor, told: Tensor) -> Tensor:
            self.told = told
            return x

    network, x, sigmas = Listens(), torch.ones(2, 3, dtype=torch.float64), DDPM.sigmas()
    for level, expected in ((gamma_from_sigma, DDPM.gammas[700]), (DDPM.timestep, torch.tensor(700.0)),
                            (lambda sigma: sigma, sigmas[299]),
                            (lambda sigma: gamma_from_sigma(sigma).sqrt(), DDPM.gammas[700].sqrt())):  # fmt: skip
        VPDenoiser(network, "clean", level)(x, sigmas[299])
        torch.testing.assert_close(network.told, expected.double().expand(2), rtol=1e-12, atol=0)
    assert network.told.dtype == torch.float64
    VPDenoiser(network, "clean", DDPM.timestep)(x, sigmas[299])
    assert (network.told == 700).all()


def test_clamping_holds_clean_estimates_in_range():
    denoise = clamped(lambda x, sigma: x * sigma, -0.5, 1.0)
    assert denoise(torch.tensor([-3.0, 0.2, 3.0]), torch.tensor(2.0)).tolist() == pytest.approx([-0.5, 0.4, 1.0])


# --- losses


class OneError(nn.Module):
    """A VP network, told gamma, that errs by `amount` in what it predicts."""

    def __init__(self, clean: Tensor, predicts: str, amount: Tensor) -> None:
        super().__init__()
        self.truth, self.amount = Truth(clean, predicts), amount

    def forward(self, x_vp: Tensor, gamma: Tensor) -> Tensor:
        return self.truth(x_vp, gamma) + self.amount


@pytest.mark.parametrize("predicts", ["clean", "epsilon", "v"])
def test_the_loss_is_that_of_what_the_network_predicts(predicts):
    clean, amount = torch.randn(2, 4, 2, 5, 5, dtype=torch.float64)
    sigma = torch.tensor([0.03, 0.5, 2.0, 50.0], dtype=torch.float64)
    denoise = VPDenoiser(OneError(clean, predicts, amount), predicts)
    zero = torch.zeros_like(amount)
    for norm, theirs in ((l2, F.mse_loss), (l1, F.l1_loss)):
        loss = diffusion_loss(denoise, clean, sigma, PREDICTED[predicts], norm)
        torch.testing.assert_close(loss, theirs(amount, zero))
    wide = diffusion_loss(denoise, clean, sigma, PREDICTED[predicts], pseudo_huber(0.3))
    torch.testing.assert_close(wide, (2 * 0.3 * ((amount**2 + 0.09).sqrt() - 0.3)).mean())
    weighted = diffusion_loss(denoise, clean, sigma, PREDICTED[predicts], l1, weighting=lambda sigma: sigma**2)
    torch.testing.assert_close(weighted, (amount.abs() * (sigma**2).view(4, 1, 1, 1)).mean())
    mask = (torch.rand(4, 1, 5, 5) < 0.4).double()
    masked = diffusion_loss(denoise, clean, sigma, PREDICTED[predicts], l2, importance=mask) / mask.mean()
    torch.testing.assert_close(masked, (amount**2)[mask.bool().expand_as(amount)].mean())


@pytest.mark.parametrize("huber", [0.0, 0.4])
def test_denoising_loss_is_the_squared_error_of_the_networks_own_output(huber):
    torch.manual_seed(0)
    denoiser, clean = Denoiser(Small(), 0.2), torch.randn(64, 2, 5, 5) * 0.2
    importance = torch.rand(1, 1, 5, 5)
    torch.manual_seed(1)
    loss = denoising_loss(denoiser, clean, -1.0, 1.2, huber, importance)
    torch.manual_seed(1)
    sigma = lognormal_sigmas(64, -1.0, 1.2)
    noise = draw_noise(clean.shape)
    _, c_out, _, _ = denoiser.scalings(sigma)
    s = sigma.view(-1, 1, 1, 1)
    error = importance * (denoiser(clean + s * noise, sigma) - clean) / c_out.float().view(-1, 1, 1, 1)
    expected = 2 * huber * ((error**2 + huber**2).sqrt() - huber) if huber else error**2
    torch.testing.assert_close(loss, expected.mean())


def test_what_an_error_costs_has_a_finite_slope_at_zero():
    for norm in (l2, l1, pseudo_huber(0.1)):
        error = torch.zeros(2, 3, requires_grad=True)
        norm(error, torch.ones(2, 1)).sum().backward()
        assert error.grad is not None and not error.grad.any()
    with pytest.raises(ValueError, match="must be positive; got 0"):
        pseudo_huber(0.0)


@pytest.mark.parametrize("huber", [0.01, 1.0, 100.0])
def test_pseudo_huber_is_square_near_zero_and_linear_beyond(huber):
    class Off(nn.Module):
        """Off by a known amount at every level."""

        def __init__(self, amount: float):
            super().__init__()
            self.amount = amount

        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            return torch.full_like(x, self.amount)

        def loss_weight(self, sigma: Tensor) -> Tensor:
            return torch.ones_like(sigma)

    near = denoising_loss(Off(0.01 * huber), torch.zeros(2, 3), 0.0, 1.0, huber)
    far = denoising_loss(Off(1000 * huber), torch.zeros(2, 3), 0.0, 1.0, huber)
    assert near == pytest.approx((0.01 * huber) ** 2, rel=0.05)
    assert far == pytest.approx(2000 * huber**2, rel=0.01)
    half = denoising_loss(Off(1000 * huber), torch.zeros(2, 3), 0.0, 1.0, huber, torch.tensor([0.0, 0.5, 1.0]))
    assert half == pytest.approx(1000 * huber**2, rel=0.01)

# --- guidance


def of_gaussian(mean: float, std: float):
    """The exact denoiser of N(mean, std²)."""
    return lambda x, sigma: mean + (x - mean) * std**2 / (std**2 + sigma**2)


def test_guidance_of_gaussians_is_the_denoiser_of_a_gaussian():
    """With one std, D is linear in the mean: guidance moves the mean to m1 + (w - 1)(m1 - m0), whatever samples it."""
    denoise = guided(of_gaussian(0.5, 0.4), of_gaussian(0.2, 0.4), 3.0)
    target = of_gaussian(0.5 + 2 * (0.5 - 0.2), 0.4)
    x, sigma = torch.randn(5, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64)
    torch.testing.assert_close(denoise(x, sigma), target(x, sigma))
    for sample in SAMPLERS.values():
        sigmas = karras_sigmas(8, sigma_max=5.0)
        torch.testing.assert_close(sample(denoise, 5 * x, sigmas), sample(target, 5 * x, sigmas))


@pytest.mark.parametrize("weight", [-1.0, 0.0, 1.0, 2.5])
def test_guidance_is_linear_and_keeps_to_its_interval(weight):
    calls = []

    def weak(x, sigma):
        calls.append(sigma.item())
        return x * 3

    denoise = guided(lambda x, sigma: x * 5, weak, weight, (0.5, 2.0))
    x = torch.tensor([1.0, -2.0])
    for sigma in (0.1, 0.5, 0.6, 2.0, 2.1):
        inside = 0.5 < sigma <= 2.0
        expected = weight * 5 * x + (1 - weight) * 3 * x if inside else 5 * x
        torch.testing.assert_close(denoise(x, torch.tensor(sigma, dtype=torch.float64)), expected)
    assert calls == ([] if weight == 1 else [0.6, 2.0])


def test_guidance_that_is_none():
    for wrong in (partial(guided, weight=math.nan), partial(guided, weight=2.0, interval=(2.0, 1.0))):
        with pytest.raises(ValueError, match="guidance needs a finite weight and 0 <= low < high"):
            wrong(lambda x, sigma: x, lambda x, sigma: x)
