"""The face that all stages share, on networks small enough for a second, and what each stage promises beyond it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.fft
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from stages.color.difference import ciede2000
from stages.color.guided_filter import enlarge_chroma
from stages.color.resample import doubled, resize
from stages.color.spaces import (
    chroma_from_rgb,
    coarse_from_rgb,
    gray_from_rgb,
    lab_from_rgb,
    merge,
    rgb_from_coarse,
    rgb_from_gray_chroma,
)
from stages.diffusion import geometric_sigmas
from stages.nn.axial import AxialAttention
from stages.nn.coltran.encoder import AxialEncoder
from stages.nn.pixelcnn import logistic_mixture
from stages.nn.pixelcnn.layers import Convolution
from stages.registry import KINDS, load_stage
from stages.stage import Stage
from stages.stage1_coarse import coltran
from stages.stage1_coarse.candidates import EVENED_STRENGTH, spread_order
from stages.stage1_coarse.coltran import ColTranColorizer, ColTranColorizerConfig
from stages.stage1_coarse.diffusion import DiffusionColorizer, DiffusionColorizerConfig
from stages.stage1_coarse.pic import PICColorizer, PICColorizerConfig
from stages.stage1_coarse.uncertainty import GRAY_SHARE, expected_error
from stages.stage2_color.coltran import ColorUpsampler, ColorUpsamplerConfig
from stages.stage3_superres.coltran import SpatialUpsampler, SpatialUpsamplerConfig
from stages.stage3_superres.diffusion import DETAIL_SPREAD, SuperResolution, SuperResolutionConfig, sensitivity
from stages.training.config import Config

SMALL = {
    (1, "diffusion"): DiffusionColorizerConfig(
        backbone="lite0", backbone_side=32, encoder_channels=(16, 32), encoder_blocks=1, denoiser_channels=(16, 32),
        denoiser_blocks=(1, 2), heads=2, classes=5, noise_levels=2, steps=3, pool=3,
    ),
    (1, "coltran"): ColTranColorizerConfig(
        channels=16, feed_forward=24, heads=2, encoder_layers=1, outer_layers=1, inner_layers=1, one_plus=True
    ),
    (1, "pic"): PICColorizerConfig(
        embedding_channels=(8, 8, 8), embedding_strides=(2, 2, 2), embedding_blocks=(0, 1, 1), embedding_width=24,
        embedding_dilations=(1, 1, 2), channels=8, blocks=1, components=3,
    ),
    (2, "coltran"): ColorUpsamplerConfig(channels=16, feed_forward=24, heads=2, layers=1),
    (3, "coltran"): SpatialUpsamplerConfig(channels=8, feed_forward=8, heads=2, layers=1),
    (3, "diffusion"): SuperResolutionConfig(
        encoder_channels=(16, 16, 32), denoiser_channels=(16, 32), heads=2
    ),
}  # fmt: skip
SIDES = {1: 64, 2: 64, 3: 256}
SELDOM_SEEN = ("level.weight", "gray.weight", "symbol.weight", "outer_position.rows")
ALL = pytest.mark.parametrize("which", [(stage, kind) for stage, kinds in KINDS.items() for kind in kinds], ids=str)
DIFFUSION = pytest.mark.parametrize("stage_class", [DiffusionColorizer, SuperResolution])


def small(which: tuple[int, str], seed: int = 0) -> Stage:
    """The stage as it starts its training."""
    torch.manual_seed(seed)
    _, stage_class = KINDS[which[0]][which[1]]
    return stage_class(SMALL[which]).eval()


def lively(which: tuple[int, str], seed: int = 0) -> Stage:
    """The stage with every weight away from zero, as after some training: branches that start silent speak."""
    stage = small(which, seed)
    with torch.no_grad():
        for parameter in stage.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)
    return stage


def picture(side: int, batch: int = 2, seed: int = 0) -> Tensor:
    """Smooth colors with edges, saturated and black and white parts included: rgb (B, 3, side, side)."""
    generator = Generator().manual_seed(seed)
    blobs = torch.rand(batch, 3, 5, 5, generator=generator)
    rgb = F.interpolate(2 * blobs - 0.5, (side, side), mode="bilinear", align_corners=False)
    return (rgb + 0.3 * (rgb[:, :1] > 0.5)).clamp(0, 1)


def generators(*seeds: int) -> list[Generator]:
    return [Generator().manual_seed(seed) for seed in seeds]


def drawn(stage: Stage, rgb: Tensor, generator=None, **options) -> Tensor:
    """What `sample` makes of the inputs that belong to rgb (B, 3, S, S): one picture each, as floats."""
    gray = gray_from_rgb(rgb)
    if stage.stage == 1:
        if stage.kind == "coltran":
            return rgb_from_coarse(stage.sample(gray, 1, generator, **options)[:, 0])
        return stage.sample_chroma(gray, 1, generator, **options)[:, 0]
    if stage.stage == 2:
        return stage.sample(gray, coarse_from_rgb(rgb))
    return stage.sample(gray, resize(rgb, (64, 64)), generator, **options)


def calls_of(module: nn.Module) -> list[int]:
    """Grows by the batch size of each call of `module`."""
    sizes: list[int] = []
    module.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    return sizes


@ALL
def test_half_precision_is_near_single_precision(which):
    """As on GPUs, under autocast: what the networks add to gray, or to plain enlargement, is wrong by a twentieth of
    itself at most on average, and likelihoods by 0.002 bits. Draws have the same seeds.
    """
    stage, rgb = lively(which), picture(SIDES[which[0]])
    if isinstance(stage, SpatialUpsampler):
        stage.decode = "mean"
    gray = plain = gray_from_rgb(rgb)
    if which == (3, "diffusion"):
        plain = merge(gray, resize(chroma_from_rgb(resize(rgb, (64, 64))), gray.shape[-2:]))

    def answers() -> tuple[list[Tensor], list[Tensor]]:
        pictures, bits = [drawn(stage, rgb, generators(1, 2))], []
        if isinstance(stage, DiffusionColorizer | ColTranColorizer | PICColorizer):
            pictures.append(stage.preview(gray))
        if not isinstance(stage, DiffusionColorizer | SuperResolution):
            bits.append(stage.bits(rgb))
        return pictures, bits

    with torch.autocast("cpu", torch.bfloat16):
        rough_pictures, rough_bits = answers()
    pictures, bits = answers()
    for rough, exact in zip(rough_pictures, pictures, strict=True):
        added = exact if exact.shape[1] == 2 else exact - plain  # chroma or colors
        assert rough.dtype == exact.dtype == torch.float32
        assert 0 < (rough - exact).abs().mean() < 0.05 * added.std()
    for rough, exact in zip(rough_bits, bits, strict=True):
        torch.testing.assert_close(rough, exact, rtol=0, atol=2e-3)


def in_single_precision(stage: Stage) -> Stage:
    """The stage, its layers computing in float32 under autocast too: what is left to autocast is between them."""
    for module in stage.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | Convolution | AxialAttention):

            def exact(*inputs: Any, run: Callable[..., Any] = module.forward) -> Any:
                with torch.autocast("cpu", enabled=False):
                    return run(*inputs)

            module.forward = exact  # type: ignore[method-assign]
    return stage


@ALL
def test_autocast_reaches_nothing_but_layers(which):
    """Expectations, mixtures, luma, sizes and filters are float32 always."""
    stage, rgb = in_single_precision(lively(which)), picture(SIDES[which[0]])
    if isinstance(stage, SpatialUpsampler):
        stage.decode = "mean"

    def answers() -> list[Tensor]:
        found = [drawn(stage, rgb, generators(1, 2))]
        if isinstance(stage, DiffusionColorizer | ColTranColorizer | PICColorizer):
            found.append(stage.preview(gray_from_rgb(rgb)))
        if not isinstance(stage, DiffusionColorizer | SuperResolution):
            found.append(stage.bits(rgb))
        torch.manual_seed(0)
        return [*found, stage(rgb, torch.tensor([3, -1])).detach()]

    with torch.autocast("cpu", torch.bfloat16):
        rough = answers()
    for one, other in zip(rough, answers(), strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@ALL
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_answers_that_are_not_finite_are_no_picture(which, value):
    """Not in a sample, as 3-bit colors either, and not in a preview."""
    last = {"coltran": "write", "pic": "pixels.write"}.get(which[1], "denoiser.network.write")
    last = "core.write" if which == (1, "coltran") else last
    one_pass = {"coltran": "core.parallel", "pic": "embedding.layers", "diffusion": "encoder.preview"}[which[1]]
    for part in [last, one_pass] if which[0] == 1 else [last]:
        stage, rgb = small(which), picture(SIDES[which[0]])
        module = stage.get_submodule(part)
        module.register_forward_hook(lambda _, __, answer: torch.full_like(answer, value))
        with pytest.raises(RuntimeError, match="are not finite; if this is float16, use float32"):
            if part == last:
                drawn(stage, rgb, generators(1, 2))
            elif isinstance(stage, DiffusionColorizer | ColTranColorizer | PICColorizer):
                stage.preview(gray_from_rgb(rgb))
    if which == (2, "coltran"):
        stage.decode = "argmax"
        with pytest.raises(RuntimeError, match="are not finite"):
            drawn(stage, rgb)


class WithoutDoubles(TorchFunctionMode):
    """A device that knows no float64, like Apple's GPUs: tensors that are moved to one, or made there, and all that is
    computed from them. That device is the CPU here, so a `torch.device` is taken for it, and "cpu" for the CPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.there: MutableMapping[Tensor, bool] = WeakIdKeyDictionary()

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = list(flat([*args, *(kwargs or {}).values()]))
        result = function(*args, **(kwargs or {}))
        if function is Tensor.cpu:
            return result.detach()  # another object, which is not there
        if any(isinstance(one, torch.device) or (isinstance(one, Tensor) and one in self.there) for one in given):
            for one in flat([result]):
                if isinstance(one, Tensor):
                    assert one.dtype != torch.float64, f"{function} makes a float64 tensor"
                    self.there[one] = True
        return result


