"""The networks of adversarial training: published sizes, receptive fields, normalization, attention, losses, style."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Generator, Tensor, nn

from stages.checkpoint import CheckpointError
from stages.nn.gan.attention import SelfAttention
from stages.nn.gan.content import VGG19, WEIGHTS, content_loss
from stages.nn.gan.discriminator import Discriminator, DiscriminatorConfig
from stages.nn.gan.instances import FeatureEncoder, boundary_map, cluster_centers, instance_means
from stages.nn.gan.layers import BatchNorm, Convolution, spectrally_normalized
from stages.nn.gan.losses import discriminator_loss, generator_loss, matching_loss
from stages.nn.gan.pix2pixhd import Pix2PixHD, Pix2PixHDConfig
from stages.nn.gan.spectral import power_iteration
from stages.nn.gan.unet import GANUNet, GANUNetConfig

HYBRID, HYBRID_D = GANUNetConfig(), DiscriminatorConfig()
UNET_256 = GANUNetConfig((64, 128, 256, 512, 512, 512, 512, 512), "transposed", "batch", False, 3, ())
PIX2PIX_D = DiscriminatorConfig(padding=1, scales=1, norm="batch", spectral_norm=False, attention=())
HD_D = DiscriminatorConfig(padding=2, pooling=3, norm="instance", spectral_norm=False, attention=())


def parameters(module: nn.Module) -> int:
    return sum(one.numel() for one in module.parameters())


# ---------------------------------------------------------------------- published sizes


def test_parameters_are_those_published():
    with torch.device("meta"):
        assert parameters(GANUNet(UNET_256, 3, 3)) == 54_413_955
        assert parameters(GANUNet(UNET_256, 1, 2)) / 1e6 == pytest.approx(54.4, abs=0.05)
        one_level = 512 * 512 * 16 + 1024 * 512 * 16 + 2 * 2 * 512  # down, up, a normalization of each
        assert parameters(GANUNet(replace(UNET_256, widths=UNET_256.widths[:-1]), 3, 3)) == 54_413_955 - one_level
        assert parameters(Discriminator(PIX2PIX_D, 6)) / 1e6 == pytest.approx(2.77, abs=0.005)
        assert parameters(GANUNet(HYBRID, 1, 2)) / 1e6 == pytest.approx(41.8, abs=0.05)
        for scale in Discriminator(HYBRID_D, 3).scales:
            assert parameters(scale) / 1e6 == pytest.approx(2.8, abs=0.05)


def test_pix2pixhd_has_the_layers_of_the_paper():
    """Counted by hand: 7x7, four halvings, nine blocks of two 3x3, four doublings, 7x7; all with biases."""

    def layer(inputs: int, outputs: int, kernel: int) -> int:
        return inputs * outputs * kernel**2 + outputs

    around = [(64, 128), (128, 256), (256, 512), (512, 1024)]
    trunk = layer(36, 64, 7) + sum(layer(a, b, 3) + layer(b, a, 3) for a, b in around) + 18 * layer(1024, 1024, 3)
    enhancer = layer(36, 32, 7) + layer(32, 64, 3) + 6 * layer(64, 64, 3) + layer(64, 32, 3)
    with torch.device("meta"):
        assert parameters(Pix2PixHD(Pix2PixHDConfig(), 36, 3)) == trunk + layer(64, 3, 7)
        assert parameters(Pix2PixHD(Pix2PixHDConfig(enhancers=1), 36, 3)) == trunk + enhancer + layer(32, 3, 7)


@pytest.mark.parametrize("config, sides", [
    (HYBRID_D, [32, 16, 8]), (replace(PIX2PIX_D, scales=3), [30, 14, 6]), (HD_D, [35, 19, 11]),
])  # fmt: skip
def test_maps_of_patches_have_the_sides_published(config, sides):
    with torch.device("meta"):
        judged = Discriminator(config, 3)(torch.empty(1, 3, 256, 256))
    assert [tuple(one.logits.shape) for one in judged] == [(1, 1, side, side) for side in sides]
    assert [len(one.before) for one in judged] == [4] * 3 == [len(one.after) for one in judged]
    if config is HYBRID_D:
        assert [one.shape[-1] for one in judged[0].before] == [128, 64, 32, 32]


def sides_of(network: Any, side: int) -> list[int]:
    seen: list[int] = []
    for layer in network.down:
        layer.register_forward_hook(lambda _, __, out: seen.append(out.shape[-1]))
    assert network(torch.empty(1, 1, side, side)).shape == (1, 2, side, side)
    return seen


def test_maps_of_generators_have_the_sides_published():
    with torch.device("meta"):
        assert sides_of(GANUNet(UNET_256, 1, 2), 256) == [128, 64, 32, 16, 8, 4, 2, 1]
        hybrid, seen = GANUNet(HYBRID, 1, 2), list[tuple[int, ...]]()
        attention: Any = hybrid.attention["2"]
        attention.query.register_forward_hook(lambda _, x, __: seen.append(tuple(x[0].shape[1:])))
        assert sides_of(hybrid, 256) == [128, 64, 32, 16, 8, 4]
        assert sides_of(hybrid, 128)[-6:] == [64, 32, 16, 8, 4, 2]
        assert seen == [(512, 64, 64), (512, 32, 32)]


def test_a_global_generator_is_the_inside_of_an_enhancer():
    """The same maps from the reduced picture, added after the enhancer's halving."""
    torch.manual_seed(0)
    enhanced: Any = Pix2PixHD(Pix2PixHDConfig(16, 2, 1, 1, 1), 1, 2)
    x, seen = torch.rand(2, 1, 16, 24), dict[str, Tensor]()
    enhanced.coarse.register_forward_hook(lambda _, inputs, out: seen.update(small=inputs[0], maps=out))
    enhanced.enhancers[0].blocks[0].register_forward_hook(lambda _, inputs, __: seen.update(sum=inputs[0]))
    assert enhanced(x).shape == (2, 2, 16, 24)
    assert torch.equal(seen["small"], F.avg_pool2d(x, 3, 2, 1, count_include_pad=False))
    own = enhanced.enhancers[0].down[0](enhanced.enhancers[0].read(x))
    torch.testing.assert_close(seen["sum"], own + seen["maps"])


