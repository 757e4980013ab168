"""Whether a picture shows more than one tint: what tells a color photograph from a scan of a gray or toned print."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.color.spaces import lab_from_rgb

# Scans of one-color prints reach 0.8 and 0.10. Of 1200 color photographs 7 lie below, all of a single vivid color.
TINT_RESIDUAL, TINT_SHARE = 1.6, 0.12
COMPARED_SIDE = 128  # averaging to about this side removes grain and the noise of JPEG


def has_one_tint(rgb: Tensor) -> bool:
    """Whether a picture is gray or has a single tint (sepia): its a*, b* are a smooth function of its lightness.

    It has where what a parabola in L* leaves of them is, as root mean square, at most TINT_RESIDUAL CIELAB units or
    TINT_SHARE of the mean tint.
    rgb: (3, H, W) in [0, 1], on the CPU
    """
    height, width = rgb.shape[-2:]
    block = -(-max(height, width) // COMPARED_SIDE)
    if block <= min(height, width):
        rgb = F.avg_pool2d(rgb, block)
    lab = lab_from_rgb(rgb.float()).double().flatten(1)
    lightness, ab = lab[0] / 100, lab[1:].T
    powers = torch.stack([torch.ones_like(lightness), lightness, lightness**2], dim=1)
    fit = powers @ torch.linalg.lstsq(powers, ab, driver="gelsd").solution  # a flat picture has no parabola of its own
    residual = (ab - fit).square().sum(1).mean().sqrt()
    tint = torch.linalg.vector_norm(ab.mean(0))
    return bool(residual <= torch.clamp(TINT_SHARE * tint, min=TINT_RESIDUAL))
