"""Conditioning augmentation: what a stage is shown in training is made as imperfect as what it will get in use.

Ho et al. 2022 (cascaded diffusion, arXiv 2106.15282) and SR3 (arXiv 2104.07636) blur and noise the low-resolution
input of an upsampler; without it the upsampler trusts every error of the stage before it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.color.resample import resize, upsample2x


def sharp_gray(gray: Tensor, side: int) -> Tensor:
    """A photograph as a stage 1 of this `gray_side` sees it: gray (B, 1, H, W) -> (B, 1, side, side), in [0, 1].

    Reduced where it is large enough; else, as small pictures are in training, enlarged from half of the side.
    """
    if min(gray.shape[-2:]) >= side:
        return resize(gray, (side, side))
    return upsample2x(resize(gray, (side // 2, side // 2))).clamp(0, 1)


def disturbed_chroma(chroma: Tensor, strength: float, untouched: float = 0.25) -> Tensor:
    """Chroma with a blur and a noise whose amounts are drawn per picture; a share of the pictures stays as it is.

    Noise is drawn at several grains, from single pixels to patches of eight: a colorizer's errors are rarely single
    pixels.
    chroma: (B, 2, H, W); strength: largest standard deviation of the noise, in units of chroma; untouched: share
    of the pictures left as they are -> (B, 2, H, W)
    """
    if strength == 0:
        return chroma
    batch, _, height, width = chroma.shape
    amount, softness = (torch.rand(batch, 1, 1, 1).to(chroma.device) for _ in range(2))
    kept = (torch.rand(batch, 1, 1, 1) < untouched).to(chroma.device)
    noise = torch.zeros_like(chroma)
    for grain in (1, 2, 4, 8):
        share = torch.rand(batch, 1, 1, 1).to(chroma.device)
        coarse = torch.randn(batch, 2, -(-height // grain), -(-width // grain)).to(chroma.device)
        noise = noise + share * F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    blurred = F.avg_pool2d(chroma, 3, 1, 1, count_include_pad=False)
    blurred = F.avg_pool2d(blurred, 3, 1, 1, count_include_pad=False)
    disturbed = torch.lerp(chroma, blurred, softness) + strength * amount * noise / 2
    return torch.where(kept, chroma, disturbed)


def stray_detail(gray: Tensor, strength: float, untouched: float = 0.5) -> Tensor:
    """Chroma that colorizers wrongly give to what is fine in the gray picture: a share of its detail that varies from
    place to place. Errors of this kind follow the picture's own edges and can not be told from true colors.

    gray: (B, 1, H, W); strength: largest standard deviation of the shares; untouched: share of the pictures that get
    none -> (B, 2, H, W), to be added to chroma
    """
    batch, _, height, width = gray.shape
    stray = gray.new_zeros(batch, 2, height, width)
    touched = (torch.rand(batch, 1, 1, 1) >= untouched).to(gray.device)
    for side in (3, 9):
        detail = gray - F.avg_pool2d(gray, side, 1, side // 2, count_include_pad=False)
        amount = torch.rand(batch, 1, 1, 1).to(gray.device)
        shares = torch.randn(batch, 2, -(-height // 8), -(-width // 8)).to(gray.device)
        shares = F.interpolate(shares, (height, width), mode="bilinear", align_corners=False)
        stray = stray + touched * strength * amount * shares * detail
    return stray