# ---------------------------------------------------------------------- receptive fields


@pytest.mark.parametrize("kernel, strides, side", [
    (4, (2, 2, 2, 1), 70), (4, (2, 2, 1), 34), (4, (2, 1), 16), (4, (2, 2, 2, 2, 1), 142), (3, (1, 2), 9),
    (1, (1, 1), 1),
])  # fmt: skip
def test_patches_are_as_large_as_gradients_say(kernel, strides, side):
    config = DiscriminatorConfig(2, strides, kernel, scales=1, spectral_norm=False, attention=())
    network = Discriminator(config, 1).double()
    with torch.no_grad():
        for value in network.parameters():
            value.abs_().add_(0.01)  # nothing cancels
    x = torch.rand(1, 1, 256, 256, dtype=torch.float64, requires_grad=True)
    (judged,) = network(x)
    middle = judged.logits.shape[-1] // 2
    judged.logits[0, 0, middle, middle].backward()
    assert x.grad is not None
    rows, columns = (x.grad[0, 0] != 0).nonzero().unbind(1)
    assert [int(one.max() - one.min() + 1) for one in (rows, columns)] == [side, side] and config.patch == side


def test_attention_lets_a_patch_know_of_the_whole_picture():
    network: Any = Discriminator(DiscriminatorConfig(8, (2, 1), scales=1, attention=(1,)), 1)
    x = torch.rand(1, 1, 64, 64, requires_grad=True)
    for gamma, whole in ((0.0, False), (1.0, True)):
        nn.init.constant_(network.scales[0].attention.gamma, gamma)
        (gradient,) = torch.autograd.grad(network(x)[0].logits[0, 0, 0, 0], x)
        assert bool((gradient[0, 0, -8:, -8:] != 0).any()) == whole


# ---------------------------------------------------------------------- spectral normalization


