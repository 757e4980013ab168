"""ColTran's core: sizes, causality, likelihoods, and a sampler that computes what training computed."""

from __future__ import annotations

import functools
import itertools
import math
import tomllib
from dataclasses import replace

import pytest
import torch
from tiny_stages import ROOT, encoded, generators, lively, network_of, picture, small
from torch import Tensor

from stages.color.spaces import chroma_from_rgb, coarse_from_rgb, gray_from_rgb, merge, rgb_from_coarse
from stages.nn.axial import AxialAttention
from stages.nn.coltran.conditional import ConditionalAttention
from stages.nn.coltran.core import ColTranCore, CoreSizes
from stages.nn.coltran.encoder import AxialEncoder
from stages.options import SampleOptions
from stages.stage1_coarse.coltran import ColTranColorizer, ColTranColorizerConfig, bits, drawn
from stages.stage2_color.coltran import ColTranColorUpsampler, ColTranColorUpsamplerConfig

TINY = CoreSizes(16, 24, 2, 1, 2, 2, 6, 5, 7, 11)
ABLATIONS = pytest.mark.parametrize("changed", [
    {}, {"one_plus": True}, {"conditional_attention": False}, {"conditional_mlp": False}, {"conditional_norm": False},
    {"conditional_attention": False, "conditional_mlp": False, "conditional_norm": False},
], ids=lambda changed: "-".join(changed) or "full")  # fmt: skip


def core(sizes: CoreSizes = TINY, seed: int = 0, dtype: torch.dtype = torch.float64) -> ColTranCore:
    """With every weight away from zero."""
    torch.manual_seed(seed)
    network = ColTranCore(sizes).to(dtype).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.3)
    return network


def draw(sizes: CoreSizes, batch: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, sizes.height, sizes.width)
    return (torch.randint(sizes.grays, shape, generator=generator),
            torch.randint(sizes.symbols, shape, generator=generator))  # fmt: skip


def test_the_config_is_the_published_network_and_its_training():
    with torch.device("meta"):
        network = ColTranColorizer(network_of("stage1_coltran.toml")).core
    tables = {name: tomllib.loads((ROOT / f"configs/{name}.toml").read_text())
              for name in ("stage1_coltran", "stage2_published", "stage3_coltran")}  # fmt: skip
    training, released = tables["stage1_coltran"]["training"], tables["stage1_coltran"]["network"]
    assert released["rounded"] and released["preview_decode"] == "argmax"
    assert {table["training"]["precision"] for table in tables.values()} == {"no"}
    assert tables["stage2_published"]["network"]["rounded"]
    assert training["samples"] / training["batch_size"] == 450_000
    assert 0.5 ** (training["batch_size"] / training["average_half_life"]) == pytest.approx(0.999, abs=1e-6)
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()}
    encoder = counts["gray"] + network.gray_bias.numel() + counts["encoder"]
    assert encoder == 12_808_704
    assert counts["outer"] + counts["outer_position"] == 18_991_104
    assert counts["inner"] + counts["inner_position"] == 13_722_624
    assert sum(p.numel() for p in network.parameters()) == 46_310_400  # 46.3 M


def test_attention_starts_as_the_released_code_does():
    """The limits that its layers were seen to have at 512 channels and 4 heads."""
    torch.manual_seed(0)
    (plain,) = (one for one in AxialEncoder(512, 8, 4, 1, (2, 2)).modules()
                if isinstance(one, AxialAttention) and one.axis == "row")  # fmt: skip
    outer, inner = (ConditionalAttention(512, context, 4, "row", 2) for context in (512, 1024))
    for layer in (plain, outer, inner):
        limits = [part.abs().max().item() for part in (*layer.qkv.weight.chunk(3), layer.out.weight)]
        assert limits == pytest.approx([0.0094, 0.0094, 0.0094, 0.0484], abs=5e-5)
        assert layer.out.weight.std().item() * 3**0.5 == pytest.approx(limits[3], rel=0.01)
    for conditional, limit in ((outer, 0.0067), (inner, 0.0047)):
        assert conditional.modulate is not None
        found = [part.abs().max().item() for part in conditional.modulate.weight.chunk(3)]
        assert found == pytest.approx([limit] * 3, abs=6e-5)


def test_each_conditioning_can_be_switched_off():
    """Its own map of the context is gone, in every decoder layer, and no other."""
    maps = {"conditional_attention": "attention.modulate", "conditional_mlp": "mlp.modulate",
            "conditional_norm": "norms.0.modulate"}  # fmt: skip
    for off in maps:
        layers = ColTranCore(replace(TINY, **{off: False}))
        names = [name for name, _ in layers.named_parameters() if name.startswith(("outer.", "inner."))]
        for option, part in maps.items():
            found = {name.split(".")[0] + name.split(".")[1] for name in names if part in name}
            assert found == (set() if option == off else {"outer0", "outer1", "outer2", "outer3", "inner0", "inner1"})


