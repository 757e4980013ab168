"""The U-Net: published sizes, an independent forward pass by ADM's names, and what its variants may see."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stages.nn.unet import Attention, Step, UNet, UNetConfig, from_adm

PALETTE = UNetConfig(256, (1, 1, 2, 2, 4, 4), 2, (8, 16, 32), 64, groups=32)
SMALL = UNetConfig(32, (1, 2, 2), 2, (2, 4), 32, groups=32)


def trained(config: UNetConfig, inputs: int = 3, outputs: int = 3) -> UNet:
    """With random weights everywhere, also where a fresh network has zeros."""
    torch.manual_seed(0)
    network = UNet(config, inputs, outputs).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=1 / math.sqrt(max(1, parameter[0].numel())))
    return network


@pytest.mark.parametrize("config, inputs, outputs, millions", [
    (PALETTE, 6, 3, 552.81),  # Palette, table 5
    (replace(PALETTE, context="local"), 6, 3, 552.81),
    (UNetConfig(64, (1, 2, 4, 8), 2, (), 32), 6, 3, 62.64),  # the colorization model of Janspiry's replica
    (UNetConfig(128, (1, 1, 2, 2, 4, 4), 1, (16,), 64), 3, 6, 93.56),  # the example of ILVR's authors
    # Palette's other variants, as they are understood here: the paper has 603 and 624.
    (replace(PALETTE, context="residual"), 6, 3, 760.98),
    (replace(PALETTE, context="dilated"), 6, 3, 760.98),
])  # fmt: skip
def test_published_sizes(config, inputs, outputs, millions):
    with torch.device("meta"):
        network = UNet(config, inputs, outputs)
    assert sum(one.numel() for one in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


class ADM:
    """ADM's U-Net, written from its names alone: which modules there are is read off the state dict."""

    def __init__(self, weights: dict[str, Tensor], heads: int) -> None:
        self.weights, self.head_channels = weights, heads

    def conv(self, x: Tensor, name: str) -> Tensor:
        weight = self.weights[f"{name}.weight"]
        return F.conv2d(x, weight, self.weights[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def norm(self, x: Tensor, name: str) -> Tensor:
        return F.group_norm(x, 32, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def block(self, x: Tensor, code: Tensor, name: str, resize) -> Tensor:
        y = self.conv(resize(F.silu(self.norm(x, f"{name}.in_layers.0"))), f"{name}.in_layers.2")
        scale, shift = self.linear(F.silu(code), f"{name}.emb_layers.1")[..., None, None].chunk(2, 1)
        y = self.norm(y, f"{name}.out_layers.0") * (1 + scale) + shift
        y = self.conv(F.silu(y), f"{name}.out_layers.3")
        x = resize(x)
        return y + (self.conv(x, f"{name}.skip_connection") if f"{name}.skip_connection.weight" in self.weights else x)

    def attend(self, x: Tensor, name: str) -> Tensor:
        batch, channels, height, width = x.shape
        flat = self.norm(x, f"{name}.norm").flatten(2)
        qkv = F.conv1d(flat, self.weights[f"{name}.qkv.weight"], self.weights[f"{name}.qkv.bias"])
        q, k, v = qkv.reshape(batch * channels // self.head_channels, -1, height * width).chunk(3, dim=1)
        shares = torch.einsum("bct,bcs->bts", q, k).div(math.sqrt(self.head_channels)).softmax(-1)
        y = torch.einsum("bts,bcs->bct", shares, v).reshape(batch, channels, -1)
        y = F.conv1d(y, self.weights[f"{name}.proj_out.weight"], self.weights[f"{name}.proj_out.bias"])
        return (flat * 0 + x.flatten(2) + y).view(x.shape)

    def run(self, x: Tensor, code: Tensor, name: str, part: int, resize) -> Tensor:
        while any(key.startswith(f"{name}.{part}.") for key in self.weights):
            inner = f"{name}.{part}"
            if f"{inner}.in_layers.0.weight" in self.weights:
                x = self.block(x, code, inner, resize(part))
            elif f"{inner}.qkv.weight" in self.weights:
                x = self.attend(x, inner)
            else:
                x = self.conv(x, inner)
            part += 1
        return x

    def __call__(self, x: Tensor, t: Tensor, channels: int, blocks: int) -> Tensor:
        half = channels // 2
        angle = t[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / half)
        code = self.linear(torch.cat([angle.cos(), angle.sin()], 1), "time_embed.0")
        code = self.linear(F.silu(code), "time_embed.2")
        as_is, skips, number = (lambda part: lambda y: y), [], 0
        while any(key.startswith(f"input_blocks.{number}.") for key in self.weights):
            halves = number and number % (blocks + 1) == 0
            halve = (lambda _: lambda y: F.avg_pool2d(y, 2)) if halves else as_is
            x = self.run(x, code, f"input_blocks.{number}", 0, halve)
            skips.append(x)
            number += 1
        x = self.run(x, code, "middle_block", 0, as_is)
        twice = lambda part: (lambda y: F.interpolate(y, scale_factor=2)) if part else (lambda y: y)  # noqa: E731
        for number in range(len(skips)):
            x = self.run(torch.cat([x, skips.pop()], 1), code, f"output_blocks.{number}", 0, twice)
        return self.conv(F.silu(self.norm(x, "out.0")), "out.2")


def adm_weights(config: UNetConfig, inputs: int, outputs: int) -> dict[str, Tensor]:
    """Random weights with the names and shapes of guided-diffusion's UNetModel."""
    weights: dict[str, Tensor] = {}
    code = 4 * config.channels

    def add(name: str, *shape: int) -> None:
        weights[f"{name}.weight"] = torch.randn(shape) / math.sqrt(math.prod(shape[1:]))
        weights[f"{name}.bias"] = 0.1 * torch.randn(shape[0])

    def block(name: str, narrow: int, wide: int) -> None:
        add(f"{name}.in_layers.0", narrow)
        add(f"{name}.in_layers.2", wide, narrow, 3, 3)
        add(f"{name}.emb_layers.1", 2 * wide, code)
        add(f"{name}.out_layers.0", wide)
        add(f"{name}.out_layers.3", wide, wide, 3, 3)
        if narrow != wide:
            add(f"{name}.skip_connection", wide, narrow, 1, 1)

    def attend(name: str, width: int) -> None:
        add(f"{name}.norm", width)
        add(f"{name}.qkv", 3 * width, width, 1)
        add(f"{name}.proj_out", width, width, 1)

    add("time_embed.0", code, config.channels)
    add("time_embed.2", code, code)
    width = config.channels * config.multipliers[0]
    add("input_blocks.0.0", width, inputs, 3, 3)
    skips, number, factor = [width], 1, 1
    for level, multiplier in enumerate(config.multipliers):
        for _ in range(config.blocks):
            wide = config.channels * multiplier
            block(f"input_blocks.{number}.0", width, wide)
            width = wide
            if factor in config.attention:
                attend(f"input_blocks.{number}.1", width)
            skips.append(width)
            number += 1
        if level < len(config.multipliers) - 1:
            block(f"input_blocks.{number}.0", width, width)
            skips.append(width)
            number, factor = number + 1, 2 * factor
    block("middle_block.0", width, width)
    attend("middle_block.1", width)
    block("middle_block.2", width, width)
    number = 0
    for level, multiplier in reversed(list(enumerate(config.multipliers))):
        for index in range(config.blocks + 1):
            wide, part = config.channels * multiplier, 1
            block(f"output_blocks.{number}.0", width + skips.pop(), wide)
            width = wide
            if factor in config.attention:
                attend(f"output_blocks.{number}.{part}", width)
                part += 1
            if level and index == config.blocks:
                block(f"output_blocks.{number}.{part}", width, width)
                factor //= 2
            number += 1
    add("out.0", width)
    add("out.2", outputs, width, 3, 3)
    return weights


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, attention=(4,), blocks=1), replace(SMALL, attention=())])
def test_weights_of_adm_give_what_adm_gives(config):
    torch.manual_seed(0)
    weights = adm_weights(config, 3, 6)
    network = UNet(config, 3, 6).eval()
    network.load_state_dict(from_adm(weights))  # strict
    x, t = torch.randn(2, 3, 16, 8), torch.tensor([3.0, 800.0])
    expected = ADM(weights, config.head_channels)(x, t, config.channels, config.blocks)
    torch.testing.assert_close(network(x, t), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.1
    without_variance = UNet(config, 3, 3).eval()
    without_variance.load_state_dict(from_adm(weights, outputs=3))
    torch.testing.assert_close(without_variance(x, t), expected[:, :3], rtol=1e-4, atol=1e-4)


def test_names_that_have_no_place_are_refused():
    for name in ("label_emb.weight", "input_blocks.3.0.op.weight", "middle_block.1.encoder_kv.weight"):
        with pytest.raises(ValueError, match="has no place"):
            from_adm({name: torch.zeros(1)})


def test_a_fresh_network_answers_zero_and_all_of_it_learns():
    network = UNet(SMALL, 3, 3)
    x = torch.randn(2, 3, 16, 16)
    assert network(x, torch.tensor([0.1, 0.9])).abs().max() == 0
    network = trained(SMALL)
    network(x, torch.tensor([0.1, 0.9])).square().mean().backward()
    assert all(one.grad is not None and one.grad.abs().max() > 0 for one in network.parameters())


def test_the_level_scale_multiplies_the_level():
    network, scaled = trained(SMALL), trained(replace(SMALL, level_scale=5000.0))
    x, level = torch.randn(2, 3, 16, 16), torch.tensor([0.25, 0.5])
    torch.testing.assert_close(scaled(x, level), network(x, 5000 * level), rtol=1e-4, atol=1e-4)




def local_attention() -> Attention:
    """One whose positions are not normalized together."""
    modules = trained(replace(SMALL, context="local")).down.modules()
    attention = next(module for module in modules if isinstance(module, Attention))
    attention.norm = torch.nn.Identity()  # type: ignore[assignment]
    return attention


def test_local_attention_stays_within_its_block():
    attention = local_attention()
    torch.nn.init.normal_(attention.out.weight)
    x = torch.randn(1, 64, 8, 8)
    changed = x.clone()
    changed[..., 5, 6] += torch.randn(64)  # lower right
    moved = (attention(changed) - attention(x)).abs().sum(1)[0] > 1e-6
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[4:, 4:] = True
    assert torch.equal(moved, expected)
    attention.blocks = 1
    assert ((attention(changed) - attention(x)).abs().sum(1)[0] > 1e-6).all()


def test_local_attention_of_one_block_is_global_attention_on_it():
    torch.manual_seed(0)
    local = local_attention()
    x = torch.randn(2, 64, 8, 8)
    together = local(x)
    local.blocks = 1
    for rows in (slice(0, 4), slice(4, 8)):
        for columns in (slice(0, 4), slice(4, 8)):
            torch.testing.assert_close(together[..., rows, columns], local(x[..., rows, columns]))


def test_variants_stand_where_attention_does():
    for context, dilations in (("residual", [1, 1, 1]), ("dilated", [1, 2, 4])):
        network = UNet(replace(SMALL, context=context, attention=(2,), blocks=2), 3, 3)
        steps = [step for step in [*network.down, *network.middle] if isinstance(step, Step)]
        assert [step.further.conv1.dilation[0] for step in steps if step.further] == dilations
        assert not any(isinstance(one, Attention) for one in network.modules())
    steps = [one for one in UNet(replace(SMALL, context="none"), 3, 3).modules() if isinstance(one, Step)]
    assert steps and not any(step.further or step.attention for step in steps)


def test_features_are_added_where_levels_are_entered():
    network, x, level = trained(SMALL), torch.randn(2, 3, 16, 16), torch.tensor([0.2, 0.4])
    silent = [torch.zeros(2, width, 16 >> i, 16 >> i) for i, width in enumerate(SMALL.entering)]
    plain = network(x, level)
    torch.testing.assert_close(network(x, level, features=silent), plain)
    for place in range(3):
        some = [torch.randn_like(one) if i == place else one for i, one in enumerate(silent)]
        assert (network(x, level, features=some) - plain).abs().max() > 1e-3


@pytest.mark.parametrize("change, message", [
    ({"context": "all"}, "context must be one of"),
    ({"attention": (3,)}, "attention at some of"),
    ({"channels": 48}, "multiple of groups = 32"),
    ({"multipliers": ()}, "needs multipliers"),
])  # fmt: skip
def test_configs_that_make_no_sense(change, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)


def test_sides_that_do_not_fit():
    with pytest.raises(ValueError, match="multiples of 4; got \\(18, 16\\)"):
        UNet(SMALL, 3, 3)(torch.zeros(1, 3, 18, 16), torch.zeros(1))
