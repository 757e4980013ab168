"""Photographs made of numbers, and what tests ask of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from pipeline.output import ColorPipelineOutput
from pipeline.sources import noise_sources, photo_from
from stages.faces import GrayView
from stages.seeds import NoiseSource


def photo(height: int, width: int, seed: int = 0, dtype: Any = np.uint8) -> np.ndarray:
    peak = np.iinfo(dtype).max
    ramp = np.linspace(0, peak, width)[None] * np.linspace(1, 0.2, height)[:, None]
    noise = np.random.default_rng(seed).normal(0, peak / 16, (height, width))
    return np.clip(ramp + noise, 0, peak).astype(dtype)


def luma(rgb: np.ndarray) -> np.ndarray:
    return rgb.astype(np.float64) @ np.array([0.299, 0.587, 0.114])


def same(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Whether two lists hold the same pictures, bit for bit."""
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def maps(output: ColorPipelineOutput) -> list[Any]:
    """The uncertainty maps of an output that has them."""
    assert output.uncertainty is not None
    return output.uncertainty


def noise_of(gray: np.ndarray, seed: int) -> NoiseSource:
    return noise_sources([photo_from(gray)], [seed], [None])[0]


def streams(gray: np.ndarray, seed: int, count: int, purpose: str = "stage1") -> list[Generator]:
    """Those of the first candidates of a photograph."""
    return [noise_of(gray, seed).generator(k, purpose) for k in range(count)]


def plane(gray: np.ndarray) -> Tensor:
    """An 8-bit photograph as (1, 1, H, W) in [0, 1]."""
    return torch.from_numpy(gray / 255).float()[None, None]


def view(*grays: np.ndarray) -> GrayView:
    return GrayView.cat([GrayView.of(plane(gray)) for gray in grays])