def test_one_plus_adds_one_to_every_scale():
    """Biases of the maps to scales, less one, make the network without it the same."""
    sizes = replace(TINY, conditional_attention=False, one_plus=True)
    network = core(sizes)
    plain = ColTranCore(replace(sizes, one_plus=False)).to(torch.float64).eval()
    plain.load_state_dict(network.state_dict())
    gray, symbols = draw(sizes, 2)
    with torch.no_grad():
        expected = network.logits(network.encode(gray), symbols)
        assert not torch.allclose(plain.logits(plain.encode(gray), symbols), expected)
        for layer in (*plain.outer, *plain.inner):
            assert layer.mlp.modulate is not None
            layer.mlp.modulate.bias[sizes.channels :] += 1  # shift first here, scale first in the norms
            for norm in layer.norms:
                norm.modulate.bias[: sizes.channels] += 1
        torch.testing.assert_close(plain.logits(plain.encode(gray), symbols), expected)


@ABLATIONS
def test_a_symbol_changes_only_what_comes_after_it(changed):
    sizes = replace(TINY, height=8, width=8, **changed)
    network = core(sizes)
    gray, symbols = draw(sizes, 1)
    with torch.no_grad():
        z = network.encode(gray)
        before = network.logits(z, symbols)[0].flatten(0, 1)
        others = symbols.expand(64, -1, -1).clone()
        others.view(64, 64).diagonal().add_(1).remainder_(sizes.symbols)  # one position changed in each
        after = network.logits(z.expand(64, -1, -1, -1), others).flatten(1, 2)
    moved = (after - before).abs().amax(-1) > 1e-12  # [position changed, position looked at]
    assert not moved.tril().any()
    assert moved.triu(1).sum() == 64 * 63 / 2  # and every later one is moved


def test_the_gray_picture_reaches_every_position():
    network, (gray, symbols) = core(), draw(TINY, 1)
    with torch.no_grad():
        before = network.logits(network.encode(gray), symbols)
        for i, j in itertools.product(range(TINY.height), range(TINY.width)):
            other = gray.clone()
            other[0, i, j] = (other[0, i, j] + 1) % TINY.grays
            assert ((network.logits(network.encode(other), symbols) - before).abs().amax(-1) > 1e-12).all()


@torch.no_grad()
def slowly(network: ColTranCore, z: Tensor, choose) -> tuple[Tensor, Tensor]:
    """The reference sampler, without caches: the whole teacher-forced network for every symbol."""
    symbols = torch.zeros(z.shape[:3], dtype=torch.int64)
    seen = z.new_zeros(*z.shape[:3], network.sizes.symbols)
    for i in range(z.shape[1]):
        for j in range(z.shape[2]):
            seen[:, i, j] = network.logits(z, symbols)[:, i, j]
            symbols[:, i, j] = choose(seen[:, i, j], i, j)
    return symbols, seen


@ABLATIONS
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_the_sampler_sees_the_logits_of_training(changed, dtype, tolerance):
    sizes = replace(TINY, **changed)
    network = core(sizes, dtype=dtype)
    z = network.encode(draw(sizes, 3)[0]).detach()
    uniform, used, rows = torch.rand(3, sizes.height, sizes.width), torch.zeros(3, 6, 5, sizes.symbols, dtype=dtype), []

    def choose(logits: Tensor, i: int, j: int) -> Tensor:
        used[:, i, j] = logits
        return drawn(logits, uniform[:, i, j])

    symbols = network.sample(z, choose, lambda row, part: rows.append((row, part.clone())))
    assert symbols.unique().numel() > 2
    assert [row for row, _ in rows] == list(range(6)) and torch.equal(rows[3][1], symbols[:, :4])
    with torch.no_grad():
        torch.testing.assert_close(network.logits(z, symbols), used, rtol=0, atol=tolerance)
    reference, seen = slowly(network, z, lambda logits, i, j: drawn(logits, uniform[:, i, j]))
    assert torch.equal(reference, symbols)
    torch.testing.assert_close(seen, used, rtol=0, atol=tolerance)


def test_likelihoods_sum_to_one():
    """All 81 pictures of 2x2 pixels with three symbols, enumerated."""
    sizes = replace(TINY, height=2, width=2, symbols=3)
    network = core(sizes)
    gray = draw(sizes, 1)[0]
    every = torch.tensor(list(itertools.product(range(3), repeat=4))).view(81, 2, 2)
    with torch.no_grad():
        z = network.encode(gray).expand(81, -1, -1, -1)
        logits = network.logits(z, every).log_softmax(-1).gather(-1, every[..., None])
    probability = logits.sum((1, 2, 3)).exp()
    assert probability.sum().item() == pytest.approx(1, abs=1e-12)
    assert probability.max() > 2 / 81  # and are no uniform ones


