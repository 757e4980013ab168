"""Family critic, kind `patches`: which draws of stage 1 look like the colors of photographs.

A discriminator that is trained last: not against a generator, but to tell photographs from what stage 1 has drawn for
them, with the gray picture before it. Where it has learned that well, its logit is log p(colors | photograph) - log
p(colors | drawn), the ratio by which draws are accepted in discriminator rejection sampling (Azadi et al. 2019, arXiv
1810.06758), but for a constant.

Its pictures are a set like any other, with labels: 1 for photographs, 0 for draws. train_scripts/draw_candidates.py
makes it from training photographs. Both come in pairs with the same gray, so that the gray alone tells nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.color.spaces import chroma_from_rgb, coarse_from_rgb, gray_from_rgb, rgb_from_coarse
from stages.faces import Critic
from stages.nn.gan.discriminator import Discriminator, DiscriminatorConfig
from stages.nn.gan.spectral import power_iteration
from stages.stage import Stage

__all__ = ["PatchCritic", "PatchCriticConfig"]

SIDE = 64


@dataclass(frozen=True)
class PatchCriticConfig:
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)


class PatchCritic(Critic):
    kind, config_class = "patches", PatchCriticConfig
    training_side = SIDE
    label_classes = 2
    needs_labels = True

    def __init__(self, config: PatchCriticConfig | None = None):
        super().__init__(config or PatchCriticConfig())
        self.discriminator = Discriminator(self.config.discriminator, 3)

    def forward(self, rgb: Tensor, label: Tensor | None = None) -> Tensor:
        """Cross-entropy of photograph or drawn: rgb (B, 3, 64, 64) in [0, 1], label (B,), 1 or 0 -> scalar."""
        if rgb.ndim != 4 or rgb.shape[1:] != (3, SIDE, SIDE):
            raise ValueError(f"rgb must be (B, 3, {SIDE}, {SIDE}) in [0, 1]; got {tuple(rgb.shape)}")
        if label is None or bool(((label != 0) & (label != 1)).any()):
            raise ValueError(f"labels must be 1 for photographs and 0 for draws; got {label}")
        if self.training:
            power_iteration(self.discriminator)
        losses = []
        for logits in self._logits(gray_from_rgb(rgb), coarse_from_rgb(rgb)):
            target = label.to(logits).view(-1, 1, 1, 1).expand_as(logits)
            losses.append(F.binary_cross_entropy_with_logits(logits, target))
        return torch.stack(losses).mean()

    @torch.no_grad()
    def score(self, gray64: Tensor, coarse64: Tensor) -> Tensor:
        """The mean logit over patches and scales: see `Scores`."""
        return torch.stack([logits.mean((1, 2, 3)) for logits in self._logits(gray64, coarse64)]).mean(0)

    def average_buffers(self, latest: Stage) -> None:
        """All are of spectral normalization, and follow the average by power iterations of their own."""
        power_iteration(self.discriminator)

    def _logits(self, gray64: Tensor, coarse64: Tensor) -> list[Tensor]:
        chroma = chroma_from_rgb(rgb_from_coarse(coarse64))
        judged = self.discriminator(torch.cat([2 * gray64 - 1, 2 * chroma], dim=1))
        return [one.logits.float() for one in judged]
