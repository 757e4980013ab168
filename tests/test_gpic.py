"""Kind gpic: the encoder runs once, starts lean to a color, the corrector leaves the distribution alone."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from stages.diffusion import LinearSchedule, ProcessConfig, VPDenoiser, draw, draw_noise
from stages.diffusion.noise import gamma_from_sigma
from stages.image_to_image.face import Condition, Corrector, TranslateOptions
from stages.image_to_image.gpic import DDPM, GPIC, GPICConfig, LineEncoder
from stages.nn.blocks import ResidualBlock
from stages.nn.unet import UNetConfig
from stages.options import OptionError
from stages.registry import load_stage

STRONG = LinearSchedule(1000, 1e-6, 1e-2)
CONFIG = GPICConfig(16, UNetConfig(32, (1, 2), 1, (2,), 32), 1)
STD = 0.3


def gpic(**changes: Any) -> GPIC:
    torch.manual_seed(0)
    stage = GPIC(replace(CONFIG, **changes)).eval()
    torch.nn.init.normal_(stage.network.write.weight, std=0.02)
    return stage


def gaussian(x_vp: torch.Tensor, root: torch.Tensor) -> torch.Tensor:
    """The exact noise of N(0, STD²), told sqrt(gamma)."""
    gamma = root.double().square().view(-1, *[1] * (x_vp.dim() - 1))
    return ((1 - gamma).sqrt() * x_vp.double() / (gamma * STD**2 + 1 - gamma)).to(x_vp.dtype)


EXACT = VPDenoiser(gaussian, "epsilon", lambda sigma: gamma_from_sigma(sigma).sqrt())  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule, alphabar", [(DDPM, 4.0e-5), (STRONG, 0.081**2)])
def test_the_two_schedules_of_the_reference(schedule, alphabar):
    assert float(schedule.gammas[-1]) == pytest.approx(alphabar, rel=0.02)


@pytest.mark.parametrize("schedule", [DDPM, STRONG])
def test_a_biased_start_moves_the_mean_color(schedule):
    """50 drawings of 16x16 from the exact denoiser of white noise: sampling keeps what the start brings along.

    In closed form the mean of a draw is c · STD / sqrt(STD² + sigma_T²): weak with DDPM's schedule, but all pixels lean
    the same way.
    """
    config = ProcessConfig(training=schedule, sampling=schedule, sampler="ddim", steps=100)
    color = torch.tensor([0.9, -0.5, 0.1]).view(1, 3, 1, 1)
    means = []
    for sign in (1, -1):
        noise = partial(draw_noise, generator=torch.Generator().manual_seed(0))
        means.append(draw(EXACT, (50, 3, 16, 16), config, noise, mean=sign * color).mean((0, 2, 3)))
    moved = (means[0] - means[1]) / 2  # the same noise: what is left is the color's
    sigma = math.sqrt(1 / float(schedule.gammas[-1]) - 1)
    expected = STD / math.sqrt(STD**2 + sigma**2)
    torch.testing.assert_close(moved, expected * color.flatten(), rtol=0.15, atol=1e-5)


def tinted(x_vp: torch.Tensor, root: torch.Tensor) -> torch.Tensor:
    """The exact noise of pictures with a tint N(0, 0.3²) of each channel and texture N(0, 0.2²) of each pixel."""
    gamma = root.double().square().view(-1, 1, 1, 1)
    x, sigma2 = x_vp.double() / gamma.sqrt(), 1 / gamma - 1
    mean, share = x.mean((2, 3), keepdim=True), 1 / x[0, 0].numel()
    tint = 0.3**2 + share * 0.2**2
    clean = tint / (tint + share * sigma2) * mean + 0.2**2 / (0.2**2 + sigma2) * (x - mean)
    return ((x - clean) / sigma2.sqrt()).to(x_vp.dtype)


@pytest.mark.parametrize("schedule, least, most", [(DDPM, 0.0005, 0.05), (STRONG, 0.4, 0.9)])
def test_what_a_biased_start_moves_with_the_sampler_and_corrector_of_the_kind(schedule, least, most):
    """50 drawings of 64x64, whose tint is one: of the color this share is in the mean of the results."""
    denoise = VPDenoiser(tinted, "epsilon", lambda sigma: gamma_from_sigma(sigma).sqrt())  # type: ignore[arg-type]
    config = GPICConfig()
    process = replace(config.process, sampling=schedule)
    color = torch.tensor([0.9, -0.5, 0.1]).view(1, 3, 1, 1)
    means = []
    for sign in (1, -1):
        noise = partial(draw_noise, generator=torch.Generator().manual_seed(0))
        drawn = draw(denoise, (50, 3, 64, 64), process, noise, mean=sign * color,
                     correct=config.corrector.correction())  # fmt: skip
        means.append(drawn.mean((0, 2, 3)))
    moved = (means[0] - means[1]) / 2 / color.flatten()
    assert bool((moved > least).all() and (moved < most).all()), moved


def test_a_start_that_leans_has_levels_of_its_own(monkeypatch):
    seen = []

    def look(denoise, shape, config, noise, **rest):
        seen.append(config)
        return draw(denoise, shape, config, noise, **rest)

    monkeypatch.setattr("stages.image_to_image.gpic.draw", look)
    stage, drawing = gpic(), Condition(torch.rand(1, 3, 16, 16))
    stage.sample(drawing, "line_art", 1, TranslateOptions(2))
    stage.sample(drawing, "line_art", 1, TranslateOptions(2, start_color=(1.0, 0.25, 0.5)))
    stage.sample(replace(drawing, colors=torch.rand(1, 3, 16, 16)), "line_art", 1, TranslateOptions(2))
    assert [one.sampling for one in seen] == [stage.config.process.sampling, STRONG, STRONG]


def test_the_start_of_the_kind_is_that_of_the_paper(monkeypatch):
    """x_T = sqrt(alphabar_T) c + sqrt(1 - alphabar_T) z, in VP form."""
    seen = {}

    def look(denoise, shape, config, noise, *, mean, **rest):
        seen["mean"] = mean
        return draw(denoise, shape, config, noise, mean=mean, **rest)

    monkeypatch.setattr("stages.image_to_image.gpic.draw", look)
    stage, drawing = gpic(), Condition(torch.rand(2, 3, 16, 16))
    stage.sample(drawing, "line_art", 1, TranslateOptions(2, start_color=(1.0, 0.25, 0.5)))
    assert seen["mean"].flatten().tolist() == [1.0, -0.5, 0.0]
    colors = torch.rand(2, 3, 16, 16)
    stage.sample(replace(drawing, colors=colors), "line_art", 3, TranslateOptions(2))
    torch.testing.assert_close(seen["mean"], (2 * colors - 1).repeat_interleave(3, 0))
    with pytest.raises(OptionError, match="not both"):
        stage.sample(replace(drawing, colors=colors), "line_art", 1, TranslateOptions(start_color=(0.0, 0.0, 0.0)))


@pytest.mark.parametrize("order", ["predictor-corrector", "corrector-predictor"])
@pytest.mark.parametrize("steps, snr, annealed", [(0, 0.16, False), (1, 0.16, False), (2, 0.1, False), (1, 0.1, True)])
def test_predictor_and_corrector_keep_the_variance(order, steps, snr, annealed):
    config = GPICConfig().process
    noise = partial(draw_noise, generator=torch.Generator().manual_seed(0))
    corrector = Corrector(steps, snr, order, annealed)
    x = draw(EXACT, (2, 8_000), config, noise, correct=corrector.correction(), steps=1000)
    assert float(x.mean()) == pytest.approx(0, abs=0.015)
    # The bias of finite Langevin steps is a share snr² of the variance: see tests/test_corrections.py.
    assert float(x.std()) == pytest.approx(STD, rel=0.03)


def test_the_encoder_runs_once_for_all_draws_and_steps():
    stage, counts = gpic(), dict[str, list[int]](encoder=[], network=[])
    stage.encoder.register_forward_hook(lambda module, inputs, out: counts["encoder"].append(len(inputs[0])))
    stage.network.register_forward_hook(lambda module, inputs, out: counts["network"].append(len(inputs[0])))
    drawing = Condition(torch.rand(2, 3, 16, 16))
    drawn = stage.sample(drawing, "line_art", 4, TranslateOptions(6, corrector=Corrector(2)))
    assert drawn.shape == (2, 4, 3, 16, 16)
    assert counts == {"encoder": [2], "network": [8] * (6 + 5 * 2)}  # T + M (T - 1): none at 0


def test_the_encoder_says_something_at_each_size():
    torch.manual_seed(0)
    encoder = LineEncoder((32, 32, 64), 1)
    features = encoder(torch.rand(2, 1, 32, 16))
    assert [tuple(one.shape) for one in features] == [(2, 32, 32, 16), (2, 32, 16, 8), (2, 64, 8, 4)]
    stage = gpic()
    for one in stage.modules():
        if isinstance(one, ResidualBlock):  # silent when fresh
            torch.nn.init.normal_(one.conv2.weight, std=0.1)
    stage(torch.rand(4, 3, 16, 16)).backward()
    assert all(one.grad is not None for one in stage.parameters())
    assert all(one.grad is not None and one.grad.abs().max() > 0 for one in stage.encoder.parameters())


def test_other_lines_other_colors():
    stage = gpic()
    torch.nn.init.normal_(stage.network.write.weight, std=0.5)
    drawing = torch.ones(1, 3, 16, 16)
    other = drawing.clone()
    other[..., 8, :] = 0
    seeds = [torch.Generator().manual_seed(1) for _ in range(2)]
    first, second = (
        stage.sample(Condition(one), "line_art", 1, TranslateOptions(4), seed)
        for one, seed in zip((drawing, other), seeds, strict=True)
    )
    assert (first - second).abs().mean() > 1e-3


@pytest.mark.parametrize("sampler", ["posterior", "algorithm2", "ddim", "dpmpp_2m"])
def test_completion_keeps_the_fixed_region_to_the_bit(sampler):
    stage, known = gpic(), torch.rand(2, 3, 16, 16)
    hole = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    hole[..., 4:12, 4:12] = True
    condition = Condition(torch.rand(2, 3, 16, 16), hole, known)
    seen: list[tuple[float, torch.Tensor]] = []
    drawn = stage.sample(
        condition, "line_art", 2, TranslateOptions(5, sampler), torch.Generator().manual_seed(0),
        lambda step, sigma, x, x0: seen.append((sigma, x)),
    )  # fmt: skip
    outside = (~hole).expand(-1, 3, -1, -1)
    for sigma, x in seen[:-1]:  # on the way it is as noisy as the rest
        noise = (x[::2] - (2 * known - 1))[outside] / sigma
        assert abs(float(noise.mean())) < 0.15 and 0.9 < float(noise.std()) < 1.1
    for k in range(2):
        assert torch.equal(drawn[:, k][outside], known[outside])
        assert not torch.equal(drawn[:, k][~outside], known[~outside])
    with pytest.raises(OptionError, match="needs the known colors around it"):
        stage.sample(Condition(known, hole), "line_art")


def test_an_untrained_network_loses_the_absolute_noise():
    loss = GPIC(CONFIG)(torch.rand(64, 3, 16, 16))
    assert float(loss.detach()) == pytest.approx(math.sqrt(2 / math.pi), abs=0.03)


def test_levels_of_training_are_uniform_in_the_root():
    process = GPICConfig().process
    assert process.root and process.norm == "l1" and process.training == DDPM
    torch.manual_seed(0)
    roots = process.training.draw_gammas(50_000, root=True).sqrt()
    ends = torch.cat([torch.ones(1, dtype=torch.float64), DDPM.gammas.sqrt()])
    steps = torch.bucketize(roots, ends.flip(0))
    counts = torch.bincount(steps, minlength=1001)[1:1001].float()
    assert counts.sum() == 50_000 and abs(float(counts.var() / counts.mean()) - 1) < 0.15  # t is uniform


def test_saved_with_its_corrector(tmp_path):
    stage = gpic(corrector=Corrector(2, 0.05, "corrector-predictor"))
    stage.save_pretrained(tmp_path / "gpic")
    again = load_stage(tmp_path / "gpic")
    assert again.config == stage.config and again.config.corrector.order == "corrector-predictor"


@pytest.mark.parametrize("wrong", [{"steps": -1}, {"snr": 0.0}, {"order": "both"}])
def test_correctors_that_make_no_sense(wrong):
    with pytest.raises(OptionError, match="a corrector needs"):
        Corrector(**wrong)
