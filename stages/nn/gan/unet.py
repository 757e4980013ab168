"""U-Nets of adversarial training: pix2pix's (arXiv 1611.07004) and the hybrid's, in one form.

On the way down each convolution of 4x4 halves the side; on the way up maps are enlarged again, and those of the way
down with the same side are put beside them. At the end of the way down a picture of `factor` pixels is one pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.nn.gan.attention import SelfAttention
from stages.nn.gan.discriminator import SLOPE
from stages.nn.gan.layers import (
    Convolution,
    Dropout,
    Uniform,
    check_norm,
    initialize,
    normalization,
    spectrally_normalized,
)

__all__ = ["GANUNet", "GANUNetConfig"]


@dataclass(frozen=True)
class GANUNetConfig:
    """The hybrid's sizes. pix2pix's unet_256: widths = [64, 128, 256, 512, 512, 512, 512, 512], upsampling =
    "transposed", norm = "batch", spectral_norm = false, dropout = 3, attention = []; unet_128 has one 512 less.
    """

    widths: tuple[int, ...] = (128, 256, 512, 512, 512, 512)  # of the maps, at 1/2, 1/4, … of the side
    upsampling: str = "nearest"  # and a convolution; or "transposed", a transposed convolution
    norm: str = "none"  # of all but the outermost and the innermost maps: "batch", "instance"
    spectral_norm: bool = True
    dropout: int = 0  # first blocks of the way up that drop half of their values, in use too
    attention: tuple[int, ...] = (4,)  # factors by which the picture is reduced where attention stands, on the way up
    pooled_keys: bool = False  # of attention, for larger pictures

    def __post_init__(self) -> None:
        check_norm(self.norm)
        if self.upsampling not in ("nearest", "transposed"):
            raise ValueError(f'upsampling must be "nearest" or "transposed"; got {self.upsampling!r}')
        if len(self.widths) < 2 or min(self.widths) < 1 or not 0 <= self.dropout < len(self.widths):
            raise ValueError(
                "a U-Net needs two widths or more, and dropout in at most all blocks of the way up but the last; got "
                f"{self.widths} and {self.dropout}"
            )
        factors = [2**level for level in range(1, len(self.widths))]
        if not set(self.attention) <= set(factors):
            raise ValueError(f"attention must stand at some of {factors}; got {self.attention}")
        if self.pooled_keys and not self.attention:
            raise ValueError("pooled_keys are of attention, and there is none: leave them out")

    @property
    def factor(self) -> int:
        """Sides of pictures must be multiples of it."""
        return int(2 ** len(self.widths))


class GANUNet(nn.Module):
    """(B, inputs, H, W) -> (B, outputs, H, W) in [-1, 1]."""

    def __init__(self, config: GANUNetConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        self.config, self.factor, self.smallest = config, config.factor, config.factor
        self.random = config.dropout > 0
        widths, last = config.widths, len(config.widths) - 1
        # A bias before batch normalization would do nothing; pix2pix has none in the unnormalized ones either.
        bias = config.norm != "batch"
        self.down = nn.ModuleList(
            Convolution(width, wide, 4, 2, bias=bias)
            for width, wide in zip((inputs, *widths), widths, strict=False)
        )
        self.down_norms = nn.ModuleList(
            normalization(config.norm if 0 < level < last else "none", width) for level, width in enumerate(widths)
        )
        self.up, self.up_norms, self.attention = nn.ModuleList(), nn.ModuleList(), nn.ModuleDict()
        width = widths[-1]
        for level in range(last, 0, -1):  # to the side of the maps of level - 1
            wide = widths[level - 1]
            self.up.append(self._enlarging(width, wide, 4, bias))
            self.up_norms.append(normalization(config.norm, wide))
            width = 2 * wide
            if 2**level in config.attention:
                self.attention[str(level)] = SelfAttention(width, config.pooled_keys)
        self.dropout = Dropout()
        self.write = self._enlarging(width, outputs, 4 if config.upsampling == "transposed" else 7, True)
        initialize(self)
        if config.spectral_norm:
            spectrally_normalized(self)

    def _enlarging(self, inputs: int, outputs: int, kernel: int, bias: bool) -> nn.Module:
        if self.config.upsampling == "transposed":
            return nn.ConvTranspose2d(inputs, outputs, kernel, 2, 1, bias=bias)
        return Convolution(inputs, outputs, kernel, bias=bias)

    def forward(self, x: Tensor, uniform: Uniform | None = None) -> Tensor:
        """uniform: what dropout draws from; None: torch's own stream"""
        uniform = uniform or (lambda shape: torch.rand(shape, device=x.device))
        skips: list[Tensor] = []
        for level, (convolution, norm) in enumerate(zip(self.down, self.down_norms, strict=True)):
            x = norm(convolution(F.leaky_relu(x, SLOPE) if level else x))
            skips.append(x)
        x = F.leaky_relu(skips.pop(), SLOPE)
        for place, (convolution, norm) in enumerate(zip(self.up, self.up_norms, strict=True)):
            level = len(self.up) - place
            x = norm(self._enlarged(convolution, x))
            if place < self.config.dropout:
                x = self.dropout(x, uniform)
            # The hybrid's way: what comes from below has ReLU, what comes from beside leaky ReLU. pix2pix has ReLU of
            # both, before the next convolution.
            x = torch.cat([F.leaky_relu(skips.pop(), SLOPE), F.relu(x)], dim=1)
            if str(level) in self.attention:
                x = self.attention[str(level)](x)
        return self._enlarged(self.write, x).tanh()

    def _enlarged(self, convolution: nn.Module, x: Tensor) -> Tensor:
        if self.config.upsampling == "transposed":
            return convolution(F.relu(x))
        return convolution(F.interpolate(x, scale_factor=2.0, mode="nearest"))