@pytest.mark.parametrize("layer", [Convolution(6, 10, 4, 2), nn.ConvTranspose2d(6, 10, 4, 2, 1)], ids=["down", "up"])
def test_the_largest_singular_value_is_one(layer):
    torch.manual_seed(0)
    nn.init.normal_(layer.weight)
    spectrally_normalized(layer)
    original: Any = layer.parametrizations.weight.original
    for _ in range(50):  # the weight moves as in training
        original.data += 0.01 * torch.randn_like(original)
        power_iteration(layer)
    axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    largest = torch.linalg.matrix_norm(layer.weight.movedim(axis, 0).flatten(1), 2)
    assert float(largest.detach()) == pytest.approx(1, abs=0.01)
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    for mode in (True, False):
        layer.train(mode)(torch.rand(1, 6, 8, 8)).sum().backward()
    assert all(torch.equal(value, state[name]) for name, value in layer.state_dict().items())


def test_the_gradient_of_a_normalized_weight():
    """d sigma = u dW v', so weights do not learn their own size."""
    torch.manual_seed(0)
    layer: Any = Convolution(3, 5, 1, bias=False).double()
    spectrally_normalized(layer)
    for _ in range(500):
        power_iteration(layer)
    original = layer.parametrizations.weight.original
    torch.autograd.gradcheck(lambda weight: layer.parametrizations.weight[0](weight), original)
    layer.weight.square().sum().backward()
    assert abs((original.grad * original).sum().item()) < 1e-9


def test_power_iterations_do_not_round_under_autocast():
    torch.manual_seed(0)
    layer = Convolution(4, 4, 3)
    spectrally_normalized(layer)
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(20):
            power_iteration(layer)
        weight = layer.weight
    assert weight.dtype == torch.float32
    assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-4)


# ---------------------------------------------------------------------- attention


def attended(block: SelfAttention, x: Tensor) -> Tensor:
    """The formula, position by position."""
    batch, channels, height, width = x.shape
    query, key, value = (one.weight[:, :, 0, 0] for one in (block.query, block.key, block.value))
    out = x.clone()
    for b in range(batch):
        keys, values = (torch.einsum("oc,chw->ohw", one, x[b]) for one in (key, value))
        if block.pooled:
            keys, values = (one.unfold(1, 2, 2).unfold(2, 2, 2).amax((-2, -1)) for one in (keys, values))
        keys, values = keys.flatten(1), values.flatten(1)
        for i in range(height):
            for j in range(width):
                logits = keys.T @ (query @ x[b, :, i, j])
                share = logits.exp() / logits.exp().sum()
                out[b, :, i, j] += block.gamma * (block.out.weight[:, :, 0, 0] @ (values @ share))
    return out


@pytest.mark.parametrize("pooled", [False, True])
def test_attention_is_the_formula_and_starts_as_the_identity(pooled):
    torch.manual_seed(0)
    block, x = SelfAttention(16, pooled), torch.randn(2, 16, 4, 6)
    assert torch.equal(block(x), x)
    with torch.no_grad():
        block.gamma.fill_(0.7)
        torch.testing.assert_close(block(x), attended(block, x))
    assert (block.query.weight.shape, block.value.weight.shape) == ((2, 16, 1, 1), (8, 16, 1, 1))
    with pytest.raises(ValueError, match="a multiple of 8 channels; got 12"):
        SelfAttention(12)


# ---------------------------------------------------------------------- layers


def test_in_use_a_picture_is_normalized_by_itself():
    torch.manual_seed(0)
    layer, x = BatchNorm(3), torch.randn(4, 3, 5, 5)
    nn.init.normal_(layer.weight)
    torch.testing.assert_close(layer(x), F.batch_norm(x, None, None, layer.weight, layer.bias, True))
    layer.eval()
    torch.testing.assert_close(layer(x)[1:2], layer(x[1:2]))
    torch.testing.assert_close(layer(x[:1]), F.batch_norm(x[:1], None, None, layer.weight, layer.bias, True))
    assert list(layer.state_dict()) == ["weight", "bias"]


def test_dropout_is_drawn_in_use_too():
    torch.manual_seed(0)
    network = GANUNet(replace(UNET_256, widths=(8, 8, 8), dropout=2), 1, 2).eval()
    x = torch.rand(2, 1, 16, 16)
    shapes: list[tuple[int, ...]] = []

    def uniform(shape: tuple[int, ...]) -> Tensor:
        shapes.append(tuple(shape))
        return torch.rand(shape, generator=Generator().manual_seed(len(shapes)))

    first = network(x, uniform)
    shapes.clear()
    assert torch.equal(first, network(x, uniform)) and shapes == [(2, 8, 4, 4), (2, 8, 8, 8)]
    assert not torch.equal(first, network(x)) and network.random and not GANUNet(HYBRID_TINY, 1, 2).random


