"""Imitations of old prints: what film, lens, paper and time do to gray, for the input of a colorizer in training.

Modern photographs without their color are panchromatic, sharp, clean and use the whole range from black to white. Old
ones are not. The color to be learned stays that of the photograph; only what the network is shown ages.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.color.spaces import gray_from_rgb

BLUE_FILM = (0.02, 0.40, 0.58)  # red, green, blue: orthochromatic plates see no red, the oldest little but blue
WORST_BLUR = 1.2  # pixels, standard deviation
WORST_GRAIN = 0.04  # standard deviation; the gray spans 1
BLUR_RADIUS = 3


def film_degraded(rgb: Tensor, share: float) -> Tensor:
    """The gray of photographs, a share of them as old prints of these scenes.

    In this order: the film's sensitivity to colors, exposure and contrast (highlights may blow out), the lens's
    softness, uneven fading, grain, the black and white of paper. Amounts are drawn per picture and mostly small.
    rgb: (B, 3, H, W) in [0, 1] -> (B, 1, H, W) in [0, 1]
    """
    gray = gray_from_rgb(rgb)
    if share == 0:
        return gray
    with torch.autocast(rgb.device.type, enabled=False):  # half precision has no room for 8-bit grays
        return _degraded(rgb, gray, share)


def _degraded(rgb: Tensor, gray: Tensor, share: float) -> Tensor:
    batch, _, height, width = rgb.shape
    chosen, film, exposure, contrast, blur, fading, grain, black, white = torch.rand(9, batch, 1, 1, 1).to(rgb.device)
    plate = sum(weight * channel for weight, channel in zip(BLUE_FILM, rgb.split(1, dim=1), strict=True))
    old = torch.lerp(gray, plate, (2 * film - 1).clamp_min(0))  # half of them on film that sees all colors
    old = (old * 2 ** (exposure - 0.4)).clamp(0, 1)  # encoded gray times 0.76 to 1.5
    old = old ** 2 ** (2 * contrast - 1)  # gamma 1/2 to 2
    old = blurred(old, WORST_BLUR * blur.square().flatten())
    patches = torch.randn(batch, 1, 4, 4).to(rgb.device)
    patches = F.interpolate(patches, (height, width), mode="bilinear", align_corners=False)
    old = old * (1 + 0.1 * fading * patches)
    # Of all draws the one that is large: made where it is used, so on another device it is other grain.
    old = old + WORST_GRAIN * grain.square() * torch.randn(batch, 1, height, width, device=rgb.device)
    black, white = 0.2 * black.square(), 1 - 0.25 * white.square()
    return torch.where(chosen < share, (black + (white - black) * old).clamp(0, 1), gray)


def blurred(picture: Tensor, sigma: Tensor) -> Tensor:
    """A Gaussian blur of an own width per picture: (B, 1, H, W), sigma (B,) in pixels, at most about 1.4."""
    offset = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=picture.device, dtype=picture.dtype)
    kernel = torch.exp(-0.5 * (offset / sigma[:, None].clamp_min(1e-3)) ** 2)
    kernel = kernel / kernel.sum(1, keepdim=True)
    padded = F.pad(picture.transpose(0, 1), (BLUR_RADIUS,) * 4, mode="replicate")  # pictures as channels
    across = F.conv2d(padded, kernel[:, None, None, :], groups=len(picture))
    return F.conv2d(across, kernel[:, None, :, None], groups=len(picture)).transpose(0, 1)
