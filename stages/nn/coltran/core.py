"""ColTran's autoregressive core: symbols of a picture, one after another in raster order, given the gray picture.

Kumar, Weissenborn and Kalchbrenner 2021 (arXiv 2102.04432). Written to be exact where the released
sampler is not: what is computed while sampling is what was computed in training, to rounding.

An outer decoder sees whole rows above a pixel, an inner decoder what is left of it in its row. Both are causal along
one axis only, so sampling keeps their keys and values: the outer decoder runs on each finished row once, the inner one
on each pixel once, and a sample costs about the arithmetic of one teacher-forced pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.nn.coltran.conditional import ConditionalAttention, ConditionalMLP, ConditionalNorm, Pair
from stages.nn.coltran.encoder import LAYER_NORM_EPS, AxialEncoder, dense

Points = tuple[Pair | None, Pair | None]  # for attention and network
Norms = tuple[Pair | None, Pair | None]  # for the two norms
Modulation = tuple[Pair | None, Pair | None, Pair | None, Pair | None]


@dataclass(frozen=True)
class CoreSizes:
    """Of a core: the defaults are the paper's."""

    channels: int = 512
    feed_forward: int = 512
    heads: int = 4
    encoder_layers: int = 4
    outer_layers: int = 2
    inner_layers: int = 2
    height: int = 64
    width: int = 64
    symbols: int = 512
    grays: int = 256
    conditional_attention: bool = True  # the three off: ColTran-B, conditioned by addition alone
    conditional_mlp: bool = True
    conditional_norm: bool = True
    one_plus: bool = False  # scales as 1 + scale