def test_samples_follow_the_likelihoods():
    sizes = replace(TINY, height=1, width=2, symbols=3)
    network = core(sizes, seed=3)
    z = network.encode(draw(sizes, 1)[0]).detach()
    count = 20_000
    generator = torch.Generator().manual_seed(1)
    symbols = network.sample(
        z.expand(count, -1, -1, -1), lambda logits, i, j: drawn(logits, torch.rand(count, generator=generator))
    )
    every = torch.tensor(list(itertools.product(range(3), repeat=2))).view(9, 1, 2)
    with torch.no_grad():
        logits = network.logits(z.expand(9, -1, -1, -1), every).log_softmax(-1).gather(-1, every[..., None])
    expected = logits.sum((1, 2, 3)).exp()
    found = torch.bincount(symbols[:, 0, 0] * 3 + symbols[:, 0, 1], minlength=9) / count
    assert ((found - expected).abs() < 4.5 * (expected * (1 - expected) / count).sqrt()).all()


def test_a_silent_head_costs_as_many_bits_as_symbols_have():
    sizes = replace(TINY, symbols=512)
    network = core(sizes)
    with torch.no_grad():
        network.write.weight.zero_()
        network.write.bias.zero_()
        gray, symbols = draw(sizes, 2)
        cost = bits(network.logits(network.encode(gray), symbols), symbols)
    torch.testing.assert_close(cost, torch.full_like(cost, 9.0))


def test_what_was_memorized_is_drawn_again():
    sizes = replace(TINY, channels=32, feed_forward=32, one_plus=True, height=4, width=4, symbols=8)
    torch.manual_seed(0)
    network = ColTranCore(sizes)
    gray, symbols = draw(sizes, 16)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(120):
        loss = bits(network.logits(network.encode(gray), symbols), symbols).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05
    again = network.sample(network.encode(gray), lambda logits, i, j: logits.argmax(-1))
    assert torch.equal(again, symbols)


def test_drawing_by_inversion():
    logits = torch.tensor([0.1, 0.2, 0.0, 0.7]).log().expand(1000, -1)
    uniform = (torch.arange(1000) + 0.5) / 1000
    assert torch.bincount(drawn(logits, uniform), minlength=4).tolist() == [100, 200, 0, 700]
    assert (drawn(logits, uniform, temperature=0) == 3).all()
    sharper = torch.bincount(drawn(logits, uniform, temperature=0.5), minlength=4) / 1000
    expected = torch.tensor([0.01, 0.04, 0.0, 0.49]) / 0.54
    torch.testing.assert_close(sharper, expected, rtol=0, atol=2e-3)
    # 0.7 alone does not reach 0.75; with 0.2 it does: the others are out.
    assert torch.bincount(drawn(logits, uniform, top_p=0.75), minlength=4).tolist() == [0, 222, 0, 778]
    assert torch.bincount(drawn(logits, uniform, top_p=0.7), minlength=4).tolist() == [0, 0, 0, 1000]
    edge = drawn(logits, torch.tensor(1 - 2**-24).expand(1000))
    assert (edge == 3).all() and (drawn(logits, torch.zeros(1000)) == 0).all()
    assert drawn(torch.tensor([[-math.inf, 0.0, -math.inf]]), torch.zeros(1)).tolist() == [1]


def test_the_stage_samples_as_its_settings_say():
    torch.manual_seed(0)
    plain = ColTranColorizerConfig(8, 8, 2, 1, 1, 1)
    stages = {name: ColTranColorizer(config).eval() for name, config in {
        "plain": plain, "argmax": replace(plain, temperature=0.0), "narrow": replace(plain, top_p=1e-6),
        "sharp": replace(plain, temperature=0.05),
    }.items()}  # fmt: skip
    weights = {name: 3 * value for name, value in stages["plain"].state_dict().items()}
    gray = torch.rand(1, 1, 64, 64)
    made = {}
    for name, stage in stages.items():
        stage.load_state_dict(weights)
        made[name] = [
            stage.sample(encoded(stage, gray), 1, generator=generators(seed)).coarse64 for seed in (1, 2)
        ]
    assert torch.equal(*made["argmax"]) and not torch.equal(*made["plain"])
    assert torch.equal(made["narrow"][0], made["argmax"][0])
    differ = {name: (first != second).float().mean() for name, (first, second) in made.items()}
    assert 0 < differ["sharp"] < differ["plain"]


