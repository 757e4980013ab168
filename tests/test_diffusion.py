"""The diffusion core against closed forms (Gaussian data) and against diffusers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from stages.diffusion import SAMPLERS, Denoiser, draw_noise, geometric_sigmas, karras_sigmas, lognormal_sigmas
from stages.diffusion.denoiser import (
    epsilon_from_v,
    epsilon_from_x0,
    v_from_epsilon,
    v_from_x0,
    x0_from_epsilon,
    x0_from_v,
)
from stages.diffusion.noise import (
    gamma_from_sigma,
    rows_like,
    sigma_from_gamma,
    ve_from_vp,
    vp_from_sigma,
    vp_from_ve,
)
from stages.diffusion.samplers import sample_ddim, sample_dpmpp_2m, sample_heun

MEAN, SPREAD = 0.3, 0.5  # of the Gaussian data
ALL = pytest.mark.parametrize("name", list(SAMPLERS))


def gaussian(x: Tensor, sigma: Tensor) -> Tensor:
    """The exact denoiser of N(MEAN, SPREAD²)."""
    return MEAN + (x - MEAN) * SPREAD**2 / (SPREAD**2 + sigma**2)


def gaussian_path(x: Tensor, sigma: float, lower: float) -> Tensor:
    """Where the exact solution arrives at `lower` that starts from x at `sigma`."""
    return MEAN + (x - MEAN) * math.sqrt((SPREAD**2 + lower**2) / (SPREAD**2 + sigma**2))


# --- samplers


@pytest.mark.parametrize("name, order", [("ddim", 1), ("heun", 2), ("dpmpp_2m", 2)])
@pytest.mark.parametrize("start", [80.0, 2.0])
def test_order_of_convergence(name, order, start):
    x = torch.tensor(1.1 * start, dtype=torch.float64)

    def error(steps: int) -> float:
        end = SAMPLERS[name](gaussian, x, karras_sigmas(steps, 1e-4, start))
        return (end - gaussian_path(x, start, 0)).abs().item()

    coarse, fine = error(64), error(128)
    assert 0.9 * 2**order < coarse / fine < 1.15 * 2**order
    assert fine < (0.02 if order == 1 else 1e-3)


@ALL
def test_the_spread_of_samples_is_that_of_the_data(name):
    x = draw_noise((20_000,), torch.Generator().manual_seed(0)) * 5
    end = SAMPLERS[name](gaussian, x, karras_sigmas(400, sigma_max=5.0))
    start_spread, start_mean = x.std(), x.mean()
    shrink = SPREAD / math.sqrt(SPREAD**2 + 25)  # the start is pure noise: it misses the spread of the data
    assert abs(end.std() / (start_spread * shrink) - 1) < 0.01
    assert abs(end.mean() - (MEAN + (start_mean - MEAN) * shrink)) < 0.01


@ALL
def test_the_end_is_exactly_the_last_clean_estimate(name):
    seen = []
    x = torch.randn(2, 3, 4, 4) * 50
    end = SAMPLERS[name](gaussian, x, [50.0, 20.0, 0.0], lambda *state: seen.append(state))
    assert torch.equal(end, seen[-1][3])


@ALL
def test_a_constant_clean_picture_is_reached_on_a_straight_line(name):
    clean, x = torch.rand(4), torch.rand(4) + 3
    sigmas = [3.0, 1.0, 0.7, 0.3]
    end = SAMPLERS[name](lambda x, sigma: clean, x, sigmas)
    torch.testing.assert_close(end, clean + (x - clean) * 0.1)
    assert torch.equal(SAMPLERS[name](lambda x, sigma: clean, x, [*sigmas, 0.0]), clean)


@pytest.mark.parametrize("name, calls", [("ddim", 5), ("heun", 9), ("dpmpp_2m", 5)])
def test_calls_of_denoiser_and_callback(name, calls):
    sigmas, levels, states = karras_sigmas(5), [], []

    def denoise(x, sigma):
        assert sigma.dim() == 0 and sigma.dtype == torch.float64 and sigma > 0
        levels.append(sigma.item())
        return gaussian(x, sigma)

    end = SAMPLERS[name](denoise, torch.ones(3) * 80, sigmas, lambda *state: states.append(state))
    assert len(levels) == calls and sorted(set(levels), reverse=True) == sigmas[:-1].tolist()
    assert [s[0] for s in states] == [0, 1, 2, 3, 4] and [s[1] for s in states] == sigmas[1:].tolist()
    torch.testing.assert_close(states[0][3], gaussian(torch.ones(3) * 80, sigmas[0]))
    assert torch.equal(states[-1][2], end)


@ALL
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("shape", [(), (2, 3, 4, 4)])
def test_x_keeps_its_dtype(name, dtype, shape):
    x = torch.ones(shape, dtype=dtype) * 2
    end = SAMPLERS[name](gaussian, x, karras_sigmas(6, sigma_max=2.0))
    assert end.dtype == dtype and end.shape == shape
    exact = gaussian_path(x.double(), 2.0, 0)
    assert (end - exact).abs().max() < 0.15


@ALL
def test_gradients_pass_through(name):
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    SAMPLERS[name](gaussian, x, karras_sigmas(50, sigma_max=2.0)).sum().backward()
    assert (x.grad - SPREAD / math.sqrt(SPREAD**2 + 4)).abs().max() < 0.02


@ALL
@pytest.mark.parametrize("sigmas", [[1.0], [1.0, 2.0, 0.0], [2.0, 1.0, 1.0], [1.0, -1.0], [math.nan, 0.0],
                                    [math.inf, 1.0, 0.0], 3.0, [[2.0, 1.0], [1.0, 0.0]]])  # fmt: skip
def test_levels_that_do_not_fall(name, sigmas):
    with pytest.raises(ValueError, match="falling"):
        SAMPLERS[name](gaussian, torch.ones(2), sigmas)


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
        for spread in (karras_sigmas, geometric_sigmas):
            with pytest.raises(ValueError, match=f"{spread.__name__} needs"):
                spread(**wrong)
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
def test_noise_and_samples_on_cuda():
    noise = draw_noise((2, 3), [torch.Generator().manual_seed(s) for s in (1, 2)], device="cuda")
    assert torch.equal(noise.cpu(), draw_noise((2, 3), [torch.Generator().manual_seed(s) for s in (1, 2)]))
    for sample in SAMPLERS.values():
        sigmas = karras_sigmas(8, sigma_max=2.0)
        end = sample(gaussian, noise * 2, sigmas)
        assert end.is_cuda
        torch.testing.assert_close(end.cpu(), sample(gaussian, noise.cpu() * 2, sigmas))


# --- conversions


def test_gamma_and_sigma():
    torch.testing.assert_close(sigma_from_gamma(0.2), torch.tensor(2.0, dtype=torch.float64))
    assert sigma_from_gamma(1.0) == 0 and gamma_from_sigma(3.0) == pytest.approx(0.1)
    betas = torch.linspace(1e-4, 0.09, 1000, dtype=torch.float64)  # Palette, inference: down to 7e-21
    gammas = (1 - betas).cumprod(0)
    assert gammas[-1] == pytest.approx(6.6e-21, rel=0.01)
    torch.testing.assert_close(gamma_from_sigma(sigma_from_gamma(gammas)), gammas, rtol=1e-11, atol=0)
    alpha, spread = vp_from_sigma(sigma_from_gamma(gammas))
    torch.testing.assert_close(alpha, gammas.sqrt(), rtol=1e-11, atol=0)
    torch.testing.assert_close(spread, (1 - gammas).sqrt(), rtol=1e-11, atol=0)
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


@pytest.mark.parametrize("form", ["vp", "ve"])
@pytest.mark.parametrize("per_row", [False, True])
def test_epsilon_and_clean_picture(form, per_row):
    x0, epsilon = torch.randn(2, 3, 2, 4, 4, dtype=torch.float64)
    sigma = torch.tensor([0.05, 1.0, 40.0], dtype=torch.float64) if per_row else 0.8
    alpha, spread = vp_from_sigma(sigma) if form == "vp" else (1.0, sigma)
    a, s = (torch.as_tensor(c, dtype=torch.float64).reshape(-1, 1, 1, 1) for c in (alpha, spread))
    x = a * x0 + s * epsilon
    torch.testing.assert_close(x0_from_epsilon(x, epsilon, alpha, spread), x0)
    torch.testing.assert_close(epsilon_from_x0(x, x0, alpha, spread), epsilon)
    if form == "ve":
        return
    v = a * epsilon - s * x0
    torch.testing.assert_close(v_from_x0(x, x0, alpha, spread), v)
    torch.testing.assert_close(v_from_epsilon(x, epsilon, alpha, spread), v)
    torch.testing.assert_close(x0_from_v(x, v, alpha, spread), x0)
    torch.testing.assert_close(epsilon_from_v(x, v, alpha, spread), epsilon)


def test_levels_must_fit_the_rows():
    with pytest.raises(ValueError, match="one per row"):
        rows_like(torch.ones(2), torch.ones(3, 2))
    assert rows_like(torch.ones(3), torch.ones(3, 2, 4, 4)).shape == (3, 1, 1, 1)


def test_palette_reverse_step_in_these_terms():
    """The mean of Palette's ancestral step (VP, from epsilon) is, in VE form, a step toward x0 by sigma²."""
    gammas = (1 - torch.linspace(1e-4, 0.09, 100, dtype=torch.float64)).cumprod(0)
    x_vp, epsilon = torch.randn(2, 5, 2, 3, 3, dtype=torch.float64)
    gamma, gamma_before = gammas[60], gammas[59]
    alpha = gamma / gamma_before
    theirs = (x_vp - (1 - alpha) / (1 - gamma).sqrt() * epsilon) / alpha.sqrt()

    sigma, lower = sigma_from_gamma(gamma), sigma_from_gamma(gamma_before)
    x = ve_from_vp(x_vp, sigma)
    x0 = x0_from_epsilon(x, epsilon, 1.0, sigma)
    ours = x0 + (lower / sigma) ** 2 * (x - x0)
    torch.testing.assert_close(vp_from_ve(ours, lower), theirs)


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
def test_the_network_sees_and_learns_unit_spread(sigma, sigma_data):
    torch.manual_seed(0)
    denoiser = Denoiser(Small(), sigma_data)
    x0, noise = torch.randn(8, 2, 64, 64) * sigma_data, torch.randn(8, 2, 64, 64)
    x = x0 + sigma * noise
    estimate = denoiser(x, sigma)
    seen, c_noise = denoiser.network.seen
    assert abs(seen.std() - 1) < 0.02
    torch.testing.assert_close(c_noise, torch.full((8,), math.log(sigma) / 4))
    # what the network's answer should have been, by solving for it where it enters
    answer = denoiser.network(*denoiser.network.seen)
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


