"""JPEG for training: the law of qualities, and real compression."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from stages.corruptions.jpeg import drawn_qualities, jpeg_compressed


def test_qualities_follow_their_law():
    torch.manual_seed(0)
    drawn = np.array(drawn_qualities(50_000))
    chances = np.exp(-np.arange(5, 31) / 10)
    chances /= chances.sum()
    counts = np.bincount(drawn, minlength=31)
    assert counts[:5].sum() == 0 and len(counts) == 31
    error = (counts[5:] - 50_000 * chances) / np.sqrt(50_000 * chances * (1 - chances))
    assert np.abs(error).max() < 4 and 0.5 < np.square(error).mean() < 2
    assert counts[5] / counts[15] == pytest.approx(math.e, rel=0.08)


def test_pictures_come_back_as_from_a_file():
    torch.manual_seed(0)
    rgb = torch.rand(2, 3, 8, 8).repeat_interleave(3, 2).repeat_interleave(3, 3)  # 24x24, smooth enough
    rough, fine = jpeg_compressed(rgb, [5, 30])
    assert rough.dtype == torch.float32 and rgb.shape[1:] == rough.shape
    for picture, original, quality in ((rough, rgb[0], 5), (fine, rgb[1], 30)):
        file = io.BytesIO()
        Image.fromarray((original * 255).round().byte().permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
        expected = np.array(Image.open(file))
        assert np.array_equal((picture * 255).round().byte().permute(1, 2, 0).numpy(), expected)
    assert (rough - rgb[0]).abs().mean() > (fine - rgb[1]).abs().mean()


def test_a_quality_for_each():
    with pytest.raises(ValueError, match="a quality for each of 2 pictures; got 1"):
        jpeg_compressed(torch.zeros(2, 3, 8, 8), [5])
