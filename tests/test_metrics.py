"""Metrics against loops, closed forms and an independently written feature network."""

from __future__ import annotations

import math
import sys

import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from stages.color.spaces import gray_from_rgb
from stages.evaluation.features import SqueezeNetFeatures, mmd2_unbiased
from stages.evaluation.pixel import MetricsError, ciede2000, colorfulness, luma_error, picture_from_rgb, psnr, ssim
from stages.evaluation.scores import Reference
from stages.evaluation.statistics import HalfSplits, paired_ratio, spearman


@pytest.fixture(scope="module")
def network() -> SqueezeNetFeatures:
    torch.manual_seed(0)
    net = SqueezeNetFeatures()
    for weight in net.parameters():  # activations keep their size, so that the input shows in the features
        if weight.ndim == 4:
            torch.nn.init.kaiming_normal_(weight)
    return net


def pictures(count: int, side: int = 24, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


def kernel(x, y) -> float:
    return (float(x @ y) / len(x) + 1) ** 3


def mmd2_by_loops(x, y) -> float:
    inside_x = [kernel(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j]
    inside_y = [kernel(y[i], y[j]) for i in range(len(y)) for j in range(len(y)) if i != j]
    across = [kernel(a, b) for a in x for b in y]
    return sum(inside_x) / len(inside_x) + sum(inside_y) / len(inside_y) - 2 * sum(across) / len(across)


# The estimate


def test_mmd2_is_the_sum_over_pairs():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    y = torch.randn(4, 5, generator=generator, dtype=torch.float64) + 0.3
    assert mmd2_unbiased(x, y) == pytest.approx(mmd2_by_loops(x, y), rel=1e-12)


@pytest.mark.parametrize("count", [10, 11])
def test_kid_is_the_mean_over_splits_and_directions(count):
    generator = torch.Generator().manual_seed(2)
    originals = torch.randn(count, 6, generator=generator, dtype=torch.float64)
    outputs = torch.randn(count, 6, generator=generator, dtype=torch.float64) * 1.3
    splits = HalfSplits(count, splits=5, replicates=50)
    values = []
    for first, second in zip(splits.first.bool(), splits.second.bool(), strict=True):
        assert first.sum() == second.sum() == count // 2 and not (first & second).any()
        values.append(mmd2_by_loops(originals[first], outputs[second]))
        values.append(mmd2_by_loops(originals[second], outputs[first]))
    estimate = splits.kid(originals, outputs)
    assert estimate.value == pytest.approx(1000 * sum(values) / len(values), rel=1e-10)
    assert estimate.low <= estimate.value <= estimate.high


def test_a_bootstrap_draw_is_a_list_of_photographs_without_pairs_of_copies():
    generator = torch.Generator().manual_seed(3)
    originals = torch.randn(8, 4, generator=generator, dtype=torch.float64)
    outputs = torch.randn(8, 4, generator=generator, dtype=torch.float64)
    splits = HalfSplits(8, splits=1, replicates=10)
    first, second = splits.first[0].bool().tolist(), splits.second[0].bool().tolist()
    for counts, replicate in zip(
        splits.counts.int().tolist(), splits.kid(originals, outputs).replicates, strict=True
    ):
        drawn = [i for i, times in enumerate(counts) for _ in range(times)]
        assert len(drawn) == 8
        half_a, half_b = [i for i in drawn if first[i]], [i for i in drawn if second[i]]
        same = [(i, j) for half in (half_a, half_b) for i in half for j in half if i != j]
        other = [(i, j) for a, b in ((half_a, half_b), (half_b, half_a)) for i in a for j in b]
        within = sum(kernel(originals[i], originals[j]) + kernel(outputs[i], outputs[j]) for i, j in same)
        between = sum(kernel(originals[i], outputs[j]) for i, j in other)
        assert float(replicate) == pytest.approx(
            1000 * (within / len(same) - 2 * between / len(other)), rel=1e-9
        )


def test_other_half_of_the_originals_is_about_zero_and_another_distribution_is_not():
    generator = torch.Generator().manual_seed(4)
    features = torch.randn(300, 64, generator=generator, dtype=torch.float64)
    splits = HalfSplits(300, replicates=200)
    same = splits.kid(features, features)
    shifted = splits.kid(features, features + 0.3)
    assert same.low < 0 < same.high and abs(same.value) < 10
    assert shifted.low > 100


def test_the_bootstrap_knows_how_far_the_estimate_scatters():
    """Standard deviation of the estimate over fresh lists of photographs, against that of the replicates."""
    generator = torch.Generator().manual_seed(5)
    splits, values, deviations = HalfSplits(60, replicates=200), [], []
    for _ in range(80):
        originals = torch.randn(60, 8, generator=generator, dtype=torch.float64)
        outputs = torch.randn(60, 8, generator=generator, dtype=torch.float64) + 0.7
        estimate = splits.kid(originals, outputs)
        values.append(estimate.value)
        deviations.append(float(estimate.replicates.std()))
    true = float(torch.tensor(values).std())
    assert 0.75 < sum(deviations) / len(deviations) / true < 1.4


def test_two_systems_meet_the_same_splits_and_draws():
    first, second = HalfSplits(30), HalfSplits(30)
    assert torch.equal(first.first, second.first) and torch.equal(first.counts, second.counts)
    assert not torch.equal(first.first, HalfSplits(30, seed=1).first)
    features = torch.randn(30, 16, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    a, b = first.kid(features, features * 1.2), second.kid(features, features * 1.2)
    difference = a.minus(b)
    assert difference.value == difference.low == difference.high == 0


def test_kid_needs_two_photographs_per_half():
    with pytest.raises(MetricsError, match="at least 4 photographs"):
        HalfSplits(3)


# Pixels


def test_equal_pictures_have_no_distance(network):
    originals = pictures(6)
    scores = Reference(originals, network).score(originals.clone()).means()
    assert scores["ciede2000"] == 0 and scores["squeezenet_distance"] == 0
    assert scores["psnr"] == math.inf and scores["colorfulness_ratio"] == 1


def test_closed_forms():
    dark, light = (
        torch.full((2, 3, 8, 8), 100, dtype=torch.uint8),
        torch.full((2, 3, 8, 8), 110, dtype=torch.uint8),
    )
    assert psnr(light, dark).tolist() == pytest.approx([20 * math.log10(25.5)] * 2)
    black, white = (
        torch.zeros(1, 3, 4, 4, dtype=torch.uint8),
        torch.full((1, 3, 4, 4), 255, dtype=torch.uint8),
    )
    assert float(ciede2000(white, black)) == pytest.approx(100, abs=1e-3)
    half = torch.cat([white, black], dim=3)  # the mean over pixels, not over a mean color
    assert float(ciede2000(half, torch.cat([white, white], dim=3))) == pytest.approx(50, abs=1e-3)
    assert float(colorfulness(dark)[0]) == pytest.approx(0, abs=1e-4)
    assert luma_error(light, dark[:, :1]).tolist() == pytest.approx([10, 10])


def test_ssim_in_closed_form():
    """Of flat pictures only the means count: (2 a b + c) / (a² + b² + c), c = (0.01 · 255)²."""
    flat = torch.full((2, 3, 16, 12), 100, dtype=torch.uint8)
    c, b = 2.55**2, 140
    expected = (2 * 100 * b + c) / (100**2 + b**2 + c)
    assert ssim(flat, torch.full_like(flat, b)).tolist() == pytest.approx([expected] * 2)
    noisy = pictures(2)
    assert ssim(noisy, noisy).tolist() == [1, 1] and float(ssim(noisy, noisy.flip(-1)).max()) < 0.3
    with pytest.raises(MetricsError, match="sides of at least 11; got 12x10"):
        ssim(flat[..., :10, :], flat[..., :10, :])


def test_ssim_needs_its_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.metrics", None)
    with pytest.raises(MetricsError, match=r"scikit-image: pip install 'trichrome\[evaluate\]'"):
        ssim(pictures(1), pictures(1))


def test_pictures_are_rounded_to_nearest():
    rgb = torch.tensor([-0.1, 0.0, 0.49 / 255, 0.51 / 255, 254.6 / 255, 1.3]).view(1, 1, 6).expand(3, 1, 6)
    assert picture_from_rgb(rgb)[0, 0].tolist() == [0, 0, 0, 1, 255, 255]


def test_pictures_of_mixed_sizes_equal_their_single_scores(network):
    mixed = [pictures(1, side, seed)[0] for seed, side in enumerate((20, 20, 33, 20, 150))]
    noisy = [255 - picture for picture in mixed]
    for measure in (ciede2000, psnr):
        alone = [float(measure([a], [b])) for a, b in zip(noisy, mixed, strict=True)]
        assert measure(noisy, mixed).tolist() == pytest.approx(alone)
    features = torch.cat([network.of([picture]) for picture in mixed])
    # Convolutions add up in an order that depends on the batch: more than the last digit moves on some processors.
    torch.testing.assert_close(network.of(mixed), features, rtol=1e-5, atol=1e-5)


def test_misfits_are_errors():
    with pytest.raises(MetricsError, match="3 outputs for 2 originals"):
        ciede2000(pictures(3), pictures(2))
    with pytest.raises(MetricsError, match="24x24, its original 20x20"):
        psnr(pictures(2, 24), pictures(2, 20))
    with pytest.raises(MetricsError, match="uint8"):
        colorfulness(torch.rand(2, 3, 8, 8))


# Several candidates


def test_best_of_k_and_diversity_are_loops_over_photos(network):
    originals = pictures(5)
    reference = Reference(originals, network)
    candidates = torch.stack([pictures(4, seed=seed) for seed in (1, 2, 3)], dim=1)  # (4, 3, 3, H, W)
    scores = reference.candidates(candidates)
    found = scores.means()
    best, near, steps = [], [], []
    for photo in range(4):
        own = [reference.features_of(candidates[photo, k : k + 1])[0] for k in range(3)]
        best.append(
            min(
                float(ciede2000(candidates[photo, k : k + 1], originals[photo : photo + 1]))
                for k in range(3)
            )
        )
        near.append(min(float((feature - reference.features[photo]).norm()) for feature in own))
        steps += [float((own[1] - own[0]).norm()), float((own[2] - own[1]).norm())]
    assert found["ciede2000"] == pytest.approx(sum(best) / 4, rel=1e-6)
    assert found["squeezenet_distance"] == pytest.approx(sum(near) / 4, rel=1e-3)
    assert found["diversity"] == pytest.approx(sum(steps) / 8, rel=1e-3)


def test_diversity_of_a_deterministic_model_is_exactly_zero(network):
    originals = pictures(37)  # more than one batch, the last one smaller
    outputs = pictures(37, seed=9)
    candidates = outputs[:, None].expand(-1, 3, -1, -1, -1)
    assert Reference(originals, network).candidates(candidates).means()["diversity"] == 0


# The network


def features_by_hand(weights: dict[str, torch.Tensor], rgb: torch.Tensor) -> torch.Tensor:
    """SqueezeNet 1.1 as a list of published steps, channel by channel input: rgb (B, 3, H, W) 0..255."""

    def conv(x, name, **settings):
        return F.relu(F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **settings))

    red, green, blue = rgb.float().unbind(1)
    x = torch.stack([blue - 104, green - 117, red - 123], dim=1)
    x = conv(x, "features.0", stride=2)
    for step in ("pool", 3, 4, "pool", 6, 7, "pool", 9, 10, 11, 12):
        if step == "pool":
            x = F.max_pool2d(x, kernel_size=3, stride=2, ceil_mode=True)
        else:
            small = conv(x, f"features.{step}.squeeze")
            x = torch.cat(
                [
                    conv(small, f"features.{step}.expand1x1"),
                    conv(small, f"features.{step}.expand3x3", padding=1),
                ],
                dim=1,
            )
    return x


def test_network_equals_the_steps_written_out(network):
    rgb = pictures(2, 131)
    by_hand = features_by_hand(network.state_dict(), rgb).mean((2, 3))
    torch.testing.assert_close(network(rgb), by_hand)
    assert (network(rgb.flip(1)) - by_hand).abs().max() > 0.1


def test_network_has_the_published_shape(network):
    assert sum(weight.numel() for weight in network.parameters()) == 722_496
    assert features_by_hand(network.state_dict(), pictures(1, 224)).shape == (1, 512, 13, 13)


@pytest.mark.parametrize(
    "size, enlarged", [((64, 64), (192, 192)), ((127, 127), (192, 192)), ((64, 96), (192, 288))]
)
def test_small_pictures_are_enlarged_first(network, size, enlarged):
    rgb = pictures(2, 127)[:, :, : size[0], : size[1]]
    large = F.interpolate(rgb.float(), enlarged, mode="bicubic", align_corners=False).clamp(0, 255)
    by_hand = features_by_hand(network.state_dict(), large).mean((2, 3))
    torch.testing.assert_close(network(rgb), by_hand)


def test_weights_are_read_strictly(network, tmp_path):
    path = tmp_path / "net.safetensors"
    save_file(network.state_dict(), path)
    assert torch.equal(SqueezeNetFeatures.from_file(path)(pictures(1)), network(pictures(1)))
    with pytest.raises(MetricsError, match="--features"):
        SqueezeNetFeatures.from_file(tmp_path / "none.safetensors")
    save_file({"features.0.weight": torch.zeros(64, 3, 3, 3)}, path)
    with pytest.raises(MetricsError, match="does not hold the weights of SqueezeNet"):
        SqueezeNetFeatures.from_file(path)
    path.write_bytes(b"not safetensors")
    with pytest.raises(MetricsError, match="does not hold the weights of SqueezeNet"):
        SqueezeNetFeatures.from_file(path)


def test_features_are_divided_by_the_deviation_of_the_originals(network):
    reference = Reference(pictures(9), network)
    assert reference.used <= 512
    deviation = reference.features.std(0)[reference.scale > 0]
    torch.testing.assert_close(deviation, torch.ones_like(deviation))


def test_plain_gray_of_real_photographs_is_far_from_them(data_folder):
    """The calibration of docs/research/evaluation.md, on a list short enough for every test run."""
    path = data_folder / "features" / "squeezenet1_1.safetensors"
    if not path.is_file():
        pytest.skip(f"no feature network at {path}")
    from stages.evaluation.photos import load_photos

    photos = load_photos(data_folder, "photos64", "validation", 120)
    reference = Reference(photos.pictures, SqueezeNetFeatures.from_file(path))
    gray = reference.score(photos.plain_gray())
    originals = reference.score(photos.pictures)
    assert reference.used == 512
    assert gray.kid is not None and originals.kid is not None
    assert 400 < gray.kid.value < 800 and abs(originals.kid.value) < 40
    assert 13 < gray.means()["squeezenet_distance"] < 17 and gray.means()["colorfulness_ratio"] < 0.01
    assert gray_from_rgb(photos.rgb(slice(0, 1))).shape == (1, 1, 64, 64)


@pytest.mark.parametrize("levels", [3, 50, 10**6])
def test_spearman_is_scipys(levels):
    """Ties, few or many, share their mean rank."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(levels, (40, 30), generator=generator)
    b = a + torch.randint(levels, (40, 30), generator=generator)
    expected = scipy.stats.spearmanr(a.flatten().numpy(), b.flatten().numpy()).statistic
    assert spearman(a.float(), b.float()) == pytest.approx(expected, abs=1e-12)
    assert spearman(a.float(), a.float() ** 3) == pytest.approx(1)
    assert spearman(a.float(), torch.ones(40, 30)) == 0
    for other in (b[:5], b[:, :1]):
        with pytest.raises(MetricsError, match="one shape"):
            spearman(a, other)


def test_a_ratio_has_an_interval_of_pairs():
    values = torch.rand(50, generator=torch.Generator().manual_seed(0)) + 0.5
    exact = paired_ratio(0.8 * values, values)
    assert exact["value"] == pytest.approx(0.8) and exact["interval_95"] == pytest.approx([0.8, 0.8])
    low, high = paired_ratio(0.8 * values.flip(0), values)["interval_95"]
    assert low < 0.79 and high > 0.81
