"""The full-resolution merge: exact luma, strips that do not show, memory that runs out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline import full_resolution as fullres
from pipeline.full_resolution import full_size_rgb, is_out_of_memory, sharpened
from stages.color.guided_filter import enlarge_chroma
from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, gray_from_rgb, merge

SIZES = [(300, 500), (256, 256), (23, 17), (150, 1200), (601, 40), (1, 400), (400, 1), (1, 1), (257, 256)]


def picture(height: int, width: int, side: int = 256, seed: int = 0):
    """A photo's gray (H, W) and a colored small picture (3, side, side) of it."""
    generator = torch.Generator().manual_seed(seed)
    rough = torch.rand(1, 1, 12, 12, generator=generator)
    gray = resize(rough, (height, width)) + 0.05 * torch.rand(1, 1, height, width, generator=generator)
    gray = (gray.clamp(0, 1) * 255).round() / 255
    chroma = resize(torch.rand(1, 2, 9, 9, generator=generator) - 0.5, (side, side))
    return gray[0, 0].numpy(), merge(resize(gray, (side, side)), chroma)[0]


def luma(rgb: np.ndarray) -> np.ndarray:
    return rgb.astype(np.float64) @ np.array([0.299, 0.587, 0.114])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", [64, 256])
def test_luma_is_the_photos_own(size, side):
    gray, low = picture(size[0], size[1], side)
    exact = full_size_rgb(gray, low, None).rgb
    assert exact.shape == (3, *size) and exact.dtype == torch.float32
    assert np.abs(gray_from_rgb(exact)[0].numpy() - gray).max() <= 1e-4
    for depth, peak in ((8, 255), (16, 65535)):
        levels = full_size_rgb(gray, low, depth).rgb
        assert levels.shape == (*size, 3) and levels.dtype == (np.uint8 if depth == 8 else np.uint16)
        error = np.abs(luma(levels) - gray.astype(np.float64) * peak)
        assert error.max() <= 0.5 + 0.003 * (depth == 16)  # float32 holds a 16-bit level to 0.003
        assert error.mean() <= 0.3


@pytest.mark.parametrize("size", [(300, 500), (150, 1200), (23, 17), (700, 3)])
@pytest.mark.parametrize("depth", [8, 16, None])
def test_strips_give_the_bytes_of_the_whole(size, depth, monkeypatch):
    gray, low = picture(*size)
    whole = full_size_rgb(gray, low, depth, strip_rows=size[0]).rgb
    for rows in (1, 7, 64):
        strips = full_size_rgb(gray, low, depth, strip_rows=rows)
        assert strips.strip_rows == min(rows, size[0])
        assert bytes(np.asarray(strips.rgb)) == bytes(np.asarray(whole))
    monkeypatch.setattr(fullres, "BLOCK_COLUMNS", 37)
    assert bytes(np.asarray(full_size_rgb(gray, low, depth).rgb)) == bytes(np.asarray(whole))


def test_sharpness_adds_to_edges_and_to_nothing_else():
    gray = torch.full((1, 1, 40, 60), 0.5)
    rgb = merge(gray, torch.tensor([0.05, -0.02]).reshape(1, 2, 1, 1).repeat(1, 1, 40, 60))
    rgb[..., 30:] = merge(gray, torch.tensor([-0.04, 0.06]).reshape(1, 2, 1, 1).repeat(1, 1, 40, 60))[..., 30:]
    assert sharpened(gray, rgb, 0) is rgb
    chroma, found = chroma_from_rgb(rgb), chroma_from_rgb(sharpened(gray, rgb, 0.5))
    torch.testing.assert_close(found[..., :26], chroma[..., :26])  # 4 pixels and more from the edge: as it was
    torch.testing.assert_close(found[..., 34:], chroma[..., 34:])
    # The window at column 29 is 5 parts of the left color and 4 of the right one.
    step = chroma[0, :, 0, 0] - chroma[0, :, 0, -1]
    torch.testing.assert_close(found[0, :, 7, 29], chroma[0, :, 0, 0] + 0.5 * 4 / 9 * step)
    torch.testing.assert_close(gray_from_rgb(sharpened(gray, rgb, 0.5)), gray)


def test_agrees_with_the_guided_enlargement_of_the_stages():
    gray, low = picture(300, 500)
    high = torch.from_numpy(gray)[None, None]
    chroma = enlarge_chroma(chroma_from_rgb(low)[None], gray_from_rgb(low)[None], high)
    torch.testing.assert_close(full_size_rgb(gray, low, None).rgb, merge(high, chroma)[0], atol=2e-5, rtol=0)


def test_a_photo_of_the_small_size_keeps_every_color():
    gray, low = picture(256, 256)
    torch.testing.assert_close(full_size_rgb(gray, low, None).rgb, low, atol=1e-5, rtol=0)


def test_a_smaller_photo_takes_the_average_color():
    gray, low = picture(64, 32)
    chroma = F.adaptive_avg_pool2d(chroma_from_rgb(low)[None], (64, 32))
    expected = merge(torch.from_numpy(gray)[None, None], chroma)[0]
    torch.testing.assert_close(full_size_rgb(gray, low, None).rgb, expected, atol=1e-5, rtol=0)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_out_of_memory_halves_the_strips(error, monkeypatch):
    gray, low = picture(100, 60)
    expected = full_size_rgb(gray, low, 8)
    assert expected.halvings == 0
    real, sizes = fullres._strip, []

    def scarce(wide, gray, *rest):
        sizes.append(len(gray))
        if len(gray) > 30:
            raise error
        return real(wide, gray, *rest)

    monkeypatch.setattr(fullres, "_strip", scarce)
    result = full_size_rgb(gray, low, 8)
    assert sizes == [100, 50, 25, 25, 25, 25]
    assert (result.strip_rows, result.halvings) == (25, 2)
    assert np.array_equal(result.rgb, expected.rgb)


def test_gives_up_when_one_row_does_not_fit(monkeypatch):
    gray, low = picture(40, 40)
    sizes = []

    def none_left(wide, gray, *rest):
        sizes.append(len(gray))
        raise MemoryError

    monkeypatch.setattr(fullres, "_strip", none_left)
    with pytest.raises(MemoryError):
        full_size_rgb(gray, low, 8)
    assert sizes == [40, 20, 10, 5, 2, 1]


def test_other_errors_are_not_taken_for_memory(monkeypatch):
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(OSError("out of memory"))
    gray, low = picture(40, 40)
    calls = []

    def broken(*_):
        calls.append(1)
        raise RuntimeError("broken")

    monkeypatch.setattr(fullres, "_strip", broken)
    with pytest.raises(RuntimeError, match="broken"):
        full_size_rgb(gray, low, 8)
    assert len(calls) == 1


@pytest.mark.cuda
def test_strips_on_cuda_agree_with_the_cpu():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    gray, low = picture(600, 500)
    there = full_size_rgb(gray, low, 8, device="cuda").rgb.astype(int)
    assert np.abs(there - full_size_rgb(gray, low, 8).rgb).max() <= 1
