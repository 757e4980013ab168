"""Stage 1 with hints: nothing changes without them, a hint reaches what is far away, training draws them as stated."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from stages.corruptions.hints import MOST_POINTS, drawn_hints
from stages.faces import GrayView
from stages.nn.hint_attention import HintAttention
from stages.options import OptionError
from stages.stage1_coarse.coltran import ColTranColorizer, ColTranColorizerConfig
from stages.stage1_coarse.diffusion import DiffusionColorizer, DiffusionColorizerConfig

SMALL = DiffusionColorizerConfig(
    backbone="lite0", backbone_side=64, backbone_frozen=0, encoder_channels=(16, 32), encoder_blocks=1,
    denoiser_channels=(16, 32), denoiser_blocks=(1, 1), heads=2, noise_levels=1, hints=0.5,
)  # fmt: skip


def inputs(features: int = 16, batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(batch, features, 16, 16), torch.rand(batch, 1, 64, 64), torch.randn(batch, 2, 32, 32)


def hint_at(y: int, x: int, chroma: tuple[float, float], weight: float = 1.0, batch: int = 1) -> Tensor:
    hints = torch.zeros(batch, 3, 32, 32)
    hints[:, 0, y, x] = weight
    hints[:, 1:, y, x] = weight * torch.tensor(chroma)
    return hints


def random_attention() -> HintAttention:
    """No weight is zero, so nothing is left out by chance."""
    torch.manual_seed(1)
    attention = HintAttention(16).eval()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return attention


def bias_of(layer: torch.nn.Conv2d | torch.nn.Linear) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def no_value(layer: torch.nn.Conv2d | torch.nn.Linear) -> None:
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(bias_of(layer))


def test_without_hints_nothing_changes():
    features, gray64, preview = inputs()
    told, hinted = random_attention()(features, gray64, preview, torch.zeros(2, 3, 32, 32))
    assert torch.equal(told, features) and torch.equal(hinted, preview)


def test_a_hint_that_agrees_with_the_preview_spreads_no_correction():
    features, gray64, preview = inputs(batch=1)
    attention = HintAttention(16).eval()  # as it starts: `correct` and `write` say nothing
    hints = torch.zeros(1, 3, 32, 32)
    hints[:, 0, 5, 7] = 1
    hints[:, 1:, 5, 7] = preview[:, :, 5, 7]
    _, hinted = attention(features, gray64, preview, hints)
    torch.testing.assert_close(hinted, preview, rtol=0, atol=1e-6)


def test_shares_are_those_of_the_formula():
    """One hint, all places alike: share = exp(l) / (exp(s) + exp(l)), by distance alone."""
    attention = HintAttention(16, heads=1).eval()
    with torch.no_grad():
        no_value(attention.query)
    features, gray64, preview = torch.zeros(1, 16, 16, 16), torch.full((1, 1, 64, 64), 0.5), torch.zeros(1, 2, 32, 32)
    hint = hint_at(8, 8, (1.0, -0.5))
    _, hinted = attention(features, gray64, preview, hint)
    center = (torch.arange(32) + 0.5) / 32
    at = torch.tensor(8.5 + 0.5) / 32  # the center of the hint's 2x2 patch
    distance = torch.hypot(center[:, None] - at, center[None] - at)
    logit = (-attention.falloff.exp() * distance).exp()
    share = logit / (bias_of(attention.none).exp() + logit)
    torch.testing.assert_close(hinted[0, 0], share.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(hinted[0, 1], -0.5 * share.detach(), rtol=1e-4, atol=1e-5)


def test_like_places_share_a_hint_however_far_apart():
    """Features tell two things apart; the hint is about one of them, whose other part is in the far corner."""
    torch.manual_seed(0)
    attention = HintAttention(16, heads=1).eval()
    features = torch.zeros(1, 16, 16, 16)
    features[:, 0, :4, :4] = features[:, 0, 12:, 12:] = 4.0  # the same thing, twice
    with torch.no_grad():
        for layer in (attention.query, attention.key):
            no_value(layer)
            layer.weight[0, 0] = 2.0
        attention.falloff.fill_(-3.0)
        torch.nn.init.constant_(bias_of(attention.none), 2.0)
    _, hinted = attention(features, torch.full((1, 1, 64, 64), 0.5), torch.zeros(1, 2, 32, 32), hint_at(3, 3, (1.0, 0)))
    assert hinted[0, 0, 28, 28] > 0.9 and hinted[0, 0, 3, 28] < 0.5


def test_every_part_learns():
    features, gray64, preview = inputs()
    attention = random_attention().train()
    told, hinted = attention(features, gray64, preview, hint_at(4, 20, (1.0, -1.0), 0.7, batch=2))
    (told.square().mean() + hinted.square().mean()).backward()
    for name, parameter in attention.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, name


def test_a_batch_gives_what_its_pictures_give():
    features, gray64, preview = inputs()
    hints = torch.cat([hint_at(4, 20, (1.0, -1.0)), torch.zeros(1, 3, 32, 32)])
    attention = random_attention()
    told, hinted = attention(features, gray64, preview, hints)
    alone, one = attention(features[:1], gray64[:1], preview[:1], hints[:1])
    torch.testing.assert_close(told[:1], alone)
    torch.testing.assert_close(hinted[:1], one)
    assert torch.equal(hinted[1:], preview[1:]) and torch.equal(told[1:], features[1:])


def test_the_stage_starts_from_what_it_knew():
    """The same weights with and without the path for hints give the same encoding, previews and draws."""
    torch.manual_seed(0)
    stage = DiffusionColorizer(SMALL).eval()
    plain = DiffusionColorizer(replace(SMALL, hints=0.0)).eval()
    plain.load_state_dict({name: value for name, value in stage.state_dict().items() if not name.startswith("hints.")})
    view = GrayView.of(torch.rand(1, 1, 80, 70))
    encoding = stage.encode(view)
    told = stage.with_hints(encoding, torch.zeros(1, 3, 32, 32))
    draws = [one.sample(code, 2, generator=torch.Generator().manual_seed(3)).chroma
             for one, code in ((stage, told), (plain, plain.encode(view)))]  # fmt: skip
    assert torch.equal(*draws) and torch.equal(stage.preview(told), plain.preview(plain.encode(view)))
    assert stage.takes_hints and not plain.takes_hints
    other = stage.with_hints(told, hint_at(10, 10, (0.2, 0.1)))
    again = stage.with_hints(encoding, hint_at(10, 10, (0.2, 0.1)))
    assert torch.equal(stage.preview(other), stage.preview(again)), "hints are counted from no hints"
    assert not torch.equal(stage.preview(other), stage.preview(encoding))


def test_a_batch_in_which_no_picture_has_hints_trains_like_any_other():
    stage = DiffusionColorizer(replace(SMALL, hints=1e-9)).train()
    rgb = torch.rand(2, 3, SMALL.gray_side, SMALL.gray_side)
    torch.manual_seed(0)
    stage(rgb).backward()
    assert all(weights.grad is None for name, weights in stage.named_parameters() if name.startswith("hints."))


def test_weights_that_have_not_learned_hints_say_so():
    plain = DiffusionColorizer(replace(SMALL, hints=0.0))
    view = GrayView.of(torch.rand(1, 1, 64, 64))
    with pytest.raises(OptionError, match="with these weights, has not learned hints"):
        plain.with_hints(plain.encode(view), torch.zeros(1, 3, 32, 32))
    coltran = ColTranColorizer(ColTranColorizerConfig(channels=16, feed_forward=16, encoder_layers=1))
    with pytest.raises(OptionError, match="'coltran'"):
        coltran.with_hints(coltran.encode(view), torch.zeros(1, 3, 32, 32))
    stage = DiffusionColorizer(SMALL)
    with pytest.raises(ValueError, match=r"hints must be \(1, 3, 32, 32\); got \(1, 3, 64, 64\)"):
        stage.with_hints(stage.encode(view), torch.zeros(1, 3, 64, 64))


def test_training_with_hints_reaches_encoder_denoiser_and_hints():
    torch.manual_seed(0)
    stage = DiffusionColorizer(replace(SMALL, hints=1.0, condition_dropout=0.5)).train()
    for parameter in stage.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)  # zeros hide what is before them
    stage(torch.rand(4, 3, 64, 64), torch.full((4,), -1)).backward()
    for part in (stage.encoder.blocks16, stage.denoiser, stage.hints):
        assert part is not None and any(p.grad is not None and bool(p.grad.any()) for p in part.parameters())


@pytest.mark.parametrize("name", ["hints", "condition_dropout"])
def test_a_share_is_from_0_to_1(name):
    with pytest.raises(ValueError, match=f"{name} is a share of the pictures, from 0 to 1; got 1.5"):
        DiffusionColorizer(replace(SMALL, **{name: 1.5}))  # type: ignore[arg-type]


def test_hints_of_training_are_true_colors_at_weights_up_to_1():
    torch.manual_seed(0)
    chroma = torch.randn(400, 2, 32, 32)
    hints = drawn_hints(chroma, 0.5)
    weight, known = hints[:, :1], hints[:, 1:]
    assert hints.shape == (400, 3, 32, 32) and 0 <= weight.min() and weight.max() <= 1
    given = weight.flatten(1).any(1)
    assert 0.42 < given.float().mean() < 0.58
    assert not known[~given].any()
    off = (known - weight * chroma).abs().flatten(1).amax(1)[given]
    assert 0.75 < (off < 1e-6).float().mean() < 0.95, "a tenth is slightly wrong, some are soft"
    count = (weight[given] > 0).sum((1, 2, 3)).float()
    assert count.min() == 1 and (count <= MOST_POINTS).float().mean() > 0.7
    few = ((count <= 4).float().mean(), (count <= 64).float().mean())
    assert few[0] > 0.1 and few[1] > 0.4, "few as likely as many, on a logarithmic scale"
    assert not drawn_hints(chroma, 0.0).any()


def test_hints_change_as_much_as_their_reach():
    stage = DiffusionColorizer(SMALL).eval()
    encoding = stage.encode(GrayView.of(torch.rand(1, 1, 64, 64)))
    hints = hint_at(10, 10, (0.2, 0.1))
    all_of_it, none_of_it = (stage.with_hints(encoding, hints, value * torch.ones(1, 1, 32, 32)) for value in (1, 0))
    told = stage.with_hints(encoding, hints)
    for name in ("told", "hinted"):
        assert torch.equal(getattr(all_of_it, name), getattr(told, name))
    assert torch.equal(none_of_it.told, encoding.told) and torch.equal(none_of_it.hinted, encoding.hinted)
    left = torch.zeros(1, 1, 32, 32)
    left[..., :16] = 1
    half = stage.with_hints(encoding, hints, left)
    assert torch.equal(half.hinted[..., :16], told.hinted[..., :16])
    assert torch.equal(half.hinted[..., 16:], encoding.hinted[..., 16:])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reach_in_lower_precision(dtype):
    stage = DiffusionColorizer(SMALL).eval()
    view, hints = GrayView.of(torch.rand(1, 1, 64, 64)), hint_at(10, 10, (0.2, 0.1))
    exact = stage.with_hints(stage.encode(view), hints, torch.full((1, 1, 32, 32), 0.5))
    with torch.autocast("cpu", dtype):
        told = stage.with_hints(stage.encode(view), hints, torch.full((1, 1, 32, 32), 0.5))
        assert stage.sample(told, 1, generator=torch.Generator().manual_seed(0)).chroma.isfinite().all()
    torch.testing.assert_close(told.hinted.float(), exact.hinted.float(), rtol=0.05, atol=0.05)
