"""Colors that go from frame to frame along the flow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.video.flow import Link, sampled

__all__ = ["Colors", "carried", "continued", "known", "mixed"]

STALE = 0.1  # of luma: so far from that at which a color was chosen, its trust falls to exp(-1/2)
# Of a color that is carried, at each key frame: every sampling between pixels blurs a little, and what is fresh has the
# edges of the last stage.
RENEWED = 0.1
CELL = 4
LEAST = 0.02  # weight of what is trusted by nobody, so that there is a color everywhere


@dataclass(frozen=True, eq=False)
class Colors:
    """Of a frame. chroma: (2, 256, 256); origin: (1, 256, 256), the luma at which each color was chosen: a color of a
    thing in the dark is none of it in the light.
    """

    chroma: Tensor
    origin: Tensor


def carried(colors: Colors, link: Link) -> Colors:
    """The colors of the key as the frame of the link shows them."""
    planes = sampled(torch.cat([colors.chroma, colors.origin]), link.displacement)
    return Colors(planes[:2], planes[2:])


def known(gray: Tensor, colors: Colors, link: Link) -> Tensor:
    """How far carried colors hold for a frame, (1, 256, 256) in [0, 1]. gray: (1, 256, 256) of the frame"""
    return link.trust * torch.exp(-(gray - colors.origin).square() / (2 * STALE**2))


def continued(gray: Tensor, colors: Colors, trust: Tensor, fresh: Tensor) -> Colors:
    """Carried colors where they hold, but for the share RENEWED, elsewhere fresh chroma (2, 256, 256) of the frame.

    What is renewed has the means of 4x4 pixels of what is carried, so only its edges are new, and no color drifts.
    """
    apart = F.avg_pool2d((trust * (colors.chroma - fresh))[None], CELL)
    fresh = fresh + F.interpolate(apart, scale_factor=CELL, mode="bilinear", align_corners=False)[0]
    trust = (1 - RENEWED) * trust
    return Colors(torch.lerp(fresh, colors.chroma, trust), torch.lerp(gray, colors.origin, trust))


def mixed(before: Colors, to_before: Link, after: Colors, to_after: Link, share: float) -> Tensor:
    """The chroma of a frame between two key frames, (2, 256, 256), from both along the flow.

    share: of the way from the one to the other, in (0, 1)
    """
    first = (1 - share) * to_before.trust.clamp_min(LEAST)
    second = share * to_after.trust.clamp_min(LEAST)
    one, other = (sampled(key.chroma, link.displacement) for key, link in ((before, to_before), (after, to_after)))
    return torch.lerp(one, other, second / (first + second))
