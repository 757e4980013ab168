"""Stage 3, kind `coltran`: color at 256x256 from color at 64x64, all pixels in parallel.

The spatial upsampler of ColTran (arXiv 2102.04432; `stages/nn/coltran/upsampler.py` is its network), shown
each channel of the small picture enlarged by repeating its pixels.

As in the paper, the answer is the most likely value; here the luma of the result is replaced by the gray picture's.
Not in the paper: `disturb`, noise on the small picture's chroma in training, off by default.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, gray_from_rgb, merge
from stages.corruptions.conditioning import disturbed_chroma
from stages.faces import Generators, HasLikelihood, StepCallback, SuperResolver
from stages.nn.coltran.upsampler import VALUES, ParallelUpsampler, levels8
from stages.options import SampleOptions

SIDE, LOW_SIDE = 256, 64


@dataclass(frozen=True)
class ColTranSuperResolverConfig:
    """The paper's sizes are in configs/stage3_coltran.toml."""

    channels: int = 64
    feed_forward: int = 64
    heads: int = 4
    layers: int = 2
    decode: str = "argmax"  # of the 256-way distribution, or its "mean"
    disturb: float = 0.0  # strongest chroma noise of training inputs


class ColTranSuperResolver(SuperResolver, HasLikelihood, ParallelUpsampler):
    kind, config_class = "coltran", ColTranSuperResolverConfig
    training_side = SIDE

    def __init__(self, config: ColTranSuperResolverConfig | None = None):
        config = config or ColTranSuperResolverConfig()
        super().__init__(config)
        self.build(VALUES, config.channels, config.feed_forward, config.heads, config.layers, SIDE, config.decode)

    def forward(self, rgb: Tensor, label: Tensor | None = None) -> Tensor:
        """Bits per value of one random channel per picture: rgb (B, 3, 256, 256) in [0, 1] -> scalar."""
        if rgb.ndim != 4 or rgb.shape[1:] != (3, SIDE, SIDE):
            raise ValueError(f"rgb must be (B, 3, {SIDE}, {SIDE}) in [0, 1]; got {tuple(rgb.shape)}")
        low = resize(rgb, (LOW_SIDE, LOW_SIDE))
        if self.config.disturb:
            low = merge(gray_from_rgb(low), disturbed_chroma(chroma_from_rgb(low), self.config.disturb))
        channel = torch.randint(3, (len(rgb),)).to(rgb.device)
        return self.bits_of(rgb, gray_from_rgb(rgb), repeated(low), channel).mean()

    @torch.no_grad()
    def bits(self, rgb: Tensor) -> Tensor:
        """Bits per dimension of pictures given their gray and themselves at 64x64: rgb (B, 3, 256, 256) -> (B,)."""
        gray, shown = gray_from_rgb(rgb), repeated(resize(rgb, (LOW_SIDE, LOW_SIDE)))
        each = [self.bits_of(rgb, gray, shown, shown.new_full((len(rgb),), channel)) for channel in range(3)]
        return torch.stack(each).mean(0)

    @torch.no_grad()
    def sample(
        self,
        gray256: Tensor,
        rgb64: Tensor,
        options: SampleOptions = SampleOptions(),  # noqa: B008  (frozen)
        generator: Generators = None,
        callback: StepCallback | None = None,
    ) -> Tensor:
        """Color at 256x256 with the luma of gray256.

        gray256: (B, 1, 256, 256), rgb64: (B, 3, 64, 64), both in [0, 1]
        generator, callback: not used, this kind is deterministic and has no steps
        returns: rgb256 (B, 3, 256, 256)
        Raises RuntimeError where the network's answers are not finite.
        """
        self.check_honored(options, SampleOptions.SUPERRES)
        self.check_shapes(gray256, rgb64)
        return merge(gray256, chroma_from_rgb(self.decoded(gray256, repeated(rgb64))))


def repeated(low: Tensor) -> Tensor:
    """Pictures (B, 3, 64, 64) in [0, 1] as 8-bit levels, each pixel four times four times: (B, 3, 256, 256) int64."""
    return F.interpolate(levels8(low).float(), (SIDE, SIDE), mode="nearest").long()
