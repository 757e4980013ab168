"""Kind palette: its process in closed form, its losses, its tasks, and what it never changes."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from stages.checkpoint import CheckpointError
from stages.color.spaces import gray_from_rgb
from stages.corruptions.masks import uncropping_hole
from stages.diffusion import (
    LinearSchedule,
    ProcessConfig,
    VPDenoiser,
    draw,
    draw_noise,
    keep_known,
    knowing,
    process_loss,
    sample_ancestral,
)
from stages.diffusion.noise import gamma_from_sigma, sigma_from_gamma, ve_from_vp, vp_from_ve
from stages.diffusion.process import PALETTE_SAMPLING, SAMPLER_NAMES
from stages.image_to_image.face import Condition, Task, TranslateOptions
from stages.image_to_image.palette import PALETTE_TASKS, Palette, PaletteConfig
from stages.nn.unet import UNetConfig
from stages.options import OptionError
from stages.registry import kind_of, load_stage

UNET = UNetConfig(32, (1, 1), 1, (2,), 32)
CONFIG = PaletteConfig(side=16, tasks=PALETTE_TASKS, unet=UNET, process=ProcessConfig(steps=3))
STD, MEAN = 0.4, 0.1  # of the Gaussian data


def palette(**changes: Any) -> Palette:
    torch.manual_seed(0)
    stage = Palette(replace(CONFIG, **changes)).eval()
    torch.nn.init.normal_(stage.network.write.weight, std=0.05)
    return stage


def seeded(seed: int = 0, dtype: torch.dtype = torch.float64):
    return partial(draw_noise, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# ---------------------------------------------------------------------- the process


def test_the_forward_process_is_that_of_its_steps():
    """q(y_t | y_(t-1)), step by step, against sqrt(gamma_t) y_0 and 1 - gamma_t, on both of Palette's schedules."""
    for schedule, last in ((ProcessConfig().training, 4.4e-5), (PALETTE_SAMPLING, 6.6e-21)):
        mean, variance = 1.0, 0.0
        for beta, gamma in zip(schedule.betas.tolist(), schedule.gammas.tolist(), strict=True):
            mean, variance = math.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
            assert mean == pytest.approx(math.sqrt(gamma), rel=1e-9) and variance == pytest.approx(1 - gamma, rel=1e-9)
        assert gamma == pytest.approx(last, rel=0.02)


def epsilon_network(x_vp: Tensor, gamma: Tensor) -> Tensor:
    """The exact noise of N(MEAN, STD²) data in VP form: sqrt(1 - gamma) (x - sqrt(gamma) MEAN) / variance of x."""
    gamma = gamma.double().view(-1, *[1] * (x_vp.dim() - 1))
    return (1 - gamma).sqrt() * (x_vp.double() - gamma.sqrt() * MEAN) / (gamma * STD**2 + 1 - gamma)


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
@pytest.mark.parametrize("sampling", [PALETTE_SAMPLING, LinearSchedule(1000, 1e-4, 0.02)])
def test_an_exact_network_gives_mean_and_variance(sampler, sampling):
    config = ProcessConfig(sampling=sampling, sampler=sampler, steps=500 if sampler in SAMPLER_NAMES[:2] else 64)
    denoise = VPDenoiser(epsilon_network, "epsilon")  # type: ignore[arg-type]
    x = draw(denoise, (4, 10_000), config, seeded())
    # Clean estimates are clamped to [-1, 1], three standard deviations away: for most of the way they are well within.
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.02)
    # At 500 steps DDPM's own variances are off by a few hundredths.
    assert float(x.std()) == pytest.approx(STD, rel=0.06)


def test_algorithm_2_as_it_is_written():
    """The paper's lines in VP form against the core's, which is in VE form, with the same noise."""
    schedule, config = PALETTE_SAMPLING, ProcessConfig(sampler="algorithm2", steps=1000)
    got = draw(VPDenoiser(epsilon_network, "epsilon"), (2, 50), config, seeded())  # type: ignore[arg-type]
    noise = seeded()
    alphas, gammas = 1 - schedule.betas, schedule.gammas
    # draw starts at sigma_T · white, of variance 1 - gamma_T in VP form
    y = noise((2, 50)) * (1 - gammas[-1]).sqrt()
    for t in range(999, -1, -1):
        f = epsilon_network(y, gammas[t].expand(2))
        y = (y - (1 - alphas[t]) / (1 - gammas[t]).sqrt() * f) / alphas[t].sqrt()
        if t:
            y = y + (1 - alphas[t]).sqrt() * noise((2, 50))
    torch.testing.assert_close(got, y, rtol=1e-4, atol=1e-4)


