"""Kind `palette`: one conditional diffusion model for colorization, inpainting, uncropping and JPEG restoration.

Palette (Saharia et al. 2022, arXiv 2111.05826). A U-Net sees the source picture beside the noisy one, in RGB, is told
the noise level gamma and answers with the noise. No token says which of its tasks is meant. The paper's sizes are in
configs/palette_published.toml, its corruptions in stages/corruptions.

With `regression` the same network answers with the picture itself, in one step from the source: the paper's baseline.

Not in the paper: samplers without noise, and a scale of gamma's code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import torch
from torch import Tensor

from stages.color.spaces import gray_from_rgb
from stages.corruptions.jpeg import drawn_qualities, jpeg_compressed
from stages.corruptions.masks import inpainting_holes, uncropping_holes
from stages.diffusion.denoiser import knowing
from stages.diffusion.losses import l1, l2
from stages.diffusion.noise import draw_noise, rows_like
from stages.diffusion.process import ProcessConfig, draw, process_loss
from stages.diffusion.samplers import Noise
from stages.faces import Generators, StepCallback
from stages.image_to_image.denoising import DenoisingImageToImage
from stages.image_to_image.face import Condition, Task, TranslateOptions, check_tasks
from stages.nn.unet import UNetConfig
from stages.options import OptionError

__all__ = ["Palette", "PaletteConfig"]

PALETTE_TASKS: tuple[Task, ...] = ("colorize", "inpaint", "uncrop", "jpeg")


@dataclass(frozen=True)
class PaletteConfig:
    side: int = 64
    tasks: tuple[str, ...] = ("colorize",)  # each picture is one of these, all equally often
    unet: UNetConfig = field(default_factory=UNetConfig)
    process: ProcessConfig = field(default_factory=ProcessConfig)
    regression: bool = False  # one step, from the source alone; of `process` only the norm counts


class Palette(DenoisingImageToImage):
    kind, config_class = "palette", PaletteConfig
    honors = frozenset({"steps", "sampler"})
    fills = frozenset({"inpaint", "uncrop"})

    def __init__(self, config: PaletteConfig | None = None):
        config = config or PaletteConfig()
        super().__init__(config, inputs=6)
        check_tasks(config.tasks, PALETTE_TASKS)

    @property
    def tasks(self) -> tuple[Task, ...]:
        return cast(tuple[Task, ...], self.config.tasks)

    @property
    def sampling(self) -> dict[str, str | int] | None:
        return None if self.config.regression else super().sampling

    def condition(self, rgb: Tensor, task: Task) -> Condition:
        count, side = len(rgb), rgb.shape[-1]
        if task == "colorize":
            return Condition(gray_from_rgb(rgb).expand(-1, 3, -1, -1))
        if task == "jpeg":
            return Condition(jpeg_compressed(rgb, drawn_qualities(count)))
        holes = inpainting_holes(count, side) if task == "inpaint" else uncropping_holes(count, side)
        return Condition(rgb, holes.to(rgb.device))

    def forward(self, rgb: Tensor, label: Tensor | None = None) -> Tensor:
        """Mean error of what is predicted, in holes alone where there are any: rgb (B, 3, S, S) in [0, 1] -> scalar."""
        self.check_rgb(rgb)
        shown, hole = torch.empty_like(rgb), torch.ones_like(rgb[:, :1], dtype=torch.bool)
        chosen = torch.randint(len(self.tasks), (len(rgb),)).to(rgb.device)
        for number, task in enumerate(self.tasks):
            rows = (chosen == number).nonzero()[:, 0]
            if len(rows):
                condition = self.condition(rgb[rows], task)
                shown[rows] = self._shown(condition, draw_noise)
                if condition.hole is not None:
                    hole[rows] = condition.hole
        return self.loss(2 * rgb - 1, shown, hole)

    def loss(self, clean: Tensor, shown: Tensor, hole: Tensor) -> Tensor:
        """Mean over the holes of each picture: clean, shown (B, 3, S, S) in [-1, 1], hole (B, 1, S, S) bool."""
        process, share = self.config.process, hole.float().mean((1, 2, 3))
        if not self.config.regression:
            denoise = knowing(partial(self.denoiser, source=shown), clean, ~hole)
            return process_loss(denoise, clean, process, share)
        error = torch.where(hole, self._regressed(shown) - clean, 0.0)
        norm = l1 if process.norm == "l1" else l2
        return (norm(error, torch.ones_like(error)) / rows_like(share.clamp_min(1e-6), error)).mean()

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
        """See `ImageToImage`. Known pixels are those of the condition, to the bit. The task changes nothing but what
        is refused: the network is not told.
        """
        self.check(condition, task, options)
        if self.config.regression and options.given:
            raise OptionError(f"the regression baseline has one step: leave out {', '.join(options.given)}")
        many = condition.repeated(num_samples)

        def noise(shape: Sequence[int]) -> Tensor:
            return draw_noise(shape, generator, many.source.device)

        shown = self._shown(many, noise)
        if self.config.regression:
            answer = self._regressed(shown)
        else:
            denoise: Callable[..., Tensor] = partial(self.denoiser, source=shown)
            if many.hole is not None:
                denoise = knowing(denoise, 2 * many.kept - 1, ~many.hole)
            answer = draw(
                denoise, shown.shape, self.config.process, noise, sampler=options.sampler, steps=options.steps,
                callback=callback,
            )  # fmt: skip
        return self.pictures(answer, many, num_samples)

    def _shown(self, condition: Condition, noise: Noise) -> Tensor:
        """The source in [-1, 1], its holes filled with noise: (B, 3, H, W)."""
        source = 2 * condition.source - 1
        if condition.hole is None:
            return source
        return torch.where(condition.hole, noise(source.shape).to(source), source)

    def _regressed(self, shown: Tensor) -> Tensor:
        nothing = torch.zeros_like(shown)
        return self.network(nothing, nothing[:, 0, 0, 0], source=shown).float()
