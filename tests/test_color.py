"""Color functions against published values, scikit-image, and their own invariants."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.images.read import load_photo
from stages.color.difference import ciede2000, colorfulness
from stages.color.spaces import (
    CB_SCALE,
    COARSE_COLORS,
    CR_SCALE,
    chroma_from_rgb,
    coarse_from_rgb,
    gray_from_rgb,
    lab_from_rgb,
    lab_from_xyz,
    linear_rgb_from_rgb,
    merge,
    rgb_from_coarse,
    rgb_from_gray_chroma,
    rgb_from_lab,
    rgb_from_linear_rgb,
    xyz_from_linear_rgb,
)
from stages.color.tint import TINT_RESIDUAL, TINT_SHARE, has_one_tint
from stages.photographs import is_one_tint

CORNERS = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=torch.float64)  # of the sRGB cube


def pixels(values, dtype=torch.float64) -> Tensor:
    """A list of N triples as a (3, 1, N) picture."""
    return torch.as_tensor(values, dtype=dtype).T.unsqueeze(1)


def random_rgb(*shape: int, dtype=torch.float64) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def test_channels_are_the_third_last_axis():
    rgb = random_rgb(2, 4, 3, 5, 7)
    assert gray_from_rgb(rgb).shape == (2, 4, 1, 5, 7)
    assert chroma_from_rgb(rgb).shape == (2, 4, 2, 5, 7)
    assert colorfulness(rgb).shape == (2, 4)
    assert coarse_from_rgb(rgb).shape == (2, 4, 5, 7)
    lab = lab_from_rgb(rgb)
    assert lab.shape == rgb.shape
    assert torch.allclose(lab[1, 2], lab_from_rgb(rgb[1, 2]))
    difference = ciede2000(lab, lab.flip(-1))
    assert difference.shape == (2, 4, 5, 7)
    assert torch.allclose(difference[1, 2], ciede2000(lab[1, 2], lab[1, 2].flip(-1)))


# Luma, chroma and their merging


def test_luma_and_chroma_of_the_primaries():
    rgb = pixels(torch.eye(3))
    assert gray_from_rgb(rgb).flatten().tolist() == pytest.approx([0.299, 0.587, 0.114])
    cb, cr = chroma_from_rgb(rgb)[:, 0].tolist()
    # ITU-R BT.601-7, table 3: red and blue reach 0.5 in their own difference.
    assert cb == pytest.approx([-0.168736, -0.331264, 0.5], abs=1e-6)
    assert cr == pytest.approx([0.5, -0.418688, -0.081312], abs=1e-6)


def test_gray_and_chroma_give_rgb_back():
    rgb = torch.cat([random_rgb(3, 1, 999), pixels(CORNERS)], dim=-1).float()
    gray, chroma = gray_from_rgb(rgb), chroma_from_rgb(rgb)
    assert (rgb_from_gray_chroma(gray, chroma) - rgb).abs().max() < 1e-6
    assert (merge(gray, chroma) - rgb).abs().max() < 1e-6  # in gamut, so nothing is scaled


def adversarial_chroma(levels: int) -> tuple[Tensor, Tensor]:
    """Grays (whole levels: all of 8 bit, or 16-bit ends and 4096 between) against hard chroma.

    Returns gray (N, 1, 1, M), integers as float64, and chroma (N, 2, 1, M).
    """
    if levels == 255:
        gray = torch.arange(256)
    else:
        ends = torch.arange(64)
        gray = torch.cat([ends, levels - ends, torch.linspace(0, levels, 4096).round()])
    draw = torch.Generator().manual_seed(levels)
    shape = (2, 1, len(gray))
    uniform = [torch.rand(shape, generator=draw) - 0.5 for _ in range(20)]
    sizes = [1e-30, 1e-12, 1e-6, 1e-3, 1, 1e3, 1e30]
    of_any_size = [torch.randn(shape, generator=draw) * size for size in sizes]
    saturated = [torch.tensor(signs).view(2, 1, 1).expand(shape) * size
                 for signs in itertools.product([-1.0, 0.0, 1.0], repeat=2) for size in (0.5, 1e30)]
    # Colors whose channels are all half a level off, so that rounding may move the three the same way.
    halves = []
    for red, green, blue in ((-91, 85, -199), (91, -85, 199), (81, -3, -197), (-81, 3, 197)):
        assert 299 * red + 587 * green + 114 * blue == 0  # no luma
        half = torch.tensor([blue / CB_SCALE, red / CR_SCALE]) / 2 / levels
        halves.append(half.view(2, 1, 1).expand(shape))
    chroma = torch.stack(uniform + of_any_size + saturated + halves)
    return gray.double().expand(len(chroma), 1, 1, -1), chroma


@pytest.mark.parametrize("levels", [255, 65535], ids=["8 bit", "16 bit"])
def test_merge_keeps_luma(levels):
    whole, chroma = adversarial_chroma(levels)
    gray = (whole / levels).float()
    rgb = merge(gray, chroma)
    assert rgb.dtype == torch.float32
    assert rgb.min() >= 0 and rgb.max() <= 1  # also fails for NaN
    assert (gray_from_rgb(rgb) - gray).abs().max() < 5e-7  # the contract asks for 1e-4
    # Written to a file: the luma of whole levels, without float error of its own.
    written = torch.round(rgb.double() * levels)
    assert (written - rgb.double() * levels).abs().max() <= 0.5
    error = (gray_from_rgb(written) - whole).abs().max()
    assert error <= 0.5 + 1e-6, f"luma off by {error:.4f} levels"


@settings(deadline=None, max_examples=200)
@given(gray=st.floats(0, 1, width=32), cb=st.floats(-(2.0**100), 2.0**100, width=32),
       cr=st.floats(-(2.0**100), 2.0**100, width=32))
def test_merge_keeps_luma_of_any_pixel(gray, cb, cr):
    rgb = merge(torch.tensor([[[gray]]]), torch.tensor([[[cb]], [[cr]]]))
    assert rgb.min() >= 0 and rgb.max() <= 1
    assert abs(gray_from_rgb(rgb).item() - gray) < 5e-7


def test_merge_keeps_hue_and_as_much_chroma_as_fits():
    gray = random_rgb(1, 1, 2000)
    chroma = 2 * random_rgb(2, 1, 2000) - 1
    rgb = merge(gray, chroma)
    share = (chroma_from_rgb(rgb) / chroma)
    assert torch.allclose(share[0], share[1], atol=1e-9)  # straight toward gray
    assert share.max() < 1 + 1e-9
    touching = torch.minimum(rgb.amin(0), 1 - rgb.amax(0)) < 1e-12
    whole = share[0] > 1 - 1e-9
    assert bool((touching | whole).all())  # scaled only as far as needed
    assert 100 < int(whole.sum()) < 1900  # both cases were met


def test_gray_has_no_color():
    gray = (torch.arange(65536) / 65535).view(1, 1, -1)  # float32, every 16-bit level
    lab = lab_from_rgb(gray.expand(3, -1, -1))
    assert lab[1:].abs().max() < 1e-4
    assert lab[0, 0, 0] == pytest.approx(0, abs=1e-4) and lab[0, 0, -1] == pytest.approx(100, abs=1e-4)
    assert chroma_from_rgb(gray.expand(3, -1, -1)).abs().max() < 1e-6
    assert torch.equal(merge(gray, torch.zeros(2, 1, 65536)), gray.expand(3, -1, -1))


# Coarse symbols


def test_coarse_symbols():
    symbols = torch.arange(COARSE_COLORS).view(1, 16, 32)
    rgb = rgb_from_coarse(symbols)
    assert rgb.shape == (1, 3, 16, 32) and rgb.dtype == torch.float32
    assert torch.equal(coarse_from_rgb(rgb), symbols)
    assert rgb[0, :, 0, 1].tolist() == [0.0625, 0.0625, 0.1875]  # the last bits are blue's
    edges = pixels([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0.124, 0.125, 0.249]])
    assert coarse_from_rgb(edges).flatten().tolist() == [0, 511, 448, 56, 7, 9]
    outside = pixels([[-0.1, 1.2, 0.5]])
    assert coarse_from_rgb(outside).item() == 0 * 64 + 7 * 8 + 4


def test_coarse_keeps_rgb_to_half_a_bin():
    rgb = random_rgb(1, 3, 40, 50)
    assert (rgb_from_coarse(coarse_from_rgb(rgb)) - rgb).abs().max() <= 1 / 16


# sRGB, XYZ and Lab


def test_srgb_transfer():
    # IEC 61966-2-1; the middle value is the well-known 21.4 % of code 0.5.
    linear = linear_rgb_from_rgb(torch.tensor([0.0, 0.02, 0.04045, 0.5, 1.0], dtype=torch.float64))
    assert linear.tolist() == pytest.approx([0, 0.02 / 12.92, 0.0031308, 0.21404114, 1], abs=1e-8)
    rgb = torch.linspace(-0.1, 1.1, 5001)
    assert (rgb_from_linear_rgb(linear_rgb_from_rgb(rgb)) - rgb).abs().max() < 1e-6
    assert bool((linear_rgb_from_rgb(rgb).diff() > 0).all())


@pytest.mark.parametrize("rgb, lab", [
    ((1, 0, 0), (53.24, 80.09, 67.20)),
    ((0, 1, 0), (87.73, -86.18, 83.18)),
    ((0, 0, 1), (32.30, 79.19, -107.86)),
    ((0, 1, 1), (91.11, -48.09, -14.13)),
    ((1, 0, 1), (60.32, 98.23, -60.82)),
    ((1, 1, 0), (97.14, -21.55, 94.48)),
    ((1, 1, 1), (100, 0, 0)),
    ((0, 0, 0), (0, 0, 0)),
])
def test_published_lab_of_srgb_colors(rgb, lab):
    assert lab_from_rgb(pixels([rgb])).flatten().tolist() == pytest.approx(lab, abs=0.006)
    assert rgb_from_lab(pixels([lab])).flatten().tolist() == pytest.approx(rgb, abs=1e-3)


def test_lab_equals_skimage():
    skimage_color = pytest.importorskip("skimage.color")
    rgb = torch.cat([random_rgb(3, 1, 4000), random_rgb(3, 1, 1000) / 50, pixels(CORNERS)], dim=-1)
    xyz = xyz_from_linear_rgb(linear_rgb_from_rgb(rgb))
    # From the same XYZ scikit-image agrees to its rounded constants 0.008856 and 7.787 ...
    expected = torch.from_numpy(skimage_color.xyz2lab(xyz.numpy(), channel_axis=0))
    assert (lab_from_xyz(xyz) - expected).abs().max() < 2e-3
    bright = xyz.amin(0).squeeze() > 0.01
    assert (lab_from_xyz(xyz) - expected)[..., bright].abs().max() < 1e-4  # its white has Y = 1.0000000
    # ... and its matrix differs in the sixth digit.
    assert (xyz - torch.from_numpy(skimage_color.rgb2xyz(rgb.numpy(), channel_axis=0))).abs().max() < 1e-4
    expected = torch.from_numpy(skimage_color.rgb2lab(rgb.numpy(), channel_axis=0))
    assert (lab_from_rgb(rgb) - expected).abs().max() < 0.006


def test_lab_round_trip():
    dark = random_rgb(3, 1, 2000) / 30  # on the straight parts of both curves
    rgb = torch.cat([random_rgb(3, 1, 2000), dark, pixels(CORNERS), -dark, 1 + dark], dim=-1)
    assert (rgb_from_lab(lab_from_rgb(rgb)) - rgb).abs().max() < 1e-7
    rgb = rgb.float().clamp(0, 1)
    assert (rgb_from_lab(lab_from_rgb(rgb)) - rgb).abs().max() < 2e-5
    assert (lab_from_rgb(rgb) - lab_from_rgb(rgb.double())).abs().max() < 2e-4


# CIEDE2000

# Sharma, Wu, Dalal 2005, table 1: L1 a1 b1, L2 a2 b2, difference.
SHARMA = torch.tensor([
    [50.0000, 2.6772, -79.7751, 50.0000, 0.0000, -82.7485, 2.0425],
    [50.0000, 3.1571, -77.2803, 50.0000, 0.0000, -82.7485, 2.8615],
    [50.0000, 2.8361, -74.0200, 50.0000, 0.0000, -82.7485, 3.4412],
    [50.0000, -1.3802, -84.2814, 50.0000, 0.0000, -82.7485, 1.0000],
    [50.0000, -1.1848, -84.8006, 50.0000, 0.0000, -82.7485, 1.0000],
    [50.0000, -0.9009, -85.5211, 50.0000, 0.0000, -82.7485, 1.0000],
    [50.0000, 0.0000, 0.0000, 50.0000, -1.0000, 2.0000, 2.3669],
    [50.0000, -1.0000, 2.0000, 50.0000, 0.0000, 0.0000, 2.3669],
    [50.0000, 2.4900, -0.0010, 50.0000, -2.4900, 0.0009, 7.1792],
    [50.0000, 2.4900, -0.0010, 50.0000, -2.4900, 0.0010, 7.1792],
    [50.0000, 2.4900, -0.0010, 50.0000, -2.4900, 0.0011, 7.2195],
    [50.0000, 2.4900, -0.0010, 50.0000, -2.4900, 0.0012, 7.2195],
    [50.0000, -0.0010, 2.4900, 50.0000, 0.0009, -2.4900, 4.8045],
    [50.0000, -0.0010, 2.4900, 50.0000, 0.0010, -2.4900, 4.8045],
    [50.0000, -0.0010, 2.4900, 50.0000, 0.0011, -2.4900, 4.7461],
    [50.0000, 2.5000, 0.0000, 50.0000, 0.0000, -2.5000, 4.3065],
    [50.0000, 2.5000, 0.0000, 73.0000, 25.0000, -18.0000, 27.1492],
    [50.0000, 2.5000, 0.0000, 61.0000, -5.0000, 29.0000, 22.8977],
    [50.0000, 2.5000, 0.0000, 56.0000, -27.0000, -3.0000, 31.9030],
    [50.0000, 2.5000, 0.0000, 58.0000, 24.0000, 15.0000, 19.4535],
    [50.0000, 2.5000, 0.0000, 50.0000, 3.1736, 0.5854, 1.0000],
    [50.0000, 2.5000, 0.0000, 50.0000, 3.2972, 0.0000, 1.0000],
    [50.0000, 2.5000, 0.0000, 50.0000, 1.8634, 0.5757, 1.0000],
    [50.0000, 2.5000, 0.0000, 50.0000, 3.2592, 0.3350, 1.0000],
    [60.2574, -34.0099, 36.2677, 60.4626, -34.1751, 39.4387, 1.2644],
    [63.0109, -31.0961, -5.8663, 62.8187, -29.7946, -4.0864, 1.2630],
    [61.2901, 3.7196, -5.3901, 61.4292, 2.2480, -4.9620, 1.8731],
    [35.0831, -44.1164, 3.7933, 35.0232, -40.0716, 1.5901, 1.8645],
    [22.7233, 20.0904, -46.6940, 23.0331, 14.9730, -42.5619, 2.0373],
    [36.4612, 47.8580, 18.3852, 36.2715, 50.5065, 21.2231, 1.4146],
    [90.8027, -2.0831, 1.4410, 91.1528, -1.6435, 0.0447, 1.4441],
    [90.9257, -0.5406, -0.9208, 88.6381, -0.8985, -0.7239, 1.5381],
    [6.7747, -0.2908, -2.4247, 5.8714, -0.0985, -2.2286, 0.6377],
    [2.0776, 0.0795, -1.1350, 0.9033, -0.0636, -0.5514, 0.9082],
], dtype=torch.float64)


def test_ciede2000_published_pairs():
    assert len(SHARMA) == 34
    lab1, lab2, expected = pixels(SHARMA[:, :3]), pixels(SHARMA[:, 3:6]), SHARMA[:, 6]
    # A slip in the table above would show here, since scikit-image knows nothing of ours.
    skimage_color = pytest.importorskip("skimage.color")
    independent = skimage_color.deltaE_ciede2000(lab1.numpy(), lab2.numpy(), channel_axis=0)[0]
    assert np.abs(independent - expected.numpy()).max() < 0.5001e-4  # four digits were printed
    assert (ciede2000(lab1, lab2)[0] - expected).abs().max() < 0.5001e-4
    assert (ciede2000(lab2, lab1)[0] - expected).abs().max() < 0.5001e-4
    # float32 cannot tell the pairs whose hues are opposite to 0.003 degrees: lines 9 to 15.
    plain = [i for i in range(34) if not 8 <= i < 15]
    single = ciede2000(lab1.float(), lab2.float())[0]
    assert (single - expected)[plain].abs().max() < 2e-4


def test_ciede2000_equals_skimage():
    skimage_color = pytest.importorskip("skimage.color")
    lab1, lab2 = (torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
                  * torch.tensor([100, 220, 220]).view(3, 1, 1) - torch.tensor([0, 110, 110]).view(3, 1, 1))
    lab2[:, :10] = lab1[:, :10] + 0.1 * lab2[:, :10]  # small differences too
    lab2[1:, 10] = 0  # a gray against a color
    lab1[1:, 11] = 0
    lab1[1:, 12] *= 1e-6  # almost gray
    expected = skimage_color.deltaE_ciede2000(lab1.numpy(), lab2.numpy(), channel_axis=0)
    assert (ciede2000(lab1, lab2) - torch.from_numpy(expected)).abs().max() < 1e-9
    assert (ciede2000(lab1.float(), lab2.float()) - torch.from_numpy(expected)).abs().max() < 1e-3


def test_ciede2000_of_equal_colors_is_zero():
    lab = lab_from_rgb(torch.cat([random_rgb(3, 1, 500), pixels(CORNERS)], dim=-1).float())
    assert torch.equal(ciede2000(lab, lab.clone()), torch.zeros(1, 508))


# Colorfulness


def test_colorfulness_by_hand():
    # Red, green, blue, white: rg = 255 (1, -1, 0, 0), yb = 255 (1/2, 1/2, -1, 0).
    rgb = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], dtype=torch.float64).T.view(3, 2, 2)
    by_hand = 255 * (0.5 + 0.375) ** 0.5  # both means are 0, the variances 2/4 and 1.5/4
    assert colorfulness(rgb).item() == pytest.approx(by_hand)
    # One flat orange has offset only: 0.3 times the length of 255 (0.5, 0.75).
    orange = torch.tensor([1, 0.5, 0], dtype=torch.float64).view(3, 1, 1).expand(3, 4, 5)
    assert colorfulness(orange).item() == pytest.approx(0.3 * 255 * (0.5**2 + 0.75**2) ** 0.5)
    assert colorfulness(random_rgb(1, 8, 8).expand(3, -1, -1)).item() == pytest.approx(0, abs=1e-9)


def test_colorfulness_equals_numpy():
    rgb = random_rgb(2, 3, 17, 23) ** torch.tensor([1.0, 2, 3]).view(3, 1, 1)
    for picture, value in zip(rgb.numpy(), colorfulness(rgb).tolist(), strict=True):
        red, green, blue = 255 * picture
        rg, yb = red - green, (red + green) / 2 - blue
        expected = np.sqrt(rg.var() + yb.var()) + 0.3 * np.sqrt(rg.mean() ** 2 + yb.mean() ** 2)
        assert value == pytest.approx(expected)


def test_colorfulness_equals_the_published_column(data_folder: Path):
    parquet = pytest.importorskip("pyarrow.parquet")
    image_module = pytest.importorskip("PIL.Image")
    import io

    rows = parquet.ParquetFile(data_folder / "photos64" / "validation-00000-of-00001.parquet")
    batch = next(rows.iter_batches(16, columns=["image", "colorfulness"])).to_pylist()
    for row in batch:
        picture = np.array(image_module.open(io.BytesIO(row["image"]["bytes"])).convert("RGB"))
        rgb = torch.from_numpy(picture).permute(2, 0, 1).float() / 255
        assert colorfulness(rgb).item() == pytest.approx(row["colorfulness"], abs=0.0051)


# Gradients


@pytest.mark.parametrize("function", [
    linear_rgb_from_rgb, rgb_from_linear_rgb, lab_from_rgb, rgb_from_lab,
    gray_from_rgb, chroma_from_rgb, colorfulness,
], ids=lambda function: function.__name__)
def test_gradients_equal_differences(function):
    rgb = torch.cat([0.02 + 0.96 * random_rgb(3, 1, 6), random_rgb(3, 1, 4) / 50], dim=-1)
    scale = torch.tensor([100.0, 20, 20]).view(3, 1, 1) if function is rgb_from_lab else 1
    assert torch.autograd.gradcheck(function, (rgb * scale).requires_grad_())


def test_gradients_of_merge_equal_differences():
    gray, chroma = 0.1 + 0.8 * random_rgb(1, 1, 30), 1.5 * (random_rgb(2, 1, 30) - 0.5)
    assert torch.autograd.gradcheck(merge, (gray.requires_grad_(), chroma.requires_grad_()))


def test_gradients_of_ciede2000_equal_differences():
    plain = [*range(6), *range(15, 34)]  # the others lie on a kink: a gray, or hues opposite to each other
    lab1, lab2 = pixels(SHARMA[plain, :3]), pixels(SHARMA[plain, 3:6])
    inputs = lab1.requires_grad_(), lab2.requires_grad_()
    assert torch.autograd.gradcheck(ciede2000, inputs, atol=1e-4)


def gradients(function, *inputs: Tensor) -> list[Tensor]:
    inputs = tuple(x.clone().requires_grad_() for x in inputs)
    return list(torch.autograd.grad(function(*inputs).sum(), inputs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_gradients_are_finite_everywhere(dtype):
    slightly_out = torch.tensor(
        [-0.1, -1e-3, -1e-9, 0, 1e-30, 1e-9, 0.0031308, 0.04045, 0.5, 1, 1 + 1e-6, 1.1])
    values = torch.cartesian_prod(slightly_out, slightly_out, slightly_out).T.unsqueeze(1).to(dtype)
    for function in (linear_rgb_from_rgb, rgb_from_linear_rgb, lab_from_rgb):
        (slope,) = gradients(function, values)
        assert bool(slope.isfinite().all()), function.__name__
        assert bool((slope.abs() < 1e5).all()), function.__name__
    assert bool(gradients(rgb_from_lab, 100 * values)[0].isfinite().all())
    for flat in (torch.zeros(3, 4, 4), torch.full((3, 4, 4), 0.5), random_rgb(1, 4, 4).expand(3, -1, -1)):
        assert bool(gradients(colorfulness, flat.to(dtype))[0].isfinite().all())
    gray, chroma = (x.flatten(0, 2).to(dtype) for x in torch.broadcast_tensors(
        slightly_out.clamp(0, 1).view(-1, 1, 1, 1), slightly_out.view(1, -1, 1, 1)))
    chroma = torch.stack([chroma, -chroma.flip(0)]).view(2, 1, -1)
    for slope in gradients(merge, gray.view(1, 1, -1), chroma):
        assert bool(slope.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_gradients_of_ciede2000_are_finite_everywhere(dtype):
    tiny = [0, 1e-30, 1e-20, 1e-13, 1e-11, 1e-5, 1, 80]
    ab = [(sign_a * a, sign_b * b) for a, b in itertools.product(tiny, tiny)
          for sign_a, sign_b in ((1, 1), (-1, 1), (1, -1))]
    lab = pixels([(lightness, a, b) for lightness in (0, 50) for a, b in ab], dtype)
    first, second = lab.transpose(1, 2), lab  # every pair, each color with itself among them
    shape = (3, lab.shape[-1], lab.shape[-1])
    for slope in gradients(ciede2000, first.expand(shape), second.expand(shape)):
        assert bool(slope.isfinite().all())
    # From a loss on pixels down to gray, black and white, as a colorizer meets them when it starts.
    gray = torch.tensor([0, 1e-6, 0.02, 0.5, 1], dtype=dtype).view(1, 1, -1).expand(3, -1, -1)
    blue = torch.tensor([0, 0, 1], dtype=dtype).view(3, 1, 1).expand(gray.shape)
    for other in (gray, gray.flip(-1), blue):
        for slope in gradients(lambda x, y: ciede2000(lab_from_rgb(x), lab_from_rgb(y)),
                               gray, other):
            assert bool(slope.isfinite().all())


def test_ciede2000_can_be_descended():
    target = lab_from_rgb(random_rgb(3, 2, 4))
    rgb = torch.full((3, 2, 4), 0.5, dtype=torch.float64, requires_grad=True)  # starts as gray
    optimizer = torch.optim.Adam([rgb], lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        loss = ciede2000(lab_from_rgb(rgb), target).mean()
        loss.backward()
        optimizer.step()
    assert loss < 1


# One tint or several


def ramp_of_lab(a, b, side: int = 64) -> Tensor:
    """A picture (3, side, side) whose L* rises from 30 to 70 down the rows, with these a* and b*."""
    lightness = torch.linspace(30, 70, side, dtype=torch.float64)[:, None].expand(side, side)
    a, b = (torch.as_tensor(x, dtype=torch.float64).expand(side, side) for x in (a, b))
    return rgb_from_lab(torch.stack([lightness, a, b])).clamp(0, 1)


@pytest.mark.parametrize("tint", [0.0, 10.0, 25.0])
def test_the_spread_that_makes_a_tint_several(tint):
    """Around a parabola in L*, a* alternating by d from column to column leaves a residual of d."""
    rows = torch.linspace(-1, 1, 64, dtype=torch.float64)[:, None]
    curve = tint + 6 * rows - 5 * (rows.square() - rows.square().mean())
    columns = 1 - 2 * (torch.arange(64) % 2)
    limit = max(TINT_RESIDUAL, TINT_SHARE * tint)
    assert has_one_tint(ramp_of_lab(curve + 0.97 * limit * columns, 0))
    assert not has_one_tint(ramp_of_lab(curve + 1.03 * limit * columns, 0))


def test_grain_of_large_pictures_is_no_color():
    grain = 20 * (1 - 2 * (torch.arange(512) % 2))
    assert has_one_tint(ramp_of_lab(grain, 0, 512)) and not has_one_tint(ramp_of_lab(grain[:128], 0, 128))


def test_what_cannot_teach_color_is_read_as_without_color():
    """Training and use hold the same pictures for colored; but what is almost gray does not teach either."""
    rows = torch.linspace(0, 1, 64, dtype=torch.float64)[:, None]
    strong = ramp_of_lab(10 + 30 * rows, 40 * (rows - 0.5).square() + 30)  # cyanotypes and deep sepia look like that
    spot = ramp_of_lab(0, 0)
    spot[:, :6, :6] = torch.tensor([0.9, 0.1, 0.1])[:, None, None]
    pictures = {"toned": strong, "gray": ramp_of_lab(0, 0), "spot": spot,
                "colors": random_rgb(3, 8, 8).repeat_interleave(8, 1).repeat_interleave(8, 2)}  # fmt: skip
    colored = {}
    for name, rgb in pictures.items():
        levels = (255 * rgb).round().byte()
        colored[name] = (is_one_tint(levels), load_photo(levels.permute(1, 2, 0).numpy()).is_color)
    assert colored == {"toned": (True, False), "gray": (True, False), "spot": (True, True), "colors": (False, True)}
