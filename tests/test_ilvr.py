"""ILVR: its low passes exactly, and what they make of a reference. The correction itself: tests/test_corrections.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from stages.color.spaces import chroma_from_rgb, gray_from_rgb
from stages.diffusion import ProcessConfig
from stages.diffusion.low_pass import bicubic, bicubic_weights, box, luma, with_luma
from stages.image_to_image.face import Condition, Refinement, TranslateOptions
from stages.image_to_image.unconditional import Unconditional, UnconditionalConfig
from stages.nn.unet import UNetConfig
from stages.options import OptionError

CONFIG = UnconditionalConfig(32, UNetConfig(32, (1, 1), 1, (2,), 32), ProcessConfig(sampler="posterior", steps=4))


def unconditional(**changes: Any) -> Unconditional:
    torch.manual_seed(0)
    stage = Unconditional(replace(CONFIG, **changes)).eval()
    torch.nn.init.normal_(stage.network.write.weight, std=0.02)
    return stage


def keys(x: float) -> float:
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


@pytest.mark.parametrize("before, after", [(32, 8), (8, 32), (30, 10), (7, 7), (16, 1), (1, 16), (5, 8)])
def test_bicubic_against_the_formula(before, after):
    """Sum over an endlessly mirrored row of Keys' kernel, stretched when reducing."""
    row = torch.randn(before, dtype=torch.float64)
    scale = after / before
    width = min(scale, 1)
    mirrored = torch.cat([row, row.flip(0)])
    for out in range(after):
        center = (out + 0.5) / scale - 0.5
        total = norm = 0.0
        for place in range(-6 * max(before, 4), 7 * max(before, 4)):
            weight = keys((center - place) * width)
            total += weight * float(mirrored[place % (2 * before)])
            norm += weight
        assert float(bicubic_weights(before, after)[out] @ row) == pytest.approx(total / norm, abs=1e-9)