@pytest.mark.parametrize("stage_class, config", [
    (ColTranColorizer, ColTranColorizerConfig(8, 8, 2, 1, 1, 1)),
    (ColTranColorUpsampler, ColTranColorUpsamplerConfig(8, 8, 2, 1, disturb=0.0)),
])  # fmt: skip
def test_pictures_are_rounded_to_8_bits_where_the_config_says_so(stage_class, config):
    """31.6 of 255 is 32 then, and of the second of the eight levels, which begins at 31.875 otherwise."""
    torch.manual_seed(0)
    plain, rounding = (stage_class(replace(config, rounded=rounded)).eval() for rounded in (False, True))
    weights = {name: torch.randn_like(value) for name, value in plain.state_dict().items()}
    plain.load_state_dict(weights)
    rounding.load_state_dict(weights)
    rgb = (torch.randint(1, 8, (2, 3, 64, 64)) * 32 - 0.4) / 255

    def losses(stage: ColTranColorizer | ColTranColorUpsampler, rgb: Tensor) -> list[Tensor]:
        torch.manual_seed(1)
        return [stage(rgb).detach(), *stage.bits(rgb)]

    assert losses(rounding, rgb) == losses(plain, (255 * rgb).round() / 255)
    assert all(abs(one - other) > 1e-3 for one, other in zip(losses(rounding, rgb), losses(plain, rgb), strict=True))


def test_the_preview_may_be_the_likeliest_symbols(monkeypatch):
    torch.manual_seed(0)
    config = ColTranColorizerConfig(8, 8, 2, 1, 1, 1)
    stages = {how: ColTranColorizer(replace(config, preview_decode=how)).eval() for how in ("mean", "argmax")}
    gray = torch.rand(1, 1, 64, 64)
    for how, stage in stages.items():
        logits = torch.full((1, 64, 64, 512), -20.0)
        logits[..., 7], logits[..., 448] = 0.0, math.log(0.5)  # blue, and half as likely red
        monkeypatch.setattr(stage.core, "parallel_logits", functools.partial(lambda made, z: made, logits))
        blue, red = (rgb_from_coarse(torch.full((1, 64, 64), symbol)) for symbol in (7, 448))
        expected = blue if how == "argmax" else (2 * blue + red) / 3
        shown = stage.preview(encoded(stage, gray))
        torch.testing.assert_close(shown, merge(gray, chroma_from_rgb(expected)), rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="preview_decode must be .*; got 'mode'"):
        ColTranColorizer(replace(config, preview_decode="mode"))


def test_logits_that_are_not_finite_are_an_error():
    stage = ColTranColorizer(ColTranColorizerConfig(8, 8, 2, 1, 1, 1)).eval()
    torch.nn.init.constant_(stage.core.write.bias, math.nan)
    with pytest.raises(RuntimeError, match="the logits of stage 1 are not finite; .* use float32"):
        stage.sample(encoded(stage, torch.rand(1, 1, 64, 64)))


def test_rows_are_announced():
    stage, gray = lively("coarse", "coltran"), gray_from_rgb(picture(64))
    seen: list[tuple] = []
    callback = lambda *step: seen.append(step)  # noqa: E731
    together = stage.sample(encoded(stage, gray), 2, generator=generators(1, 2, 3, 4), callback=callback).coarse64
    alone = stage.sample(encoded(stage, gray[1:]), 2, generator=generators(3, 4)).coarse64
    assert torch.equal(together[1:], alone)
    assert (together[:, 0] != together[:, 1]).float().mean() > 0.1
    assert [step[0] for step in seen] == list(range(stage.num_steps(SampleOptions()))) and seen[-1][:2] == (63, 0)
    assert torch.equal(seen[9][2], together.flatten(0, 1)[:, :10])


def test_the_likelihood_is_the_loss_without_the_auxiliary_head():
    stage, rgb = small("coarse", "coltran", parallel_weight=0.0), picture(64)
    score = stage.score(gray_from_rgb(rgb), coarse_from_rgb(rgb))
    assert score.shape == (2,) and score.mean().item() == pytest.approx(-stage(rgb).item(), rel=1e-5)
    assert torch.equal(stage.bits(rgb), -score)


def test_argmax_needs_no_seed():
    stage, gray = small("coarse", "coltran", temperature=0.0), gray_from_rgb(picture(64))
    first = stage.sample(encoded(stage, gray), 2).coarse64
    assert torch.equal(first[:, 0], first[:, 1])
    for wrong, message in (({"temperature": -1.0}, "temperature must be"), ({"top_p": 0.0}, "top_p must be in"),
                           ({"top_p": 1.5}, "top_p must be in")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            small("coarse", "coltran", **wrong)