def test_algorithm_2_and_the_posterior_have_the_same_mean():
    """For the same epsilon: without noise both steps go to the same place. Variances: beta, and its posterior."""
    gammas = PALETTE_SAMPLING.gammas
    for t in (1, 100, 500):
        sigmas = sigma_from_gamma(gammas[[t, t - 1]])
        y = seeded(t)((3, 20))
        denoise = VPDenoiser(epsilon_network, "epsilon")  # type: ignore[arg-type]

        def step(variance: float, noise, y=y, sigmas=sigmas, denoise=denoise) -> Tensor:
            end = sample_ancestral(denoise, ve_from_vp(y, sigmas[0]), sigmas, variance=variance, noise=noise)
            return vp_from_ve(end, sigmas[1])

        silent = lambda shape: torch.zeros(shape, dtype=torch.float64)  # noqa: E731
        alpha, gamma, before = 1 - PALETTE_SAMPLING.betas[t], gammas[t], gammas[t - 1]
        epsilon = epsilon_network(y, gamma.expand(3))
        y0 = (y - (1 - gamma).sqrt() * epsilon) / gamma.sqrt()
        posterior = (before.sqrt() * (1 - alpha) * y0 + alpha.sqrt() * (1 - before) * y) / (1 - gamma)
        algorithm2 = (y - (1 - alpha) / (1 - gamma).sqrt() * epsilon) / alpha.sqrt()
        torch.testing.assert_close(posterior, algorithm2, rtol=1e-6, atol=1e-6)
        for variance, expected in ((1.0, 1 - alpha), (0.0, (1 - before) / (1 - gamma) * (1 - alpha))):
            torch.testing.assert_close(step(variance, silent), posterior, rtol=1e-6, atol=1e-6)
            one = step(variance, lambda shape: torch.ones(shape, dtype=torch.float64)) - posterior
            torch.testing.assert_close(one, expected.sqrt().expand(3, 20), rtol=1e-5, atol=1e-7)