def test_bicubic_is_pillows_and_torchs_away_from_the_borders():
    """Those cut the kernel at the border, where ours sees the mirrored picture."""
    picture = np.random.default_rng(0).random((64, 48)).astype(np.float32)
    ours = bicubic_weights(64, 16).float() @ torch.from_numpy(picture) @ bicubic_weights(48, 12).float().mT
    theirs = np.asarray(Image.fromarray(picture).resize((12, 16), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(ours[2:-2, 2:-2].numpy(), theirs[2:-2, 2:-2], atol=1e-5)
    torchs = F.interpolate(torch.from_numpy(picture)[None, None], (16, 12), mode="bicubic", antialias=True)[0, 0]
    torch.testing.assert_close(ours[2:-2, 2:-2], torchs[2:-2, 2:-2], atol=1e-5, rtol=0)
    enlarged = bicubic_weights(16, 64).float() @ ours @ bicubic_weights(12, 48).float().mT
    theirs = np.asarray(Image.fromarray(ours.numpy()).resize((48, 64), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(enlarged[8:-8, 8:-8].numpy(), theirs[8:-8, 8:-8], atol=1e-5)


def test_which_low_passes_are_projections():
    x = torch.randn(2, 3, 32, 16, dtype=torch.float64)
    for low_pass in (box(4), luma, with_luma(box(4)), bicubic(1), box(1), box(16)):
        torch.testing.assert_close(low_pass(low_pass(x)), low_pass(x))
    assert (bicubic(4)(bicubic(4)(x)) - bicubic(4)(x)).abs().max() > 0.01
    torch.testing.assert_close(box(1)(x), x)
    torch.testing.assert_close(bicubic(1)(x), x)


def test_luma_and_its_combination():
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(gray_from_rgb(luma(x)), gray_from_rgb(x))
    kept = with_luma(box(4))(x)
    torch.testing.assert_close(gray_from_rgb(kept), gray_from_rgb(x))
    torch.testing.assert_close(kept - luma(kept), box(4)(x) - luma(box(4)(x)))


def test_factors_that_do_not_divide():
    for low_pass in (bicubic, box):
        with pytest.raises(ValueError, match="multiples of the factor 5; got 32x32"):
            low_pass(5)(torch.zeros(1, 3, 32, 32))


# ---------------------------------------------------------------------- the kind


def drawn(reference: Tensor, refinement: Refinement, count: int = 1, **changes: Any) -> Tensor:
    options = TranslateOptions(refinement=refinement)
    generator = torch.Generator().manual_seed(0)
    return unconditional(**changes).sample(Condition(reference), "variation", count, options, generator)


def smooth(seed: int = 0) -> Tensor:
    """A reference whose surroundings stay within [0, 1]: clipping would hide what the low pass keeps."""
    torch.manual_seed(seed)
    return 0.5 + 0.05 * F.interpolate(torch.randn(2, 3, 8, 8), (32, 32), mode="bicubic")


@pytest.mark.parametrize("low_pass", ["bicubic", "box"])
@pytest.mark.parametrize("sampler", ["posterior", "algorithm2", "ddim", "heun", "dpmpp_2m"])
def test_factor_1_gives_the_reference_back(low_pass, sampler):
    reference = torch.rand(2, 3, 32, 32)
    process = replace(CONFIG.process, sampler=sampler)
    out = drawn(reference, Refinement(1, low_pass), process=process)
    torch.testing.assert_close(out[:, 0], reference, atol=1e-5, rtol=0)


@pytest.fixture
def calm(monkeypatch):
    """Clean estimates near gray, so that nothing is clipped to [0, 1]."""
    forward = Unconditional.__init__

    def calmed(self, config=None):
        forward(self, config)
        network = self.denoiser.forward
        self.denoiser.forward = lambda x, sigma, **conditions: 0.2 * torch.tanh(network(x, sigma, **conditions))

    monkeypatch.setattr(Unconditional, "__init__", calmed)


@pytest.mark.parametrize("factor", [2, 8, 32])
def test_the_box_keeps_exactly_what_it_should(factor, calm):
    reference = smooth()
    out = drawn(reference, Refinement(factor, "box"), 2)
    for k in range(2):
        torch.testing.assert_close(box(factor)(out[:, k]), box(factor)(reference), atol=1e-5, rtol=0)
    assert (out[:, 0] - out[:, 1]).abs().mean() > 0.005
    if factor == 32:  # the mean color and nothing else
        assert (F.avg_pool2d(out[:, 0], 4) - F.avg_pool2d(reference, 4)).abs().mean() > 0.003


def test_the_model_is_free_in_the_last_steps(calm):
    reference = smooth()
    bound, free = drawn(reference, Refinement(4, "box")), drawn(reference, Refinement(4, "box", until=0.5))
    error = lambda out: float((box(4)(out[:, 0]) - box(4)(reference)).abs().max())  # noqa: E731
    assert error(bound) < 1e-5 < 1e-3 < error(free)


def test_the_steps_that_are_bound(monkeypatch):
    """Of 4 steps, 1 - until of them; the last bound one ends at the level of the first free step."""
    for until, expected in ((0.0, 4), (0.25, 3), (0.5, 2), (0.75, 1)):
        levels: list[float] = []
        monkeypatch.setattr(
            "stages.image_to_image.unconditional.ilvr",
            lambda reference, low_pass, until, lagging, since, levels=levels: levels.extend((until, since)),
        )
        drawn(smooth(), Refinement(4, until=until))
        sigmas = CONFIG.process.sigmas()
        assert int((sigmas[1:] >= levels[0]).sum()) == expected and levels[1] == float(sigmas[0])
        drawn(smooth(), Refinement(4, since=until))
        assert int((sigmas[:-1] <= levels[3]).sum()) == expected and levels[2] == 0


@pytest.mark.parametrize("since, until", [(-0.1, 0.0), (0.5, 0.5), (0.0, 1.0)])
def test_ranges_without_a_step(since, until):
    with pytest.raises(OptionError, match="since and until from 0 and together below 1"):
        Refinement(since=since, until=until)


def test_weights_that_know_timesteps_are_sampled():
    """As weights of ADM's code are: told the last timestep where sampling begins, and then earlier ones."""
    torch.manual_seed(0)
    process = replace(CONFIG.process, told="timestep", sampling=CONFIG.process.training)
    stage = Unconditional(replace(CONFIG, process=process)).eval()
    told: list[float] = []
    stage.network.register_forward_pre_hook(lambda module, inputs: told.append(float(inputs[1].flatten()[0])))
    stage.sample(Condition(smooth()), "variation", 1)
    assert told[0] == pytest.approx(CONFIG.process.training.steps - 1, abs=0.01) and told == sorted(told, reverse=True)
    assert told[-1] >= 0 and len(told) == 4
    with pytest.raises(ValueError, match='told must be "gamma" or "root" in training'):
        stage(smooth())


def test_a_factor_of_colors_that_are_not_given():
    stage = Unconditional(CONFIG).eval()
    with pytest.raises(OptionError, match="give colors too"):
        stage.sample(Condition(smooth()), "colorize", 1, TranslateOptions(refinement=Refinement(4)))


@pytest.mark.parametrize("low_pass", [bicubic, box])
def test_a_low_pass_is_exact_under_autocast(low_pass):
    x = torch.rand(1, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(low_pass(4)(x), low_pass(4)(x.clone())) and low_pass(4)(x).dtype == torch.float32
        inside = low_pass(4)(x)
    assert torch.equal(inside, low_pass(4)(x))


def test_smaller_factors_are_nearer(calm):
    reference = smooth()
    distance = [float((drawn(reference, Refinement(n))[:, 0] - reference).square().mean()) for n in (2, 4, 8, 16)]
    assert distance == sorted(distance)


def test_gray_pictures_are_colored_at_their_luma(calm):
    gray = gray_from_rgb(smooth()).expand(-1, 3, -1, -1)
    stage, colors = unconditional(), smooth(1)
    seed = lambda: torch.Generator().manual_seed(0)  # noqa: E731
    plain = stage.sample(Condition(gray), "colorize", 2, generator=seed())
    options = TranslateOptions(refinement=Refinement(8, "box"))
    led = stage.sample(Condition(gray, colors=colors), "colorize", 2, options, seed())
    for out in (plain, led):
        torch.testing.assert_close(gray_from_rgb(out), gray[:, None, :1].expand(-1, 2, -1, -1, -1), atol=2e-5, rtol=0)
        assert chroma_from_rgb(out).abs().mean() > 1e-3
    # Beside the luma, which lies along its weights (not along gray), the colors are those of the other picture.
    torch.testing.assert_close(box(8)(led[:, 0] - luma(led[:, 0])), box(8)(colors - luma(colors)), atol=1e-5, rtol=0)


def test_what_is_refused():
    stage, picture = unconditional(), torch.rand(1, 3, 32, 32)
    with pytest.raises(OptionError, match="task 'inpaint' is none of those .* variation, colorize"):
        stage.sample(Condition(picture), "inpaint")
    with pytest.raises(OptionError, match="the reference of a variation is its source"):
        stage.sample(Condition(picture, colors=picture), "variation")
    with pytest.raises(ValueError, match="multiples of the factor 5"):
        stage.sample(Condition(picture), "variation", 1, TranslateOptions(refinement=Refinement(5)))
    for wrong in ({"factor": 0}, {"low_pass": "gauss"}, {"until": 1.0}):
        with pytest.raises(OptionError, match="a refinement needs"):
            Refinement(**wrong)


def test_an_untrained_network_loses_the_noise():
    loss = Unconditional(CONFIG)(torch.rand(32, 3, 32, 32))
    assert float(loss.detach()) == pytest.approx(1, abs=0.05)
