"""Resizing against block means and pixel arithmetic; guided enlargement against the written-out fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from stages.color.guided_filter import GUIDE_EPSILON, enlarge_chroma, guided_coefficients
from stages.color.resample import resize, upsample2x

SIZES = [(1, 1), (1, 9), (13, 1), (2, 3), (5, 7), (17, 11), (64, 64)]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=Generator().manual_seed(seed))


def bilinear(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


# --- resize


@pytest.mark.parametrize("rows, columns", [(1, 1), (2, 3), (4, 4), (5, 1)])
def test_shrinking_by_whole_numbers_is_the_block_mean(rows, columns):
    x = noise(2, 3, 6 * rows, 7 * columns)
    blocks = x.numpy().reshape(2, 3, 6, rows, 7, columns).mean((3, 5))
    np.testing.assert_allclose(resize(x, (6, 7)), blocks, atol=1e-6)


@pytest.mark.parametrize("before, after", [((9, 7), (6, 5)), ((13, 40), (12, 7)), ((5, 6), (5, 4)), ((3, 3), (2, 1))])
def test_shrinking_counts_each_pixel_by_its_share(before, after):
    """Each pixel repeated `after` times along an axis, then block means of `before` pixels."""
    x = noise(1, 2, *before).double()
    fine = x.numpy().repeat(after[0], 2).repeat(after[1], 3)
    blocks = fine.reshape(1, 2, after[0], before[0], after[1], before[1]).mean((3, 5))
    np.testing.assert_allclose(resize(x, after), blocks, atol=1e-12)


@pytest.mark.parametrize("before, after", [(65, 64), (100, 64), (127, 64), (1000, 256), (300, 256)])
def test_shrinking_moves_nothing_by_a_pixel(before, after):
    """Of a ramp of one level per pixel every value tells its own place, along either axis."""
    ramp = torch.arange(before, dtype=torch.float32).expand(1, 1, 3, -1)
    place = (torch.arange(after) + 0.5) * before / after - 0.5
    assert (resize(ramp, (3, after)) - place).abs().max() < 0.51
    assert (resize(ramp.mT, (after, 3)) - place[:, None]).abs().max() < 0.51


@pytest.mark.parametrize("before", SIZES)
@pytest.mark.parametrize("after", SIZES)
def test_range_and_constants_are_kept(before, after):
    x = noise(2, 2, *before).round()  # zeros and ones: bicubic wants to overshoot
    x[1] = 0.25 + 0.5 * x[1]  # a range of its own for each picture and channel
    x[1, 1] *= -1
    small = resize(x, after)
    assert small.shape == (2, 2, *after)
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    assert (small >= low - 1e-6).all() and (small <= high + 1e-6).all()
    constant = torch.full((1, 1, *before), 0.3)
    torch.testing.assert_close(resize(constant, after), torch.full((1, 1, *after), 0.3), rtol=0, atol=1e-5)
    if before == after:
        assert torch.equal(small, x)


def test_enlarging_is_bicubic():
    """Keys' kernel with a = -0.75, torch's: a ramp stays a ramp inside, and one step is enlarged as written out."""
    x = noise(1, 1, 1, 12)
    expected = []
    for j in range(24):
        center = (j + 0.5) / 2 - 0.5
        base = int(np.floor(center))
        total = 0.0
        for tap in range(base - 1, base + 3):
            d = abs(center - tap)
            weight = (1.25 * d - 2.25) * d * d + 1 if d <= 1 else ((-0.75 * d + 3.75) * d - 6) * d + 3
            total += weight * x[0, 0, 0, min(max(tap, 0), 11)].item()
        expected.append(min(max(total, x.min().item()), x.max().item()))
    torch.testing.assert_close(resize(x, (1, 24))[0, 0, 0], torch.tensor(expected), rtol=0, atol=1e-5)


def test_doubling_is_undone_by_averages():
    x = torch.rand(2, 3, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(resize(upsample2x(x), (5, 7)), x, rtol=0, atol=1e-12)
    ramp = torch.arange(8.0).expand(1, 1, 6, 8)
    expected = torch.arange(16.0) / 2 - 0.25
    torch.testing.assert_close(upsample2x(ramp)[0, 0, 3, 2:-2], expected[2:-2])  # a ramp stays one, but at the border


def test_each_axis_for_itself():
    x = noise(1, 2, 12, 5)
    both = resize(x, (4, 10))
    torch.testing.assert_close(both, resize(resize(x, (4, 5)), (4, 10)))
    torch.testing.assert_close(both, resize(x.mT, (10, 4)).mT)


def test_autocast_leaves_the_gray_alone():
    gray = noise(1, 1, 300, 201)
    with torch.autocast("cpu", torch.bfloat16):
        low = resize(gray, (64, 64))
    assert low.dtype == torch.float32 and torch.equal(low, resize(gray, (64, 64)))


def test_long_strips_take_no_table():
    """A table of length x count weights would be 40 GB here."""
    assert resize(torch.full((1, 1, 20_000_001, 1), 0.25), (256, 1)).sub(0.25).abs().max() < 1e-5


def test_keeps_dtype_and_gradient():
    x = noise(1, 1, 9, 5).double().requires_grad_()
    small = resize(x, (4, 11))
    assert small.dtype == torch.float64
    small.sum().backward()
    assert x.grad is not None and x.grad.isfinite().all() and x.grad.sum() > 0


@pytest.mark.parametrize("size", [(0, 4), (4, 0), (-1, 4)])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(ValueError, match="size must be positive"):
        resize(noise(1, 1, 4, 4), size)


# --- enlargement guided by the luma


def written_out(gray: np.ndarray, chroma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope of the ridge regression in each 3x3 window, and the offset that makes it exact in its center."""
    slope, offset = np.zeros_like(chroma), np.zeros_like(chroma)
    height, width = gray.shape
    for i in range(height):
        for j in range(width):
            window = np.s_[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
            g, c = gray[window].ravel(), chroma[window].ravel()
            slope[i, j] = np.cov(g, c, bias=True)[0, 1] / (g.var() + GUIDE_EPSILON)
            offset[i, j] = chroma[i, j] - slope[i, j] * gray[i, j]
    return slope, offset


def test_coefficients_are_the_local_fit():
    gray, chroma = noise(2, 1, 5, 6).double(), noise(2, 2, 5, 6, seed=1).double() - 0.5
    slope, offset = guided_coefficients(gray, chroma)
    for b in range(2):
        for c in range(2):
            expected = written_out(gray[b, 0].numpy(), chroma[b, c].numpy())
            np.testing.assert_allclose(slope[b, c], expected[0], atol=1e-9)
            np.testing.assert_allclose(offset[b, c], expected[1], atol=1e-9)


def test_known_chroma_is_kept():
    """Enlarged three times, every third pixel lies on a low-resolution one; with its gray it gets its chroma."""
    gray_low, chroma = noise(1, 1, 8, 6), noise(1, 2, 8, 6, seed=1) - 0.5
    gray = noise(1, 1, 24, 18, seed=2)
    gray[..., 1::3, 1::3] = gray_low
    enlarged = enlarge_chroma(chroma, gray_low, gray)
    assert enlarged.shape == (1, 2, 24, 18)
    torch.testing.assert_close(enlarged[..., 1::3, 1::3], chroma, rtol=0, atol=1e-5)
    assert (enlarged - bilinear(chroma, (24, 18))).abs().max() > 0.05  # between them the gray has its say


def test_averages_come_near_the_known_chroma():
    """Not exactly, where edges are: the docs say so. Each is off by what its window's fits make of its gray values."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    gray = 0.3 + 0.4 * (x + 0.3 * y > 39).double()[None, None]
    gray_low, chroma = resize(gray, (16, 16)), resize(0.5 * gray - 0.2, (16, 16)).expand(-1, 2, -1, -1)
    enlarged = enlarge_chroma(chroma, gray_low, gray)
    miss = resize(enlarged, (16, 16)) - chroma
    slope, offset = (bilinear(part, (64, 64)) for part in guided_coefficients(gray_low, chroma))
    blocks = (slope * gray + offset).unflatten(-1, (16, 4)).unflatten(-3, (16, 4)).mean((-3, -1))
    torch.testing.assert_close(miss, blocks - chroma, rtol=0, atol=1e-12)
    assert 0.002 < miss.abs().max() < 0.02 and miss.std() < 0.05 * chroma.std()
    half = resize(enlarged + bilinear(-miss, (64, 64)), (16, 16)) - chroma
    assert half.std() < 0.7 * miss.std()  # what back-projection would do


@pytest.mark.parametrize("size", [(24, 40), (33, 17), (3, 50), (1, 1)])
def test_flat_picture_is_enlarged_bilinearly(size):
    chroma = noise(1, 2, 8, 10) - 0.5
    flat = enlarge_chroma(chroma, torch.full((1, 1, 8, 10), 0.6), torch.full((1, 1, *size), 0.6))
    torch.testing.assert_close(flat, bilinear(chroma, size), rtol=0, atol=1e-5)


def test_chroma_linear_in_gray_is_reproduced():
    gray = noise(1, 1, 48, 40).double()
    gray_low = resize(gray, (12, 10))
    factor = torch.tensor([0.4, -0.3], dtype=torch.float64)[:, None, None]
    chroma, truth = factor * gray_low + 0.05, factor * gray + 0.05
    enlarged = enlarge_chroma(chroma, gray_low, gray)
    # Exactly, but for the share by which epsilon shortens each slope.
    slope, _ = guided_coefficients(gray_low, gray_low)
    short = 1 - slope
    lost = factor * (bilinear(short, (48, 40)) * gray - bilinear(short * gray_low, (48, 40)))
    torch.testing.assert_close(enlarged, truth - lost, rtol=0, atol=1e-9)

    # Where the gray has contrast little is lost.
    strong = ((torch.arange(12)[:, None] + torch.arange(10)) % 2).double()[None, None]
    slope, offset = guided_coefficients(strong, factor * strong + 0.05)
    assert (slope / factor - 1).abs().max() < 1.2 * GUIDE_EPSILON / 0.22
    fine = bilinear(strong, (48, 40))
    error = (enlarge_chroma(factor * strong + 0.05, strong, fine) - factor * fine - 0.05).abs().max()
    assert error < 0.05 * 0.4


@pytest.mark.parametrize("contrast", [0.2, 0.5])
@pytest.mark.parametrize("place", [28, 30, 31])
def test_color_edges_follow_the_luma(contrast, place):
    """A slanted edge in luma and color: guided enlargement is nearer to the truth than bilinear and bicubic."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    side = (x + 0.3 * y > place + 9).float()[None, None]
    gray = 0.3 + contrast * side
    chroma = torch.cat([0.25 * side - 0.1, 0.05 - 0.15 * side], dim=1)
    low, gray_low = resize(chroma, (16, 16)), resize(gray, (16, 16))

    def error(enlarged: Tensor) -> float:
        return (enlarged - chroma).abs().mean().item()

    guided, plain = error(enlarge_chroma(low, gray_low, gray)), error(bilinear(low, (64, 64)))
    assert guided < (0.5 if contrast > 0.3 else 0.75) * min(plain, error(resize(low, (64, 64))))