HYBRID_TINY = GANUNetConfig((8, 8), attention=())


@pytest.mark.parametrize("make, message", [
    (lambda: GANUNetConfig(norm="layer"), "norm must be one of none, batch, instance; got 'layer'"),
    (lambda: GANUNetConfig(upsampling="bilinear"), 'upsampling must be "nearest" or "transposed"'),
    (lambda: GANUNetConfig((8, 8), dropout=2, attention=()), "all blocks of the way up but the last"),
    (lambda: GANUNetConfig((8, 8)), r"attention must stand at some of \[2\]; got \(4,\)"),
    (lambda: DiscriminatorConfig(attention=(1,)), "an entry for each of 3 scales"),
    (lambda: DiscriminatorConfig(attention=(5, 0, 0)), "from 0 to 4"),
    (lambda: DiscriminatorConfig(strides=()), "needs strides"),
    (lambda: DiscriminatorConfig(pooling=4), "pooling must be 2 or 3"),
    (lambda: DiscriminatorConfig(scales=1, attention=(), pooling=3), "pooling is between scales"),
    (lambda: DiscriminatorConfig(attention=(), pooled_keys=True), "pooled_keys are of attention"),
    (lambda: DiscriminatorConfig(attention=(0, 0, 0), pooled_keys=True), "pooled_keys are of attention"),
    (lambda: GANUNetConfig((8, 8), attention=(), pooled_keys=True), "pooled_keys are of attention"),
    (lambda: Pix2PixHDConfig(enhancer_blocks=2), "enhancer_blocks are of enhancers"),
    (lambda: SelfAttention(8, pooled=True)(torch.zeros(1, 8, 1, 3)), r"maps of 2x2 and more; got \(1, 3\)"),
    (lambda: Pix2PixHDConfig(halvings=0), "halvings from 1"),
    (lambda: Pix2PixHDConfig(15, enhancers=1), r"a multiple of 2\^enhancers = 2; got 15"),
])  # fmt: skip
def test_configs_that_make_no_sense(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---------------------------------------------------------------------- losses


def test_losses_are_the_formulas():
    real, drawn = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    vanilla = -(math.log(sigmoid(2)) + math.log(sigmoid(-1))) / 2 - (
        math.log(1 - sigmoid(0.5)) + math.log(1 - sigmoid(-3))) / 2  # fmt: skip
    lsgan = (1 + 4) / 2 + (0.25 + 9) / 2
    for form, both in (("vanilla", vanilla), ("lsgan", lsgan)):
        assert float(discriminator_loss(form, real, drawn)) == pytest.approx(both / 2)
        assert float(discriminator_loss(form, real, drawn, halved=False)) == pytest.approx(both)
    assert float(discriminator_loss("hinge", real, drawn)) == pytest.approx((0 + 2) / 2 + (1.5 + 0) / 2)
    expected = -(math.log(sigmoid(0.5)) + math.log(sigmoid(-3))) / 2
    assert float(generator_loss("vanilla", drawn)) == pytest.approx(expected)
    assert float(generator_loss("lsgan", drawn)) == pytest.approx((0.25 + 16) / 2)
    assert float(generator_loss("hinge", drawn)) == pytest.approx(1.25)


def test_matching_over_layers_and_over_elements():
    """Two layers: 12 elements that differ by 1, 2 that differ by 3."""
    drawn = [torch.ones(1, 3, 2, 2, requires_grad=True), torch.full((1, 2, 1, 1), 3.0, requires_grad=True)]
    real = [torch.zeros(1, 3, 2, 2, requires_grad=True), torch.zeros(1, 2, 1, 1, requires_grad=True)]
    assert float(matching_loss("layers", drawn, real)) == pytest.approx(4 * (1 + 3) / 2)
    loss = matching_loss("concatenated", drawn, real)
    assert float(loss) == pytest.approx((12 * 1 + 2 * 3) / 14)
    loss.backward()
    assert all(one.grad is None for one in real) and all(one.grad is not None for one in drawn)


def test_the_content_loss_needs_its_file(tmp_path):
    """Weights with torchvision's names, classifier and last layers included."""
    torch.manual_seed(0)
    network = VGG19()
    names = [name for name in network.state_dict() if name.endswith("weight")]
    assert names == [f"features.{n}.weight" for n in (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28)]
    whole = network.state_dict() | {"features.30.bias": torch.zeros(2), "classifier.0.bias": torch.zeros(2)}
    save_file(whole, tmp_path / "vgg.safetensors")
    again = VGG19.from_file(tmp_path / "vgg.safetensors")
    a, b = torch.rand(2, 2, 3, 32, 32)
    maps, others = again(2 * a - 1), again(2 * b - 1)
    assert [tuple(one.shape[1:]) for one in maps] == [
        (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 2, 2)
    ]  # fmt: skip
    expected = sum(w * (x - y).abs().mean() for w, x, y in zip(WEIGHTS, maps, others, strict=True))
    torch.testing.assert_close(content_loss(again, 2 * a - 1, 2 * b - 1), expected)
    save_file({"features.0.bias": torch.zeros(64)}, tmp_path / "other.safetensors")
    for name in ("none", "other"):
        with pytest.raises(CheckpointError, match=f"content_weights: .*{name}.safetensors does not hold .* VGG19"):
            VGG19.from_file(tmp_path / f"{name}.safetensors")


# ---------------------------------------------------------------------- style of instances


def test_boundaries_are_where_a_neighbor_differs():
    ids = torch.tensor(np.random.default_rng(0).integers(0, 3, (2, 1, 6, 7)))
    expected = torch.zeros(2, 1, 6, 7)
    for b in range(2):
        for i in range(6):
            for j in range(7):
                for y, x in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                    if 0 <= y < 6 and 0 <= x < 7 and ids[b, 0, y, x] != ids[b, 0, i, j]:
                        expected[b, 0, i, j] = 1
    assert torch.equal(boundary_map(ids), expected) and not boundary_map(torch.ones(1, 1, 4, 4)).any()


def test_features_are_means_over_instances_of_a_picture():
    torch.manual_seed(0)
    ids, features = torch.randint(-1, 3, (3, 1, 5, 4)), torch.randn(3, 2, 5, 4, requires_grad=True)
    means = instance_means(features, ids)
    for b in range(3):
        for number in ids[b].unique():
            inside = ids[b, 0] == number
            expected = features[b, :, inside].mean(1, keepdim=True).expand(-1, int(inside.sum()))
            torch.testing.assert_close(means[b, :, inside], expected)
    torch.autograd.gradcheck(lambda x: instance_means(x, ids), features.double())
    with pytest.raises(ValueError, match=r"instances must be \(3, 1, 5, 4\)"):
        instance_means(features, ids[:, :, 1:])


def test_style_enters_a_generator():
    torch.manual_seed(0)
    ids = torch.zeros(1, 1, 16, 16, dtype=torch.long)
    ids[..., 8:] = 26001
    encoder = FeatureEncoder(3, 3, 8, 2)
    style = encoder(torch.rand(1, 3, 16, 16), ids)
    assert style.shape == (1, 3, 16, 16) and len(style.flatten(2)[0].T.unique(dim=0)) == 2 and style.abs().max() <= 1
    network = Pix2PixHD(Pix2PixHDConfig(8, 2, 1), 1 + 1 + 3, 2)
    gray = torch.rand(1, 1, 16, 16)
    network(torch.cat([gray, boundary_map(ids), style], dim=1)).sum().backward()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in encoder.parameters())


def test_centers_of_clusters_that_are_apart():
    torch.manual_seed(0)
    places = torch.tensor([[0.0, 0, 0], [10, 0, 0], [0, 10, 0], [0, 0, 10]])
    features = (places[:, None] + 0.1 * torch.randn(4, 50, 3)).flatten(0, 1)
    centers = cluster_centers(features[torch.randperm(200)], 4, Generator().manual_seed(1))
    nearest = torch.cdist(places, centers).amin(1)
    means = features.view(4, 50, 3).mean(1)
    assert nearest.max() < 0.1
    torch.testing.assert_close(centers[torch.cdist(means, centers).argmin(1)], means, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="clusters must be from 1 to the 2 different features; got 3"):
        cluster_centers(torch.tensor([[0.0], [1.0], [1.0]]), 3)