def flat(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from flat(value)
        else:
            yield value


@pytest.mark.parametrize("which, options", [
    *(pytest.param(which, {}, id=str(which)) for which in SMALL if which != (3, "diffusion")),
    pytest.param((1, "diffusion"), {"sampler": "spectral", "tuned": 3, "prints": 0.5}, id="spectral"),
    pytest.param((3, "diffusion"), {"steps": 2}, id="superres", marks=pytest.mark.xfail(reason="levels are float64")),
])  # fmt: skip
def test_nothing_on_a_device_is_float64(which, options, monkeypatch):
    """Apple's GPUs do not have it. Training, samples, previews and likelihoods, with everything on the device."""
    for module in (coltran, logistic_mixture):  # which ask the device
        monkeypatch.setattr(module, "exact", lambda x: x.float())
    torch.manual_seed(0)
    stage = KINDS[which[0]][which[1]][1](replace(SMALL[which], **options))
    rgb, label = picture(SIDES[which[0]]), torch.tensor([3, -1])
    with WithoutDoubles() as device:
        for tensor in (*stage.parameters(), *stage.buffers(), rgb, label):
            device.there[tensor] = True
        stage.fit_to([rgb])
        stage(rgb, label).backward()
        drawn(stage, rgb, generators(1, 2))
        if isinstance(stage, DiffusionColorizer | ColTranColorizer | PICColorizer):
            preview = stage.preview(gray_from_rgb(rgb))
            stage.order(gray_from_rgb(rgb), coarse_from_rgb(preview)[:, None])
            expected_error(gray_from_rgb(rgb)[0], chroma_from_rgb(rgb), chroma_from_rgb(preview))
            assert preview in device.there
        if not isinstance(stage, DiffusionColorizer | SuperResolution):
            stage.bits(rgb)


def test_only_what_the_encoder_is_shown_in_training_ages(monkeypatch):
    """The colors to be learned, fitting, samples and previews are those of the photograph as it is."""
    stage, rgb = DiffusionColorizer(replace(SMALL[1, "diffusion"], prints=1.0)).eval(), picture(64)
    shown: list[Tensor] = []
    stage.encoder.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0]))
    targets: list[Tensor] = []
    monkeypatch.setattr(F, "smooth_l1_loss", lambda guess, target, **_: targets.append(target) or guess.sum())
    stage(rgb)
    stage.fit_to([rgb])
    stage.preview(gray_from_rgb(rgb))
    stage.sample(gray_from_rgb(rgb))
    aged, *others = shown
    assert (aged - gray_from_rgb(rgb)).abs().max() > 0.02 and len(others) == 3
    for gray in others:
        torch.testing.assert_close(gray, gray_from_rgb(rgb))
    torch.testing.assert_close(targets[0], F.avg_pool2d(chroma_from_rgb(rgb), 2) / stage.config.chroma_spread)
    with pytest.raises(ValueError, match="prints is a share of the pictures, from 0 to 1; got 30"):
        DiffusionColorizer(replace(SMALL[1, "diffusion"], prints=30))


def test_every_kind_has_a_small_config():
    assert set(SMALL) == {(stage, kind) for stage, kinds in KINDS.items() for kind in kinds}
    for (number, kind), config in SMALL.items():
        config_class, stage_class = KINDS[number][kind]
        assert type(config) is config_class is stage_class.config_class
        assert (stage_class.stage, stage_class.kind) == (number, kind)


# --- the loss


@ALL
def test_every_parameter_learns(which):
    stage = lively(which).train()
    loss = stage(picture(SIDES[which[0]]), torch.tensor([3, -1]))
    assert loss.shape == () and loss.isfinite()
    loss.backward()
    silent = []
    for name, p in stage.named_parameters():
        if p.requires_grad:
            heard = torch.zeros(len(p)) if p.grad is None else p.grad.flatten(1).any(1) if p.ndim > 1 else p.grad != 0
            # Clipping activations may close a channel of the backbone, a picture need not show every symbol, and below
            # the last row there is nobody to know of it.
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
    stage, rgb = lively(which).train(), picture(SIDES[which[0]])
    losses = []
    for seed in (5, 5, 6, 7, 8):
        torch.manual_seed(seed)
        losses.append(stage(rgb).item())
    assert losses[0] == losses[1]
    # Noise, its levels, dropout, a channel of each picture: only the autoregressive colorizer draws nothing.
    assert (len(set(losses)) == 1) == (which == (1, "coltran"))


