"""Samplers against closed forms (Gaussian data) and, step by step, against diffusers."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stages.diffusion import SAMPLERS, Denoiser, LinearSchedule, VPDenoiser, clamped, draw_noise, karras_sigmas
from stages.diffusion.noise import sigma_from_gamma, ve_from_vp, vp_from_ve
from stages.diffusion.samplers import sample_ancestral, sample_ddim, sample_dpmpp_2m, sample_heun

MEAN, STD = 0.3, 0.5  # of the Gaussian data
ALL = pytest.mark.parametrize("name", list(SAMPLERS))
EVERY = pytest.mark.parametrize("sample", [*SAMPLERS.values(), partial(sample_ddim, eta=1.0), sample_ancestral])


def gaussian(x: Tensor, sigma: Tensor) -> Tensor:
    """The exact denoiser of N(MEAN, STD²)."""
    return MEAN + (x - MEAN) * STD**2 / (STD**2 + sigma**2)


def gaussian_path(x: Tensor, sigma: float, lower: float) -> Tensor:
    """Where the exact solution arrives at `lower` that starts from x at `sigma`."""
    return MEAN + (x - MEAN) * math.sqrt((STD**2 + lower**2) / (STD**2 + sigma**2))


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
def test_the_standard_deviation_of_samples_is_that_of_the_data(name):
    x = draw_noise((20_000,), torch.Generator().manual_seed(0)) * 5
    end = SAMPLERS[name](gaussian, x, karras_sigmas(400, sigma_max=5.0))
    start_std, start_mean = x.std(), x.mean()
    shrink = STD / math.sqrt(STD**2 + 25)  # the start is pure noise: it misses that of the data
    assert abs(end.std() / (start_std * shrink) - 1) < 0.01
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
    assert x.grad is not None
    assert (x.grad - STD / math.sqrt(STD**2 + 4)).abs().max() < 0.02


@ALL
@pytest.mark.parametrize("sigmas", [[1.0], [1.0, 2.0, 0.0], [2.0, 1.0, 1.0], [1.0, -1.0], [math.nan, 0.0],
                                    [math.inf, 1.0, 0.0], 3.0, [[2.0, 1.0], [1.0, 0.0]]])  # fmt: skip
def test_levels_that_do_not_fall(name, sigmas):
    with pytest.raises(ValueError, match="falling"):
        SAMPLERS[name](gaussian, torch.ones(2), sigmas)


@EVERY
@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_samples_on_cuda_are_those_of_the_cpu(sample):
    def run(device: str) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        start = 2 * draw_noise((2, 3), generator, device)
        return sample(gaussian, start, karras_sigmas(8, sigma_max=2.0), noise=partial(draw_noise, generator=generator))

    end = run("cuda")
    assert end.is_cuda
    torch.testing.assert_close(end.cpu(), run("cpu"))


# --- samplers that add noise


def variance_after(sigmas: list[float], variance: float, step) -> float:
    """Closed-form recursion of the variance of x over the steps, of Gaussian data and its exact denoiser."""
    for sigma, lower in zip(sigmas, sigmas[1:], strict=False):
        shrink = STD**2 / (STD**2 + sigma**2)  # d denoise / d x
        keep, added = step(sigma, lower)  # of x - x0, and the variance of what is drawn
        variance = (shrink + keep * (1 - shrink)) ** 2 * variance + added
    return variance


def small(sigma: float, lower: float) -> float:
    return lower**2 * (sigma**2 - lower**2) / sigma**2


def large(sigma: float, lower: float) -> float:
    return (1 - (1 + lower**2) / (1 + sigma**2)) * (1 + lower**2) if lower else 0.0  # beta of the VP form


@pytest.mark.parametrize("sample, added", [
    (partial(sample_ddim, eta=1.0), small),
    (sample_ancestral, small),
    (partial(sample_ancestral, variance=1.0), large),
    (partial(sample_ancestral, variance=0.5), lambda s, t: math.sqrt(small(s, t) * large(s, t))),
    (partial(sample_ancestral, variance=lambda x, sigma: torch.full_like(x, 0.5)),
     lambda s, t: math.sqrt(small(s, t) * large(s, t))),
])  # fmt: skip
def test_variance_of_ancestral_samples(sample, added):
    sigmas = karras_sigmas(12, 0.05, 5.0).tolist()
    generator = torch.Generator().manual_seed(0)
    start = MEAN + draw_noise((100_000,), generator, dtype=torch.float64) * math.sqrt(25 + STD**2)
    end = sample(gaussian, start, sigmas, noise=partial(draw_noise, generator=generator))
    expected = variance_after(sigmas, 25 + STD**2, lambda s, t: ((t / s) ** 2, added(s, t)))
    assert end.var().item() == pytest.approx(expected, rel=0.02)
    assert end.mean().item() == pytest.approx(MEAN, abs=0.01)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_is_of_first_order_with_any_noise(eta):
    def error(steps: int) -> float:
        sigmas = karras_sigmas(steps, 1e-4, 5.0).tolist()

        def step(sigma: float, lower: float) -> tuple[float, float]:
            drawn = eta**2 * small(sigma, lower)
            return math.sqrt(lower**2 - drawn) / sigma, drawn

        return variance_after(sigmas, 25 + STD**2, step) - STD**2  # the exact process ends at the variance of the data

    assert 1.8 < error(200) / error(400) < 2.2
    # and the sampler is that recursion
    sigmas, generator = karras_sigmas(7, 0.1, 5.0).tolist(), torch.Generator().manual_seed(1)
    x = MEAN + draw_noise((100_000,), generator, dtype=torch.float64) * math.sqrt(25 + STD**2)
    end = sample_ddim(gaussian, x, sigmas, eta=eta, noise=partial(draw_noise, generator=generator))
    drawn = lambda s, t: eta**2 * small(s, t)  # noqa: E731
    expected = variance_after(
        sigmas, x.var().item(), lambda s, t: (math.sqrt(t**2 - drawn(s, t)) / s, drawn(s, t))
    )
    assert end.var().item() == pytest.approx(expected, rel=0.01)


def test_ancestral_sampling_is_of_first_order():
    def error(steps: int) -> float:
        sigmas = karras_sigmas(steps, 1e-4, 5.0).tolist()
        return variance_after(sigmas, 25 + STD**2, lambda s, t: ((t / s) ** 2, small(s, t))) - STD**2

    assert 1.8 < error(200) / error(400) < 2.2


def test_samplers_that_draw_say_that_they_need_noise():
    for sample, match in ((sample_ancestral, "ancestral sampling draws noise"),
                          (partial(sample_ddim, eta=0.5), "eta > 0 draws noise")):  # fmt: skip
        with pytest.raises(ValueError, match=match):
            sample(gaussian, torch.ones(2), [1.0, 0.0])
    with pytest.raises(ValueError, match=r"eta must be in \[0, 1\]; got 1.5"):
        sample_ddim(gaussian, torch.ones(2), [1.0, 0.0], eta=1.5, noise=torch.randn)
    with pytest.raises(ValueError, match="variance must be from 0"):
        sample_ancestral(gaussian, torch.ones(2), [1.0, 0.0], variance=2.0, noise=torch.randn)


def test_noise_is_drawn_once_per_step_but_the_last_and_only_where_it_is_used():
    drawn: list[tuple[int, ...]] = []

    def noise(shape):
        drawn.append(tuple(shape))
        return torch.ones(shape, dtype=torch.float64)

    for sample, calls in ((sample_ancestral, 3), (partial(sample_ddim, eta=1.0), 3), (sample_ddim, 0),
                          (sample_heun, 0), (sample_dpmpp_2m, 0)):  # fmt: skip
        drawn.clear()
        end = sample(gaussian, torch.ones(2, 3), karras_sigmas(4), noise=noise)
        assert drawn == [(2, 3)] * calls and end.dtype == torch.float32


# --- corrections: what the samplers promise


@EVERY
def test_correct_is_called_before_the_first_step_and_after_each(sample):
    events: list[tuple] = []
    sigmas = [9.0, 3.0, 1.0, 0.0]

    def denoise(x, sigma):
        events.append(("denoise", sigma.item()))
        return gaussian(x, sigma)

    def correct(x, own, before, sigma, noise):
        assert own is denoise and before.dim() == sigma.dim() == 0 and before.dtype == sigma.dtype == torch.float64
        assert noise is torch.randn
        events.append(("correct", before.item(), sigma.item()))
        return x + 1.0 if sigma == 0 else x.double()  # another dtype: brought back

    end = sample(denoise, torch.ones(2), sigmas, lambda i, s, x, x0: events.append(("callback", s, x)),
                 noise=torch.randn, correct=correct)  # fmt: skip
    calls = [e[1:] for e in events if e[0] == "correct"]
    assert calls == [(9.0, 9.0), (9.0, 3.0), (3.0, 1.0), (1.0, 0.0)]
    assert events[0][0] == "correct" and [e[0] for e in events[-2:]] == ["correct", "callback"]
    order = [e[0] for e in events if e[0] != "denoise"]
    assert order == ["correct", *["correct", "callback"] * 3]
    assert end.dtype == torch.float32 and torch.equal(end, events[-1][2])  # the callback sees x corrected


@EVERY
def test_a_correction_that_returns_x_changes_nothing(sample):
    def run(**more):
        return sample(gaussian, torch.linspace(-50, 80, 7), karras_sigmas(9), **more)

    torch.manual_seed(0)
    plain = run(noise=torch.randn)
    torch.manual_seed(0)
    assert torch.equal(run(noise=torch.randn, correct=lambda x, *_: x), plain)


def test_dpmpp_2m_forgets_after_a_correction():
    x, sigmas = torch.linspace(-50, 80, 7, dtype=torch.float64), karras_sigmas(9)
    plain = sample_dpmpp_2m(gaussian, x, sigmas)
    anew = sample_dpmpp_2m(gaussian, x, sigmas, correct=lambda x, *_: x.clone())
    assert torch.equal(anew, sample_ddim(gaussian, x, sigmas)) and not torch.equal(anew, plain)
    # corrected once, in the middle: the two halves are runs of their own
    middle = sigmas[4].item()
    once = sample_dpmpp_2m(gaussian, x, sigmas, correct=lambda x, d, b, s, n: x.clone() if s == middle else x)
    halves = sample_dpmpp_2m(gaussian, sample_dpmpp_2m(gaussian, x, sigmas[:5]), sigmas[4:])
    assert torch.equal(once, halves) and not torch.equal(once, plain)


def test_a_correction_that_draws_says_that_it_needs_noise():
    with pytest.raises(ValueError, match="correction draws noise: give the sampler noise="):
        sample_heun(gaussian, torch.ones(2), [1.0, 0.0], correct=lambda x, d, b, s, noise: x + noise(x.shape))


# --- diffusers, an independent implementation


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


def levels_of(scheduler) -> Tensor:
    """The noise levels of a scheduler of diffusers at its timesteps, and 0, in float64."""
    gammas = scheduler.alphas_cumprod[scheduler.timesteps]
    return torch.cat([sigma_from_gamma(gammas), torch.zeros(1, dtype=torch.float64)])


def in_float64(scheduler, schedule: LinearSchedule):
    scheduler.betas, scheduler.alphas = schedule.betas, 1 - schedule.betas
    scheduler.alphas_cumprod, scheduler.one = schedule.gammas, torch.ones((), dtype=torch.float64)
    if hasattr(scheduler, "final_alpha_cumprod"):
        scheduler.final_alpha_cumprod = scheduler.one
    return scheduler


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("kind, variance", [
    ("ddpm", "fixed_small"), ("ddpm", "fixed_large"), ("ddpm", "learned_range"),
    ("ddim", 0.0), ("ddim", 0.6), ("ddim", 1.0),
])  # fmt: skip
def test_every_step_against_ddpm_and_ddim_of_diffusers(kind, variance, prediction, clip):
    """The schedule of DDPM respaced to 20 steps, a network told the timestep, the same noise: every x, in VP form."""
    diffusers = pytest.importorskip("diffusers")
    schedule, network = LinearSchedule(1000, 1e-4, 0.02), wild_network().double()
    # "leading": the last timestep is 0. Their DDPM draws noise after any other, even on the way to a clean picture.
    options = dict(clip_sample=clip, prediction_type=prediction, timestep_spacing="leading")
    if kind == "ddpm":
        theirs = diffusers.DDPMScheduler(1000, 1e-4, 0.02, "linear", variance_type=variance, **options)
    else:
        theirs = diffusers.DDIMScheduler(1000, 1e-4, 0.02, "linear", **options)
    in_float64(theirs, schedule).set_timesteps(20)
    learned: Any = torch.tanh(torch.randn(3, 2, 6, 6, dtype=torch.float64)) if variance == "learned_range" else None
    x = start = draw_noise((3, 2, 6, 6), torch.Generator().manual_seed(0), dtype=torch.float64)
    generator, expected = torch.Generator().manual_seed(1), []
    for t in theirs.timesteps:
        answer = network(x, t.expand(3).double() / 1000)
        if kind == "ddpm":
            answer = answer if learned is None else torch.cat([answer, learned], 1)
            x = theirs.step(answer, t, x, generator=generator).prev_sample
        else:
            x = theirs.step(answer, t, x, eta=variance, use_clipped_model_output=True, generator=generator).prev_sample
        expected.append(x)

    predicts: Any = {"epsilon": "epsilon", "v_prediction": "v", "sample": "clean"}[prediction]
    denoise = VPDenoiser(network, predicts, lambda sigma: schedule.timestep(sigma) / 1000)
    sigmas, seen = levels_of(theirs), []
    torch.testing.assert_close(schedule.timestep(sigmas[:-1]).round().long(), theirs.timesteps)
    generator = torch.Generator().manual_seed(1)
    noise = partial(torch.randn, generator=generator, dtype=torch.float64)
    variances: dict[str, Any] = {
        "fixed_small": 0.0, "fixed_large": 1.0, "learned_range": lambda x, sigma: (learned + 1) / 2
    }  # fmt: skip
    sample: Any = (
        partial(sample_ddim, eta=variance) if kind == "ddim"
        else partial(sample_ancestral, variance=variances[variance])
    )
    sample(clamped(denoise) if clip else denoise, ve_from_vp(start, sigmas[0]), sigmas,
           lambda step, sigma, x, x0: seen.append(vp_from_ve(x, sigma)), noise=noise)  # fmt: skip
    for ours, own in zip(seen, expected, strict=True):
        torch.testing.assert_close(ours, own, rtol=1e-9, atol=1e-9)


def test_palette_samples_on_its_steep_schedule_in_float32():
    """1000 steps from sigma = 1.2e10: its Algorithm 2 in VP form, in float64, beside ours in VE form and float32."""
    schedule, network = LinearSchedule(1000, 1e-4, 0.09), Told()
    x = start = draw_noise((2, 3), torch.Generator().manual_seed(0), dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    for t in range(999, -1, -1):
        beta, gamma = schedule.betas[t], schedule.gammas[t]
        x = (x - beta / (1 - gamma).sqrt() * network(x, gamma.expand(2))) / (1 - beta).sqrt()
        if t:
            x = x + beta.sqrt() * torch.randn(2, 3, generator=generator)
    sigmas = schedule.sigmas()
    noise = partial(draw_noise, generator=torch.Generator().manual_seed(1))
    begin = ve_from_vp(start.float(), sigmas[0])
    end = sample_ancestral(VPDenoiser(network, "epsilon"), begin, sigmas, variance=1.0, noise=noise)
    torch.testing.assert_close(end.double(), x, rtol=1e-4, atol=1e-4)


class Told(nn.Module):
    """The exact epsilon of data N(MEAN, STD²), of a network told gamma."""

    def forward(self, x: Tensor, gamma: Tensor) -> Tensor:
        gamma = gamma[:, None]
        return (1 - gamma).sqrt() * (x - gamma.sqrt() * MEAN) / (gamma * STD**2 + 1 - gamma)
