"""Layers of PixelCNN++: weight-normalized convolutions, causal by padding, and gated residual blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class Room:
    """What a causal convolution keeps while a picture is drawn: its weight, and its inputs, padded."""

    weight: Tensor
    inputs: Tensor  # (B, C, H + padding, W + padding)


class Convolution(nn.Module):
    """Weight-normalized convolution (Salimans and Kingma, arXiv 1602.07868): weight = gain · v / |v|.

    kernel: (height, width); shift: where it looks, see the module's text; "none" looks around itself
    scale: of the outputs' standard deviation that `initialized_by_data` sets
    forward: (B, C, H, W) -> (B, out, H / stride, W / stride)
    """

    def __init__(
        self, channels: int, out: int, kernel: tuple[int, int] = (3, 3), *, shift: str = "none", stride: int = 1,
        dilation: int = 1, scale: float = 1.0,
    ):  # fmt: skip
        super().__init__()
        height, width = kernel
        around = dilation * (width - 1) // 2, dilation * (width - 1) // 2
        left_right, above_below = {
            "none": (around, (dilation * (height - 1) // 2, dilation * (height - 1) // 2)),
            "down": (around, (height - 1, 0)),
            "down-right": ((width - 1, 0), (height - 1, 0)),
        }[shift]
        self.padding = (*left_right, *above_below)
        self.stride, self.dilation, self.scale = stride, dilation, scale
        self.v = nn.Parameter(torch.randn(out, channels, height, width) * 0.05)
        self.gain = nn.Parameter(torch.ones(out))
        self.bias = nn.Parameter(torch.zeros(out))

    def weight(self) -> Tensor:
        norm = torch.linalg.vector_norm(self.v, dim=(1, 2, 3))
        return self.v * (self.gain / norm)[:, None, None, None]

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, self.padding), self.weight(), self.bias, self.stride, dilation=self.dilation)

    def room(self, batch: int, height: int, width: int) -> Room:
        left, right, above, below = self.padding
        weight = self.weight()
        return Room(weight, weight.new_zeros(batch, weight.shape[1], height + above + below, width + left + right))

    def step(self, x: Tensor, room: Room, i: int, j: int = 0) -> Tensor:
        """As `forward` at row i and the columns from j on: x (B, C, 1, w), after all that it looks back to."""
        left, _, above, _ = self.padding
        width, (height, across) = x.shape[-1], room.weight.shape[-2:]
        room.inputs[:, :, above + i : above + i + 1, left + j : left + j + width] = x
        seen = room.inputs[:, :, i : i + height, j : j + width + across - 1]
        return F.conv2d(seen, room.weight, self.bias)


@contextmanager
def initialized_by_data(network: nn.Module) -> Iterator[None]:
    """Within it, each convolution that runs is first set so that what it puts out has mean 0 and the standard deviation
    `scale` over the batch (arXiv 1602.07868, section 3)."""

    def set_from(convolution: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        layer = cast(Convolution, convolution)
        layer.gain.fill_(1)
        layer.bias.zero_()
        out = layer.forward(*inputs).float()
        gain = layer.scale / out.std((0, 2, 3)).clamp_min(1e-6)
        layer.gain.copy_(gain)
        layer.bias.copy_(-out.mean((0, 2, 3)) * gain)

    hooks = [m.register_forward_pre_hook(set_from) for m in network.modules() if isinstance(m, Convolution)]
    try:
        with torch.no_grad():
            yield
    finally:
        for hook in hooks:
            hook.remove()


def concat_elu(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 2 C, H, W)"""
    return F.elu(torch.cat([x, -x], dim=1))


class GatedBlock(nn.Module):
    """x + u · sigmoid(v), with (u, v) from two convolutions and, between them, what `extra` says.

    forward: x (B, C, H, W), extra (B, E, H, W) or nothing -> (B, C, H, W)
    """

    def __init__(
        self, channels: int, extra: int = 0, *, shift: str = "none", dilation: int = 1, dropout: float = 0.5
    ):
        super().__init__()
        self.first = Convolution(2 * channels, channels, shift=shift, dilation=dilation)
        self.extra = Convolution(2 * extra, channels, (1, 1)) if extra else None
        self.second = Convolution(2 * channels, 2 * channels, shift=shift, scale=0.1)
        self.dropout = nn.Dropout(dropout)

    def heard(self, extra: Tensor | None) -> Tensor | float:
        """What extra (B, E, h, w) says to the block: (B, C, h, w), or nothing."""
        return 0.0 if self.extra is None or extra is None else self.extra(concat_elu(extra))

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        return self._joined(x, self.heard(extra), self.first, self.second)

    def rooms(self, batch: int, height: int, width: int) -> tuple[Room, Room]:
        return self.first.room(batch, height, width), self.second.room(batch, height, width)

    def step(self, x: Tensor, heard: Tensor | float, rooms: tuple[Room, Room], i: int, j: int = 0) -> Tensor:
        """As `forward` at row i and the columns from j on: x and heard (B, C, 1, w), see `Convolution.step`."""
        return self._joined(
            x, heard, lambda y: self.first.step(y, rooms[0], i, j), lambda y: self.second.step(y, rooms[1], i, j)
        )

    def _joined(
        self, x: Tensor, heard: Tensor | float, first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]
    ) -> Tensor:
        y = self.dropout(concat_elu(first(concat_elu(x)) + heard))
        u, v = second(y).chunk(2, dim=1)
        return x + u * torch.sigmoid(v)


def _blocks(width: int, extra: int, shift: str, count: int, dropout: float) -> Sequence[GatedBlock]:
    return cast(
        "Sequence[GatedBlock]",
        nn.ModuleList(GatedBlock(width, extra, shift=shift, dropout=dropout) for _ in range(count)),
    )


def _with_ones(x: Tensor) -> Tensor:
    """One more channel, that tells the picture from its padding."""
    return torch.cat([x, torch.ones_like(x[:, :1])], dim=1)


def _down(x: Tensor) -> Tensor:
    """A row down: the first is zero, the last is lost."""
    return F.pad(x, (0, 0, 1, 0))[:, :, :-1]


def _right(x: Tensor) -> Tensor:
    return F.pad(x, (1, 0))[..., :-1]
