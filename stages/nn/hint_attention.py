"""Known colors spread over the picture by attention: every place looks at all hints, however far away.

A hint says by how much the picture at hand is wrong in one place. Where else it is wrong by the same amount is a
question of what belongs together, which the features of a gray encoder know better than the luma does. So each place i
takes from each hint j the share

    a_ij = w_j exp(l_ij) / (exp(s_i) + sum_k w_k exp(l_ik)),
    l_ij = <q_i, k_j> / sqrt(d) - b |x_i - x_j| - c |gray_i - gray_j|,

with queries and keys from the features, the distance and the difference in luma beside them, and s, "none of these
hints is about me", learned from the features too. Without hints all shares are exactly 0.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.nn.blocks import ResidualBlock, zero

__all__ = ["HintAttention"]

FALLOFF = (2.0, 6.0)  # b of the first and the last head at the start: the share is halved at 0.35 and 0.12 of a side
LUMA_FALLOFF = 8.0  # c at the start: halved at a tenth of the way from black to white


class HintAttention(nn.Module):
    """What hints change in the features and in the preview of a coarse colorizer.

    features: channels of the encoder's features on the 16x16 grid; width: of queries and keys, per head
    """

    def __init__(self, features: int, heads: int = 4, width: int = 32) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.query = nn.Conv2d(features + 4, heads * width, 1)
        self.key = nn.Conv2d(features + 4, heads * width, 1)
        self.none = nn.Conv2d(features + 4, heads, 1)  # s
        self.mix = nn.Conv2d(features + 4, heads, 1)  # which head to believe
        nn.init.normal_(self.query.weight, std=0.02)
        nn.init.normal_(self.key.weight, std=0.02)
        nn.init.constant_(zero(self.none).bias, -1.0)  # type: ignore[arg-type]
        zero(self.mix)
        falloff = torch.linspace(math.log(FALLOFF[0]), math.log(FALLOFF[1]), heads)
        self.falloff = nn.Parameter(falloff)  # ln b
        self.luma_falloff = nn.Parameter(torch.full((heads,), math.log(LUMA_FALLOFF)))  # ln c
        self.read = nn.Conv2d(features + 16, features, 3, padding=1)
        self.block = ResidualBlock(features)
        self.write = zero(nn.Conv2d(features, features, 1))
        self.correct = zero(nn.Conv2d(features, 8, 1))

    def forward(self, features: Tensor, gray64: Tensor, preview: Tensor, hints: Tensor) -> tuple[Tensor, Tensor]:
        """What the hints make of features (B, C, 16, 16) and preview (B, 2, 32, 32): both anew.

        gray64: (B, 1, 64, 64); hints: (B, 3, 32, 32), weight and chroma · weight, in the units of the preview
        """
        weight, known = hints[:, :1], hints[:, 1:]
        wrong = known - weight * preview  # by weight
        spread, trust = self._spread(features, gray64, weight, wrong)
        # What is known about each 2x2 patch: the spread correction, how much it is to be trusted, hints and weights.
        patches = F.pixel_unshuffle(torch.cat([spread, trust, weight], 1), 2)
        x = self.block(self.read(torch.cat([features, patches], 1)))
        at16 = F.avg_pool2d(trust, 2)  # 0 without hints, and then nothing changes
        features = features + at16 * self.write(x).float()
        correction = F.pixel_shuffle(at16 * self.correct(x).float(), 2)
        return features, preview + spread + correction

    def _spread(self, features: Tensor, gray64: Tensor, weight: Tensor, wrong: Tensor) -> tuple[Tensor, Tensor]:
        """The hints' corrections at each place (B, 2, 32, 32), and the share of them all (B, 1, 32, 32)."""
        with torch.autocast(features.device.type, enabled=False):  # shares are small differences of large logits
            fine = F.interpolate(features.float(), scale_factor=2.0, mode="bilinear", align_corners=False)
            detail = F.pixel_unshuffle(gray64.float() - 0.5, 2)
            seen = torch.cat([fine, detail], dim=1)
            gray, total = F.avg_pool2d(gray64.float(), 2), 4 * F.avg_pool2d(weight, 2)

            def pooled(x: Tensor) -> Tensor:
                """Mean over the hints of each 2x2 patch: (B, C, 32, 32) -> (B, C, 256)."""
                return (4 * F.avg_pool2d(weight * x, 2) / total.clamp_min(1e-6)).flatten(2)

            query = self.query(seen).unflatten(1, (self.heads, self.width)).flatten(3)
            key = pooled(self.key(seen)).unflatten(1, (self.heads, self.width)) / math.sqrt(self.width)
            apart = torch.cdist(_positions(32, gray), _positions(16, gray))
            unlike = (gray.flatten(2).mT - pooled(gray)).abs()  # (B, 1024, 256)
            # ln w, or nothing to see in a patch without hints, whatever its logits say: one row more of the keys.
            weighed = total.clamp(max=1).log().flatten(2)[:, None].expand(-1, self.heads, -1, -1)
            query, key = torch.cat([query, torch.ones_like(query[:, :, :1])], 2), torch.cat([key, weighed], 2)
            # In place, for these are the largest tensors by far: (B, heads, 1024, 256).
            logits = query.mT @ key
            logits -= self.falloff.exp()[:, None, None] * apart
            logits -= self.luma_falloff.exp()[:, None, None] * unlike[:, None]
            none = self.none(seen).flatten(2)[..., None]
            shares = torch.cat([none, logits], dim=-1).softmax(-1)[..., 1:]
            shares = (self.mix(seen).softmax(1).flatten(2)[..., None] * shares).sum(1)  # (B, 1024, 256)
            value = (4 * F.avg_pool2d(wrong.float(), 2) / total.clamp_min(1e-6)).flatten(2)
            spread = (value @ shares.mT).unflatten(2, (32, 32))
            return spread, shares.sum(-1).unflatten(1, (32, 32))[:, None]


def _positions(side: int, like: Tensor) -> Tensor:
    """Centers of a grid's cells, as shares of its side: (side², 2)."""
    center = (torch.arange(side, device=like.device, dtype=like.dtype) + 0.5) / side
    return torch.cartesian_prod(center, center)
