"""ColTran's conditional layers: what is known of a picture scales and shifts what a decoder computes.

Kumar, Weissenborn and Kalchbrenner 2021 (arXiv 2102.04432, Table 1), exactly as in the released code: scales are used
as they are, not as 1 + scale; the MLP's linear map gives the shift first, the two others the scale first. `one_plus`
changes the first of these, which makes training steadier.

Every layer splits in two: `prepare` turns the context into a scale and a shift, once per picture or row, and `forward`
uses them. That is what lets a sampler pay for a context once.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from stages.nn.attention import attention
from stages.nn.axial import AxialAttention, row_attention
from stages.nn.coltran.encoder import LAYER_NORM_EPS, dense, keras_uniform, start_as_released

Pair = tuple[Tensor, Tensor]  # scale and shift


class ConditionalAttention(AxialAttention):
    """cAtt: axial attention whose q, k and v are scaled and shifted by the context at the same position.

    context: channels of the context; 0: plain attention, ignoring it
    """

    def __init__(
        self,
        channels: int,
        context: int,
        heads: int,
        axis: Literal["row", "column"],
        length: int,
        *,
        causal: bool = False,
        one_plus: bool = False,
    ) -> None:
        super().__init__(channels, heads, axis, length, relative_bias=True, causal=causal)
        start_as_released(self)
        self.one_plus = float(one_plus)
        self.modulate: nn.Linear | None = None
        if context:
            self.modulate = nn.Linear(context, 6 * channels, bias=False)
            for weight in self.modulate.weight.chunk(3):  # one map for each of q, k and v
                keras_uniform(weight, (context, heads, 2 * channels // heads))

    def prepare(self, context: Tensor) -> Pair | None:
        """context (..., D) -> of q, k and v (..., 3, heads, dim). In the linear map a head's scale and shift are
        neighbors.
        """
        if self.modulate is None:
            return None
        scale, shift = self.modulate(context).unflatten(-1, (3, self.heads, -1)).chunk(2, dim=-1)
        return self.one_plus + scale, shift

    def project(self, x: Tensor, modulation: Pair | None) -> Tensor:
        """q, k and v of x (..., C), position by position: (..., 3, heads, dim)."""
        return modulated(self.qkv(x).unflatten(-1, (3, self.heads, -1)), modulation)

    def forward(self, x: Tensor, modulation: Pair | None = None) -> Tensor:
        """x (B, H, W, C) and what `prepare` made of a context of that size -> (B, H, W, C)."""
        q, k, v = self.project(x, modulation).unbind(-3)
        if self.axis == "column":
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        out = row_attention(q, k, v, bias=self.bias(q.shape[2]), causal=self.causal)
        return self.out((out.transpose(1, 2) if self.axis == "column" else out).flatten(-2))

    def last(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What the last of N positions of a causal axis gets: q (B, 1, heads, dim), k, v (B, N, heads, dim) of all
        positions so far -> (B, 1, C).
        """
        assert self.relative is not None and self.length is not None
        count = k.shape[1]
        bias = self.relative[None, :, None, self.length - count : self.length]  # (1, heads, 1, N)
        # One query: the plain formula copies nothing, which torch's kernels do.
        return self.out(attention(q, k, v, bias=bias, backend="plain").flatten(-2))


class ConditionalNorm(nn.Module):
    """cLN: layer normalization whose scale and shift come from a weighted mean of the context over the picture.

    The weights of the mean, one per position, are learned and start at one. Without a context an affine layer norm.
    """

    def __init__(self, channels: int, context: int, height: int, width: int, *, one_plus: bool = False) -> None:
        super().__init__()
        self.one_plus = float(one_plus)
        self.norm = nn.LayerNorm(channels, eps=LAYER_NORM_EPS, elementwise_affine=not context)
        self.weights: nn.Parameter | None = None
        if context:
            self.weights = nn.Parameter(torch.ones(height, width, 1))
            self.modulate = dense(context, 2 * channels)

    def prepare(self, context: Tensor) -> Pair | None:
        """The whole picture's context (B, H, W, D) -> scale and shift (B, 1, 1, C). The same in training and in
        sampling (the released sampler took single rows for the picture).
        """
        if self.weights is None:
            return None
        scale, shift = self.modulate((self.weights * context).mean((1, 2), keepdim=True)).chunk(2, dim=-1)
        return self.one_plus + scale, shift

    def forward(self, x: Tensor, modulation: Pair | None = None) -> Tensor:
        """x (B, h, w, C), the picture or a part of it, and what `prepare` made -> (B, h, w, C)."""
        return modulated(self.norm(x), modulation)


class ConditionalMLP(nn.Module):
    """cMLP: a pointwise network whose result is scaled and shifted by the context at the same position."""

    def __init__(self, channels: int, feed_forward: int, context: int, *, one_plus: bool = False) -> None:
        super().__init__()
        self.one_plus = float(one_plus)
        self.layers = nn.Sequential(dense(channels, feed_forward), nn.ReLU(), dense(feed_forward, channels))
        self.modulate = dense(context, 2 * channels) if context else None

    def prepare(self, context: Tensor) -> Pair | None:
        """context (..., D) -> scale and shift (..., C)."""
        if self.modulate is None:
            return None
        shift, scale = self.modulate(context).chunk(2, dim=-1)
        return self.one_plus + scale, shift

    def forward(self, x: Tensor, modulation: Pair | None = None) -> Tensor:
        """x (..., C) and what `prepare` made of a context of that size -> (..., C)."""
        return modulated(self.layers(x), modulation)


def modulated(x: Tensor, pair: Pair | None) -> Tensor:
    """scale · x + shift, or x itself without a pair."""
    return x if pair is None else torch.addcmul(pair[1], pair[0], x)