@ALL
def test_loss_of_other_sizes_is_refused(which):
    side = SIDES[which[0]]
    for shape in [(1, 3, side // 2, side // 2), (1, 3, side, side // 2), (1, 1, side, side), (3, side, side)]:
        with pytest.raises(ValueError, match=rf"rgb must be \(B, 3, {side}, {side}\)"):
            small(which)(torch.rand(shape))


def stage1_loss(stage: Stage, rgb: Tensor, label: list[int] | None) -> Tensor:
    torch.manual_seed(1)
    return stage(rgb, None if label is None else torch.tensor(label))


def test_stage1_label_counts_where_it_is_known():
    stage, rgb = lively((1, "diffusion")), picture(64, 3)
    without = stage1_loss(stage, rgb, None)
    assert stage1_loss(stage, rgb, [-1, -1, -1]) == without  # and no 0 / 0
    stage1_loss(stage, rgb, [-1, -1, -1]).backward()
    assert all(p.grad.isfinite().all() for p in stage.parameters() if p.grad is not None)
    with torch.no_grad():
        logits = stage.encoder(gray_from_rgb(rgb))[2]
    expected = F.cross_entropy(logits[[0, 2]], torch.tensor([3, 1]))  # the mean over the two that are known
    share = stage1_loss(stage, rgb, [3, -1, 1]) - without
    torch.testing.assert_close(share, stage.config.label_weight * expected, rtol=1e-4, atol=1e-6)


def test_stage1_without_classes_or_noise_levels():
    torch.manual_seed(0)
    config = DiffusionColorizerConfig(**{**vars(SMALL[1, "diffusion"]), "classes": 0, "noise_levels": 0})
    stage, rgb = DiffusionColorizer(config), picture(64)
    loss = stage(rgb, torch.tensor([3, -1]))
    # Only the preview is left, and untrained it says gray: the smooth L1 distance of chroma at 32x32 to zero.
    target = F.avg_pool2d(chroma_from_rgb(rgb), 2) / config.chroma_spread
    torch.testing.assert_close(loss, F.smooth_l1_loss(torch.zeros_like(target), target, beta=0.5))
    loss.backward()
    assert all(p.grad is None for p in stage.denoiser.parameters())


def test_stage1_frozen_encoder_gets_no_gradient():
    stage = lively((1, "diffusion")).train()
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


@DIFFUSION
def test_untrained_denoiser_loses_what_the_noise_takes(stage_class):
    # A network that says 0 estimates c_skip x. Where there is no color x is noise alone, and the weighted error is
    # lambda (c_skip sigma)^2 = 1 / (1 + sigma^2): the mean of that over ln sigma ~ N(mean, std^2).
    config = SMALL[stage_class.stage, stage_class.kind]
    torch.manual_seed(0)
    options = {**vars(config), "noise_levels": 300 if stage_class.stage == 1 else 40}
    if stage_class is SuperResolution:
        options |= {"disturb": 0.0, "huber": 0.0}
    stage, side = stage_class(type(config)(**options)), SIDES[stage_class.stage]
    channels = 2 if stage_class.stage == 1 else 32
    stage.denoiser.network.forward = lambda x, c_noise, context: torch.zeros_like(x[:, :channels])  # at once
    with torch.no_grad():
        loss = stage(picture(side, 1)[:, :1].expand(-1, 3, -1, -1))
    log_sigma = torch.linspace(-6, 6, 20001, dtype=torch.float64) * config.noise_std + config.noise_mean
    density = torch.exp(-(((log_sigma - config.noise_mean) / config.noise_std) ** 2) / 2)
    expected = (density / (1 + torch.exp(2 * log_sigma))).sum() / density.sum()
    assert abs(loss - expected) < (0.06 if stage_class.stage == 1 else 0.15)  # four standard errors of the mean


def test_stage1_sees_its_chroma_again():
    """What the networks are taught, chroma at 32x32, is what their answers are enlarged from."""
    stage = small((1, "diffusion"))
    chroma32 = 0.1 * torch.randn(2, 2, 32, 32)
    chroma = F.interpolate(chroma32, (64, 64), mode="nearest")
    seen = stage._chroma32(rgb_from_gray_chroma(torch.full((2, 1, 64, 64), 0.5), chroma))
    torch.testing.assert_close(seen, chroma32 / stage.config.chroma_spread)
    expected = F.interpolate(chroma32, (64, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(stage._enlarged(seen), expected)


def answering(stage: Stage, **config) -> dict[str, Tensor]:
    """The stage with other values in its config and a denoiser that returns what it gets, kept in the dictionary."""
    seen = {}

    def answer(x: Tensor, sigma: Tensor, context: list[Tensor]) -> Tensor:
        seen["sigma"], seen["noisy"] = sigma, x
        return x

    stage.denoiser.forward = answer
    object.__setattr__(stage, "config", type(stage.config)(**{**vars(stage.config), **config}))
    return seen


def test_stage1_learns_what_the_preview_leaves_open():
    stage, rgb = lively((1, "diffusion")), picture(64)
    seen = answering(stage, noise_mean=-20.0, noise_std=0.01, noise_levels=1)
    stage(rgb)
    assert seen["sigma"].max() < 1e-6  # so that what it is shown is the clean target
    preview = stage.encoder(gray_from_rgb(rgb))[1]
    assert preview.abs().mean() > 0.01
    torch.testing.assert_close(seen["noisy"] + preview, stage._chroma32(rgb), rtol=0, atol=1e-4)


def test_stage1_samples_begin_at_the_preview():
    """Where nothing is open, and the denoiser says so, every candidate is the preview."""
    stage, rgb = lively((1, "diffusion")), picture(64)
    stage.denoiser.forward = lambda x, sigma, context: torch.zeros_like(x)
    gray = gray_from_rgb(rgb)
    for candidate in stage.sample_chroma(gray, 2).unbind(1):
        torch.testing.assert_close(merge(gray, candidate), stage.preview(gray))


def test_stage1_takes_the_spectrum_of_what_the_preview_leaves_open():
    stage, rgb = lively((1, "diffusion")), torch.cat([picture(64, seed=seed) for seed in range(3)])
    stage.fit_to(rgb.split(2))
    with torch.no_grad():
        left_open = stage._chroma32(rgb) - stage.encoder(gray_from_rgb(rgb))[1]
    energy = np.square(scipy.fft.dctn(left_open.numpy(), type=2, norm="ortho", axes=(-2, -1))).mean(0)
    np.testing.assert_allclose(stage.denoiser.spectrum, np.maximum(energy, 1e-4 * energy.mean()), rtol=1e-3, atol=1e-5)


@ALL
def test_an_unknown_sampler_is_refused_at_once(which):
    if which[1] != "diffusion":
        pytest.skip("has no noise levels")
    config = SMALL[which]
    with pytest.raises(ValueError, match="sampler must be one of .*'heun'.*got 'euler'"):
        KINDS[which[0]][which[1]][1](type(config)(**{**vars(config), "sampler": "euler"}))


def test_stage3_learns_what_enlargement_gets_wrong():
    stage = small((3, "diffusion"))
    seen = answering(stage, disturb=0.0, noise_mean=-20.0, noise_std=0.01, noise_levels=1)
    rgb = picture(256)
    stage(rgb)
    assert seen["sigma"].max() < 1e-6  # so that what it is shown is the clean target
    residual = F.pixel_shuffle(seen["noisy"], 4) * stage.config.residual_spread
    low = resize(rgb, (64, 64))
    again = resize(chroma_from_rgb(low), (256, 256)) + residual
    torch.testing.assert_close(rgb_from_gray_chroma(gray_from_rgb(rgb), again), rgb, rtol=0, atol=1e-4)


def test_stage3_can_say_the_guided_enlargement_and_the_detail_of_the_luma():
    stage, rgb = small((3, "diffusion")), picture(256)
    gray, rgb64 = gray_from_rgb(rgb), resize(rgb, (64, 64))
    low, gray_low = chroma_from_rgb(rgb64), gray_from_rgb(rgb64)
    object.__setattr__(stage, "config", type(stage.config)(**{**vars(stage.config), "sigma_max": 1e5}))
    share = stage.denoiser.network.share.bias

    def said(*shares: float) -> Tensor:
        with torch.no_grad():
            share.copy_(torch.tensor(shares))
        return stage.sample(gray, rgb64)

    bicubic = resize(low, (256, 256))
    torch.testing.assert_close(said(0, 0, 0, 0), merge(gray, bicubic), rtol=0, atol=1e-4)
    torch.testing.assert_close(said(0, 0, 1, 1), merge(gray, enlarge_chroma(low, gray_low, gray)), rtol=0, atol=1e-4)
    lost = (gray - resize(gray_low, (256, 256))) * stage.config.residual_spread / DETAIL_SPREAD
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


# --- sampling


@ALL
def test_shapes_ranges_and_luma(which):
    stage, number = lively(which), which[0]
    with torch.no_grad():  # a lot of color, so that most pixels leave the cube
        if which == (1, "coltran"):
            last = stage.core.parallel
        elif which == (1, "pic"):
            last = stage.embedding.layers[-1].gain
        else:
            last = stage.write if which[1] == "coltran" else stage.denoiser.network.write
        (last if which[1] == "pic" else last.weight).mul_(30)
        if which == (1, "diffusion"):
            stage.encoder.preview.weight.mul_(100)
    rgb = picture(SIDES[number])
    rgb[0, :, :8], rgb[0, :, 8:16] = 0, 1
    gray = gray_from_rgb(rgb).clamp(0, 1)
    if number == 1:
        coarse = stage.sample(gray, 3, generators(*range(6)))
        assert coarse.shape == (2, 3, 64, 64) and coarse.dtype == torch.int64
        assert coarse.min() >= 0 and coarse.max() <= 511 and len(coarse.unique()) > 10
        if which[1] != "coltran":
            assert stage.sample_chroma(gray, 3).shape == (2, 3, 2, 64, 64)
        assert stage.pool == stage.config.pool
        order = stage.order(gray, coarse)
        assert order.shape == (2, 3) and order.sort(-1).values.tolist() == [[0, 1, 2]] * 2
        out = stage.preview(gray)
    elif number == 2:
        out = stage.sample(gray, coarse_from_rgb(rgb))
    else:
        out = stage.sample(gray, resize(rgb, (64, 64)))
    assert out.shape == rgb.shape and out.dtype == torch.float32
    assert out.min() >= 0 and out.max() <= 1
    assert (gray_from_rgb(out) - gray).abs().max() <= 1e-4
    colored = (out.amax(1) - out.amin(1) > 0.02).float().mean()
    # The luma of a gray answer would prove nothing. (An untrained argmax over 8 channels is the same for most pixels.)
    assert colored > (0.05 if which == (3, "coltran") else 0.2)


@ALL
def test_batch_equals_singles(which):
    stage, rgb = lively(which), picture(SIDES[which[0]], 3)
    together = drawn(stage, rgb, generators(7, 8, 9))
    for index, seed in enumerate((7, 8, 9)):
        alone = drawn(stage, rgb[index : index + 1], generators(seed))
        torch.testing.assert_close(together[index : index + 1], alone, rtol=0, atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 0.01


def test_vividness_scales_what_is_sampled():
    stage, gray = lively((1, "diffusion")), gray_from_rgb(picture(64))
    vivid = DiffusionColorizer(replace(SMALL[1, "diffusion"], vividness=1.5)).eval()
    vivid.load_state_dict(stage.state_dict())
    plain = stage.sample_chroma(gray, 2, generators(1, 2, 3, 4))
    torch.testing.assert_close(vivid.sample_chroma(gray, 2, generators(1, 2, 3, 4)), 1.5 * plain)
    assert torch.equal(vivid.preview(gray), stage.preview(gray))


def test_stage1_candidates_are_photo_major():
    stage, gray = lively((1, "diffusion")), gray_from_rgb(picture(64))
    together = stage.sample_chroma(gray, 2, generators(1, 2, 3, 4))
    for photo in range(2):
        alone = stage.sample_chroma(gray[photo : photo + 1], 2, generators(2 * photo + 1, 2 * photo + 2))
        torch.testing.assert_close(together[photo], alone[0], rtol=0, atol=1e-4)
    assert (together[:, 0] - together[:, 1]).abs().amax((1, 2, 3)).min() > 0.01  # candidates differ
    coarse = stage.sample(gray, 2, generators(1, 2, 3, 4))
    assert torch.equal(coarse, coarse_from_rgb(merge(gray[:, None], together)))


@ALL
def test_same_seed_same_picture(which):
    stage, rgb = lively(which), picture(SIDES[which[0]])
    torch.manual_seed(0)
    options = {"num_inference_steps": 2} if which == (3, "diffusion") else {}
    first = drawn(stage, rgb, Generator().manual_seed(4), **options)
    torch.manual_seed(1)  # torch's own generator has no say
    assert torch.equal(first, drawn(stage, rgb, Generator().manual_seed(4), **options))
    if which not in ((2, "coltran"), (3, "coltran")):  # they answer and do not draw
        assert not torch.equal(first, drawn(stage, rgb, Generator().manual_seed(5), **options))


def test_one_step_of_stage3_is_the_same_for_every_seed():
    stage, rgb = lively((3, "diffusion")), picture(256)
    one, other = (drawn(stage, rgb, Generator().manual_seed(seed), num_inference_steps=1) for seed in (4, 5))
    assert torch.equal(one, other)


@DIFFUSION
@pytest.mark.parametrize("sampler, calls", [("dpmpp_2m", [1, 2, 5]), ("ddim", [1, 2, 5]), ("heun", [1, 3, 9])])
def test_steps_and_encoder_calls(stage_class, sampler, calls):
    which = stage_class.stage, stage_class.kind
    stage, rgb = small(which), picture(SIDES[which[0]], 1)
    config = type(stage.config)(**{**vars(stage.config), "sampler": sampler, "steps": 2})
    object.__setattr__(stage, "config", config)
    encoder, denoiser, network = (calls_of(m) for m in (stage.encoder, stage.denoiser, stage.denoiser.network))
    for steps, expected in zip((1, None, 5), calls, strict=True):
        seen: list[int] = []
        for sizes in (encoder, denoiser, network):
            sizes.clear()
        drawn(stage, rgb, num_inference_steps=steps, callback=lambda step, *_, seen=seen: seen.append(step))
        assert denoiser == network == [1] * expected
        assert seen == list(range(steps or 2))
        assert encoder == [1]


def test_stage1_encodes_once_for_all_candidates():
    stage, gray = small((1, "diffusion")), gray_from_rgb(picture(64))
    encoder, denoiser = calls_of(stage.encoder), calls_of(stage.denoiser)
    contexts = [calls_of(layer) for layer in (*stage.denoiser.network.context, *stage.denoiser.network.context8)]
    stage.sample(gray, 5, num_inference_steps=4)
    assert encoder == [2] and denoiser == [10] * 4
    assert contexts == [[2]] * len(contexts)
    encoder.clear(), denoiser.clear()
    stage.preview(gray)
    assert encoder == [2] and denoiser == []
    encoder.clear()
    encoded, at_once = stage.encode(gray), stage.sample_chroma(gray, 2, generators(1, 2, 3, 4))
    assert encoder == [2, 2]
    parts = [stage.sample_chroma(gray, 1, generators(*seeds), encoded=encoded) for seeds in ((1, 3), (2, 4))]
    assert encoder == [2, 2] and all(len(calls) == 3 for calls in contexts)
    torch.testing.assert_close(torch.cat(parts, 1), at_once, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="encoded is of 2 pictures; gray64 holds 1"):
        stage.sample(gray[:1], encoded=encoded)


@DIFFUSION
def test_training_encodes_once_for_all_noise_levels(stage_class):
    which = stage_class.stage, stage_class.kind
    stage, rgb = small(which), picture(SIDES[which[0]])
    encoder, denoiser = calls_of(stage.encoder), calls_of(stage.denoiser)
    stage(rgb)
    assert encoder == [2] and denoiser == [2 * stage.config.noise_levels]


def test_inputs_that_do_not_fit_are_refused():
    one, two, three = (small(which) for which in ((1, "diffusion"), (2, "coltran"), (3, "diffusion")))
    gray, coarse, gray256, rgb64 = (
        torch.rand(2, 1, 64, 64), torch.zeros(2, 64, 64).long(), torch.rand(2, 1, 256, 256), torch.rand(2, 3, 64, 64)
    )  # fmt: skip
    for bad in (torch.rand(2, 3, 64, 64), torch.rand(2, 1, 32, 64), torch.rand(1, 64, 64)):
        for call in (one.sample, one.sample_chroma, one.preview, lambda x: two.sample(x, coarse)):
            with pytest.raises(ValueError, match="gray64 must be"):
                call(bad)
    for bad in (coarse[:1], coarse[:, :32], coarse[:, None]):
        with pytest.raises(ValueError, match="coarse64"):
            two.sample(gray, bad)
    for bad in (coarse, torch.zeros(1, 3, 64, 64).long(), torch.zeros(2, 3, 32, 32).long()):
        with pytest.raises(ValueError, match="coarse"):
            one.order(gray, bad)
    for bad in ((gray, rgb64), (gray256[:, 0], rgb64), (gray256, rgb64[:1]), (gray256, rgb64[0]), (gray256, gray)):
        with pytest.raises(ValueError, match="gray256 must be"):
            three.sample(*bad)
    for steps in (0, -1):
        with pytest.raises(ValueError, match="steps"):
            one.sample(gray, num_inference_steps=steps)
        with pytest.raises(ValueError, match="steps"):
            three.sample(gray256, rgb64, num_inference_steps=steps)
    with pytest.raises(ValueError, match="num_samples"):
        one.sample(gray, 0)
    with pytest.raises(ValueError, match="one per row"):
        one.sample(gray, 2, generators(1, 2))
    with pytest.raises(ValueError, match="one per row"):
        three.sample(gray256, rgb64, generators(1), 2)
    with pytest.raises(ValueError, match="decode"):
        ColorUpsampler(ColorUpsamplerConfig(decode="mode"))
    with pytest.raises(ValueError, match="backbone must be one of"):
        DiffusionColorizer(DiffusionColorizerConfig(backbone="b7"))


def test_untrained_preview_is_gray():
    gray = gray_from_rgb(picture(64))
    assert torch.equal(small((1, "diffusion")).preview(gray), gray.expand(-1, 3, -1, -1))


# --- stage 1, diffusion, on photographs in more pixels


def test_the_backbone_sees_the_sharp_picture():
    torch.manual_seed(0)
    stage = DiffusionColorizer(replace(SMALL[1, "diffusion"], gray_side=128, backbone_side=128)).eval()
    with torch.no_grad():
        for parameter in stage.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)
    assert stage.gray_side == 128
    rgb = picture(128)
    gray64, sharp = F.avg_pool2d(gray_from_rgb(rgb), 2), gray_from_rgb(rgb)
    shown: list[Tensor] = []
    stage.encoder.backbone.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0]))
    with_it = stage.sample_chroma(gray64, 1, generators(1, 2), sharp=sharp)
    enlarged = stage.sample_chroma(gray64, 1, generators(1, 2), sharp=doubled(gray64).clamp(0, 1))
    assert torch.equal(enlarged, stage.sample_chroma(gray64, 1, generators(1, 2)))
    assert torch.equal(stage.preview(gray64), stage.preview(gray64, doubled(gray64).clamp(0, 1)))
    assert with_it.shape == enlarged.shape and stage.preview(gray64, sharp).shape == (2, 3, 64, 64)
    for seen, expected in zip(shown, [sharp, *[doubled(gray64).clamp(0, 1)] * 4, sharp], strict=True):
        assert torch.equal(seen, expected)
    assert stage(rgb, torch.tensor([1, -1])).isfinite()
    with pytest.raises(ValueError, match=r"rgb must be \(B, 3, 128, 128\)"):
        stage(picture(64))
    with pytest.raises(ValueError, match=r"sharp must be \(2, 1, 128, 128\)"):
        stage.preview(gray64, gray64)
    with pytest.raises(ValueError, match="gray_side must be 64 or 128; got 96"):
        DiffusionColorizer(replace(SMALL[1, "diffusion"], gray_side=96))


# --- stage 1, pic


def test_pic_candidates_are_photo_major_and_rows_are_announced():
    stage, gray = lively((1, "pic")), gray_from_rgb(picture(64))
    seen: list[tuple] = []
    together = stage.sample_chroma(gray, 2, generators(1, 2, 3, 4), callback=lambda *step: seen.append(step))
    torch.testing.assert_close(together[1:], stage.sample_chroma(gray[1:], 2, generators(3, 4)), rtol=0, atol=1e-4)
    assert (together[:, 0] - together[:, 1]).abs().mean() > 0.01
    assert [step[0] for step in seen] == list(range(8)) and seen[-1][1] == 0
    assert seen[3][2].shape == (4, 3, 4, 8)
    assert torch.equal(stage.sample(gray, 2, generators(1, 2, 3, 4)), coarse_from_rgb(merge(gray[:, None], together)))


def test_pic_likelihoods():
    stage, rgb = lively((1, "pic")), picture(64)
    bits = stage.bits(rgb)
    alone = PICColorizer(replace(SMALL[1, "pic"], embedding_weight=0.0)).eval()
    alone.load_state_dict(stage.state_dict())
    assert bits.shape == (2,) and bits.mean().item() == pytest.approx(alone(rgb).item(), rel=1e-5)
    gray, coarse = gray_from_rgb(rgb), coarse_from_rgb(rgb)
    rounded = merge(gray, chroma_from_rgb(rgb_from_coarse(coarse)))
    torch.testing.assert_close(stage.likelihood(gray, coarse), stage.bits(rounded))


# --- stage 1, coltran


def test_coltran_candidates_are_photo_major_and_rows_are_announced():
    stage, gray = lively((1, "coltran")), gray_from_rgb(picture(64))
    seen: list[tuple] = []
    together = stage.sample(gray, 2, generators(1, 2, 3, 4), callback=lambda *step: seen.append(step))
    assert torch.equal(together[1:], stage.sample(gray[1:], 2, generators(3, 4)))
    assert (together[:, 0] != together[:, 1]).float().mean() > 0.1
    assert [step[0] for step in seen] == list(range(64)) and seen[-1][1] == 0
    assert torch.equal(seen[9][2], together.flatten(0, 1)[:, :10])


def test_coltran_likelihood_is_the_loss_without_the_auxiliary_head():
    torch.manual_seed(0)
    stage, rgb = ColTranColorizer(replace(SMALL[1, "coltran"], parallel_weight=0.0)).eval(), picture(64)
    bits = stage.likelihood(gray_from_rgb(rgb), coarse_from_rgb(rgb))
    assert bits.shape == (2,) and bits.mean().item() == pytest.approx(stage(rgb).item(), rel=1e-5)
    assert torch.equal(stage.bits(rgb), bits)


def test_coltran_argmax_needs_no_seed():
    torch.manual_seed(0)
    stage, gray = ColTranColorizer(replace(SMALL[1, "coltran"], temperature=0.0)).eval(), gray_from_rgb(picture(64))
    first = stage.sample(gray, 2)
    assert torch.equal(first[:, 0], first[:, 1])
    for wrong, message in (({"temperature": -1.0}, "temperature must be"), ({"top_p": 0.0}, "top_p must be in"),
                           ({"top_p": 1.5}, "top_p must be in")):
        with pytest.raises(ValueError, match=message):
            ColTranColorizer(replace(SMALL[1, "coltran"], **wrong))


@pytest.mark.parametrize("kind", ["diffusion", "coltran", "pic"])
def test_the_temperature_asked_for_stands_before_the_configs(kind):
    stage, gray = lively((1, kind)), gray_from_rgb(picture(64))
    warm = stage.sample(gray, 2, generators(*range(4)))
    cool = stage.sample(gray, 2, generators(*range(4)), temperature=0.5)
    assert (cool != warm).any()
    own = type(stage)(replace(stage.config, temperature=0.5)).eval()
    own.load_state_dict(stage.state_dict())
    assert torch.equal(own.sample(gray, 2, generators(*range(4))), cool)
    assert torch.equal(own.sample(gray, 2, generators(*range(4)), temperature=1.0), warm)
    for wrong in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="temperature must be 0 or more"):
            stage.sample(gray, temperature=wrong)
    with pytest.raises(ValueError, match="temperature must be 0 or more"):
        type(stage)(replace(stage.config, temperature=-1.0))


