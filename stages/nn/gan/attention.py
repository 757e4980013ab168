"""Self-attention of SAGAN (Zhang et al. 2018, arXiv 1805.08318), the one attention of generators and discriminators.

    y_j = x_j + gamma · W_o Σ_i softmax_i(k_i' q_j) v_i

q and k have C / 8 channels and v has C / 2, all by 1x1 convolutions without bias; the logits are not scaled. gamma is
one learned number that starts at 0, so the block starts as the identity. With `pooled` keys and values are the largest
of 2x2 positions: a quarter of the table of weights. Widths and pooling are those of the authors' code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.nn.attention import attention
from stages.nn.gan.layers import Convolution

__all__ = ["SelfAttention"]


class SelfAttention(nn.Module):
    """(B, C, H, W) -> (B, C, H, W); H and W at least 2 where keys are pooled."""

    def __init__(self, channels: int, pooled: bool = False) -> None:
        super().__init__()
        if channels % 8:
            raise ValueError(f"attention needs a multiple of 8 channels; got {channels}")
        self.pooled = pooled
        self.query = Convolution(channels, channels // 8, 1, bias=False)
        self.key = Convolution(channels, channels // 8, 1, bias=False)
        self.value = Convolution(channels, channels // 2, 1, bias=False)
        self.out = Convolution(channels // 2, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.pooled and min(x.shape[-2:]) < 2:
            raise ValueError(f"pooled keys need maps of 2x2 and more; got {tuple(x.shape[-2:])}: a larger side")
        query, key, value = self.query(x), self.key(x), self.value(x)
        if self.pooled:
            key, value = F.max_pool2d(key, 2), F.max_pool2d(value, 2)
        q, k, v = (one.flatten(2).mT.unsqueeze(2) for one in (query, key, value))
        seen = attention(q, k, v, scale=1.0)
        return x + self.gamma * self.out(seen.squeeze(2).mT.unflatten(2, x.shape[2:]))
