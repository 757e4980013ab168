"""What the kinds `diffusion` of stages 1 and 3 have in common: one loss, one count of steps."""

from __future__ import annotations

import pytest
import torch
from tiny_stages import SIDES, SMALL, calls_of, drawn, picture, small

from stages.options import SampleOptions

DIFFUSION = pytest.mark.parametrize("family", ["coarse", "superres"])


@DIFFUSION
def test_untrained_denoiser_loses_what_the_noise_takes(family):
    # A network that says 0 estimates c_skip x. Where there is no color x is noise alone, and the weighted error is
    # lambda (c_skip sigma)^2 = 1 / (1 + sigma^2): the mean of that over ln sigma ~ N(mean, std^2).
    config = SMALL[family, "diffusion"]
    changes = {"noise_levels": 300} if family == "coarse" else {"noise_levels": 40, "disturb": 0.0, "huber": 0.0}
    stage, side = small(family, "diffusion", **changes), SIDES[family]
    channels = 2 if family == "coarse" else 32
    stage.denoiser.network.forward = lambda x, c_noise, context: torch.zeros_like(x[:, :channels])  # at once
    with torch.no_grad():
        loss = stage(picture(side, 1)[:, :1].expand(-1, 3, -1, -1))
    log_sigma = torch.linspace(-6, 6, 20001, dtype=torch.float64) * config.noise_std + config.noise_mean
    density = torch.exp(-(((log_sigma - config.noise_mean) / config.noise_std) ** 2) / 2)
    expected = (density / (1 + torch.exp(2 * log_sigma))).sum() / density.sum()
    assert abs(loss - expected) < (0.06 if family == "coarse" else 0.15)  # four standard errors of the mean


@DIFFUSION
def test_an_unknown_sampler_is_refused_at_once(family):
    with pytest.raises(ValueError, match="sampler must be one of .*'heun'.*got 'euler'"):
        small(family, "diffusion", sampler="euler")


@DIFFUSION
@pytest.mark.parametrize("sampler, calls", [("dpmpp_2m", [1, 2, 5]), ("ddim", [1, 2, 5]), ("heun", [1, 3, 9])])
def test_steps_and_encoder_calls(family, sampler, calls):
    stage, rgb = small(family, "diffusion", sampler=sampler, steps=2), picture(SIDES[family], 1)
    assert stage.sampling == {"sampler": sampler, "steps": 2}
    encoder, denoiser, network = (calls_of(m) for m in (stage.encoder, stage.denoiser, stage.denoiser.network))
    for steps, expected in zip((1, None, 5), calls, strict=True):
        seen: list[int] = []
        for sizes in (encoder, denoiser, network):
            sizes.clear()
        options = SampleOptions(steps=steps) if family == "coarse" else SampleOptions(superres_steps=steps)
        drawn(stage, rgb, options=options, callback=lambda step, *_, seen=seen: seen.append(step))
        assert denoiser == network == [1] * expected
        assert seen == list(range(stage.num_steps(options))) == list(range(steps or 2))
        assert encoder == [1]


@DIFFUSION
def test_training_encodes_once_for_all_noise_levels(family):
    stage, rgb = small(family, "diffusion"), picture(SIDES[family])
    encoder, denoiser = calls_of(stage.encoder), calls_of(stage.denoiser)
    stage(rgb)
    assert encoder == [2] and denoiser == [2 * stage.config.noise_levels]
