"""Kind `gan`: colors in one pass, trained against discriminators.

Three published systems and what lies between them, by config: pix2pix (Isola et al. 2017, arXiv 1611.07004), pix2pixHD
(Wang et al. 2018, arXiv 1711.11585), and a hybrid of both with SAGAN's attention and spectral normalization
(arXiv 1805.08318). docs/research/gan.md says how they differ here from what was published.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.checkpoint import CheckpointError
from stages.color.lightness import chroma_at_luma, lightness
from stages.color.spaces import (
    chroma_from_rgb,
    gray_from_rgb,
    lab_from_rgb,
    merge,
    rgb_from_gray_chroma,
    rgb_from_lab,
)
from stages.diffusion.noise import draw_uniform
from stages.faces import Generators, StepCallback
from stages.image_to_image.face import Condition, ImageToImage, Task, TranslateOptions
from stages.nn.gan.content import VGG19, content_loss
from stages.nn.gan.discriminator import Discriminator, DiscriminatorConfig
from stages.nn.gan.losses import check_losses, discriminator_loss, generator_loss, matching_loss
from stages.nn.gan.pix2pixhd import Pix2PixHD, Pix2PixHDConfig
from stages.nn.gan.spectral import power_iteration
from stages.nn.gan.unet import GANUNet, GANUNetConfig
from stages.precision import checked_finite
from stages.stage import Stage

__all__ = ["GAN", "GANConfig", "SPACES"]

SPACES = ("chroma", "lab", "lab128")


@dataclass(frozen=True)
class GANConfig:
    """The hybrid, in the library's own space."""

    side: int = 64
    space: str = "chroma"  # "lab": L / 50 - 1 and a, b / 110, as pix2pix; "lab128": L / 100 and a, b / 128, the hybrid
    unet: GANUNetConfig = field(default_factory=GANUNetConfig)
    pix2pixhd: Pix2PixHDConfig | None = None  # the generator in place of the U-Net
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    adversarial: str = "lsgan"  # or "vanilla", "hinge"
    adversarial_weight: float = 0.33  # of each scale
    l1_weight: float = 1.0  # of colors in the space's units; pix2pix: 100
    matching: str = "concatenated"  # or "layers", see `matching_loss`
    matching_weight: float = 10.0  # of the mean over scales
    content_weight: float = 0.0  # of the content loss; pix2pixHD: 10
    content_weights: str = ""  # file with VGG19 (safetensors), needed in training where content_weight is not 0
    faithful: bool = False  # the hybrid's order: each discriminator and the generator see pictures of their own

    def __post_init__(self) -> None:
        check_losses(self.adversarial, self.matching)
        if self.space not in SPACES:
            raise ValueError(f"space must be one of {', '.join(SPACES)}; got {self.space!r}")
        if self.pix2pixhd is not None and self.unet != GANUNetConfig():
            raise ValueError("a generator is [network.unet] or [network.pix2pixhd]: leave out one of them")
        if min(self.adversarial_weight, self.l1_weight, self.matching_weight, self.content_weight) < 0:
            raise ValueError("weights of losses must not be negative")
        if (self.content_weight > 0) != bool(self.content_weights):
            raise ValueError("content_weight and content_weights, a file with VGG19, need each other")