def test_tuned_steps_count_where_as_many_are_asked_for(tmp_path):
    config = replace(SMALL[1, "diffusion"], sampler="spectral", steps=3)
    plain, gray = lively((1, "diffusion")), gray_from_rgb(picture(64))
    plain.config = config
    stage = DiffusionColorizer(replace(config, tuned=3)).eval()
    stage.load_state_dict(plain.state_dict() | stage.tuned.state_dict(prefix="tuned."))
    stage.tuned.levels.copy_(torch.tensor([50.0, 3.0, 0.2]))
    for steps, expected in ((None, [3.0, 0.2, 0]), (3, [3.0, 0.2, 0]), (2, [0.05, 0]), (1, [0])):
        seen: list[tuple] = []
        stage.sample(gray, 1, num_inference_steps=steps, callback=lambda *step, seen=seen: seen.append(step))
        assert [sigma for _, sigma, _, _ in seen] == pytest.approx(expected)
    stage.tuned.levels.copy_(geometric_sigmas(3, config.sigma_min, config.sigma_max)[:-1])

    def apart(steps: int | None) -> float:
        one, other = (stage.sample_chroma(gray, 1, generators(1, 2), steps) for stage in (plain, stage))
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
    drawn = [one.sample_chroma(gray, 1, generators(1, 2)) for one in (stage, load_stage(tmp_path))]
    assert torch.equal(*drawn)
    for wrong in ({"tuned": -1}, {"tuned": 3, "sampler": "heun"}, {"tuned": 3, "steps": 4}):
        with pytest.raises(ValueError, match="tuned steps of the sampler spectral"):
            DiffusionColorizer(replace(config, **wrong))
    with pytest.raises(ValueError, match="needs steps >= 1"):
        plain.sample(gray, num_inference_steps=0)
    with pytest.raises(ValueError, match="sampler must be one of .*spectral"):
        DiffusionColorizer(replace(config, sampler="euler"))


