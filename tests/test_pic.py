"""PIC's parts: causality, weight normalization, the mixture's arithmetic, a sampler that computes what training did."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tiny_stages import encoded, generators, lively, picture
from tiny_stages import small as small_stage
from torch import Tensor, nn

from stages.color.spaces import (
    chroma_from_rgb,
    coarse_from_rgb,
    gray_from_rgb,
    lab_from_rgb,
    merge,
    rgb_from_coarse,
    rgb_from_lab,
)
from stages.nn.pixelcnn.layers import Convolution, initialized_by_data
from stages.nn.pixelcnn.logistic_mixture import LogisticMixture
from stages.nn.pixelcnn.network import GrayEmbedding, PixelNetwork
from stages.options import SampleOptions
from stages.stage1_coarse.pic import PICColorizer, PICColorizerConfig, chroma_at_luma, lightness

EMBEDDED, WIDTH, OUT = 6, 5, 8 * 3


def network(seed: int = 0, dtype: torch.dtype = torch.float64, blocks: int = 2) -> PixelNetwork:
    torch.manual_seed(seed)
    made = PixelNetwork(3, EMBEDDED, WIDTH, blocks, OUT, dropout=0.0).to(dtype).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def inputs(batch: int, height: int = 8, width: int = 8, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    symbols = torch.randn(batch, 3, height, width, generator=generator, dtype=dtype)
    return symbols, torch.randn(batch, EMBEDDED, height, width, generator=generator, dtype=dtype)


def test_the_published_networks_have_the_published_sizes():
    with torch.device("meta"):
        embedding = GrayEmbedding(
            (64, 128, 256, 512, 512), (1, 2, 2, 1, 1), (2, 2, 2, 3, 3), (1, 1, 1, 2, 4), 160, 0.5
        )
        pixels = PixelNetwork(3, 160, 160, 4, 80, 0.5)
    assert sum(p.numel() for p in embedding.parameters()) == 98_897_472  # 98.9 M
    assert sum(p.numel() for p in pixels.parameters()) == 11_704_800  # 11.7 M


def test_a_pixel_changes_only_what_comes_after_it():
    pixels, (canvas, embedding) = network(), inputs(1)
    others = canvas.expand(64, -1, -1, -1).clone()
    others.view(64, 3, 64).diagonal(dim1=0, dim2=2).add_(1.0)
    with torch.no_grad():
        before = pixels(canvas, embedding)
        moved = (pixels(others, embedding.expand(64, -1, -1, -1)) - before).abs().amax(1).flatten(1) > 1e-12
    assert not moved.tril().any()
    # All of the next rows within reach, and what is right of it in its own: two blocks see far.
    assert moved.triu(1).sum() > 1200


def tiny_stage(**settings) -> PICColorizer:
    torch.manual_seed(0)
    return PICColorizer(PICColorizerConfig(
        embedding_channels=(4, 6, 6), embedding_strides=(2, 2, 2), embedding_blocks=(1, 1, 1), embedding_width=24,
        embedding_dilations=(1, 1, 2), channels=5, blocks=1, components=3, **settings,
    )).eval()  # fmt: skip


def test_the_gray_picture_reaches_every_place_of_the_embedding():
    stage, gray = tiny_stage(), torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        before = stage.embedding(lightness(gray))
        for i in range(8):
            other = gray.clone()
            other[..., 8 * i : 8 * i + 8, 8 * i : 8 * i + 8] = 0.5
            moved = (stage.embedding(lightness(other)) - before).abs().amax(1)[0] > 0
            assert moved[i].any() and moved[:, i].any()


@torch.no_grad()
def test_every_pixel_hears_the_embedding_in_both_streams():
    pixels, (canvas, embedding) = network(), inputs(1)
    others = embedding.expand(64, -1, -1, -1).clone()
    others.view(64, others.shape[1], 64).diagonal(dim1=0, dim2=2).add_(1.0)  # one place changed in each

    def moved() -> Tensor:
        change = pixels(canvas.expand(64, -1, -1, -1), others) - pixels(canvas, embedding)
        return change.abs().amax(1).flatten(1).diagonal() > 1e-12

    both = pixels(canvas, embedding)
    assert moved().all()
    for block in pixels.above:
        assert block.extra is not None
        block.extra.gain.zero_()
        block.extra.bias.zero_()
    assert not torch.allclose(pixels(canvas, embedding), both)  # `above` had heard it
    assert moved().all()  # and `before` does without it


def test_what_was_memorized_is_drawn_again():
    torch.manual_seed(0)
    pixels = PixelNetwork(3, 16, 24, 1, 8, 0.0)  # one component
    embedding, light = nn.Parameter(torch.randn(16, 16, 4, 4)), torch.zeros(16, 1, 4, 4)
    chroma = torch.randint(-5, 6, (16, 2, 4, 4)) / 8.0
    lab = torch.cat([light, chroma], 1)
    optimizer = torch.optim.Adam([*pixels.parameters(), embedding], 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 700)
    for _ in range(700):
        parameters = pixels(lab, embedding).permute(0, 2, 3, 1).flatten(0, 2)
        mixture = LogisticMixture.of(parameters, light.flatten())
        loss = -mixture.log_probability(chroma.permute(0, 2, 3, 1).reshape(-1, 2)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    def choose(parameters, i, j):
        mixture = LogisticMixture.of(parameters, light[:, 0, i, j])
        return torch.cat([light[:, :, i, j], mixture.draw(torch.full((16, 3), 0.5), 0.0)], dim=1)

    with torch.no_grad():
        again = pixels.draw(embedding, choose)
    assert (again[:, 1:] - chroma).abs().max() < 0.06  # steps of 0.125: the nearest is the memorized one


def test_parameters_that_are_not_finite_are_an_error():
    stage = tiny_stage()
    nn.init.constant_(stage.pixels.write.bias, math.nan)
    with pytest.raises(RuntimeError, match="the mixtures of stage 1 are not finite; .* use float32"):
        stage.sample(encoded(stage, torch.rand(1, 1, 64, 64)))


def test_temperature_zero_draws_no_randomness():
    stage, gray = tiny_stage(temperature=0.0), torch.full((1, 1, 64, 64), 0.4)
    first, second = (stage.sample(encoded(stage, gray), 1, generator=generators(seed)).chroma for seed in (1, 2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize("size", [(6, 5), (1, 4), (4, 1)])
def test_the_sampler_sees_the_parameters_of_training(dtype, tolerance, size):
    pixels, (_, embedding) = network(dtype=dtype), inputs(3, size[0], size[1], dtype)
    used, rows = torch.zeros(3, OUT, *size, dtype=dtype), []

    def choose(parameters: Tensor, i: int, j: int) -> Tensor:
        used[:, :, i, j] = parameters
        return torch.tanh(parameters[:, :3])  # anything that depends on all before

    with torch.no_grad():
        canvas = pixels.draw(embedding, choose, lambda row, part: rows.append((row, part.clone())))
        torch.testing.assert_close(pixels(canvas, embedding), used, rtol=0, atol=tolerance)
        slow = torch.zeros_like(canvas)  # the reference: the whole network for every pixel
        for i in range(size[0]):
            for j in range(size[1]):
                slow[:, :, i, j] = torch.tanh(pixels(slow, embedding)[:, :3, i, j])
    torch.testing.assert_close(canvas, slow, rtol=0, atol=tolerance)
    assert canvas.std() > 0.05
    assert [row for row, _ in rows] == list(range(size[0])) and torch.equal(rows[-1][1], canvas)


def test_weight_normalization_as_torch_has_it():
    torch.manual_seed(0)
    ours = Convolution(3, 4)
    theirs = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3, padding=1))
    with torch.no_grad():
        ours.gain.copy_(torch.rand(4) + 0.5)
        ours.bias.copy_(torch.randn(4))
        theirs.bias.copy_(ours.bias)
        theirs.parametrizations.weight.original0.copy_(ours.gain[:, None, None, None])
        theirs.parametrizations.weight.original1.copy_(ours.v)
    x = torch.randn(2, 3, 6, 7)
    torch.testing.assert_close(ours(x), theirs(x))


def test_data_dependent_initialization_gives_every_layer_its_deviation():
    torch.manual_seed(0)
    embedding, x = GrayEmbedding((6, 8), (1, 2), (1, 1), (1, 2), 7, 0.0), torch.rand(32, 1, 16, 16)
    seen: dict[Convolution, Tensor] = {}
    with initialized_by_data(embedding):
        embedding(x)
    for layer in embedding.modules():
        if isinstance(layer, Convolution):
            layer.register_forward_hook(lambda module, _, out: seen.__setitem__(module, out))
    with torch.no_grad():
        embedding(x)
    assert len(seen) == 7
    for layer, out in seen.items():
        torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(out.shape[1]), rtol=0, atol=1e-4)
        torch.testing.assert_close(out.std((0, 2, 3)), torch.full((out.shape[1],), layer.scale), rtol=1e-3, atol=0)
    assert {layer.scale for layer in seen} == {1.0, 0.1}


# --- the mixture


def mixture(rows: int = 1, components: int = 3, seed: int = 0) -> LogisticMixture:
    """Some narrow, some wide, some beyond the ends."""
    torch.manual_seed(seed)
    parameters = torch.randn(rows, 8 * components)
    parameters[:, 6 * components :] = 1.5 * torch.randn(rows, 2 * components) - 2.5
    return LogisticMixture.of(parameters, torch.rand(rows) * 2 - 1)


LEVELS = -1 + 2 * torch.arange(256) / 255


def every_value(one: LogisticMixture) -> Tensor:
    """Probabilities (256, 256) of all pairs of values, of a mixture of one row."""
    pairs = torch.cartesian_prod(LEVELS, LEVELS)
    many = LogisticMixture.of(one_parameters(one).expand(len(pairs), -1), one.lightness[:, 0].expand(len(pairs)))
    return many.log_probability(pairs).double().exp().view(256, 256)


def one_parameters(one: LogisticMixture) -> Tensor:
    coefficients = [c.atanh() for c in one.coefficients]
    return torch.cat([one.logits, *coefficients, *one.means, *one.log_scales], dim=1)


@pytest.mark.parametrize("seed", range(4))
def test_probabilities_sum_to_one(seed):
    assert every_value(mixture(seed=seed)).sum().item() == pytest.approx(1, abs=2e-5)


def test_probabilities_are_differences_of_the_logistic_function():
    """PixelCNN++, equation 2, as it is written, in float64."""
    one, values = mixture(500), torch.rand(500, 2, generator=torch.Generator().manual_seed(1)) * 1.98 - 0.99
    c0, c1, c2 = (c.double() for c in one.coefficients)
    light, first, second = one.lightness.double(), values[:, :1].double(), values[:, 1:].double()
    means = one.means[0] + c0 * light, one.means[1] + c1 * light + c2 * first
    total = torch.zeros(500, 3, dtype=torch.float64) + one.logits.double().softmax(1)
    for value, mean, log_scale in zip((first, second), means, one.log_scales, strict=True):
        scale = log_scale.double().exp()
        total *= torch.sigmoid((value - mean + 1 / 255) / scale) - torch.sigmoid((value - mean - 1 / 255) / scale)
    likely = total.sum(1) > 1e-12  # there the difference is exact enough
    assert likely.float().mean() > 0.5
    found = one.log_probability(values)
    torch.testing.assert_close(found[likely].double(), total.sum(1).log()[likely], rtol=1e-3, atol=1e-3)
    assert found.isfinite().all()


@pytest.mark.parametrize("seed", range(3))
def test_draws_follow_the_density(seed):
    one, count = mixture(seed=seed), 200_000
    many = LogisticMixture.of(one_parameters(one).expand(count, -1), one.lightness[:, 0].expand(count))
    drawn = many.draw(torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)))
    bins = ((drawn + 1) / 2 * 255).round().long() // 16  # 16 of the 256 values each
    found = torch.bincount(bins[:, 0] * 16 + bins[:, 1], minlength=256).double() / count
    expected = every_value(one).view(16, 16, 16, 16).sum((1, 3)).flatten()
    # Within 5 standard deviations, and 2e-4 for draws cut at 1e-5 and the unevenness of a continuous first channel.
    assert ((found - expected).abs() < 5 * (expected * (1 - expected) / count).sqrt() + 2e-4).all()
    assert (expected > 0.01).sum() > 3


def test_temperature_zero_is_the_mean_of_the_likeliest_component():
    one = mixture(50)
    drawn = one.draw(torch.rand(50, 3), temperature=0.0)
    k = one.logits.argmax(1, keepdim=True)
    first = one.locations(drawn[:, :1])[0].gather(1, k).clamp(-1, 1)
    second = one.locations(first)[1].gather(1, k).clamp(-1, 1)
    torch.testing.assert_close(drawn, torch.cat([first, second], dim=1))


def test_the_mean_is_that_of_many_draws():
    parameters = torch.randn(1, 24, generator=torch.Generator().manual_seed(0)) * 0.2
    parameters[:, 18:] = -4.0
    one = LogisticMixture.of(parameters, torch.tensor([0.3]))
    many = LogisticMixture.of(parameters.expand(50_000, -1), torch.full((50_000,), 0.3))
    drawn = many.draw(torch.rand(50_000, 3, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(one.mean()[0], drawn.mean(0), rtol=0, atol=3e-3)


def test_parameters_that_are_none():
    with pytest.raises(ValueError, match=r"\(N, 8 K\) and lightness \(N,\); got \(2, 9\) and \(2,\)"):
        LogisticMixture.of(torch.zeros(2, 9), torch.zeros(2))


# --- the stage

SMALL = PICColorizerConfig(
    embedding_channels=(4, 8), embedding_strides=(2, 4), embedding_blocks=(1, 1), embedding_dilations=(1, 2),
    embedding_width=24, channels=8, blocks=1, components=3,
)  # fmt: skip


def test_chroma_is_found_at_the_luma():
    rgb = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    rgb[0, :, 0, :4] = torch.tensor([[1.0, 0, 0, 1], [0, 1.0, 0, 1], [0, 0, 1.0, 0]])
    found = chroma_at_luma(gray_from_rgb(rgb), lab_from_rgb(rgb)[:, 1:])
    torch.testing.assert_close(found, chroma_from_rgb(rgb), rtol=0, atol=2e-4)


def test_lightness_is_that_of_gray_pixels():
    gray = torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3)
    torch.testing.assert_close(lightness(gray).flatten(), torch.tensor([-1.0, 0.0678, 1.0]), rtol=0, atol=1e-4)
    again = rgb_from_lab(torch.cat([50 * lightness(gray) + 50, torch.zeros(1, 2, 1, 3)], dim=1))
    torch.testing.assert_close(again, gray.expand(-1, 3, -1, -1), rtol=0, atol=1e-5)


def test_strided_colors_stand_where_they_were():
    """What was taken at every eighth pixel is there again when enlarged."""
    stage = PICColorizer(replace(SMALL, subsampling="strided"))
    gray = torch.full((1, 1, 64, 64), 0.5)
    ab = 0.1 * torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    small = chroma_at_luma(gray[..., ::8, ::8], 127.5 * ab + torch.tensor([0.5, -0.5])[:, None, None])
    torch.testing.assert_close(stage._chroma64(gray, ab)[..., ::8, ::8], small, rtol=0, atol=1e-5)
    rgb = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    lab = lab_from_rgb(rgb[..., ::8, ::8])
    torch.testing.assert_close(stage._small_lab(rgb)[:, 1], (lab[:, 1] - 0.5) / 127.5)
    torch.testing.assert_close(stage._small_lab(rgb)[:, 2], (lab[:, 2] + 0.5) / 127.5)


def test_the_first_pixel_starts_near_gray():
    """Draws of a network that has only been fitted vary as photographs do, at the corner too."""
    stage = tiny_stage()
    stage.fit_to([torch.rand(100, 3, 64, 64, generator=torch.Generator().manual_seed(0))])
    chroma = stage.sample(
        encoded(stage, torch.full((40, 1, 64, 64), 0.5)), 1, generator=torch.Generator().manual_seed(0)
    ).chroma[:, 0]
    corner, rest = chroma[:, :, 0, 0].std().item(), chroma.std().item()
    assert 0.03 < corner < 0.2 and 0.03 < rest < 0.2


def test_trained_scales_are_kept():
    torch.manual_seed(0)
    stage, pictures = PICColorizer(SMALL), torch.rand(4, 3, 64, 64)
    before = stage.pixels.write.gain.clone()
    stage.fit_to([pictures])
    fitted = {name: value.clone() for name, value in stage.state_dict().items()}
    assert not torch.equal(fitted["pixels.write.gain"], before)
    stage.fit_to([pictures / 2])
    assert all(torch.equal(value, fitted[name]) for name, value in stage.state_dict().items())


@pytest.mark.parametrize("subsampling", ["area", "strided"])
def test_bits_of_a_mixture_known_by_hand(subsampling):
    """One wide component at every pixel, mean 0 and scale 1: the probability of values near 0 is 1/4 · 2/255."""
    torch.manual_seed(0)
    stage = PICColorizer(replace(SMALL, subsampling=subsampling)).eval()
    with torch.no_grad():
        stage.pixels.write.gain.zero_()
        stage.pixels.write.bias.zero_()
        bits = stage.bits(torch.full((1, 3, 64, 64), 0.5))
    assert bits.item() == pytest.approx(math.log2(4 * 255 / 2), abs=1e-3)


@pytest.mark.parametrize("changed, message", [
    ({"subsampling": "random"}, "subsampling must be"),
    ({"temperature": -1.0}, "temperature must be a number from 0"),
    ({"embedding_width": 23}, "at least 8 · components = 24; got 23"),
    ({"embedding_blocks": (1,)}, "one entry per level"),
    ({"embedding_strides": (3, 1)}, "must divide 64"),
])  # fmt: skip
def test_configs_that_cannot_be(changed, message):
    with pytest.raises(ValueError, match=message):
        PICColorizer(replace(SMALL, **changed))


def test_rows_are_announced():
    stage, gray = lively("coarse", "pic"), gray_from_rgb(picture(64))
    seen: list[tuple] = []
    callback = lambda *step: seen.append(step)  # noqa: E731
    draws = stage.sample(encoded(stage, gray), 2, generator=generators(1, 2, 3, 4), callback=callback)
    assert [step[0] for step in seen] == list(range(stage.num_steps(SampleOptions()))) and seen[-1][:2] == (7, 0)
    assert seen[3][2].shape == (4, 3, 4, 8)
    assert (draws.chroma[:, 0] - draws.chroma[:, 1]).abs().mean() > 0.01
    assert torch.equal(draws.coarse64, coarse_from_rgb(merge(gray[:, None], draws.chroma)))


def test_likelihoods():
    stage, rgb = lively("coarse", "pic"), picture(64)
    bits = stage.bits(rgb)
    alone = small_stage("coarse", "pic", embedding_weight=0.0)
    alone.load_state_dict(stage.state_dict())
    assert bits.shape == (2,) and bits.mean().item() == pytest.approx(alone(rgb).item(), rel=1e-5)
    gray, coarse = gray_from_rgb(rgb), coarse_from_rgb(rgb)
    rounded = merge(gray, chroma_from_rgb(rgb_from_coarse(coarse)))
    torch.testing.assert_close(stage.score(gray, coarse), -stage.bits(rounded))