class GAN(ImageToImage):
    kind, config_class = "gan", GANConfig
    players = ("discriminator", "generator")
    any_side = True

    def __init__(self, config: GANConfig | None = None):
        config = config or GANConfig()
        super().__init__(config)
        self.generator: GANUNet | Pix2PixHD = (
            GANUNet(config.unet, 1, 2) if config.pix2pixhd is None else Pix2PixHD(config.pix2pixhd, 1, 2)
        )
        self.discriminator = Discriminator(config.discriminator, 3)
        factor, smallest = self.generator.factor, self.generator.smallest
        if config.side % factor or config.side < smallest:
            raise ValueError(
                f"side must be a multiple of {factor} for this generator, and at least {smallest}; got {config.side}"
            )
        self._vgg: list[VGG19] = []  # in a list: no part of the stage, and read when it is needed first

    @property
    def side(self) -> int:
        return self.config.side

    @property
    def tasks(self) -> tuple[Task, ...]:
        return ("colorize",)

    @property
    def varied(self) -> bool:
        return self.generator.random

    @property
    def new_parameters(self) -> tuple[str, ...]:  # type: ignore[override]
        """An enhancer may start from the weights of what is inside of it, see `Pix2PixHD`."""
        return ("generator.enhancers.", "generator.write.") if self._enhancers else ()

    @property
    def finishing_parameters(self) -> tuple[str, ...]:  # type: ignore[override]
        """What wrote the picture inside of an enhancer."""
        channels = 0 if self.config.pix2pixhd is None else self.config.pix2pixhd.channels
        return tuple(f"generator.write.{channels // 2**level}." for level in range(self._enhancers))

    @property
    def _enhancers(self) -> int:
        return 0 if self.config.pix2pixhd is None else self.config.pix2pixhd.enhancers

    def condition(self, rgb: Tensor, task: Task) -> Condition:
        return Condition(gray_from_rgb(rgb).expand(-1, 3, -1, -1))

    # training

    def forward(self, rgb: Tensor, label: Tensor | None = None, player: str = "generator") -> Tensor:
        """The loss of a player: rgb (B, 3, S, S) in [0, 1] -> scalar."""
        if rgb.ndim != 4 or rgb.shape[1:] != (3, self.side, self.side):
            raise ValueError(f"rgb must be (B, 3, {self.side}, {self.side}) in [0, 1]; got {tuple(rgb.shape)}")
        if player not in self.players:
            raise ValueError(f"player must be one of {', '.join(self.players)}; got {player!r}")
        if self.training:
            power_iteration(self.get_submodule(player))
        parts = self._parts(rgb)
        return self._judged(parts[:-1]) if player == "discriminator" else self._generated(parts[-1])

    def fit_to(self, batches: Iterable[Tensor]) -> None:
        """Nothing is fitted; but a content network that can not be read is said before the first step."""
        if self.config.content_weight:
            self._content_network(next(self.parameters()))

    def average_buffers(self, latest: Stage) -> None:
        """All are of spectral normalization, and follow the average by power iterations of their own."""
        power_iteration(self)

    def _parts(self, rgb: Tensor) -> list[Tensor]:
        """The pictures of each discriminator, and last those of the generator: all see all, or each its own."""
        count = self.config.discriminator.scales + 1
        if not self.config.faithful:
            return [rgb] * count
        if len(rgb) % count:
            raise CheckpointError(
                f"with faithful = true a process must see a multiple of scales + 1 = {count} pictures; got {len(rgb)}"
            )
        return list(rgb.chunk(count))

    def _judged(self, parts: list[Tensor]) -> Tensor:
        """The loss of all discriminators, the k-th on the k-th part."""
        config, losses = self.config, []
        for number, rgb in enumerate(parts):
            if number == 0 or config.faithful:
                gray, colors = self._encoded(rgb)
                with torch.no_grad():
                    drawn = self.generator(gray).float()
                pairs = [self.discriminator.pyramid(torch.cat([gray, one], dim=1)) for one in (colors, drawn)]
            real, fake = (self.discriminator.scales[number](one[number]).logits.float() for one in pairs)
            losses.append(discriminator_loss(config.adversarial, real, fake, halved=not config.faithful))
        return torch.stack(losses).sum()

    def _generated(self, rgb: Tensor) -> Tensor:
        config = self.config
        gray, colors = self._encoded(rgb)
        drawn = self.generator(gray).float()
        loss = config.l1_weight * F.l1_loss(drawn, colors)
        judged = self.discriminator(torch.cat([gray, drawn], dim=1))
        loss = loss + config.adversarial_weight * torch.stack(
            [generator_loss(config.adversarial, one.logits.float()) for one in judged]
        ).sum()  # fmt: skip
        if config.matching_weight:
            with torch.no_grad():
                wanted = self.discriminator(torch.cat([gray, colors], dim=1))
            # The hybrid compares what comes before an activation, pix2pixHD what comes after it.
            which = "before" if config.matching == "concatenated" else "after"
            loss = loss + config.matching_weight * torch.stack([
                matching_loss(config.matching, getattr(one, which), getattr(other, which))
                for one, other in zip(judged, wanted, strict=True)
            ]).mean()  # fmt: skip
        if config.content_weight:
            shown = self._rgb(gray_from_rgb(rgb), drawn)
            loss = loss + config.content_weight * content_loss(self._content_network(rgb), 2 * shown - 1, 2 * rgb - 1)
        return loss

    def _content_network(self, like: Tensor) -> VGG19:
        if not self._vgg:
            self._vgg.append(VGG19.from_file(Path(self.config.content_weights).expanduser()).to(like.device))
        return self._vgg[0]

    # use

    @torch.no_grad()
    def sample(
        self,
        condition: Condition,
        task: Task,
        num_samples: int = 1,
        options: TranslateOptions = TranslateOptions(),  # noqa: B008  (frozen)
        generator: Generators = None,
        callback: StepCallback | None = None,
    ) -> Tensor:
        """See `ImageToImage`. Sides may be any: what the generator lacks to a side of its own is the border, again.

        A generator without dropout has one answer: then the draws of a picture are the same.
        """
        self.check(condition, task, options)
        gray = condition.source[:, :1]
        times = num_samples if self.generator.random else 1
        many = gray.repeat_interleave(times, 0)
        height, width = gray.shape[-2:]
        right, below = (self._lacking(side) for side in (width, height))
        shown = F.pad(self._shown(many), (0, right, 0, below), mode="replicate")
        uniform = partial(draw_uniform, generator=generator, device=gray.device)
        colors = self.generator(shown, uniform).float()[..., :height, :width]
        checked_finite(colors, "the colors of gan")
        rgb = merge(many, self._chroma(many, colors)).unflatten(0, (-1, times))
        return rgb.expand(-1, num_samples, -1, -1, -1)

    def _lacking(self, side: int) -> int:
        """Pixels to the next side that the generator can take."""
        factor, smallest = self.generator.factor, self.generator.smallest
        return max(smallest, side + -side % factor) - side

    # spaces

    def _shown(self, gray: Tensor) -> Tensor:
        """Gray (B, 1, H, W) in [0, 1] as the networks see it."""
        if self.config.space == "chroma":
            return 2 * gray - 1
        return lightness(gray) if self.config.space == "lab" else (lightness(gray) + 1) / 2

    def _encoded(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """Gray and colors of pictures (B, 3, H, W) as the networks see them: (B, 1, H, W), (B, 2, H, W)."""
        gray = self._shown(gray_from_rgb(rgb))
        if self.config.space == "chroma":
            return gray, 2 * chroma_from_rgb(rgb)
        return gray, lab_from_rgb(rgb)[:, 1:] / self._range

    def _chroma(self, gray: Tensor, colors: Tensor) -> Tensor:
        """Chroma of what a generator says, at the luma of gray (B, 1, H, W) in [0, 1]."""
        return colors / 2 if self.config.space == "chroma" else chroma_at_luma(gray, colors * self._range)

    def _rgb(self, gray: Tensor, colors: Tensor) -> Tensor:
        """The picture of what a generator says, with a gradient; it may leave [0, 1]."""
        if self.config.space == "chroma":
            return rgb_from_gray_chroma(gray, colors / 2)
        light = 50 * (lightness(gray) + 1)
        return rgb_from_lab(torch.cat([light, colors * self._range], dim=1))

    @property
    def _range(self) -> float:
        return 110.0 if self.config.space == "lab" else 128.0
