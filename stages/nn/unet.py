"""The U-Net of ADM (Dhariwal and Nichol 2021, arXiv 2105.05233), as Palette uses it (arXiv 2111.05826).

Residual blocks that the noise level scales and shifts, self-attention where the maps are small, resampling inside of
residual blocks. Palette drops ADM's classes and concatenates the source picture to the noisy one. What it compares
global self-attention with is a choice of `context`; papers give the parameters of these variants, not their layers:

    global     every position attends to all
    local      four blocks, 2x2, that do not overlap; a position attends to those of its own block
    residual   a further residual block in place of each attention
    dilated    the same, its first convolution with a dilation of 1, 2, 4, 8 in turn
    none       nothing in its place

One module of somewhat over 300 lines: the network, and the names that ADM's weights have for its parts, are one idea.

`from_adm` takes weights that have ADM's names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.nn.attention import attention
from stages.nn.blocks import zero

__all__ = ["Context", "UNet", "UNetConfig", "from_adm"]

Context = Literal["global", "local", "residual", "dilated", "none"]
DILATIONS = (1, 2, 4, 8)
LONGEST_PERIOD = 10_000


@dataclass(frozen=True)
class UNetConfig:
    """ADM at 256x256: 256, (1, 1, 2, 2, 4, 4), 2 blocks, attention at (8, 16, 32), that is at 32, 16 and 8 pixels,
    groups = 32.
    """

    channels: int = 64
    multipliers: tuple[int, ...] = (1, 2, 2, 4)  # of `channels`, for each level; a level has half the side of the last
    blocks: int = 2  # residual blocks of a level on the way down; one more on the way up
    attention: tuple[int, ...] = (4, 8)  # the factors by which a picture is reduced where attention stands
    head_channels: int = 64  # of one attention head
    context: str = "global"  # what stands there, see above
    context_in_the_middle: bool = True  # also between the way down and the way up
    groups: int = 8  # of all group normalizations; ADM: 32. One channel per group could not tell a tint of the whole
    dropout: float = 0.0
    level_scale: float = 1.0  # of the noise level before its code of sines; WaveGrad: 5000
    skip_scale: float = 1.0  # of the sum of a residual block and its input; SR3: 1 / sqrt(2)

    def __post_init__(self) -> None:
        if self.context not in get_args(Context):
            raise ValueError(f"context must be one of {get_args(Context)}; got {self.context!r}")
        factors = [2**level for level in range(len(self.multipliers))]
        if not self.multipliers or self.blocks < 1 or not set(self.attention) <= set(factors):
            raise ValueError(
                f"a U-Net needs multipliers, blocks >= 1, and attention at some of {factors}; got {self.multipliers}, "
                f"{self.blocks} and {self.attention}"
            )
        for width in self.widths:
            if width % self.groups or (self.context in ("global", "local") and width % min(self.head_channels, width)):
                raise ValueError(
                    f"every width must be a multiple of groups = {self.groups} and of head_channels = "
                    f"{self.head_channels}; got {self.widths}"
                )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.channels * factor for factor in self.multipliers)

    @property
    def entering(self) -> tuple[int, ...]:
        """Channels with which each level is entered on the way down."""
        return (self.widths[0], *self.widths[:-1])

    @property
    def factor(self) -> int:
        """Sides of pictures must be multiples of it."""
        return int(2 ** (len(self.multipliers) - 1))


class UNet(nn.Module):
    """x (B, inputs, H, W), level (B,) -> (B, outputs, H, W), zero before it is trained.

    inputs: channels of x and of `source`, which is put before x, together
    """

    def __init__(self, config: UNetConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        self.config = config
        code = 4 * config.channels
        self.embedding = LevelEmbedding(config.channels, code, config.level_scale)
        places = count()  # of what stands for attention, in order
        self.read = nn.Conv2d(inputs, config.widths[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        width, skips = config.widths[0], [config.widths[0]]
        last = len(config.widths) - 1
        for level, wide in enumerate(config.widths):
            here = 2**level in config.attention
            for _ in range(config.blocks):
                self.down.append(Step(config, width, wide, code, next(places) if here else None))
                width = wide
                skips.append(width)
            if level < last:
                self.down.append(Step(config, width, width, code, None, "down"))
                skips.append(width)
        middle = next(places) if config.context_in_the_middle else None
        self.middle = nn.ModuleList([Step(config, width, width, code, middle), Step(config, width, width, code, None)])
        for level in range(last, -1, -1):
            here = 2**level in config.attention
            for _ in range(config.blocks + 1):
                wide = config.widths[level]
                self.up.append(Step(config, width + skips.pop(), wide, code, next(places) if here else None))
                width = wide
            if level:
                self.up.append(Step(config, width, width, code, None, "up"))
        self.norm = GroupNorm(config.groups, width)
        self.write = zero(nn.Conv2d(width, outputs, 3, padding=1))

    def forward(
        self, x: Tensor, level: Tensor, source: Tensor | None = None, features: Sequence[Tensor] = ()
    ) -> Tensor:
        """source: (B, C, H, W), concatenated to x; features: for each level a map added where it is entered,
        (B, entering[l], H / 2^l, W / 2^l)

        Raises ValueError for a picture whose sides are no multiples of `config.factor`.
        """
        if x.shape[-1] % self.config.factor or x.shape[-2] % self.config.factor:
            raise ValueError(f"sides must be multiples of {self.config.factor}; got {tuple(x.shape[-2:])}")
        code = self.embedding(level)
        h = self.read(x if source is None else torch.cat([source, x], dim=1))
        h = h + features[0] if features else h
        skips, entered = [h], 1
        for step in self.down:
            h = step(h, code)
            if step.resample == "down" and features:
                h = h + features[entered]
                entered += 1
            skips.append(h)
        for step in self.middle:
            h = step(h, code)
        for step in self.up:
            h = step(h if step.resample == "up" else torch.cat([h, skips.pop()], dim=1), code)
        return self.write(F.silu(self.norm(h)))


class Step(nn.Module):
    """A residual block, and what stands for attention behind it.

    place: its number among all of these in the network; None: nothing. resample: "down" or "up" by two, inside
    """

    def __init__(
        self, config: UNetConfig, channels: int, wide: int, code: int, place: int | None,
        resample: Literal["", "down", "up"] = "",
    ) -> None:  # fmt: skip
        super().__init__()
        self.resample = resample
        self.block = Block(config, channels, wide, code, resample=resample)
        self.attention: Attention | None = None
        self.further: Block | None = None
        if place is not None and config.context in ("global", "local"):
            self.attention = Attention(config, wide, 2 if config.context == "local" else 1)
        elif place is not None and config.context in ("residual", "dilated"):
            dilation = DILATIONS[place % len(DILATIONS)] if config.context == "dilated" else 1
            self.further = Block(config, wide, wide, code, dilation=dilation)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        x = self.block(x, code)
        if self.attention is not None:
            x = self.attention(x)
        return x if self.further is None else self.further(x, code)


class Block(nn.Module):
    """ADM's residual block: x (B, channels, H, W), code (B, code) -> (B, wide, H', W')."""

    def __init__(
        self, config: UNetConfig, channels: int, wide: int, code: int,
        resample: Literal["", "down", "up"] = "", dilation: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.norm1, self.norm2 = GroupNorm(config.groups, channels), GroupNorm(config.groups, wide)
        self.conv1 = nn.Conv2d(channels, wide, 3, padding=dilation, dilation=dilation)
        self.conv2 = zero(nn.Conv2d(wide, wide, 3, padding=1))
        self.modulation = nn.Linear(code, 2 * wide)
        self.skip = nn.Identity() if channels == wide else nn.Conv2d(channels, wide, 1)
        self.resample, self.dropout, self.skip_scale = resample, config.dropout, config.skip_scale

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        y = F.silu(self.norm1(x))
        if self.resample == "down":
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        elif self.resample == "up":
            x, y = (F.interpolate(one, scale_factor=2.0, mode="nearest") for one in (x, y))
        scale, shift = self.modulation(F.silu(code))[:, :, None, None].chunk(2, dim=1)
        y = F.silu(self.norm2(self.conv1(y)) * (1 + scale) + shift)
        y = self.conv2(F.dropout(y, self.dropout, self.training))
        return (self.skip(x) + y) * self.skip_scale


class Attention(nn.Module):
    """Self-attention over positions, beside a skip: (B, C, H, W) -> (B, C, H, W).

    blocks: per side, that do not see each other; 1: none
    """

    def __init__(self, config: UNetConfig, channels: int, blocks: int = 1) -> None:
        super().__init__()
        self.heads, self.blocks = max(1, channels // config.head_channels), blocks
        self.norm = GroupNorm(config.groups, channels)
        self.qkv = nn.Linear(channels, 3 * channels)  # for each head its q, k and v, as in ADM
        self.out = zero(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        parts = self.blocks
        if height % parts or width % parts:
            raise ValueError(f"maps of {height}x{width} can not be cut into {parts}x{parts} blocks of one size")
        # (B, C, p, h, p, w) -> (B p p, h w, C)
        rows = self.norm(x).unflatten(3, (parts, -1)).unflatten(2, (parts, -1)).permute(0, 2, 4, 3, 5, 1)
        rows = rows.reshape(batch * parts**2, -1, channels)
        q, k, v = self.qkv(rows).unflatten(2, (self.heads, 3, -1)).unbind(3)
        y = self.out(attention(q.contiguous(), k.contiguous(), v.contiguous()).flatten(2))
        y = y.reshape(batch, parts, parts, height // parts, width // parts, channels).permute(0, 5, 1, 3, 2, 4)
        return x + y.reshape(x.shape)


class GroupNorm(nn.GroupNorm):
    """Computed with channels first: with channels last, torch's gradient for groups of one channel takes 40 times as
    long in bfloat16 on CPUs.
    """

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x.contiguous())
        return y if x.is_contiguous() else y.contiguous(memory_format=torch.channels_last)


class LevelEmbedding(nn.Module):
    """Code of a noise level (B,) -> (B, code): cosines and sines of scale · level · 10000^(-k / half), two layers."""

    def __init__(self, channels: int, code: int, scale: float) -> None:
        super().__init__()
        half = channels // 2
        frequencies = scale * torch.exp(-math.log(LONGEST_PERIOD) / half * torch.arange(half, dtype=torch.float64))
        self.frequencies: Tensor
        self.register_buffer("frequencies", frequencies.float(), persistent=False)
        self.layers = nn.Sequential(nn.Linear(channels, code), nn.SiLU(), nn.Linear(code, code))

    def forward(self, level: Tensor) -> Tensor:
        angles = level.float()[:, None] * self.frequencies
        return self.layers(torch.cat([angles.cos(), angles.sin()], dim=-1))


def from_adm(weights: Mapping[str, Tensor], outputs: int | None = None) -> dict[str, Tensor]:
    """A state dict with the names of ADM's `UNetModel`, and of what descends from it, as one of `UNet`.

    ADM's one-dimensional convolutions of attention become the matrices that they are. Read the file by safetensors, or
    torch.load(path, weights_only=True). Raises ValueError for a name that has no place here: the classes of a class-
    conditional network, or convolutions that resample.

    outputs: how many of the last layer's to keep: networks that learn variances have as many again behind the noise

        time_embed.0, .2     embedding.layers.0, .2        input_blocks.0.0   read
        input_blocks.i.0     down.(i-1).block              input_blocks.i.1   down.(i-1).attention
        middle_block.0, .2   middle.0.block, middle.1…     middle_block.1     middle.0.attention
        output_blocks.i.0    a step of up: .block          output_blocks.i.1  its .attention, or the step that resamples
        out.0, out.2         norm, write
    """
    result: dict[str, Tensor] = {}
    resampling = {  # output blocks that end in a resampling one, and at which place
        int(found[1]): found[2]
        for found in (re.fullmatch(r"output_blocks\.(\d+)\.([12])\.in_layers\.0\.weight", name) for name in weights)
        if found
    }
    for name, value in weights.items():
        renamed = _renamed(name, resampling)
        if renamed is None:
            raise ValueError(f"{name} has no place in a U-Net without classes that resamples in residual blocks")
        result[renamed] = value[..., 0] if ".attention." in renamed and value.dim() == 3 else value
        if renamed.startswith("write."):
            result[renamed] = value[:outputs]
    return result


INSIDE = {
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "modulation", "out_layers.0": "norm2",
    "out_layers.3": "conv2", "skip_connection": "skip", "norm": "norm", "qkv": "qkv", "proj_out": "out",
}  # fmt: skip
ENDS = {
    "time_embed.0": "embedding.layers.0", "time_embed.2": "embedding.layers.2", "input_blocks.0.0": "read",
    "out.0": "norm", "out.2": "write",
}  # fmt: skip


def _renamed(name: str, resampling: Mapping[int, str]) -> str | None:
    module, _, what = name.rpartition(".")
    if module in ENDS:
        return f"{ENDS[module]}.{what}"
    found = re.fullmatch(r"(input_blocks|output_blocks)\.(\d+)\.([012])\.(.+)", module)
    if found is None and (found := re.fullmatch(r"(middle_block)()\.([012])\.(.+)", module)) is None:
        return None
    place, number, part, inside = found.groups()
    if inside not in INSIDE:
        return None
    role = "attention" if inside in ("norm", "qkv", "proj_out") else "block"
    if place == "middle_block":
        step = f"middle.{int(part) // 2}"
    elif place == "input_blocks":
        step = f"down.{int(number) - 1}"
    else:  # here a resampling block is a step of its own
        before = sum(other < int(number) for other in resampling)
        own = part == resampling.get(int(number)) and part != "0"
        step = f"up.{int(number) + before + own}"
    return f"{step}.{role}.{INSIDE[inside]}.{what}"