# --- diffusers, an independent implementation


def wild_network() -> nn.Module:
    torch.manual_seed(3)
    network = Small()
    nn.init.normal_(network.mix.weight, std=0.7)
    return network.requires_grad_(False)


@pytest.mark.parametrize("steps", [5, 20])
@pytest.mark.parametrize(
    "scheduler, ours",
    [("EDMEulerScheduler", sample_ddim), ("EDMDPMSolverMultistepScheduler", sample_dpmpp_2m)],
)
def test_against_the_edm_schedulers_of_diffusers(steps, scheduler, ours):
    """Levels, preconditioning and step, all of theirs against all of ours."""
    diffusers = pytest.importorskip("diffusers")
    network = wild_network()
    theirs = getattr(diffusers, scheduler)(sigma_min=0.01, sigma_max=10.0, sigma_data=0.3, rho=7.0)
    theirs.set_timesteps(steps)
    start = draw_noise((3, 2, 6, 6), torch.Generator().manual_seed(0)) * 10
    x = start.clone()
    for t in theirs.timesteps:
        scaled = theirs.scale_model_input(x, t)
        x = theirs.step(network(scaled, t.expand(3).to(x.dtype)), t, x).prev_sample

    sigmas = karras_sigmas(steps, 0.01, 10.0)
    torch.testing.assert_close(theirs.sigmas.double(), sigmas, rtol=1e-5, atol=0)
    torch.testing.assert_close(ours(Denoiser(network, 0.3), start, sigmas), x, rtol=1e-4, atol=1e-4)