def test_a_modulation_is_a_bias_of_each_blocks_own():
    network = lively((1, "diffusion")).network
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
    stage, gray = lively((1, "diffusion")), gray_from_rgb(picture(64))
    drawn = {}
    for sampler in ("spectral", "heun", "dpmpp_2m"):
        stage.config = replace(stage.config, sampler=sampler)
        drawn[sampler] = stage.sample_chroma(gray, 2, generators(*range(4)), 60)
    for sampler in ("heun", "dpmpp_2m"):
        assert (drawn[sampler] - drawn["spectral"]).std() < 0.03 * drawn["spectral"].std()


def test_diffusion_draws_come_nearer_to_the_preview_as_it_gets_cool():
    stage, gray = lively((1, "diffusion")), gray_from_rgb(picture(64))
    mean, warm, half = (stage.sample_chroma(gray, 3, generators(*range(6)), temperature=t) for t in (0.0, 1.0, 0.5))
    preview = chroma_from_rgb(stage.preview(gray))
    assert torch.allclose(half, (mean + warm) / 2, atol=1e-6) and (warm - mean).abs().max() > 0.01
    assert torch.allclose(merge(gray[:, None], mean), merge(gray, preview)[:, None], atol=1e-5)


# --- stage 2, the published network


def test_stage2_uniform_answer_costs_8_bits():
    stage = small((2, "coltran"))
    nn.init.zeros_(stage.write.weight), nn.init.zeros_(stage.write.bias)
    assert stage(picture(64)).item() == pytest.approx(8, abs=1e-5)


