"""What of a picture a reference decides: linear maps for the correction `ilvr`.

ILVR (Choi et al. 2021, arXiv 2108.02938) reduces and enlarges again by a factor N: `bicubic` as in the authors' code
(Keys' kernel with a = -0.5, stretched by N when reducing, pixel edges aligned, weights that sum to 1, mirrored
borders), or `box`, means of squares. The box is a projection, so what it keeps of a result is exactly what it keeps of
the reference; the bicubic one is not. `luma` keeps the luma of every pixel, also a projection: an unconditional model
then colors a gray picture. `with_luma` keeps luma, and of chroma what a low pass keeps: luma from one picture, colors
from another.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.color.spaces import LUMA_BLUE, LUMA_GREEN, LUMA_RED
from stages.options import OptionError
from stages.precision import full_precision

__all__ = ["LOW_PASSES", "LowPass", "bicubic", "bicubic_weights", "box", "luma", "with_luma"]

LowPass = Callable[[Tensor], Tensor]
KEYS = -0.5


def bicubic(factor: int) -> LowPass:
    """x (B, C, H, W), sides multiples of the factor -> the same shape, reduced and enlarged bicubically."""

    def low_pass(x: Tensor) -> Tensor:
        rows, columns = (_passed(length, factor).to(x) for length in _checked(x, factor))
        with full_precision(x.device):
            return rows @ x @ columns.mT

    return low_pass


def box(factor: int) -> LowPass:
    """x (B, C, H, W), sides multiples of the factor -> the same shape, means of squares of that side."""

    def low_pass(x: Tensor) -> Tensor:
        _checked(x, factor)
        return F.avg_pool2d(x, factor).repeat_interleave(factor, -1).repeat_interleave(factor, -2)

    return low_pass


LOW_PASSES: dict[str, Callable[[int], LowPass]] = {"bicubic": bicubic, "box": box}


def luma(x: Tensor) -> Tensor:
    """The part of colors (B, 3, H, W) along w, the weights of Rec. 601 luma: w (w · x) / (w · w)."""
    weights = x.new_tensor([LUMA_RED, LUMA_GREEN, LUMA_BLUE])[:, None, None]
    return weights * ((weights * x).sum(1, keepdim=True) / weights.square().sum())


def with_luma(low_pass: LowPass) -> LowPass:
    """All of the luma, and of the rest what the low pass keeps."""

    def both(x: Tensor) -> Tensor:
        kept = luma(x)
        return kept + low_pass(x - kept)

    return both


@cache
def bicubic_weights(before: int, after: int) -> Tensor:
    """Resampling of a row as a matrix, (after, before) float64: see the module."""
    scale = after / before
    width = min(scale, 1.0)  # the kernel is stretched when reducing
    center = (torch.arange(after, dtype=torch.float64) + 0.5) / scale - 0.5
    reach = int(2 / width) + 1
    place = center.floor().long()[:, None] + torch.arange(-reach, reach + 1)
    share = _keys((center[:, None] - place) * width)
    share = share / share.sum(1, keepdim=True)
    mirrored = place % (2 * before)
    mirrored = torch.where(mirrored < before, mirrored, 2 * before - 1 - mirrored)
    return torch.zeros(after, before, dtype=torch.float64).scatter_add_(1, mirrored, share)


@cache
def _passed(length: int, factor: int) -> Tensor:
    """Reduced and enlarged: (length, length) float64."""
    small = length // factor
    return bicubic_weights(small, length) @ bicubic_weights(length, small)


def _keys(x: Tensor) -> Tensor:
    """Keys' cubic kernel (Keys 1981, eq. 14), 0 from 2 on."""
    x, a = x.abs(), KEYS
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return torch.where(x <= 1, near, torch.where(x < 2, far, 0.0))


def _checked(x: Tensor, factor: int) -> tuple[int, int]:
    height, width = x.shape[-2:]
    if factor < 1 or height % factor or width % factor:
        raise OptionError(f"the sides of a picture must be multiples of the factor {factor}; got {height}x{width}")
    return height, width