class ColTranCore(nn.Module):
    """gray (B, H, W) int64 -> distributions over symbols (B, H, W) int64."""

    def __init__(self, sizes: CoreSizes):
        super().__init__()
        self.sizes = sizes
        channels, area = sizes.channels, (sizes.height, sizes.width)
        # A dense layer on a one-hot code is an embedding (with a bias here, without one for the symbols).
        self.gray = nn.Embedding(sizes.grays, channels)
        self.gray_bias = nn.Parameter(torch.zeros(channels))
        self.encoder = AxialEncoder(channels, sizes.feed_forward, sizes.heads, sizes.encoder_layers, area)
        self.parallel = nn.Linear(channels, sizes.symbols, bias=False)
        self.symbol = nn.Embedding(sizes.symbols, channels)
        self.outer_position, self.inner_position = Position(channels, *area), Position(channels, *area)
        self.outer = cast("Sequence[DecoderLayer]", nn.ModuleList(
            DecoderLayer(sizes, axis, channels, causal=axis == "column")
            for _ in range(sizes.outer_layers) for axis in ("row", "column")
        ))  # fmt: skip
        self.inner = cast("Sequence[DecoderLayer]", nn.ModuleList(
            DecoderLayer(sizes, "row", 2 * channels, causal=True) for _ in range(sizes.inner_layers)
        ))  # fmt: skip
        self.norm = nn.LayerNorm(channels, eps=LAYER_NORM_EPS)
        self.write = dense(channels, sizes.symbols)
        for layer in (self.gray, self.parallel, self.symbol):
            nn.init.xavier_uniform_(layer.weight)

    def encode(self, gray: Tensor) -> Tensor:
        """gray (B, H, W) int64 -> context z (B, H, W, D)."""
        return self.encoder(self.gray(gray) + self.gray_bias)

    def parallel_logits(self, z: Tensor) -> Tensor:
        """Of the auxiliary head, which takes all pixels for independent: (B, H, W, symbols)."""
        return self.parallel(z)

    def logits(self, z: Tensor, symbols: Tensor) -> Tensor:
        """Teacher-forced: (B, H, W, symbols); those at (i, j) depend on z and the symbols before (i, j)."""
        embedded = self.symbol(symbols)
        x = embedded + self.outer_position() + z
        for layer in self.outer:
            x = layer(x, layer.prepare(z, z))
        above = F.pad(x[:, :-1], (0, 0, 0, 0, 1, 0))  # shifted down by a row
        x = F.pad(embedded[:, :, :-1], (0, 0, 1, 0)) + self.inner_position() + z + above  # shifted right by a column
        context = torch.cat([z, above], dim=-1)
        for layer in self.inner:
            x = layer(x, layer.prepare(context, z))
        return self.write(self.norm(x))

    @torch.no_grad()
    def sample(
        self,
        z: Tensor,
        choose: Callable[[Tensor, int, int], Tensor],
        progress: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Symbols (B, H, W) int64, one after another.

        choose: (logits (B, symbols), row, column) -> symbols (B,) int64
        progress: called with the number of each finished row and the symbols so far (B, rows, W)
        """
        batch, height, width, _ = z.shape
        outer_norms = [layer.prepare_norms(z) for layer in self.outer]
        inner_norms = [layer.prepare_norms(z) for layer in self.inner]
        outer_caches = [layer.cache(batch, width, height, z) if layer.causal else None for layer in self.outer]
        rows, above = [], torch.zeros_like(z[:, :1])
        for i in range(height):
            z_row = z[:, i : i + 1]
            context = torch.cat([z_row, above], dim=-1)
            base = (self.inner_position()[i : i + 1] + z_row + above).split(1, dim=2)
            inner = [columns(layer.prepare_points(context), norms, width)
                     for layer, norms in zip(self.inner, inner_norms, strict=True)]  # fmt: skip
            inner_caches = [layer.cache(batch, 1, width, z) for layer in self.inner]
            embedded, picked = [torch.zeros_like(base[0])], []
            for j in range(width):
                x = base[j] + embedded[-1]
                for layer, modulations, cache in zip(self.inner, inner, inner_caches, strict=True):
                    x = layer.step(x, modulations[j], cache, j)
                picked.append(choose(self.write(self.norm(x))[:, 0, 0], i, j))
                embedded.append(self.symbol(picked[-1])[:, None, None])
            rows.append(torch.stack(picked, dim=1))
            x = torch.cat(embedded[1:], dim=2) + self.outer_position()[i : i + 1] + z_row
            for layer, norms, kept in zip(self.outer, outer_norms, outer_caches, strict=True):
                modulation = (*layer.prepare_points(z_row), *norms)
                x = layer(x, modulation) if kept is None else layer.step(x, modulation, kept, i)
            above = x
            if progress is not None:
                progress(i, torch.stack(rows, dim=1))
        return torch.stack(rows, dim=1)


class Position(nn.Module):
    """Learned row and column positions, added: () -> (H, W, D)."""

    def __init__(self, channels: int, height: int, width: int):
        super().__init__()
        self.rows = nn.Parameter(torch.randn(height, 1, channels) * channels**-0.5)
        self.columns = nn.Parameter(torch.randn(width, channels) * channels**-0.5)

    def forward(self) -> Tensor:
        return self.rows + self.columns


class DecoderLayer(nn.Module):
    """x <- cLN(x + cAtt(x)), x <- cLN(x + cMLP(x)), along one axis.

    context: channels of the context of single positions; that of the norms has `sizes.channels`
    """

    def __init__(self, sizes: CoreSizes, axis: str, context: int, *, causal: bool):
        super().__init__()
        channels, plus = sizes.channels, sizes.one_plus
        length = sizes.width if axis == "row" else sizes.height
        whole = channels if sizes.conditional_norm else 0
        self.causal = causal
        self.attention = ConditionalAttention(
            channels, context if sizes.conditional_attention else 0, sizes.heads, axis, length,  # type: ignore[arg-type]
            causal=causal, one_plus=plus,
        )  # fmt: skip
        self.mlp = ConditionalMLP(channels, sizes.feed_forward, context if sizes.conditional_mlp else 0, one_plus=plus)
        self.norms = cast("Sequence[ConditionalNorm]", nn.ModuleList(
            ConditionalNorm(channels, whole, sizes.height, sizes.width, one_plus=plus) for _ in range(2)
        ))  # fmt: skip

    def prepare_points(self, context: Tensor) -> Points:
        """From the context of single positions (B, h, w, ·): for attention and network."""
        return self.attention.prepare(context), self.mlp.prepare(context)

    def prepare_norms(self, picture: Tensor) -> Norms:
        """From the context of the whole picture (B, H, W, D): for the two norms."""
        return self.norms[0].prepare(picture), self.norms[1].prepare(picture)

    def prepare(self, context: Tensor, picture: Tensor) -> Modulation:
        return *self.prepare_points(context), *self.prepare_norms(picture)

    def forward(self, x: Tensor, modulation: Modulation) -> Tensor:
        attention, mlp, first, second = modulation
        x = self.norms[0](x + self.attention(x, attention), first)
        return self.norms[1](x + self.mlp(x, mlp), second)

    def cache(self, batch: int, others: int, length: int, like: Tensor) -> Tensor:
        """Room for keys and values (2, batch · others, heads, length, dim) of a causal axis of `length`: an order in
        which nothing is copied to look at the first of them.
        """
        heads = self.attention.heads
        return like.new_empty(2, batch * others, heads, length, like.shape[-1] // heads)

    def step(self, x: Tensor, modulation: Modulation, cache: Tensor, position: int) -> Tensor:
        """As `forward` at one position of the causal axis: x (B, 1, w, C), after those before have been there."""
        attention, mlp, first, second = modulation
        qkv = self.attention.project(x, attention).flatten(0, 2)  # (B · w, 3, heads, dim)
        cache[..., position, :] = qkv[:, 1:].transpose(0, 1)
        k, v = cache[..., : position + 1, :].transpose(2, 3).unbind()
        x = self.norms[0](x + self.attention.last(qkv[:, :1], k, v).view(x.shape), first)
        return self.norms[1](x + self.mlp(x, mlp), second)


def columns(points: Points, norms: Norms, width: int) -> list[Modulation]:
    """A row's modulation pixel by pixel: points of (B, 1, width, ...), one entry per column of (B, 1, 1, ...)."""
    attention, mlp = (
        [None] * width if pair is None else list(zip(*(t.split(1, dim=2) for t in pair), strict=True))
        for pair in points
    )
    return [(*both, *norms) for both in zip(attention, mlp, strict=True)]
