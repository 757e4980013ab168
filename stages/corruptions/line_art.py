"""Line drawings of pictures: dark lines (0) on white (1), for networks that color drawings.

    xdog                 Winnemöller et al. 2012: a soft threshold on the difference of two Gaussians
    dilate_and_divide    gray over its dilation: what is darker than all around
    canny                Canny 1986: thin edges, by the gradient, followed from strong to weak

GPIC (arXiv 2109.14518) makes its drawings by "a series of operations" that is not known. In training one of these is
drawn for each picture, with parameters at random, so that a network does not learn the marks of one method. Numbers
are drawn from torch's global stream.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.color.spaces import gray_from_rgb

__all__ = ["METHODS", "canny", "dilate_and_divide", "drawn_line_art", "line_art", "xdog"]

METHODS = ("xdog", "dilate_and_divide", "canny")


def line_art(rgb: Tensor, method: str = "xdog") -> Tensor:
    """Drawings of pictures (B, 3, H, W) in [0, 1] by one method with its usual parameters: (B, 1, H, W) in [0, 1]."""
    if method not in METHODS:
        raise ValueError(f"line art is drawn by one of {', '.join(METHODS)}; got {method!r}")
    gray = gray_from_rgb(rgb)
    if method == "xdog":
        return xdog(gray)
    return canny(gray) if method == "canny" else dilate_and_divide(gray)


def drawn_line_art(rgb: Tensor) -> Tensor:
    """Drawings for training, method and parameters at random: (B, 3, H, W) in [0, 1] -> (B, 1, H, W) in [0, 1]."""
    with torch.autocast(rgb.device.type, enabled=False):
        return torch.cat([_drawn(gray[None]) for gray in gray_from_rgb(rgb)])


def _drawn(gray: Tensor) -> Tensor:
    method = METHODS[int(torch.randint(len(METHODS), ()))]
    first, second, third = torch.rand(3).tolist()
    if method == "xdog":
        return xdog(gray, 0.4 + 0.6 * first, tau=0.95 + 0.04 * second, sharpness=10 * 20**third)
    if method == "dilate_and_divide":
        return dilate_and_divide(gray, 3 + 2 * int(3 * first)) ** (1 + second)
    return canny(gray, 0.6 + 0.9 * first, high=0.2 + 0.3 * second)


def xdog(
    gray: Tensor, sigma: float = 0.7, *, ratio: float = 1.6, tau: float = 0.98, threshold: float = 0.0,
    sharpness: float = 50.0,
) -> Tensor:  # fmt: skip
    """Extended difference of Gaussians: (B, 1, H, W) in [0, 1] -> the same.

    With D = blur(sigma) - tau · blur(ratio · sigma): 1 where D >= threshold, else 1 + tanh(sharpness · (D - threshold))
    """
    difference = _blurred(gray, sigma) - tau * _blurred(gray, ratio * sigma)
    below = (difference - threshold).clamp_max(0)
    return 1 + torch.tanh(sharpness * below)


def dilate_and_divide(gray: Tensor, side: int = 5) -> Tensor:
    """gray / (the largest value of a square of `side`, odd, around it): (B, 1, H, W) in [0, 1] -> the same."""
    dilated = F.max_pool2d(gray, side, 1, side // 2)
    return torch.where(dilated > 0, gray / dilated.clamp_min(1e-6), torch.ones_like(gray))


def canny(gray: Tensor, sigma: float = 1.0, *, low: float | None = None, high: float = 0.3) -> Tensor:
    """Edges one pixel wide: (B, 1, H, W) in [0, 1] -> 0 on edges, else 1.

    low, high: of the Sobel gradient, which is 4 at a step from 0 to 1 before it is blurred: edges are what exceeds
        `high`, and what exceeds `low` and hangs together with it. low: None: half of `high`
    """
    smooth = F.pad(_blurred(gray, sigma), (1, 1, 1, 1), mode="replicate")
    across = smooth.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])[None, None]
    dx, dy = F.conv2d(smooth, across), F.conv2d(smooth, across.mT)
    size = torch.hypot(dx, dy)
    # The two neighbors along the gradient, to the nearest eighth of a turn.
    octant = (torch.atan2(dy, dx) * (4 / math.pi)).round().long() % 4
    padded, (height, width) = F.pad(size, (1, 1, 1, 1)), size.shape[-2:]

    def shifted(y: int, x: int) -> Tensor:
        return padded[..., 1 + y : 1 + y + height, 1 + x : 1 + x + width]

    thin = torch.zeros_like(size, dtype=torch.bool)
    for number, (y, x) in enumerate([(0, 1), (1, 1), (1, 0), (1, -1)]):
        thin |= (octant == number) & (size >= shifted(-y, -x)) & (size > shifted(y, x))
    weak = thin & (size > (high / 2 if low is None else low))
    edges = weak & (size > high)
    while True:
        grown = weak & (F.max_pool2d(edges.float(), 3, 1, 1) > 0)
        if torch.equal(grown, edges):
            return (~edges).to(gray.dtype)
        edges = grown


def _blurred(gray: Tensor, sigma: float) -> Tensor:
    """A Gaussian blur, replicated at the borders."""
    radius = max(1, math.ceil(3 * sigma))
    offset = torch.arange(-radius, radius + 1, device=gray.device, dtype=gray.dtype)
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2)
    kernel = (kernel / kernel.sum())[None, None, None]
    padded = F.pad(gray, (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel), kernel.mT)
