"""Line art: the formulas, and edges against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, gaussian_filter, maximum_filter
from skimage.feature import canny as skimage_canny

from stages.corruptions.line_art import METHODS, canny, dilate_and_divide, drawn_line_art, line_art, xdog


def scene() -> torch.Tensor:
    """A disk and a square of other grays: (1, 1, 48, 64)."""
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    gray = torch.full((48, 64), 0.8)
    gray[10:30, 36:56] = 0.3
    gray[torch.hypot(y - 24, x - 18) < 11] = 0.45
    return gray[None, None]


def test_xdog_against_its_formula():
    gray = scene() + 0.05 * torch.rand(1, 1, 48, 64)
    one, two = (gaussian_filter(gray[0, 0].double().numpy(), s, mode="nearest", truncate=5) for s in (0.7, 1.12))
    difference = one - 0.97 * two
    expected = np.where(difference >= 0.01, 1, 1 + np.tanh(30 * (difference - 0.01)))
    made = xdog(gray, 0.7, tau=0.97, threshold=0.01, sharpness=30)[0, 0].numpy()
    np.testing.assert_allclose(made, expected, atol=0.02)


def test_dilate_and_divide_against_its_formula():
    gray = torch.rand(1, 1, 20, 30)
    expected = gray[0, 0].numpy() / maximum_filter(gray[0, 0].numpy(), 5, mode="nearest")
    np.testing.assert_allclose(dilate_and_divide(gray, 5)[0, 0].numpy(), expected, rtol=1e-5)
    assert dilate_and_divide(torch.zeros(1, 1, 5, 5)).min() == 1  # black has no lines


def test_canny_finds_the_edges_of_scikit_image():
    gray = scene()
    ours = canny(gray, 1.0, low=0.3, high=0.6)[0, 0].numpy() == 0
    # Its gradients are the same Sobel sums.
    theirs = skimage_canny(gray[0, 0].numpy(), 1.0, 0.3, 0.6, mode="nearest")
    assert theirs.sum() > 80
    near = binary_dilation(theirs, np.ones((3, 3)))
    assert (ours & near).sum() / ours.sum() > 0.98
    assert (theirs & binary_dilation(ours, np.ones((3, 3)))).sum() / theirs.sum() > 0.98
    assert 0.75 * theirs.sum() < ours.sum() <= theirs.sum()  # as thin; of two equal neighbors theirs keeps both


def test_canny_follows_strong_edges_into_weak_ones():
    gray = torch.full((1, 1, 24, 60), 0.5)
    gray[..., 12:, :] += torch.linspace(0.3, 0.02, 60)  # an edge that fades
    gray[..., 2:5, 50:54] += 0.06  # as weak, but alone
    edges = canny(gray, 1.0, low=0.15, high=0.5)[0, 0] == 0
    strong = canny(gray, 1.0, low=0.5, high=0.5)[0, 0] == 0
    assert edges[10:14].any(0).sum() > strong[10:14].any(0).sum() + 5
    assert not edges[:6].any()


@pytest.mark.parametrize("method", METHODS)
def test_lines_are_dark_on_white(method):
    rgb = scene().expand(-1, 3, -1, -1)
    drawing = line_art(rgb, method)
    assert drawing.shape == (1, 1, 48, 64) and drawing.min() >= 0 and drawing.max() <= 1
    assert drawing[0, 0, 2:6, 2:60].min() > 0.95  # nothing happens there
    assert drawing[0, 0, 8:32, 34:58].min() < 0.6


def test_an_unknown_method():
    with pytest.raises(ValueError, match="one of xdog, dilate_and_divide, canny; got 'sobel'"):
        line_art(torch.zeros(1, 3, 8, 8), "sobel")


def test_parameters_are_drawn_from_the_seed():
    rgb = torch.rand(12, 3, 24, 24)
    torch.manual_seed(0)
    first = drawn_line_art(rgb)
    torch.manual_seed(0)
    assert torch.equal(drawn_line_art(rgb), first)
    torch.manual_seed(1)
    assert not torch.equal(drawn_line_art(rgb), first)
    same = drawn_line_art(rgb[:1].expand(12, -1, -1, -1))
    assert len({one.numpy().tobytes() for one in same}) == 12