def test_the_posterior_is_that_of_diffusers():
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    ours = PALETTE_SAMPLING
    theirs = DDPMScheduler(1000, trained_betas=ours.betas.tolist(), variance_type="fixed_small", clip_sample=True)
    theirs.set_timesteps(1000)
    y = seeded()((1, 3, 8, 8)).float()
    epsilon = seeded(1)((1, 3, 8, 8)).float()
    for t in (999, 400, 30):
        expected = theirs.step(epsilon, t, y, generator=torch.Generator().manual_seed(5)).prev_sample
        sigmas = sigma_from_gamma(ours.gammas[[t, t - 1]])
        denoise = lambda x, sigma: (x - sigma * epsilon).clamp(-1, 1)  # noqa: E731
        noise = partial(draw_noise, generator=torch.Generator().manual_seed(5))
        got = sample_ancestral(denoise, ve_from_vp(y.double(), sigmas[0]), sigmas, noise=noise)
        torch.testing.assert_close(vp_from_ve(got, sigmas[1]).float(), expected, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("predicts", ["epsilon", "v"])
@pytest.mark.parametrize("norm, best", [("l2", 0.2), ("l1", 1.0)])
def test_what_minimizes_the_loss(norm, best, predicts, monkeypatch):
    """Clean values 1 (3 of 5) and -1 (2 of 5), where the noisy picture tells nothing: the mean, or the median."""
    clean = torch.tensor([1.0, 1, 1, -1, -1]).repeat(2000).view(-1, 1)
    monkeypatch.setattr(LinearSchedule, "draw_gammas", lambda self, count, root: torch.full((count,), 0.5).double())
    losses = {}
    for guess in (-1.0, -0.4, 0.0, 0.2, 0.4, 1.0):
        answer = lambda x, sigma, guess=guess: torch.full_like(x, guess)  # noqa: E731
        losses[guess] = float(process_loss(answer, clean, ProcessConfig(norm=norm, predicts=predicts)))
    assert min(losses, key=losses.__getitem__) == best


def test_levels_of_training_are_told_as_asked():
    for told, function in (("gamma", gamma_from_sigma), ("root", lambda one: gamma_from_sigma(one).sqrt())):
        sigma = torch.tensor([0.1, 1.0, 30.0])
        torch.testing.assert_close(ProcessConfig(told=told).level(sigma), function(sigma))
    adm = ProcessConfig(told="timestep", training=LinearSchedule(1000, 1e-4, 0.02))
    torch.testing.assert_close(
        adm.level(sigma_from_gamma(adm.training.gammas)), torch.arange(1000.0, dtype=torch.float64)
    )
    with pytest.raises(ValueError, match="levels between timesteps are learned here"):
        process_loss(lambda x, sigma: x, torch.zeros(2, 3), adm)


@pytest.mark.parametrize("change, message", [
    ({"norm": "l3"}, "norm must be one of l1, l2"), ({"sampler": "euler"}, "sampler must be one of algorithm2"),
    ({"told": "t"}, "told must be one of"), ({"sampler": "posterior", "steps": 1001}, "1 to 1000 can be taken"),
])  # fmt: skip
def test_processes_that_make_no_sense(change, message):
    with pytest.raises(ValueError, match=message):
        ProcessConfig(**change)


# ---------------------------------------------------------------------- tasks and losses


def test_conditions_of_the_four_tasks():
    stage, rgb = palette(), torch.rand(3, 3, 16, 16)
    torch.manual_seed(0)
    colorize = stage.condition(rgb, "colorize")
    assert colorize.hole is None
    torch.testing.assert_close(colorize.source, gray_from_rgb(rgb).expand(-1, 3, -1, -1))
    assert stage.condition(rgb, "jpeg").hole is None and not torch.equal(stage.condition(rgb, "jpeg").source, rgb)
    for task in ("inpaint", "uncrop"):
        condition = stage.condition(rgb, task)
        assert condition.hole is not None and torch.equal(condition.source, rgb)
        assert 0 < condition.hole.float().mean() < 1
    assert condition.hole is not None and int(condition.hole.sum()) == 3 * 128


def test_wrong_known_pixels_cost_nothing():
    """The loss is the masked mean of each picture: nothing outside of the hole counts, not even in what is divided."""
    stage = palette()
    clean, hole = torch.rand(4, 3, 16, 16) * 2 - 1, torch.zeros(4, 1, 16, 16, dtype=torch.bool)
    for row, width in enumerate((2, 4, 8, 16)):
        hole[row, ..., :width] = True

    def loss(wrong_known: float, wrong_hole: float, norm: str) -> float:
        stage.config = replace(CONFIG, process=replace(CONFIG.process, norm=norm))
        wrong = torch.where(hole, wrong_hole, wrong_known)
        answer = lambda x, sigma, source: clean + wrong * sigma.float().view(-1, 1, 1, 1)  # noqa: E731
        stage.denoiser.forward = answer  # type: ignore[method-assign,assignment]
        torch.manual_seed(0)
        return float(stage.loss(clean, clean, hole))

    for norm, power in (("l2", 2), ("l1", 1)):
        assert loss(7.0, 0.0, norm) == pytest.approx(0, abs=1e-9)
        assert loss(7.0, 0.5, norm) == pytest.approx(0.5**power, rel=1e-4)  # an error of epsilon of 0.5


def test_the_network_sees_known_pixels_without_noise_and_holes_full_of_it():
    stage, seen = palette(tasks=("inpaint",)), dict[str, Tensor]()
    network = stage.network.forward

    def look(x: Tensor, level: Tensor, source: Tensor) -> Tensor:
        seen.update(x=x, source=source)
        return network(x, level, source)

    stage.network.forward = look  # type: ignore[method-assign,assignment]
    rgb = torch.rand(2, 3, 16, 16)
    torch.manual_seed(1)
    stage(rgb)
    torch.manual_seed(1)
    torch.randint(1, (2,))
    hole = stage.condition(rgb, "inpaint").hole
    assert hole is not None
    hole = hole.expand(-1, 3, -1, -1)
    clean = 2 * rgb - 1
    torch.testing.assert_close(seen["x"][~hole], clean[~hole])
    torch.testing.assert_close(seen["source"][~hole], clean[~hole])
    assert seen["x"][hole].sub(clean[hole]).abs().mean() > 0.1
    assert 0.5 < float(seen["source"][hole].std()) < 1.5 and (seen["source"][hole] - clean[hole]).abs().mean() > 0.5


def test_an_untrained_network_loses_the_noise():
    torch.manual_seed(0)
    assert float(Palette(CONFIG)(torch.rand(64, 3, 16, 16)).detach()) == pytest.approx(1, abs=0.05)
    l1 = Palette(replace(CONFIG, process=replace(CONFIG.process, norm="l1")))
    assert float(l1(torch.rand(64, 3, 16, 16)).detach()) == pytest.approx(math.sqrt(2 / math.pi), abs=0.04)


def test_tasks_are_equally_frequent(monkeypatch):
    stage, counted = palette(), dict.fromkeys(PALETTE_TASKS, 0)
    condition = stage.condition

    def count(rgb: Tensor, task: Task) -> Condition:
        counted[task] += len(rgb)
        return condition(rgb, "colorize")

    monkeypatch.setattr(stage, "condition", count)
    monkeypatch.setattr(stage, "loss", lambda *_: torch.zeros(()))
    torch.manual_seed(0)
    stage(torch.rand(800, 3, 16, 16))
    assert sum(counted.values()) == 800 and all(150 < one < 250 for one in counted.values())


# ---------------------------------------------------------------------- sampling


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_known_pixels_stay_to_the_bit(sampler):
    stage, source = palette(), torch.rand(2, 3, 16, 16)
    hole = uncropping_hole(16, 16, "right").expand(2, 1, -1, -1)
    options = TranslateOptions(steps=4, sampler=sampler)
    drawn = stage.sample(Condition(source, hole), "uncrop", 2, options, torch.Generator().manual_seed(0))
    assert drawn.shape == (2, 2, 3, 16, 16) and drawn.min() >= 0 and drawn.max() <= 1
    everywhere = hole[:, None].expand_as(drawn)
    assert torch.equal(drawn[~everywhere], source[:, None].expand_as(drawn)[~everywhere])
    assert not torch.equal(drawn[:, 0], drawn[:, 1])
    # What stands in the hole of the source has no say.
    other = source.masked_fill(hole, 0.123)
    again = stage.sample(Condition(other, hole), "uncrop", 2, options, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again)


def test_knowing_is_the_projection_of_the_paper():
    """The hole comes out the same as when known pixels are put back after each step, as Palette has it."""
    clean, known = torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.rand(2, 1, 8, 8) < 0.5
    kernel = torch.randn(3, 3, 3, 3, dtype=torch.float64) / 6
    network = lambda x, gamma: torch.nn.functional.conv2d(x, kernel, padding=1)  # noqa: E731
    denoise = VPDenoiser(network, "epsilon")  # type: ignore[arg-type]
    sigmas = PALETTE_SAMPLING.sigmas(8)[2:]
    start = seeded()((2, 3, 8, 8)) * sigmas[0]
    ours = sample_ancestral(knowing(denoise, clean, known), start, sigmas, noise=seeded(1))
    theirs = sample_ancestral(
        denoise, start, sigmas, noise=seeded(1), correct=keep_known(clean, known, noised=False)
    )
    torch.testing.assert_close(ours, theirs)
    assert torch.equal(ours[known.expand_as(ours)], clean[known.expand_as(ours)])


def test_a_row_of_noise_makes_a_picture_alone_or_in_a_batch():
    stage, source = palette(), torch.rand(2, 3, 16, 16)
    rows = [torch.Generator().manual_seed(seed) for seed in range(4)]
    both = stage.sample(Condition(source), "colorize", 2, generator=rows)
    alone = stage.sample(Condition(source[1:]), "colorize", 1, generator=[torch.Generator().manual_seed(3)])
    torch.testing.assert_close(both[1, 1], alone[0, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sampler, steps, calls", [
    ("algorithm2", 7, 7), ("posterior", 7, 7), ("ddim", 7, 7), ("dpmpp_2m", 7, 7), ("heun", 7, 13),
])  # fmt: skip
def test_calls_of_the_network(sampler, steps, calls):
    stage, count = palette(), []
    stage.network.register_forward_hook(lambda *_: count.append(1))
    stage.sample(Condition(torch.rand(1, 3, 16, 16)), "jpeg", 1, TranslateOptions(steps, sampler))
    assert len(count) == calls


def test_other_sides_than_the_trained_one():
    assert palette().sample(Condition(torch.rand(1, 3, 24, 18)), "jpeg").shape == (1, 1, 3, 24, 18)


def test_the_regression_baseline():
    stage = palette(regression=True, process=ProcessConfig(norm="l2"))
    rgb = torch.rand(2, 3, 16, 16)
    condition, count = stage.condition(rgb, "colorize"), []
    stage.network.register_forward_hook(lambda *_: count.append(1))
    drawn = stage.sample(condition, "colorize", 2)
    assert len(count) == 1 and torch.equal(drawn[:, 0], drawn[:, 1]) and stage.sampling is None
    shown = 2 * condition.source - 1
    error = 2 * rgb - 1 - stage._regressed(shown)
    whole = torch.ones(2, 1, 16, 16, dtype=torch.bool)
    torch.testing.assert_close(stage.loss(2 * rgb - 1, shown, whole), error.square().mean())
    with pytest.raises(OptionError, match="has one step: leave out steps"):
        stage.sample(condition, "colorize", 1, TranslateOptions(steps=3))


# ---------------------------------------------------------------------- faults, files


@pytest.mark.parametrize("changes, message", [
    ({"tasks": ()}, "tasks must be some of"), ({"tasks": ("colorize", "colorize")}, "each once"),
    ({"tasks": ("line_art",)}, "tasks must be some of colorize"), ({"side": 17}, "side must be a multiple of 2"),
])  # fmt: skip
def test_configs_that_make_no_sense(changes, message):
    with pytest.raises(ValueError, match=message):
        Palette(replace(CONFIG, **changes))


def test_what_is_asked_for_must_be_learned():
    stage, source = palette(tasks=("colorize", "inpaint")), torch.rand(1, 3, 16, 16)
    hole = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    with pytest.raises(OptionError, match="task 'jpeg' is none of those .* colorize, inpaint"):
        stage.sample(Condition(source), "jpeg")
    with pytest.raises(OptionError, match="task 'inpaint' needs a hole"):
        stage.sample(Condition(source), "inpaint")
    with pytest.raises(OptionError, match="task 'colorize' fills no hole"):
        stage.sample(Condition(source, hole), "colorize")
    with pytest.raises(OptionError, match="colors to lean to mean nothing to kind 'palette'"):
        stage.sample(Condition(source, colors=source), "colorize")
    with pytest.raises(OptionError, match="start_color can not be honored .* sampler, steps"):
        stage.sample(Condition(source), "colorize", 1, TranslateOptions(start_color=(1.0, 0.0, 0.0)))
    with pytest.raises(ValueError, match=r"hole must be \(1, 1, 16, 16\) bool"):
        Condition(source, hole.float())
    with pytest.raises(ValueError, match="rgb must be"):
        stage(torch.rand(1, 3, 8, 8))
    for wrong in ({"steps": 0}, {"sampler": "euler"}, {"start_color": (0.0, 0.0, 2.0)}):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            TranslateOptions(**wrong)


def test_saved_and_loaded(tmp_path):
    stage = palette()
    stage.save_pretrained(tmp_path / "stage")
    again = load_stage(tmp_path / "stage")
    assert isinstance(again, Palette) and again.config == CONFIG
    condition = Condition(torch.rand(1, 3, 16, 16))
    first, second = (
        one.sample(condition, "jpeg", generator=torch.Generator().manual_seed(0)) for one in (stage, again)
    )
    assert torch.equal(first, second)
    text = (tmp_path / "stage/config.json").read_text()
    (tmp_path / "stage/config.json").write_text(text.replace('"norm": "l2"', '"norm": "l5"'))
    with pytest.raises(CheckpointError, match="ProcessConfig: norm must be one of l1, l2; got 'l5'"):
        load_stage(tmp_path / "stage")


def test_the_registry_knows_it():
    assert kind_of("image_to_image", "palette") == (PaletteConfig, Palette)
