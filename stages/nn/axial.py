"""Axial attention: along the rows or the columns of a picture, the other axis folded into the batch.

For an H x W picture it costs H·W·(H + W) instead of (H·W)²; a row layer followed by a column layer lets every
pixel see every other. Ho et al. 2019 (arXiv 1912.12180); as in ColTran, Kumar et al. 2021 (arXiv 2102.04432).
Pictures are channel-last here, (B, H, W, C), so that folding a row costs nothing.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from stages.nn.attention import Backend, attention

__all__ = ["AxialAttention", "column_attention", "row_attention"]


def row_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: Tensor | None = None,
    causal: bool = False,
    dropout: float = 0.0,
    scale: float | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Attention along W, each row by itself.

    q, k, v: (B, H, W, heads, dim)
    bias: broadcastable to (1, heads, W, W), the same for all rows of all pictures
    causal: a pixel sees itself and what is left of it
    dropout, scale, backend: as in `attention`
    returns: (B, H, W, heads, dim)
    """
    _check(q, k, v)
    folded = attention(
        *(t.flatten(0, 1) for t in (q, k, v)),
        bias=bias, causal=causal, dropout=dropout, scale=scale, backend=backend,
    )  # fmt: skip
    return folded.unflatten(0, q.shape[:2])


def column_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: Tensor | None = None,
    causal: bool = False,
    dropout: float = 0.0,
    scale: float | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Attention along H, each column by itself: `row_attention` of the transposed picture.

    q, k, v: (B, H, W, heads, dim)
    bias: broadcastable to (1, heads, H, H), the same for all columns of all pictures
    causal: a pixel sees itself and what is above it
    dropout, scale, backend: as in `attention`
    returns: (B, H, W, heads, dim)
    """
    _check(q, k, v)
    out = row_attention(
        *(t.transpose(1, 2) for t in (q, k, v)),
        bias=bias, causal=causal, dropout=dropout, scale=scale, backend=backend,
    )  # fmt: skip
    return out.transpose(1, 2)


def _check(q: Tensor, k: Tensor, v: Tensor) -> None:
    if q.dim() != 5 or q.shape != k.shape or q.shape != v.shape:
        raise ValueError(
            "q, k and v must be (B, H, W, heads, dim), all three the same; "
            f"got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        )


class AxialAttention(nn.Module):
    """Multi-head self-attention along one axis, with its projections (ColTran: no biases, Glorot-uniform).

    channels: C, a multiple of heads
    axis: "row" attends along W, "column" along H
    length: the longest axis the relative bias covers; needed with relative_bias only
    relative_bias: learn one number per head and distance, added to the logits:
        bias(q, k) = R[head, length-1 + k-q], R (heads, 2·length), zero at the start (ColTran, layers.py)
    causal: a position sees itself and the ones before it

    forward: (B, H, W, C) -> (B, H, W, C), without residual or normalization
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        axis: Literal["row", "column"],
        length: int | None = None,
        relative_bias: bool = False,
        *,
        causal: bool = False,
    ) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"channels must be a multiple of heads; got {channels} channels, {heads} heads")
        if axis not in ("row", "column"):
            raise ValueError(f'axis must be "row" or "column"; got {axis!r}')
        if relative_bias and length is None:
            raise ValueError("relative_bias needs length, the longest axis it is to cover")
        self.heads, self.axis, self.length, self.causal = heads, axis, length, causal
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels, bias=False)
        self.relative: nn.Parameter | None = None
        if relative_bias and length is not None:
            self.relative = nn.Parameter(torch.zeros(heads, 2 * length))
        for weight in (*self.qkv.weight.chunk(3), self.out.weight):  # q, k and v are three C -> C maps
            nn.init.xavier_uniform_(weight)

    def bias(self, size: int) -> Tensor | None:
        """The bias of an axis of `size` positions: (heads, size, size), or None without one."""
        if self.relative is None or self.length is None:
            return None
        if size > self.length:
            raise ValueError(
                f"the relative bias covers axes up to {self.length} positions; got {size}. "
                "Build the layer with a larger length."
            )
        position = torch.arange(size, device=self.relative.device)
        return self.relative[:, self.length - 1 + position[None, :] - position[:, None]]

    def forward(self, x: Tensor) -> Tensor:
        if self.axis == "column":
            x = x.transpose(1, 2)  # once here instead of three times for q, k and v
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        x = self.out(row_attention(q, k, v, bias=self.bias(x.shape[2]), causal=self.causal).flatten(-2))
        return x.transpose(1, 2) if self.axis == "column" else x
