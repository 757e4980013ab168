"""ColTran's parallel upsamplers: all pixels of a channel at once, each a distribution over 256 values.

Kumar, Weissenborn and Kalchbrenner 2021 (arXiv 2102.04432, and the released code). The value of a channel
at a pixel, coarse or blurred, and the pixel's gray value are embedded, joined, and read by an axial transformer. The
same weights serve red, green and blue, one after another; training picks one channel per picture at random. Which
value is shown, at which side, is all that tells the color upsampler from the spatial one.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.nn.coltran.encoder import AxialEncoder, dense
from stages.precision import checked_finite

VALUES = 256
DECODES = ("mean", "argmax")


def checked_decode(name: str, value: str) -> str:
    """The value itself; ValueError where it is neither "mean" nor "argmax"."""
    if value not in DECODES:
        raise ValueError(f'{name} must be "mean" or "argmax"; got {value!r}')
    return value


class ParallelUpsampler(nn.Module):
    """What the two upsampler stages share; a stage inherits it beside `Stage`."""

    decode: str

    def build(
        self, shown: int, channels: int, feed_forward: int, heads: int, layers: int, side: int, decode: str
    ) -> None:
        """Makes the layers. shown: number of values a channel is shown with; decode: "mean" of the distribution or
        "argmax".
        """
        self.shown, self.decode = shown, checked_decode("decode", decode)
        # A bias-free dense layer on a one-hot code is an embedding; the three channels have tables of their own.
        self.level = nn.Embedding(3 * shown, channels)
        self.gray = nn.Embedding(VALUES, channels)
        self.join = dense(2 * channels, channels)
        self.encoder = AxialEncoder(channels, feed_forward, heads, layers, (side, side))
        self.write = dense(channels, VALUES)
        for table in (self.level, self.gray):
            nn.init.xavier_uniform_(table.weight)

    def logits(self, gray: Tensor, values: Tensor, channel: Tensor) -> Tensor:
        """gray (B, 1, S, S) in [0, 1], values (B, S, S) int64 in 0..shown-1, channel (B,) in 0..2 -> (B, S, S, 256)."""
        level = self.level(values + self.shown * channel[:, None, None])
        return self.write(self.encoder(self.join(torch.cat([level, self.gray(levels8(gray)[:, 0])], dim=-1))))

    def bits_of(self, rgb: Tensor, gray: Tensor, shown: Tensor, channel: Tensor) -> Tensor:
        """Bits per value of one channel of each picture: rgb (B, 3, S, S) true, shown (B, 3, S, S) int64 -> (B,)."""
        picked = torch.arange(len(rgb), device=rgb.device)
        logits = self.logits(gray, shown[picked, channel], channel).float()
        cost = F.cross_entropy(logits.flatten(0, 2), levels8(rgb[picked, channel]).flatten(), reduction="none")
        return cost.view(len(rgb), -1).mean(1) / math.log(2)

    def decoded(self, gray: Tensor, shown: Tensor) -> Tensor:
        """All three channels: shown (B, 3, S, S) int64 -> rgb (B, 3, S, S) in [0, 1], its luma not yet gray's.

        Raises RuntimeError where the logits are not finite.
        """
        values = torch.arange(VALUES, device=gray.device, dtype=torch.float32) / (VALUES - 1)
        channels = []
        for number in range(3):
            logits = self.logits(gray, shown[:, number], shown.new_full((len(gray),), number)).float()
            checked_finite(logits.amax(-1), "the logits of the upsampler")  # NaN has an argmax too
            with torch.autocast(gray.device.type, enabled=False):  # half precision has 8 bits
                channels.append(logits.softmax(-1) @ values if self.decode == "mean" else values[logits.argmax(-1)])
        return torch.stack(channels, dim=1)


def rounded8(rgb: Tensor) -> Tensor:
    """Values in [0, 1] at the nearest 8-bit level, in [0, 1] again."""
    return (rgb * (VALUES - 1)).round() / (VALUES - 1)


def levels8(x: Tensor) -> Tensor:
    """Values in [0, 1] as 8-bit levels, int64."""
    return (x * (VALUES - 1)).round().long().clamp(0, VALUES - 1)
