"""The networks of PIC (arXiv 1705.04258): gated residual blocks on weight-normalized convolutions, plain for the
embedding of the gray picture, causal for the pixels of the color picture (PixelCNN++, arXiv 1701.05517).

Causality comes from padding alone. A down-shifted convolution sees its own row and those above; a down-right-shifted
one of these only what is not to the right. The first layer shifts its result by a row or a column, so that nothing
sees itself. `step` computes one row or one point from kept inputs: the arithmetic of the whole picture, cut into parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.nn.pixelcnn.layers import Convolution, GatedBlock, _blocks, _down, _right, _with_ones


class GrayEmbedding(nn.Module):
    """What each place of the small color picture should know of the gray one.

    channels, strides, blocks, dilations: one entry per level, from fine to coarse; a level starts with a convolution
    forward: gray (B, 1, H, W) -> (B, out, H / s, W / s), s the product of the strides
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], blocks: Sequence[int], dilations: Sequence[int],
        out: int, dropout: float,
    ):  # fmt: skip
        super().__init__()
        layers: list[nn.Module] = []
        width = 2  # the gray picture, and ones
        for level, stride, count, dilation in zip(channels, strides, blocks, dilations, strict=True):
            layers.append(Convolution(width, level, stride=stride))
            layers += [GatedBlock(level, dilation=dilation, dropout=dropout) for _ in range(count)]
            width = level
        self.layers = nn.Sequential(*layers, Convolution(width, out))

    def forward(self, gray: Tensor) -> Tensor:
        return self.layers(_with_ones(gray))


class PixelNetwork(nn.Module):
    """Parameters of each pixel's distribution, from the pixels before it in raster order.

    Two streams: `above` sees the rows above, `before` also what is left in the same row and listens to `above`.

    forward: canvas (B, C, H, W), embedding (B, E, H, W) -> (B, out, H, W)
    """

    def __init__(self, channels: int, embedding: int, width: int, blocks: int, out: int, dropout: float):
        super().__init__()
        channels += 1  # ones
        self.above_start = Convolution(channels, width, (2, 3), shift="down")
        self.before_above = Convolution(channels, width, (1, 3), shift="down")
        self.before_left = Convolution(channels, width, (2, 1), shift="down-right")
        self.above = _blocks(width, embedding, "down", blocks, dropout)
        self.before = _blocks(width, embedding + width, "down-right", blocks, dropout)
        self.write = Convolution(width, out, (1, 1))

    def forward(self, canvas: Tensor, embedding: Tensor) -> Tensor:
        canvas = _with_ones(canvas)
        u = _down(self.above_start(canvas))
        x = _down(self.before_above(canvas)) + _right(self.before_left(canvas))
        for above, before in zip(self.above, self.before, strict=True):
            u = above(u, embedding)
            x = before(x, torch.cat([u, embedding], dim=1))
        return self.write(F.elu(x))

    def draw(
        self,
        embedding: Tensor,
        choose: Callable[[Tensor, int, int], Tensor],
        progress: Callable[[int, Tensor], Any] | None = None,
    ) -> Tensor:
        """A canvas (B, C, H, W), pixel after pixel.

        embedding: (B, E, H, W)
        choose: (parameters (B, out), row, column) -> pixels (B, C)
        progress: called with the number of each finished row and the canvas so far (B, C, rows, W)
        """
        batch, _, height, width = embedding.shape
        starts = [layer.room(batch, height, width) for layer in (self.above_start, self.before_above, self.before_left)]
        above_rooms = [block.rooms(batch, height, width) for block in self.above]
        before_rooms = [block.rooms(batch, height, width) for block in self.before]
        nothing = embedding.new_zeros(batch, self.write.v.shape[1], 1, width)
        rows: list[Tensor] = []
        for i in range(height):
            u, start = nothing, nothing
            if i:
                last = _with_ones(rows[-1])
                u = self.above_start.step(last, starts[0], i - 1)
                start = self.before_above.step(last, starts[1], i - 1)
            heard: list[Tensor] = []
            for above, before, rooms in zip(self.above, self.before, above_rooms, strict=True):
                row = embedding[:, :, i : i + 1]
                u = above.step(u, above.heard(row), rooms, i)
                heard.append(cast(Tensor, before.heard(torch.cat([u, row], dim=1))))
            picked, left = [], nothing[..., :1]
            for j in range(width):
                x = start[..., j : j + 1] + left
                for before, said, rooms in zip(self.before, heard, before_rooms, strict=True):
                    x = before.step(x, said[..., j : j + 1], rooms, i, j)
                picked.append(choose(self.write(F.elu(x))[:, :, 0, 0], i, j)[:, :, None, None])
                left = self.before_left.step(_with_ones(picked[-1]), starts[2], i, j)
            rows.append(torch.cat(picked, dim=3))
            if progress is not None:
                progress(i, torch.cat(rows, dim=2))
        return torch.cat(rows, dim=2)