def test_stage2_loss_is_of_the_channel_shown():
    # An answer that is sure of value 255: right (0 bits) for the channel that is full, wrong for the empty ones.
    stage = small((2, "coltran"))
    nn.init.zeros_(stage.write.weight), nn.init.zeros_(stage.write.bias)
    with torch.no_grad():
        stage.write.bias[255] = 20.0
    seen: list[Tensor] = []
    stage.logits = lambda gray, levels, channel, real=stage.logits: seen.append(channel) or real(gray, levels, channel)
    rgb = torch.zeros(8, 3, 64, 64)
    rgb[:, 1] = 1
    right, wrong = (math.log(math.exp(20) + 255) - height for height in (20, 0))
    torch.manual_seed(0)
    with torch.no_grad():
        loss = stage(rgb).item()
    hits = (seen[0] == 1).float().mean().item()
    assert seen[0].unique().tolist() == [0, 1, 2]
    assert loss == pytest.approx((hits * right + (1 - hits) * wrong) / math.log(2), rel=1e-4)


def test_stage2_shares_weights_over_channels():
    stage, rgb = lively((2, "coltran")), picture(64)
    gray, levels = gray_from_rgb(rgb), torch.randint(8, (2, 64, 64))
    answers = [stage.logits(gray, levels, torch.full((2,), channel)) for channel in range(3)]
    assert (answers[0] - answers[1]).abs().max() > 1e-3 and (answers[1] - answers[2]).abs().max() > 1e-3
    with torch.no_grad():  # the eight rows of a channel are all that tells channels apart
        stage.level.weight[8:16] = stage.level.weight[:8]
        stage.level.weight[16:] = stage.level.weight[:8]
    same = [stage.logits(gray, levels, torch.full((2,), channel)) for channel in range(3)]
    assert torch.equal(same[0], same[1]) and torch.equal(same[0], same[2])
    torch.testing.assert_close(same[0], answers[0])
    mixed = lively((2, "coltran")).logits(gray, levels, torch.tensor([2, 0]))  # each picture has a channel of its own
    torch.testing.assert_close(mixed, torch.stack([answers[2][0], answers[0][1]]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("decode", ["mean", "argmax"])
def test_stage2_decodes_its_distribution(decode):
    torch.manual_seed(0)
    stage = ColorUpsampler(ColorUpsamplerConfig(**{**vars(SMALL[2, "coltran"]), "decode": decode})).eval()
    # Three quarters at the low value and one quarter higher, not equally for all channels, or the color would not tell.
    low, step = torch.tensor([100, 140, 60]), torch.tensor([40, 20, 80])

    def logits(gray: Tensor, levels: Tensor, channel: Tensor) -> Tensor:
        answer = torch.full((len(gray), 64, 64, 256), -1e4)
        answer[..., low[channel[0]]] = math.log(3)
        answer[..., (low + step)[channel[0]]] = 0.0
        return answer

    stage.logits = logits
    value = low + (step // 4 if decode == "mean" else 0)
    rgb = (value / 255)[None, :, None, None].expand(1, 3, 64, 64)
    out = stage.sample(gray_from_rgb(rgb), coarse_from_rgb(rgb))
    torch.testing.assert_close(out, rgb, rtol=0, atol=1e-5)
    dark = stage.sample(gray_from_rgb(rgb) / 2, coarse_from_rgb(rgb))  # luma of the picture, chroma of the answer
    torch.testing.assert_close(chroma_from_rgb(dark), chroma_from_rgb(rgb), rtol=0, atol=1e-5)


def test_published_color_upsampler_has_13_5_million_parameters():
    # ColTran's color upsampler as released (configs/color_upsampler.py, models/layers.py): D = ff = 512.
    d, feed_forward, heads, layers, side = 512, 512, 4, 4, 64
    norm = 2 * d
    attention = 4 * d * d + heads * 2 * side  # q, k, v and output without bias; relative bias of each distance
    pointwise = (d * feed_forward + feed_forward) + (feed_forward * d + d)
    layer = 2 * (attention + norm + pointwise + norm)  # rows and columns
    expected = (
        24 * d + 256 * d  # embeddings of 3 x 8 levels and 256 gray values
        + (2 * d * d + d)  # their join
        + 2 * side * d  # positions of rows and columns
        + layers * layer
        + (d * 256 + 256)  # logits
    )  # fmt: skip
    with torch.device("meta"):
        stage = ColorUpsampler(Config.read("configs/stage2_published.toml").network)
    assert sum(p.numel() for p in stage.parameters()) == expected == 13_476_608


def test_published_spatial_upsampler_has_10_9_million_parameters():
    # As the color upsampler, with 3 x 256 values to show, three layers and positions and distances up to 256.
    d, heads, layers, side = 512, 4, 3, 256
    attention, pointwise = 4 * d * d + heads * 2 * side, 2 * (d * d + d)
    expected = (768 + 256) * d + 2 * d * d + d + 2 * side * d + layers * 2 * (attention + pointwise + 4 * d) + 257 * 256
    expected += (d - 256) * 256  # the logits read 512 channels
    with torch.device("meta"):
        stage = SpatialUpsampler(Config.read("configs/stage3_coltran.toml").network)
    assert sum(p.numel() for p in stage.parameters()) == expected
    assert round(expected / 1e6, 1) == 10.9


def test_spatial_upsampler_is_shown_its_pixels_repeated():
    torch.manual_seed(0)
    stage = small((3, "coltran"))
    rgb = F.interpolate(picture(64), (256, 256), mode="nearest")
    levels = (rgb * 255).round().long()
    seen: list[Tensor] = []
    stage.logits = lambda gray, values, channel, real=stage.logits: seen.append((values, channel)) or real(
        gray, values, channel
    )
    stage(rgb)
    values, channel = seen[0]
    assert torch.equal(values, levels[torch.arange(2), channel])
    with torch.no_grad():
        nn.init.zeros_(stage.write.weight), nn.init.zeros_(stage.write.bias)
    torch.testing.assert_close(stage.bits(rgb), torch.full((2,), 8.0))


def test_axial_encoder_is_post_norm():
    torch.manual_seed(0)
    channels, feed_forward, heads, layers, side = 8, 12, 2, 2, 5
    encoder = AxialEncoder(channels, feed_forward, heads, layers, (side, side)).double()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.normal_(0, 0.5)
    x = torch.randn(2, side, side, channels, dtype=torch.float64)

    def norm(y: Tensor, layer: nn.LayerNorm) -> Tensor:
        y = y - y.mean(-1, keepdim=True)
        return y / (y.square().mean(-1, keepdim=True) + 1e-3).sqrt() * layer.weight + layer.bias

    def attend(line: Tensor, layer: nn.Module) -> Tensor:
        """One row or column (side, channels), head by head and query by query."""
        q, k, v = (line @ weight.T for weight in layer.qkv.weight.chunk(3))
        out, dim = torch.zeros_like(line), channels // heads
        for head in range(heads):
            part = slice(head * dim, (head + 1) * dim)
            for query in range(side):
                logits = torch.stack([
                    (q[query, part] * k[key, part]).sum() * dim**-0.5 + layer.relative[head, side - 1 + key - query]
                    for key in range(side)
                ])  # fmt: skip
                out[query, part] = logits.softmax(0) @ v[:, part]
        return out @ layer.out.weight.T

    expected = x.clone()
    for row in range(side):
        for column in range(side):
            expected[:, row, column] += encoder.rows[row, 0] + encoder.columns[column]
    assert len(encoder.layers) == 4 * layers
    for index, block in enumerate(encoder.layers):
        if index % 4 == 0:  # rows
            y = torch.stack([torch.stack([attend(row, block.layer) for row in image]) for image in expected])
        elif index % 4 == 2:  # columns
            y = torch.stack([
                torch.stack([attend(image[:, j], block.layer) for j in range(side)], dim=1) for image in expected
            ])  # fmt: skip
        else:
            first, _, second = block.layer
            y = (expected @ first.weight.T + first.bias).clamp_min(0) @ second.weight.T + second.bias
        expected = norm(expected + y, block.norm)
    torch.testing.assert_close(encoder(x), expected)


# --- the order of candidates


def candidates(batch: int, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = Generator().manual_seed(seed)
    gray = F.interpolate(torch.rand(batch, 1, 4, 4, generator=generator), (64, 64), mode="bilinear")
    chroma = 0.4 * torch.rand(batch, count, 2, 8, 8, generator=generator) - 0.2
    chroma = F.interpolate(chroma.flatten(0, 1), (64, 64), mode="bilinear").unflatten(0, (batch, count))
    return gray, coarse_from_rgb(merge(gray[:, None], chroma))


def brute_force_distances(gray: Tensor, coarse: Tensor, *, equal: bool = False) -> np.ndarray:
    """Mean distance in a and b at 16x16 of each two, brought nearly to equal strength or not; gray (1, 64, 64), coarse
    (N, 64, 64) -> (N, N).
    """
    ab = []
    for one in coarse:
        rgb = merge(gray, chroma_from_rgb(rgb_from_coarse(one))).double().numpy()
        small = np.empty((3, 16, 16))
        for i in range(16):
            for j in range(16):
                small[:, i, j] = rgb[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].mean((1, 2))
        ab.append(lab_from_rgb(torch.from_numpy(small))[1:].numpy())
    if equal:
        ab = [a / np.hypot(*a).mean() ** EVENED_STRENGTH for a in ab]
    return np.array([[np.hypot(*(a - b)).mean() for b in ab] for a in ab])


@pytest.mark.parametrize("any_luma", [False, True])
def test_first_candidate_is_the_medoid(any_luma):
    """Also of coarse colors that do not have the luma of the photograph: it decides what can be seen of them."""
    gray, coarse = candidates(12, 8)
    if any_luma:
        symbols = torch.randint(512, (12, 8, 8, 8), generator=Generator().manual_seed(0))
        coarse = symbols.repeat_interleave(8, 2).repeat_interleave(8, 3)
    for pool in (8, 5):
        order = spread_order(gray, coarse, pool)
        for index in range(12):
            sums = brute_force_distances(gray[index], coarse[index, :pool], equal=True).sum(1)
            assert sums[order[index, 0]] <= sums.min() + 1e-4  # to rounding; near ties may stand either way
            assert sums.max() - sums.min() > 0.01


def test_each_further_candidate_covers_the_draws_best():
    gray, coarse = candidates(6, 8, seed=3)
    order = spread_order(gray, coarse, 4).tolist()
    for index in range(6):
        distance = brute_force_distances(gray[index], coarse[index])
        for known in range(1, 8):
            costs = {k: distance[:, [*order[index][:known], k]].min(1).sum() for k in range(8)
                     if k not in order[index][:known]}  # fmt: skip
            assert costs[order[index][known]] <= min(costs.values()) + 1e-3
        assert sorted(order[index]) == list(range(8))


def test_a_pale_draw_is_no_more_central_than_another():
    gray, coarse = candidates(1, 5, seed=4)
    odd = int(brute_force_distances(gray[0], coarse[0], equal=True).sum(1).argmax())
    chroma = chroma_from_rgb(rgb_from_coarse(coarse))
    chroma[:, odd] *= 0.4
    pale = coarse_from_rgb(merge(gray[:, None], chroma))
    assert brute_force_distances(gray[0], pale[0]).sum(1).argmin() == odd  # the plain medoid
    assert spread_order(gray, pale)[0, 0] == brute_force_distances(gray[0], pale[0], equal=True).sum(1).argmin() != odd


def test_a_gray_draw_is_not_the_first():
    gray, coarse = candidates(3, 8, seed=5)
    none = (gray * 7).round().long() * 73  # the same level of red, green and blue
    assert (spread_order(gray, torch.cat([coarse[:, :4], none, coarse[:, 4:]], 1))[:, 0] != 4).all()
    assert spread_order(gray, none.expand(-1, 3, -1, -1))[:, 0].tolist() == [0, 0, 0]


def test_near_copies_come_last():
    gray, coarse = candidates(1, 3, seed=2)
    copies = coarse[:, [0, 0, 1, 0, 1, 2]].clone()
    copies[:, [1, 3, 4], 5, 5] ^= 1  # a bit of one pixel's blue
    order = spread_order(gray, copies).tolist()[0]
    assert order[0] in (0, 1, 3)
    kinds = [[0, 0, 1, 0, 1, 2][k] for k in order]
    assert set(kinds[:3]) == {0, 1, 2}


def test_order_follows_the_candidates():
    """The same candidates stand first wherever they stood. (Two that stand for each other may be exchanged.)"""
    gray, coarse = candidates(2, 6, seed=1)
    order = spread_order(gray, coarse)
    for seed in range(4):
        permutation = torch.randperm(6, generator=Generator().manual_seed(seed))
        moved = permutation[spread_order(gray, coarse[:, permutation])]
        assert torch.equal(moved[:, 0], order[:, 0])
        for index in range(2):
            distance = brute_force_distances(gray[index], coarse[index])
            for known in range(2, 6):
                mine, theirs = (distance[:, found[index, :known]].min(1).sum() for found in (order, moved))
                assert abs(mine - theirs) < 1e-3


def test_equal_candidates_keep_their_order():
    gray, coarse = candidates(1, 3, seed=2)
    same = coarse[:, :1].expand(-1, 5, -1, -1)
    assert spread_order(gray, same).tolist() == [[0, 1, 2, 3, 4]]
    assert spread_order(gray, coarse[:, :2]).tolist() == [[0, 1]]  # two are as far from each other
    assert spread_order(gray, coarse[:, :1]).tolist() == [[0]]
    outlier = coarse[:, [1, 0, 0, 0]]
    assert spread_order(gray, outlier).tolist() == [[1, 0, 2, 3]]
    assert spread_order(gray, outlier, pool=1).tolist() == [[0, 1, 2, 3]]
    for pool in (0, 5):
        with pytest.raises(ValueError, match="pool"):
            spread_order(gray, outlier, pool)


def test_order_looks_at_what_fits_the_luma():
    """Coarse colors that differ in lightness alone are the same candidate: the luma is the photograph's. So the first
    stands for the second, which comes last.
    """
    gray = torch.full((1, 1, 64, 64), 0.5)
    levels = torch.tensor([[2, 1, 1], [6, 5, 5], [4, 4, 2]])
    coarse = (levels @ torch.tensor([64, 8, 1]))[None, :, None, None].expand(1, 3, 64, 64)
    assert spread_order(gray, coarse).tolist() == [[0, 2, 1]]


def test_expected_error_is_the_mean_difference_of_draws_and_of_gray():
    generator = Generator().manual_seed(0)
    gray = torch.rand(1, 20, 30, generator=generator)
    chroma = 0.3 * torch.rand(3, 2, 20, 30, generator=generator) - 0.15
    pictures = 0.1 * torch.randn(2, 2, 20, 30, generator=generator)
    found = expected_error(gray, chroma, pictures)
    for picture, one in zip(pictures, found, strict=True):
        judged = lab_from_rgb(merge(gray, picture))
        apart = [ciede2000(lab_from_rgb(merge(gray, draw)), judged) for draw in chroma]
        none = ciede2000(lab_from_rgb(gray.repeat(3, 1, 1)), judged)
        torch.testing.assert_close(one, (1 - GRAY_SHARE) * sum(apart) / 3 + GRAY_SHARE * none)
    silent = 0 * chroma
    assert (expected_error(gray, silent, silent[:1]) < 1e-3).all()
    white = expected_error(torch.ones(1, 5, 5), chroma[:, :, :5, :5], pictures[:, :, :5, :5])
    assert (white < 1e-3).all(), "white is white"
    small, large = chroma[:, :, ::4, ::5], pictures.repeat(1, 1, 2, 2)
    torch.testing.assert_close(
        expected_error(gray, small, large),
        expected_error(gray, resize(small, (20, 30)), resize(large, (20, 30))),
    )
    for wrong in ((gray[0], chroma), (gray, chroma[0]), (gray, chroma[:, :1])):
        with pytest.raises(ValueError, match="gray must be"):
            expected_error(*wrong, pictures)
    with pytest.raises(ValueError, match="pictures"):
        expected_error(gray, chroma, pictures[0])
