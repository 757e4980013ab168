"""What every kind of every family promises, on networks small enough for a second."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from standins import StandIn1, StandIn2, StandInConfig, known_standins
from tiny_stages import KINDS, SIDES, SMALL, drawn, encoded, generators, lively, picture, small
from torch import Generator

from stages.checkpoint import CheckpointError
from stages.color.resample import resize, sharp_gray
from stages.color.spaces import chroma_from_rgb, coarse_from_rgb, gray_from_rgb, merge, rgb_from_coarse
from stages.faces import CoarseColorizer, Draws, GrayView, Scores
from stages.options import MAX_SHARPNESS, OptionError, SampleOptions
from stages.registry import FACES, kind_of, kinds_of, register
from stages.stage2_color.coltran import ColTranColorUpsampler

SELDOM_SEEN = ("level.weight", "gray.weight", "symbol.weight", "outer_position.rows", "attention.qkv.bias")
ALL = pytest.mark.parametrize("which", KINDS, ids="-".join)
OF_NOISE = {which for which in KINDS if which[0] == "image_to_image" or which[1] == "sr3"}  # answer with the noise
COARSE = pytest.mark.parametrize("kind", kinds_of("coarse"))


# --- the table of kinds


def test_every_kind_has_a_small_config():
    assert set(SMALL) == set(KINDS) and {family for family, _ in KINDS} == set(FACES)
    for (family, kind), config in SMALL.items():
        config_class, stage_class = kind_of(family, kind)
        assert type(config) is config_class is stage_class.config_class
        assert (stage_class.family, stage_class.kind) == (family, kind) and issubclass(stage_class, FACES[family])


def test_only_what_has_the_face_is_registered(monkeypatch):
    known_standins(monkeypatch)
    assert "standin" in kinds_of("coarse") and kind_of("color", "standin") == (StandInConfig, StandIn2)
    with pytest.raises(ValueError, match="family must be one of coarse, color, superres, image_to_image; got 1"):
        register(1, "standin", StandInConfig, StandIn1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be a ColorUpsampler; got .*StandIn1"):
        register("color", "standin", StandInConfig, StandIn1)

    @dataclass(frozen=True)
    class Other:
        pass

    for kind, config in (("other", StandInConfig), ("standin", Other)):
        with pytest.raises(ValueError, match="StandIn1 says that it is kind 'standin' of the family coarse"):
            register("coarse", kind, config, StandIn1)
    with pytest.raises(CheckpointError, match="'color' has no kind 'gan'; there are coarse: .*color: coltran"):
        kind_of("color", "gan")


def test_the_table_is_as_it_was():
    """After a test that registered kinds of its own."""
    assert "standin" not in kinds_of("coarse")


@ALL
def test_what_a_kind_can_not_do_is_an_error_with_a_sentence(which):
    stage = small(*which)
    assert isinstance(stage, Scores) <= isinstance(stage, CoarseColorizer)
    if which != ("coarse", "diffusion"):
        with pytest.raises(CheckpointError, match=f"{which[1]!r} of the family {which[0]} has no pretrained backbone"):
            stage.load_pretrained_backbone()


# --- options


def options_of(name: str, value: Any) -> SampleOptions:
    return replace(SampleOptions(), **{name: value})


def test_options_out_of_range_are_refused():
    for name in ("steps", "superres_steps", "pool"):
        for wrong in (0, -1, 1.0, True, "2"):
            with pytest.raises(OptionError, match=f"{name} must be a whole number from 1; got {wrong!r}"):
                options_of(name, wrong)
    for name in ("temperature", "chroma_gain", "sharpness"):
        for wrong in (-0.1, math.nan, math.inf):
            with pytest.raises(OptionError, match=f"{name} must be a number from 0"):
                options_of(name, wrong)
    with pytest.raises(OptionError, match="sharpness must be a number from 0 to 2; got 2.5"):
        SampleOptions(sharpness=2.5)
    assert SampleOptions(sharpness=MAX_SHARPNESS, temperature=0, steps=1).given == ["steps", "temperature", "sharpness"]


VALUES = {"steps": 2, "temperature": 0.5, "chroma_gain": 1.1, "superres_steps": 2}
HONORED = {
    ("coarse", "diffusion"): {"steps", "temperature", "chroma_gain"}, ("coarse", "coltran"): {"temperature"},
    ("coarse", "pic"): {"temperature"}, ("superres", "diffusion"): {"superres_steps"}, ("superres", "coltran"): set(),
}  # fmt: skip


@pytest.mark.parametrize("which, name", [
    (which, name) for which in HONORED
    for name in (SampleOptions.COARSE if which[0] == "coarse" else SampleOptions.SUPERRES)
], ids=str)  # fmt: skip
def test_an_option_changes_the_picture_or_is_refused(which, name):
    stage, rgb = lively(*which), picture(SIDES[which[0]])
    options = options_of(name, VALUES[name])
    assert stage.honors == HONORED[which]
    if name in HONORED[which]:
        asked, plain = (drawn(stage, rgb, generators(1, 2), one) for one in (options, SampleOptions()))
        assert not torch.equal(asked, plain)
        return
    known = ", ".join(sorted(HONORED[which])) or "none"
    with pytest.raises(OptionError, match=f"^{name} can not be honored by kind '{which[1]}' of .* options: {known}. "):
        drawn(stage, rgb, generators(1, 2), options)


@COARSE
def test_the_temperature_asked_for_stands_before_the_configs(kind):
    stage, gray = lively("coarse", kind), gray_from_rgb(picture(64))

    def sample(stage: CoarseColorizer, **given: Any) -> torch.Tensor:
        options = replace(SampleOptions(), **given)
        return stage.sample(encoded(stage, gray), 2, options, generators(*range(4))).coarse64

    warm, cool = sample(stage), sample(stage, temperature=0.5)
    assert (cool != warm).any()
    own = small("coarse", kind, temperature=0.5)
    own.load_state_dict(stage.state_dict())
    assert torch.equal(sample(own), cool) and torch.equal(sample(own, temperature=1.0), warm)
    with pytest.raises(OptionError, match="temperature must be a number from 0; got -1.0"):
        small("coarse", kind, temperature=-1.0)


# --- what stage 1 is shown, and gives


def test_views_are_square_and_enlarged_where_pixels_are_few():
    large, few = gray_from_rgb(picture(256)), gray_from_rgb(picture(256))[..., :90, :70]
    view = GrayView.of(large)
    assert torch.equal(view.gray64, resize(large, (64, 64))) and torch.equal(view.gray128, resize(large, (128, 128)))
    assert torch.equal(GrayView.of(few).gray128, sharp_gray(few, 128))
    both = GrayView.cat([view, GrayView.of(few)])
    assert len(both) == 4 and torch.equal(both.gray128[:2], view.gray128)
    for gray64, gray128 in ((large, large), (view.gray64, view.gray64), (view.gray64[:1], view.gray128)):
        with pytest.raises(ValueError, match=r"must be \(B, 1, (64, 64|128, 128)\)"):
            GrayView(gray64, gray128)


def test_draws_hold_chroma_as_finely_as_it_is_known():
    rgb = picture(64, 4).unflatten(0, (2, 2))
    gray, coarse = gray_from_rgb(rgb[:, 0]), coarse_from_rgb(rgb)
    fine, rough = Draws.of(gray, chroma_from_rgb(rgb)), Draws(coarse)
    assert torch.equal(fine.coarse64, coarse_from_rgb(merge(gray[:, None], chroma_from_rgb(rgb))))
    assert torch.equal(fine.chroma, chroma_from_rgb(rgb))
    assert torch.equal(rough.chroma, chroma_from_rgb(rgb_from_coarse(coarse)))
    for parts, known in (((fine, fine), True), ((fine, rough), False)):
        joined = Draws.cat(parts)
        assert joined.coarse64.shape == (2, 4, 64, 64) and (joined.chroma64 is not None) == known


# --- the loss


@ALL
def test_every_parameter_learns(which):
    stage = lively(*which).train()
    loss = stage(picture(SIDES[which[0]]), torch.tensor([3, -1]))
    assert loss.shape == () and loss.isfinite()
    loss.backward()
    silent = []
    for name, p in stage.named_parameters():
        if p.requires_grad:
            heard = torch.zeros(len(p)) if p.grad is None else p.grad.flatten(1).any(1) if p.ndim > 1 else p.grad != 0
            # Clipping activations may close a channel of the backbone, a picture need not show every symbol, and below
            # the last row there is nobody to know of it. A bias of attention's keys moves all logits of a row alike.
            few = name.startswith("encoder.backbone") or name.endswith(SELDOM_SEEN)
            if not (heard.any() if few else heard.all()):
                silent.append(name)
    broken = [name for name, p in stage.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    frozen = {name for name, p in stage.named_parameters() if not p.requires_grad}
    assert not silent and not broken
    assert not [name for name, p in stage.named_parameters() if name in frozen and p.grad is not None]
    assert not frozen


@ALL
def test_loss_depends_on_the_seed_alone(which):
    stage, rgb = small(*which), picture(SIDES[which[0]])
    losses = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        losses.append(stage(rgb).item())
    assert losses[0] == losses[1]
    # Untrained upsamplers say 8 bits of everything, and models of likelihood draw nothing in training.
    assert losses[0] != losses[2] or which[1] in ("coltran", "pic")


@ALL
def test_loss_of_other_sizes_is_refused(which):
    side = SIDES[which[0]]
    for shape in [(1, 3, side // 2, side // 2), (1, 3, side, side // 2), (1, 1, side, side), (3, side, side)]:
        with pytest.raises(ValueError, match=rf"rgb must be \(B, 3, {side}, {side}\)"):
            small(*which)(torch.rand(shape))


# --- sampling


@ALL
def test_shapes_ranges_and_luma(which):
    stage, (family, kind) = lively(*which), which
    with torch.no_grad():  # a lot of color, so that most pixels leave the cube
        if which == ("coarse", "coltran"):
            last = stage.core.parallel
        elif which == ("coarse", "pic"):
            last = stage.embedding.layers[-1].gain
        else:
            last = stage.write if kind == "coltran" else stage.denoiser.network.write
        (last if kind == "pic" else last.weight).mul_(30)
        if which == ("coarse", "diffusion"):
            stage.encoder.preview.weight.mul_(100)
    rgb = picture(SIDES[family])
    rgb[0, :, :8], rgb[0, :, 8:16] = 0, 1
    gray = gray_from_rgb(rgb).clamp(0, 1)
    if family == "coarse":
        encoding = encoded(stage, gray)
        assert len(encoding) == 2 and torch.equal(encoding.gray64, gray)
        draws = stage.sample(encoding, 3, generator=generators(*range(6)))
        coarse = draws.coarse64
        assert coarse.shape == (2, 3, 64, 64) and coarse.dtype == torch.int64
        assert coarse.min() >= 0 and coarse.max() <= 511 and len(coarse.unique()) > 10
        assert draws.chroma.shape == (2, 3, 2, 64, 64) and (draws.chroma64 is None) == (kind == "coltran")
        assert stage.pool == stage.config.pool
        out = stage.preview(encoding)
    elif family == "color":
        out = stage.upsample(gray, coarse_from_rgb(rgb))
    elif family == "superres":
        out = stage.sample(gray, resize(rgb, (64, 64)))
    else:
        out = drawn(stage, rgb)
    assert out.shape == rgb.shape and out.dtype == torch.float32
    assert out.min() >= 0 and out.max() <= 1
    assert family == "image_to_image" or (gray_from_rgb(out) - gray).abs().max() <= 1e-4
    colored = (out.amax(1) - out.amin(1) > 0.02).float().mean()
    # The luma of a gray answer would prove nothing. (An untrained argmax over 8 channels is the same for most pixels.)
    assert colored > (0.05 if which == ("superres", "coltran") else 0.2)


@ALL
def test_batch_equals_singles(which):
    stage, rgb = lively(*which), picture(SIDES[which[0]], 3)
    together = drawn(stage, rgb, generators(7, 8, 9))
    for index, seed in enumerate((7, 8, 9)):
        alone = drawn(stage, rgb[index : index + 1], generators(seed))
        # Answers with the noise are divided by what is left of the picture in it: rounding counts a hundredfold.
        close = 2e-3 if which in OF_NOISE else 1e-4
        torch.testing.assert_close(together[index : index + 1], alone, rtol=0, atol=close)
    assert (together[0] - together[1]).abs().max() > 0.01


@ALL
def test_same_seed_same_picture(which):
    stage, rgb = lively(*which), picture(SIDES[which[0]])
    torch.manual_seed(0)
    options = SampleOptions(superres_steps=2) if which == ("superres", "diffusion") else SampleOptions()
    first = drawn(stage, rgb, Generator().manual_seed(4), options)
    torch.manual_seed(1)  # torch's own generator has no say
    assert torch.equal(first, drawn(stage, rgb, Generator().manual_seed(4), options))
    if which not in (("color", "coltran"), ("superres", "coltran")):  # they answer and do not draw
        assert not torch.equal(first, drawn(stage, rgb, Generator().manual_seed(5), options))


@COARSE
def test_candidates_are_photo_major(kind):
    stage, gray = lively("coarse", kind), gray_from_rgb(picture(64))
    together = stage.sample(encoded(stage, gray), 2, generator=generators(1, 2, 3, 4)).chroma
    for photo in range(2):
        seeds = generators(2 * photo + 1, 2 * photo + 2)
        alone = stage.sample(encoded(stage, gray[photo : photo + 1]), 2, generator=seeds).chroma
        # Lively weights draw chroma far out of gamut, up to 7: rounding by batch size is relative to that.
        torch.testing.assert_close(together[photo], alone[0], rtol=3e-5, atol=1e-4)
    assert (together[:, 0] - together[:, 1]).abs().amax((1, 2, 3)).min() > 0.01  # candidates differ


@COARSE
def test_numbers_of_draws_and_generators_that_do_not_fit_are_refused(kind):
    stage, gray = small("coarse", kind), gray_from_rgb(picture(64))
    with pytest.raises(ValueError, match="num_samples"):
        stage.sample(encoded(stage, gray), 0)
    with pytest.raises(ValueError, match="one per row"):
        stage.sample(encoded(stage, gray), 2, generator=generators(1, 2))


def test_inputs_that_do_not_fit_are_refused():
    two, three = small("color", "coltran"), small("superres", "diffusion")
    gray, coarse, gray256, rgb64 = (
        torch.rand(2, 1, 64, 64), torch.zeros(2, 64, 64).long(), torch.rand(2, 1, 256, 256), torch.rand(2, 3, 64, 64)
    )  # fmt: skip
    for bad in (torch.rand(2, 3, 64, 64), torch.rand(2, 1, 32, 64), torch.rand(1, 64, 64)):
        with pytest.raises(ValueError, match="gray64 must be"):
            two.upsample(bad, coarse)
        with pytest.raises(ValueError, match="gray64 must be"):
            GrayView(bad, torch.rand(len(bad), 1, 128, 128))
    for bad in (coarse[:1], coarse[:, :32], coarse[:, None]):
        with pytest.raises(ValueError, match="coarse64"):
            two.upsample(gray, bad)
    for pair in ((gray, rgb64), (gray256[:, 0], rgb64), (gray256, rgb64[:1]), (gray256, rgb64[0]), (gray256, gray)):
        for stage in (three, small("superres", "coltran")):
            with pytest.raises(ValueError, match="gray256 must be"):
                stage.sample(*pair)
    with pytest.raises(ValueError, match="one per row"):
        three.sample(gray256, rgb64, SampleOptions(superres_steps=2), generators(1))
    with pytest.raises(ValueError, match="decode"):
        ColTranColorUpsampler(ColTranColorUpsampler.config_class(decode="mode"))
    with pytest.raises(ValueError, match="backbone must be one of"):
        small("coarse", "diffusion", backbone="b7")
