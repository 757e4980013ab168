"""Stage 3, kind sr3: what it is shown, what it answers, and that the cascade runs with it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline import ColorPipeline
from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, gray_from_rgb
from stages.diffusion import ProcessConfig
from stages.nn.unet import Block, UNetConfig
from stages.options import OptionError, SampleOptions
from stages.registry import kind_of, load_stage
from stages.stage3_superres.sr3 import SR3SuperResolver, SR3SuperResolverConfig
from stages.training.config import Config

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
CONFIG = SR3SuperResolverConfig(
    UNetConfig(32, (1,), 1, (), context_in_the_middle=False, skip_scale=1 / math.sqrt(2)),
    ProcessConfig(norm="l1", steps=2),
)


def sr3(**changes: Any) -> SR3SuperResolver:
    torch.manual_seed(0)
    stage = SR3SuperResolver(replace(CONFIG, **changes)).eval()
    torch.nn.init.normal_(stage.network.write.weight, std=0.05)
    return stage


def test_color_at_the_luma_of_the_gray_picture():
    stage, gray, low = sr3(), torch.rand(1, 1, 256, 256), torch.rand(1, 3, 64, 64)
    first, again, other = (
        stage.sample(gray, low, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert first.shape == (1, 3, 256, 256) and first.min() >= 0 and first.max() <= 1
    assert (gray_from_rgb(first) - gray).abs().max() < 1e-4 and chroma_from_rgb(first).abs().max() > 0.01
    assert torch.equal(first, again) and not torch.equal(first, other)


def watched(stage: SR3SuperResolver) -> list[Tensor]:
    """What the network is shown from now on; it answers with zeros."""
    seen: list[Tensor] = []

    def look(x: Tensor, level: Tensor, source: Tensor) -> Tensor:
        seen.append(source)
        return 0 * x

    stage.network.forward = look  # type: ignore[method-assign,assignment]
    return seen


@pytest.mark.parametrize("gray, channels", [(True, 4), (False, 3)])
def test_what_the_network_is_shown(gray, channels):
    stage = sr3(gray=gray, blur=0.0)
    seen = watched(stage)
    rgb = torch.rand(2, 3, 256, 256)
    stage(rgb)
    assert seen[-1].shape == (2, channels, 256, 256)
    enlarged = resize(resize(rgb, (64, 64)), (256, 256))
    torch.testing.assert_close(seen[-1][:, :3], 2 * enlarged - 1, atol=1e-4, rtol=0)
    if gray:
        torch.testing.assert_close(seen[-1][:, 3:], 2 * gray_from_rgb(rgb) - 1)
    stage.sample(gray_from_rgb(rgb), resize(rgb, (64, 64)), SampleOptions(superres_steps=1))
    torch.testing.assert_close(seen[-1][:, :3], 2 * enlarged - 1)


def test_the_small_picture_is_blurred_in_training_alone():
    stage = sr3(blur=1.2)
    seen = watched(stage)
    torch.manual_seed(0)
    rgb = torch.rand(1, 3, 256, 256).expand(4, -1, -1, -1)
    stage(rgb)
    stage.sample(gray_from_rgb(rgb), resize(rgb, (64, 64)), SampleOptions(superres_steps=1))
    trained, used = (one[:, :3].std((1, 2, 3)) for one in seen)
    assert (trained <= used).all() and trained.min() < 0.7 * used.min()
    assert len({round(float(one), 5) for one in trained}) == 4
    torch.testing.assert_close(seen[0].mean((2, 3)), seen[1].mean((2, 3)), atol=0.01, rtol=0)


def test_steps_are_those_asked_for():
    stage, count = sr3(), []
    stage.network.register_forward_hook(lambda *_: count.append(1))
    stage.sample(torch.rand(1, 1, 256, 256), torch.rand(1, 3, 64, 64), SampleOptions(superres_steps=3))
    assert len(count) == 3 == stage.num_steps(SampleOptions(superres_steps=3)) and stage.num_steps(SampleOptions()) == 2
    with pytest.raises(OptionError):
        stage.sample(torch.rand(1, 1, 256, 256), torch.rand(1, 3, 64, 64), SampleOptions(superres_steps=0))


def test_skips_are_scaled():
    torch.manual_seed(0)
    config = replace(CONFIG.unet, skip_scale=1 / math.sqrt(2))
    x, code = torch.randn(2, 32, 8, 8), torch.randn(2, 128)
    block = Block(config, 32, 32, 128)  # fresh: its branch is silent
    torch.testing.assert_close(block(x, code), x / math.sqrt(2))


def test_an_untrained_network_loses_the_absolute_noise():
    loss = SR3SuperResolver(CONFIG)(torch.rand(2, 3, 256, 256))
    assert float(loss.detach()) == pytest.approx(math.sqrt(2 / math.pi), abs=0.02)


def test_inputs_that_do_not_fit():
    stage = sr3()
    with pytest.raises(ValueError, match="rgb must be"):
        stage(torch.rand(1, 3, 64, 64))
    with pytest.raises(ValueError, match="gray256 must be"):
        stage.sample(torch.rand(1, 1, 64, 64), torch.rand(1, 3, 64, 64))


def test_the_published_size():
    """625 M in the paper, which adds the level where this network scales and shifts, and is silent on attention."""
    config = Config.read(CONFIGS / "stage3_sr3_published.toml")
    with torch.device("meta"):
        stage = kind_of("superres", "sr3")[1](config.network)
    assert sum(one.numel() for one in stage.parameters()) / 1e6 == pytest.approx(633.5, abs=0.1)
    for path in (CONFIGS / "stage3_sr3.toml", CONFIGS / "tiny/stage3_sr3.toml"):
        config = Config.read(path)
        assert config.kind == "sr3" and config.data.side == 256
        assert f"train_scripts/stage3.py --config configs/{path.relative_to(CONFIGS)}" in path.read_text()


def test_the_cascade_runs_with_it(tmp_path):
    sr3().save_pretrained(tmp_path / "sr3")
    shipped = ColorPipeline.from_pretrained()
    stage = load_stage(tmp_path / "sr3")
    assert isinstance(stage, SR3SuperResolver)
    pipe = ColorPipeline(shipped.coarse, shipped.color, stage)
    gray = np.random.default_rng(0).random((17, 23)).astype(np.float32)
    (out,) = pipe(gray, generator=0, pool=1, num_inference_steps=(2, 2), output_type="pt").images
    assert (gray_from_rgb(out)[0] - torch.from_numpy(gray)).abs().max() < 1e-4 and chroma_from_rgb(out).std() > 0
