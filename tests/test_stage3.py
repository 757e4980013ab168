"""Stage 3: what its kinds learn, and what they can say."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tiny_stages import answering, drawn, lively, network_of, picture, small
from torch import Generator, Tensor, nn

from stages.color.difference import ciede2000
from stages.color.guided_filter import enlarge_chroma
from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, gray_from_rgb, lab_from_rgb, merge, rgb_from_gray_chroma
from stages.options import SampleOptions
from stages.stage3_superres.coltran import ColTranSuperResolver
from stages.stage3_superres.diffusion import DETAIL_STD, sensitivity


def test_stage3_learns_what_enlargement_gets_wrong():
    stage = small("superres", "diffusion")
    seen = answering(stage, disturb=0.0, noise_mean=-20.0, noise_std=0.01, noise_levels=1)
    rgb = picture(256)
    stage(rgb)
    assert seen["sigma"].max() < 1e-6  # so that what it is shown is the clean target
    residual = F.pixel_shuffle(seen["noisy"], 4) * stage.config.residual_std
    low = resize(rgb, (64, 64))
    again = resize(chroma_from_rgb(low), (256, 256)) + residual
    torch.testing.assert_close(rgb_from_gray_chroma(gray_from_rgb(rgb), again), rgb, rtol=0, atol=1e-4)


def test_stage3_can_say_the_guided_enlargement_and_the_detail_of_the_luma():
    stage, rgb = small("superres", "diffusion", sigma_max=1e5), picture(256)
    gray, rgb64 = gray_from_rgb(rgb), resize(rgb, (64, 64))
    low, gray_low = chroma_from_rgb(rgb64), gray_from_rgb(rgb64)
    share = stage.denoiser.network.share.bias

    def said(*shares: float) -> Tensor:
        with torch.no_grad():
            share.copy_(torch.tensor(shares))
        return stage.sample(gray, rgb64)

    bicubic = resize(low, (256, 256))
    torch.testing.assert_close(said(0, 0, 0, 0), merge(gray, bicubic), rtol=0, atol=1e-4)
    torch.testing.assert_close(said(0, 0, 1, 1), merge(gray, enlarge_chroma(low, gray_low, gray)), rtol=0, atol=1e-4)
    lost = (gray - resize(gray_low, (256, 256))) * stage.config.residual_std / DETAIL_STD
    expected = merge(gray, bicubic + torch.tensor([2.0, -1.0])[:, None, None] * lost)
    torch.testing.assert_close(said(2, -1, 0, 0), expected, rtol=0, atol=1e-4)


def test_sensitivity_lies_between_the_two_of_ciede2000():
    assert sensitivity(torch.full((1, 3, 2, 2), 0.4)).min() > 0.999
    for color in ([0.8, 0.2, 0.2], [0.2, 0.6, 0.3], [0.3, 0.3, 0.7]):
        lab = lab_from_rgb(torch.tensor(color).reshape(3, 1, 1))
        chroma = lab[1:].norm(dim=0, keepdim=True)
        unit = lab[1:] / chroma

        def error(direction: Tensor, lab: Tensor = lab) -> float:
            return ciede2000(lab, lab + torch.cat([torch.zeros(1, 1, 1), 0.1 * direction])).item() / 0.1

        along, found = error(unit), sensitivity(torch.tensor(color).reshape(1, 3, 1, 1)).item()
        assert along == pytest.approx(1 / (1 + 0.045 * chroma.item()), rel=0.02)
        assert along < found < 1 / (1 + 0.015 * chroma.item())


def test_one_step_of_stage3_is_the_same_for_every_seed():
    stage, rgb = lively("superres", "diffusion"), picture(256)
    one, other = (drawn(stage, rgb, Generator().manual_seed(seed), SampleOptions(superres_steps=1)) for seed in (4, 5))
    assert torch.equal(one, other)


def test_published_spatial_upsampler_has_10_9_million_parameters():
    # As the color upsampler, with 3 x 256 values to show, three layers and positions and distances up to 256.
    d, heads, layers, side = 512, 4, 3, 256
    attention, pointwise = 4 * d * d + heads * 2 * side, 2 * (d * d + d)
    expected = (768 + 256) * d + 2 * d * d + d + 2 * side * d + layers * 2 * (attention + pointwise + 4 * d) + 257 * 256
    expected += (d - 256) * 256  # the logits read 512 channels
    with torch.device("meta"):
        stage = ColTranSuperResolver(network_of("stage3_coltran.toml"))
    assert sum(p.numel() for p in stage.parameters()) == expected
    assert round(expected / 1e6, 1) == 10.9


def test_spatial_upsampler_is_shown_its_pixels_repeated():
    torch.manual_seed(0)
    stage = small("superres", "coltran")
    rgb = F.interpolate(picture(64), (256, 256), mode="nearest")
    levels = (rgb * 255).round().long()
    seen: list[tuple[Tensor, Tensor]] = []
    logits = stage.logits

    def noted(gray: Tensor, values: Tensor, channel: Tensor) -> Tensor:
        seen.append((values, channel))
        return logits(gray, values, channel)

    stage.logits = noted
    stage(rgb)
    values, channel = seen[0]
    assert torch.equal(values, levels[torch.arange(2), channel])
    with torch.no_grad():
        nn.init.zeros_(stage.write.weight), nn.init.zeros_(stage.write.bias)
    torch.testing.assert_close(stage.bits(rgb), torch.full((2,), 8.0))
