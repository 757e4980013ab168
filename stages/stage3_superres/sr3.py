"""Stage 3, kind `sr3`: color at 256x256 from color at 64x64, by iterative refinement in RGB.

SR3 (Saharia et al. 2021, arXiv 2104.07636): the small picture, enlarged bicubically, is concatenated to the noisy one;
a U-Net with scaled skips is told the noise level and answers with the noise; L1. In training the small picture is
blurred by amounts drawn at random, which is what makes a cascade work; the law of these amounts is not published.
The sizes of its 64 to 256 network are in configs/stage3_sr3_published.toml.

Not in the paper: the small picture is an area average, as everywhere in the cascade; the network may also be shown the
gray picture (`gray`); the luma of the result is replaced by the gray picture's. The noise level scales and shifts, as
in ADM and Palette, where SR3 adds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import torch
from torch import Tensor

from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, gray_from_rgb, merge
from stages.corruptions.film import blurred
from stages.diffusion.noise import draw_noise
from stages.diffusion.process import ProcessConfig, draw, process_loss
from stages.faces import Generators, StepCallback, SuperResolver
from stages.nn.unet import UNet, UNetConfig
from stages.options import SampleOptions
from stages.precision import checked_finite, full_precision

__all__ = ["SR3SuperResolver", "SR3SuperResolverConfig"]

SIDE, LOW_SIDE = 256, 64


def _unet() -> UNetConfig:
    return UNetConfig(32, (1, 2, 4, 4), 2, (), skip_scale=1 / math.sqrt(2))


@dataclass(frozen=True)
class SR3SuperResolverConfig:
    unet: UNetConfig = field(default_factory=_unet)
    process: ProcessConfig = field(default_factory=lambda: ProcessConfig(norm="l1", steps=20))
    gray: bool = True  # show the network the gray picture
    blur: float = 1.2  # strongest blur of the small picture in training: standard deviation, in its pixels


class SR3SuperResolver(SuperResolver):
    kind, config_class = "sr3", SR3SuperResolverConfig
    honors = frozenset({"superres_steps"})
    training_side = SIDE

    def __init__(self, config: SR3SuperResolverConfig | None = None):
        config = config or SR3SuperResolverConfig()
        super().__init__(config)
        unet = UNet(config.unet, inputs=7 if config.gray else 6, outputs=3)
        self.denoiser = config.process.denoiser(unet)

    @property
    def network(self) -> UNet:
        return cast(UNet, self.denoiser.network)

    @property
    def sampling(self) -> dict[str, str | int]:
        return {"sampler": self.config.process.sampler, "steps": self.config.process.steps}

    def num_steps(self, options: SampleOptions) -> int:
        return options.superres_steps or self.config.process.steps

    def forward(self, rgb: Tensor, label: Tensor | None = None) -> Tensor:
        """Mean absolute error of what the network predicts: rgb (B, 3, 256, 256) in [0, 1] -> scalar."""
        if rgb.ndim != 4 or rgb.shape[1:] != (3, SIDE, SIDE):
            raise ValueError(f"rgb must be (B, 3, {SIDE}, {SIDE}) in [0, 1]; got {tuple(rgb.shape)}")
        with full_precision(rgb.device):  # a blurred picture of 8 bits would be half a level off
            low = resize(rgb, (LOW_SIDE, LOW_SIDE))
            strengths = self.config.blur * torch.rand(len(rgb)).to(rgb.device)
            low = blurred(low.flatten(0, 1)[:, None], strengths.repeat_interleave(3)).view_as(low)
            source = self._source(gray_from_rgb(rgb), low)
        return process_loss(self.denoiser, 2 * rgb - 1, self.config.process, source=source)

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

        gray256: (B, 1, 256, 256), rgb64: (B, 3, 64, 64), both in [0, 1]; generator: as `draw_noise` for B rows
        callback: as for the samplers, of pictures in [-1, 1]
        returns: rgb256 (B, 3, 256, 256). Raises RuntimeError where the network's answers are not finite
        """
        self.check_honored(options, SampleOptions.SUPERRES)
        self.check_shapes(gray256, rgb64)
        x = draw(
            partial(self.denoiser, source=self._source(gray256, rgb64)), (len(gray256), 3, SIDE, SIDE),
            self.config.process, partial(draw_noise, generator=generator, device=gray256.device),
            steps=options.superres_steps, callback=callback,
        )  # fmt: skip
        rgb = checked_finite((x.float() + 1) / 2, "the colors of stage 3")
        return merge(gray256, chroma_from_rgb(rgb))

    def _source(self, gray: Tensor, low: Tensor) -> Tensor:
        """What the network is shown beside the noisy picture, in [-1, 1]: (B, 3 or 4, 256, 256)."""
        enlarged = resize(low, (SIDE, SIDE))
        return 2 * (torch.cat([enlarged, gray], dim=1) if self.config.gray else enlarged) - 1