def test_against_heun_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    denoiser = Denoiser(wild_network(), 0.3)
    theirs = diffusers.HeunDiscreteScheduler()
    theirs.set_timesteps(12)
    sigmas = theirs.sigmas.double()
    start = draw_noise((3, 2, 6, 6), torch.Generator().manual_seed(0)) * sigmas[0].item()
    x = start.clone()
    for i, t in enumerate(theirs.timesteps):
        sigma = sigmas[i].item()
        x = theirs.step((x - denoiser(x, sigma)) / sigma, t, x).prev_sample
    falling = torch.cat([sigmas[:1], sigmas[1::2]])  # they list every inner level twice
    torch.testing.assert_close(sample_heun(denoiser, start, falling), x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_discrete_schedule_joins_and_agrees_with_ddim_of_diffusers(prediction):
    """A network of the VP kind, told gamma, through the same sampler: the schedule of Palette's training."""
    diffusers = pytest.importorskip("diffusers")
    network = wild_network()
    theirs = diffusers.DDIMScheduler(
        2000, 1e-6, 0.01, "linear", clip_sample=False, prediction_type=prediction, timestep_spacing="trailing"
    )
    theirs.set_timesteps(20)
    gammas = theirs.alphas_cumprod.double()[theirs.timesteps]
    start_vp = draw_noise((3, 2, 6, 6), torch.Generator().manual_seed(0), dtype=torch.float64)
    network = network.double()
    x = start_vp.clone()
    for t, gamma in zip(theirs.timesteps, gammas, strict=True):
        x = theirs.step(network(x, gamma.expand(3)), t, x).prev_sample

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        alpha, spread = vp_from_sigma(sigma)
        x_vp = vp_from_ve(x, sigma)
        answer = network(x_vp, gamma_from_sigma(sigma).expand(3))
        return (x0_from_epsilon if prediction == "epsilon" else x0_from_v)(x_vp, answer, alpha, spread)

    sigmas = torch.cat([sigma_from_gamma(gammas), torch.zeros(1, dtype=torch.float64)])
    ours = sample_ddim(denoise, ve_from_vp(start_vp, sigmas[0]), sigmas)
    torch.testing.assert_close(ours, x, rtol=1e-3, atol=1e-3)
