"""pix2pixHD's generators (Wang et al. 2018, arXiv 1711.11585): a global one, and enhancers around it, coarse to fine.

The global generator works at half of the side (of a quarter, with two enhancers). An enhancer reads the picture at its
own side, adds the last maps of what is inside of it to its own, and writes the picture. They are trained in this order:
the global one alone, the enhancer with the global one frozen, all together.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from stages.nn.gan.discriminator import halved
from stages.nn.gan.layers import Convolution, Uniform, check_norm, initialize, normalization

__all__ = ["Pix2PixHD", "Pix2PixHDConfig", "Trunk"]


@dataclass(frozen=True)
class Pix2PixHDConfig:
    """The published sizes of the global generator; with one enhancer: enhancers = 1."""

    channels: int = 64  # of the global generator's first convolution; an enhancer has half of what is inside of it
    halvings: int = 4
    blocks: int = 9  # residual blocks of the global generator
    enhancers: int = 0
    enhancer_blocks: int = 3
    norm: str = "instance"

    def __post_init__(self) -> None:
        check_norm(self.norm)
        if min(self.channels, self.halvings) < 1 or min(self.blocks, self.enhancers, self.enhancer_blocks) < 0:
            raise ValueError(f"a generator needs channels and halvings from 1, and blocks and enhancers from 0: {self}")
        if not self.enhancers and self.enhancer_blocks != type(self).enhancer_blocks:
            raise ValueError("enhancer_blocks are of enhancers, and there are none: leave them out")
        if self.channels % 2**self.enhancers:
            raise ValueError(f"channels must be a multiple of 2^enhancers = {2**self.enhancers}; got {self.channels}")

    @property
    def factor(self) -> int:
        """Sides of pictures must be multiples of it."""
        return int(2 ** (self.halvings + self.enhancers))

    @property
    def smallest(self) -> int:
        """Sides must have it: at the bottom one pixel can neither be mirrored nor normalized."""
        return 2 * self.factor


class Pix2PixHD(nn.Module):
    """(B, inputs, H, W) -> (B, outputs, H, W) in [-1, 1]."""

    random = False

    def __init__(self, config: Pix2PixHDConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        self.config, self.factor, self.smallest = config, config.factor, config.smallest
        self.coarse = Trunk(inputs, config.channels, config.halvings, config.blocks, config.norm)
        width = config.channels
        self.enhancers = nn.ModuleList()
        for _ in range(config.enhancers):
            width //= 2
            self.enhancers.append(Trunk(inputs, width, 1, config.enhancer_blocks, config.norm))
        # Under its width, so that weights of the global generator are known from those of an enhancer.
        self.write = nn.ModuleDict({str(width): Answer(width, outputs)})
        initialize(self)

    def forward(self, x: Tensor, uniform: Uniform | None = None) -> Tensor:
        """uniform: not looked at, nothing is drawn"""
        pictures = [x]
        for _ in self.enhancers:
            pictures.append(halved(pictures[-1]))
        maps = self.coarse(pictures.pop())
        for enhancer in self.enhancers:
            maps = enhancer(pictures.pop(), maps)
        (write,) = self.write.values()
        return write(maps)


class Trunk(nn.Module):
    """Down, residual blocks, up: (B, inputs, H, W) -> (B, channels, H, W).

    forward: inner, (B, 2 channels, H / 2, W / 2), are maps to be added after the first halving
    """

    def __init__(self, inputs: int, channels: int, halvings: int, blocks: int, norm: str) -> None:
        super().__init__()
        bias = norm != "batch"
        self.read = nn.Sequential(
            nn.ReflectionPad2d(3), Convolution(inputs, channels, 7, padding=0, bias=bias),
            normalization(norm, channels), nn.ReLU(),
        )  # fmt: skip
        widths = [channels * 2**level for level in range(halvings + 1)]
        self.down = nn.ModuleList(
            nn.Sequential(Convolution(width, wide, 3, 2, 1, bias), normalization(norm, wide), nn.ReLU())
            for width, wide in zip(widths, widths[1:], strict=False)
        )
        self.blocks = nn.ModuleList(Block(widths[-1], norm) for _ in range(blocks))
        self.up = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(wide, width, 3, 2, 1, output_padding=1, bias=bias),
                normalization(norm, width), nn.ReLU(),
            )
            for width, wide in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )  # fmt: skip

    def forward(self, x: Tensor, inner: Tensor | None = None) -> Tensor:
        x = self.read(x)
        for level, layer in enumerate(self.down):
            x = layer(x)
            if level == 0 and inner is not None:
                x = x + inner
        for layer in (*self.blocks, *self.up):
            x = layer(x)
        return x


class Block(nn.Module):
    """Two 3x3 convolutions, mirrored at the border, beside a skip."""

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            convolution = Convolution(channels, channels, 3, padding=0, bias=norm != "batch")
            layers += [nn.ReflectionPad2d(1), convolution, normalization(norm, channels), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Answer(nn.Sequential):
    """Maps to a picture in [-1, 1]."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__(nn.ReflectionPad2d(3), Convolution(channels, outputs, 7, padding=0), nn.Tanh())
