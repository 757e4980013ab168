"""The order of several draws, and how wrong a picture is to be expected, against what is computed by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from stages.color.difference import ciede2000
from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, coarse_from_rgb, lab_from_rgb, merge, rgb_from_coarse
from stages.stage1_coarse.candidates import EVENED_STRENGTH, spread_order
from stages.stage1_coarse.uncertainty import GRAY_SHARE, expected_error


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
