"""What palette, unconditional and gpic share: a U-Net that sees noisy squares, is told the level, and answers with the
noise, or with what else `ProcessConfig.predicts` says.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from stages.diffusion.denoiser import VPDenoiser
from stages.image_to_image.face import Condition, ImageToImage
from stages.nn.unet import UNet
from stages.precision import checked_finite

__all__ = ["DenoisingImageToImage"]


class DenoisingImageToImage(ImageToImage):
    """config: has `side`, `unet` and `process`; inputs: channels that the U-Net sees, the noisy picture's among them

    Raises ValueError for a side that the U-Net can not halve as often as it does.
    """

    def __init__(self, config: Any, inputs: int):  # Any: each kind has a config class of its own
        super().__init__(config)
        if config.side % config.unet.factor:
            raise ValueError(f"side must be a multiple of {config.unet.factor} for this U-Net; got {config.side}")
        unet = UNet(config.unet, inputs=inputs, outputs=3)
        self.denoiser: VPDenoiser = config.process.denoiser(unet)

    @property
    def network(self) -> UNet:
        return cast(UNet, self.denoiser.network)

    @property
    def side(self) -> int:
        return self.config.side

    @property
    def sampling(self) -> dict[str, str | int] | None:
        return {"sampler": self.config.process.sampler, "steps": self.config.process.steps}

    def check_rgb(self, rgb: Tensor) -> None:
        """Raises ValueError for pictures of another shape than training's."""
        if rgb.ndim != 4 or rgb.shape[1:] != (3, self.side, self.side):
            raise ValueError(f"rgb must be (B, 3, {self.side}, {self.side}) in [0, 1]; got {tuple(rgb.shape)}")

    def pictures(self, x: Tensor, many: Condition, num_samples: int) -> Tensor:
        """What was drawn for repeated conditions, (B * N, 3, H, W) about in [-1, 1], as pictures (B, N, 3, H, W) in
        [0, 1]; outside of a hole those of the condition, to the bit. Raises RuntimeError where x is not finite.
        """
        rgb = checked_finite((x.float() + 1) / 2, f"the colors of {self.kind}").clamp(0, 1)
        rgb = rgb if many.hole is None else torch.where(many.hole, rgb, many.kept)
        return rgb.unflatten(0, (-1, num_samples))
