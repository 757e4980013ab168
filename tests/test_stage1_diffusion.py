"""Stage 1, kind `diffusion`: what its parts are taught, what its draws are made of, and few tuned steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.fft
import torch
import torch.nn.functional as F
from tiny_stages import SMALL, answering, calls_of, encoded, generators, lively, picture, small
from torch import Tensor

from stages.color.resample import resize, sharp_gray
from stages.color.spaces import chroma_from_rgb, gray_from_rgb, merge, rgb_from_gray_chroma
from stages.diffusion import geometric_sigmas
from stages.faces import GrayView
from stages.options import OptionError, SampleOptions
from stages.registry import load_stage
from stages.stage import Stage
from stages.stage1_coarse.diffusion import DiffusionColorizer, DiffusionColorizerConfig


def chroma(stage: DiffusionColorizer, gray: Tensor, count: int = 1, seeds: tuple[int, ...] | None = None,
           **options: Any) -> Tensor:  # fmt: skip
    """Chroma of `count` draws of each picture, (B, count, 2, 64, 64)."""
    noise = None if seeds is None else generators(*seeds)
    return stage.sample(encoded(stage, gray), count, SampleOptions(**options), noise).chroma


def test_only_what_the_encoder_is_shown_in_training_ages(monkeypatch):
    """The colors to be learned, fitting, samples and previews are those of the photograph as it is."""
    stage, rgb = small("coarse", "diffusion", film=1.0), picture(64)
    shown: list[Tensor] = []
    stage.encoder.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0]))
    targets: list[Tensor] = []

    def noted(guess: Tensor, target: Tensor, **_: object) -> Tensor:
        targets.append(target)
        return guess.sum()

    monkeypatch.setattr(F, "smooth_l1_loss", noted)
    stage(rgb)
    stage.fit_to([rgb])
    encoding = encoded(stage, gray_from_rgb(rgb))
    stage.preview(encoding)
    stage.sample(encoding)
    aged, *others = shown
    assert (aged - gray_from_rgb(rgb)).abs().max() > 0.02 and len(others) == 2
    for gray in others:
        torch.testing.assert_close(gray, gray_from_rgb(rgb))
    torch.testing.assert_close(targets[0], F.avg_pool2d(chroma_from_rgb(rgb), 2) / stage.config.chroma_std)
    with pytest.raises(ValueError, match="film is a share of the pictures, from 0 to 1; got 30"):
        small("coarse", "diffusion", film=30)


def stage1_loss(stage: Stage, rgb: Tensor, label: list[int] | None) -> Tensor:
    torch.manual_seed(1)
    return stage(rgb, None if label is None else torch.tensor(label))


def test_stage1_label_counts_where_it_is_known():
    stage, rgb = lively("coarse", "diffusion"), picture(64, 3)
    without = stage1_loss(stage, rgb, None)
    assert stage1_loss(stage, rgb, [-1, -1, -1]) == without  # and no 0 / 0
    stage1_loss(stage, rgb, [-1, -1, -1]).backward()
    assert all(p.grad.isfinite().all() for p in stage.parameters() if p.grad is not None)
    with torch.no_grad():
        logits = stage.encoder(*stage._gray(rgb))[2]
    expected = F.cross_entropy(logits[[0, 2]], torch.tensor([3, 1]))  # the mean over the two that are known
    share = stage1_loss(stage, rgb, [3, -1, 1]) - without
    torch.testing.assert_close(share, stage.config.label_weight * expected, rtol=1e-4, atol=1e-6)


def test_stage1_without_classes_or_noise_levels():
    torch.manual_seed(0)
    config = DiffusionColorizerConfig(**{**vars(SMALL["coarse", "diffusion"]), "classes": 0, "noise_levels": 0})
    stage, rgb = DiffusionColorizer(config), picture(64)
    loss = stage(rgb, torch.tensor([3, -1]))
    # Only the preview is left, and untrained it says gray: the smooth L1 distance of chroma at 32x32 to zero.
    target = F.avg_pool2d(chroma_from_rgb(rgb), 2) / config.chroma_std
    torch.testing.assert_close(loss, F.smooth_l1_loss(torch.zeros_like(target), target, beta=0.5))
    loss.backward()
    assert all(p.grad is None for p in stage.denoiser.parameters())


def test_stage1_frozen_encoder_gets_no_gradient():
    stage = lively("coarse", "diffusion").train()
    stage.encoder.requires_grad_(False)
    seen = []
    stage.encoder.register_forward_hook(lambda _, __, output: seen.append(output[0].requires_grad))
    loss = stage(picture(64), torch.tensor([3, -1]))
    loss.backward()
    assert seen == [False]  # not even a graph is built
    assert all(p.grad is None for p in stage.encoder.parameters())
    assert all(p.grad is not None and p.grad.any() for p in stage.denoiser.parameters())
    torch.manual_seed(1)
    alone = stage(picture(64))
    torch.manual_seed(1)
    assert stage(picture(64), torch.tensor([3, -1])) == alone  # its heads are no part of the loss


def test_stage1_sees_its_chroma_again():
    """What the networks are taught, chroma at 32x32, is what their answers are enlarged from."""
    stage = small("coarse", "diffusion")
    chroma32 = 0.1 * torch.randn(2, 2, 32, 32)
    blocks = F.interpolate(chroma32, (64, 64), mode="nearest")
    seen = stage._chroma32(rgb_from_gray_chroma(torch.full((2, 1, 64, 64), 0.5), blocks))
    torch.testing.assert_close(seen, chroma32 / stage.config.chroma_std)
    expected = F.interpolate(chroma32, (64, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(stage._enlarged(seen), expected)


def test_stage1_learns_what_the_preview_leaves_open():
    stage, rgb = lively("coarse", "diffusion"), picture(64)
    seen = answering(stage, noise_mean=-20.0, noise_std=0.01, noise_levels=1)
    stage(rgb)
    assert seen["sigma"].max() < 1e-6  # so that what it is shown is the clean target
    preview = stage.encoder(*stage._gray(rgb))[1]
    assert preview.abs().mean() > 0.01
    torch.testing.assert_close(seen["noisy"] + preview, stage._chroma32(rgb), rtol=0, atol=1e-4)


def test_stage1_samples_begin_at_the_preview():
    """Where nothing is open, and the denoiser says so, every candidate is the preview."""
    stage, rgb = lively("coarse", "diffusion"), picture(64)
    stage.denoiser.forward = lambda x, sigma, context: torch.zeros_like(x)
    gray = gray_from_rgb(rgb)
    for candidate in chroma(stage, gray, 2).unbind(1):
        torch.testing.assert_close(merge(gray, candidate), stage.preview(encoded(stage, gray)))


def test_stage1_takes_the_spectrum_of_what_the_preview_leaves_open():
    stage, rgb = lively("coarse", "diffusion"), torch.cat([picture(64, seed=seed) for seed in range(3)])
    stage.fit_to(rgb.split(2))
    with torch.no_grad():
        left_open = stage._chroma32(rgb) - stage.encoder(*stage._gray(rgb))[1]
    energy = np.square(scipy.fft.dctn(left_open.numpy(), type=2, norm="ortho", axes=(-2, -1))).mean(0)
    np.testing.assert_allclose(stage.denoiser.spectrum, np.maximum(energy, 1e-4 * energy.mean()), rtol=1e-3, atol=1e-5)


def test_chroma_gain_scales_what_is_sampled():
    """Of the config, and asked for instead of it."""
    stage, gray = lively("coarse", "diffusion"), gray_from_rgb(picture(64))
    vivid = small("coarse", "diffusion", chroma_gain=1.5)
    vivid.load_state_dict(stage.state_dict())
    plain = chroma(stage, gray, 2, (1, 2, 3, 4))
    torch.testing.assert_close(chroma(vivid, gray, 2, (1, 2, 3, 4)), 1.5 * plain)
    torch.testing.assert_close(chroma(vivid, gray, 2, (1, 2, 3, 4), chroma_gain=0.5), 0.5 * plain)
    assert chroma(stage, gray, 2, chroma_gain=0.0).abs().max() == 0
    assert torch.equal(vivid.preview(encoded(vivid, gray)), stage.preview(encoded(stage, gray)))
    with pytest.raises(OptionError, match="chroma_gain must be a number from 0; got -1.0"):
        small("coarse", "diffusion", chroma_gain=-1.0)


def test_stage1_encodes_once_for_all_candidates():
    stage, gray = small("coarse", "diffusion"), gray_from_rgb(picture(64))
    encoder, denoiser = calls_of(stage.encoder), calls_of(stage.denoiser)
    contexts = [calls_of(layer) for layer in (*stage.denoiser.network.context, *stage.denoiser.network.context8)]
    encoding = encoded(stage, gray)
    stage.sample(encoding, 5, SampleOptions(steps=4))
    assert encoder == [2] and denoiser == [10] * 4
    denoiser.clear()
    stage.preview(encoding)
    at_once = stage.sample(encoding, 2, generator=generators(1, 2, 3, 4)).chroma
    parts = [stage.sample(encoding, 1, generator=generators(*seeds)).chroma for seeds in ((1, 3), (2, 4))]
    assert encoder == [2] and denoiser == [4] * 3 + [2] * 6
    assert contexts == [[2]] * len(contexts)
    torch.testing.assert_close(torch.cat(parts, 1), at_once, rtol=0, atol=1e-5)


def test_untrained_preview_is_gray():
    gray, stage = gray_from_rgb(picture(64)), small("coarse", "diffusion")
    assert torch.equal(stage.preview(encoded(stage, gray)), gray.expand(-1, 3, -1, -1))


def test_the_backbone_sees_the_sharp_picture():
    stage = lively("coarse", "diffusion", gray_side=128, backbone_side=128)
    rgb = picture(128)
    gray64, sharp = F.avg_pool2d(gray_from_rgb(rgb), 2), gray_from_rgb(rgb)
    shown: list[Tensor] = []
    stage.encoder.backbone.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0]))
    with_it, without = (stage.encode(GrayView(gray64, gray128)) for gray128 in (sharp, sharp_gray(gray64, 128)))
    assert torch.equal(shown[0], sharp) and torch.equal(shown[1], sharp_gray(gray64, 128))
    drawn = [stage.sample(one, 1, generator=generators(1, 2)).chroma for one in (with_it, without)]
    assert drawn[0].shape == (2, 1, 2, 64, 64) and not torch.equal(*drawn)
    assert stage.preview(with_it).shape == (2, 3, 64, 64)
    assert not torch.equal(stage.preview(with_it), stage.preview(without))
    assert stage(rgb, torch.tensor([1, -1])).isfinite()
    with pytest.raises(ValueError, match=r"rgb must be \(B, 3, 128, 128\)"):
        stage(picture(64))
    with pytest.raises(ValueError, match="gray_side must be 64 or 128; got 96"):
        small("coarse", "diffusion", gray_side=96)


def test_a_stage_that_uses_64_pixels_does_not_see_more():
    stage, rgb = lively("coarse", "diffusion"), picture(256)
    shown: list[Tensor] = []
    stage.encoder.register_forward_pre_hook(lambda _, inputs: shown.extend(inputs))
    encoded(stage, gray_from_rgb(rgb))
    gray64 = resize(gray_from_rgb(rgb), (64, 64))
    assert len(shown) == 2 and all(torch.equal(gray, gray64) for gray in shown)


def test_tuned_steps_count_where_as_many_are_asked_for(tmp_path):
    config = replace(SMALL["coarse", "diffusion"], sampler="spectral", steps=3)
    plain, gray = lively("coarse", "diffusion"), gray_from_rgb(picture(64))
    plain.config = config
    stage: Any = DiffusionColorizer(replace(config, tuned=3)).eval()
    stage.load_state_dict(plain.state_dict() | stage.tuned.state_dict(prefix="tuned."))
    stage.tuned.levels.copy_(torch.tensor([50.0, 3.0, 0.2]))
    for steps, expected in ((None, [3.0, 0.2, 0]), (3, [3.0, 0.2, 0]), (2, [0.05, 0]), (1, [0])):
        seen: list[tuple] = []
        stage.sample(
            encoded(stage, gray), 1, SampleOptions(steps=steps), None, lambda *step, seen=seen: seen.append(step)
        )
        assert [sigma for _, sigma, _, _ in seen] == pytest.approx(expected)
    stage.tuned.levels.copy_(geometric_sigmas(3, config.sigma_min, config.sigma_max)[:-1])

    def apart(steps: int | None) -> float:
        one, other = (chroma(stage, gray, 1, (1, 2), steps=steps) for stage in (plain, stage))
        return float((one - other).abs().max())

    assert apart(None) < 1e-6  # nothing is tuned yet
    stage.tuned.gains.fill_(1.5)
    assert apart(None) == apart(3) > 1e-3 and apart(2) == 0
    stage.tuned.gains.fill_(1.0)
    stage.tuned.modulation.fill_(0.1)
    assert apart(None) == apart(3) > 1e-3 and apart(2) == 0
    with torch.autocast("cpu", torch.bfloat16):
        assert apart(None) > 1e-3
    stage.save_pretrained(tmp_path)
    loaded: Any = load_stage(tmp_path)
    drawn = [chroma(one, gray, 1, (1, 2)) for one in (stage, loaded)]
    assert torch.equal(*drawn)
    for wrong in ({"tuned": -1}, {"tuned": 3, "sampler": "heun"}, {"tuned": 3, "steps": 4}):
        with pytest.raises(ValueError, match="tuned steps of the sampler spectral"):
            DiffusionColorizer(replace(config, **wrong))
    with pytest.raises(ValueError, match="sampler must be one of .*spectral"):
        DiffusionColorizer(replace(config, sampler="euler"))


def test_a_modulation_is_a_bias_of_each_blocks_own():
    network = lively("coarse", "diffusion").network
    fine, width = network.read.out_channels, network.context[0].in_channels
    x, c_noise = torch.randn(2, 4, 32, 32), torch.randn(2)
    context = network.prepare(torch.randn(2, width, 16, 16))
    blocks = [*network.down, *network.middle, *network.up]
    assert network.modulations[0] == 2 * fine and len(network.modulations) == len(blocks)
    modulation = 0.3 * torch.randn(sum(network.modulations))
    found = network(x, c_noise, context, modulation)
    assert torch.equal(network(x, c_noise, context), network(x, c_noise, context, 0 * modulation))
    assert (found - network(x, c_noise, context)).abs().max() > 1e-3
    for block, own in zip(blocks, modulation.split(network.modulations), strict=True):
        block.modulation.bias.data += own
    torch.testing.assert_close(found, network(x, c_noise, context))


def test_diffusion_samplers_agree_where_steps_are_many():
    stage, gray = lively("coarse", "diffusion"), gray_from_rgb(picture(64))
    drawn = {}
    for sampler in ("spectral", "heun", "dpmpp_2m"):
        stage.config = replace(stage.config, sampler=sampler)
        drawn[sampler] = chroma(stage, gray, 2, (0, 1, 2, 3), steps=60)
    for sampler in ("heun", "dpmpp_2m"):
        assert (drawn[sampler] - drawn["spectral"]).std() < 0.03 * drawn["spectral"].std()


def test_diffusion_draws_come_nearer_to_the_preview_as_it_gets_cool():
    stage, gray = lively("coarse", "diffusion"), gray_from_rgb(picture(64))
    mean, warm, half = (chroma(stage, gray, 3, tuple(range(6)), temperature=t) for t in (0.0, 1.0, 0.5))
    preview = chroma_from_rgb(stage.preview(encoded(stage, gray)))
    assert torch.allclose(half, (mean + warm) / 2, atol=1e-6) and (warm - mean).abs().max() > 0.01
    assert torch.allclose(merge(gray[:, None], mean), merge(gray, preview)[:, None], atol=1e-5)
