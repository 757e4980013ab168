"""Kind `unconditional`: a diffusion model of pictures, and what a reference makes of it without further training.

The network of `palette` without a source. What is asked of it comes in at each step, by ILVR (Choi et al. 2021, arXiv
2108.02938): a variation shares with its reference what a low pass keeps; a gray picture is colored by keeping its luma,
and leans to the colors of another picture where one is given. The sizes of the authors' example are in
configs/unconditional_published.toml; `stages.nn.unet.from_adm` reads the names of its weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from stages.color.spaces import gray_from_rgb
from stages.diffusion.corrections import ilvr
from stages.diffusion.low_pass import LOW_PASSES, luma, with_luma
from stages.diffusion.noise import LinearSchedule, draw_noise
from stages.diffusion.process import ProcessConfig, draw, process_loss
from stages.faces import Generators, StepCallback
from stages.image_to_image.denoising import DenoisingImageToImage
from stages.image_to_image.face import Condition, Refinement, Task, TranslateOptions
from stages.nn.unet import UNetConfig
from stages.options import OptionError

__all__ = ["Unconditional", "UnconditionalConfig"]

_OF_COLORS = (Refinement().factor, Refinement().low_pass)


@dataclass(frozen=True)
class UnconditionalConfig:
    side: int = 64
    unet: UNetConfig = field(default_factory=UNetConfig)
    # Palette's own levels for sampling go on to noise that no schedule of training reaches: lost steps.
    process: ProcessConfig = field(default_factory=lambda: ProcessConfig(
        sampling=LinearSchedule(1000, 1e-4, 0.02), sampler="posterior", steps=100))  # fmt: skip


class Unconditional(DenoisingImageToImage):
    kind, config_class = "unconditional", UnconditionalConfig
    honors = frozenset({"steps", "sampler", "refinement"})
    takes_colors = True

    def __init__(self, config: UnconditionalConfig | None = None):
        super().__init__(config or UnconditionalConfig(), inputs=3)

    @property
    def tasks(self) -> tuple[Task, ...]:
        return ("variation", "colorize")

    def condition(self, rgb: Tensor, task: Task) -> Condition:
        return Condition(gray_from_rgb(rgb).expand(-1, 3, -1, -1) if task == "colorize" else rgb)

    def forward(self, rgb: Tensor, label: Tensor | None = None) -> Tensor:
        """Mean error of what is predicted: rgb (B, 3, S, S) in [0, 1] -> scalar."""
        self.check_rgb(rgb)
        return process_loss(self.denoiser, 2 * rgb - 1, self.config.process)

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
        """See `ImageToImage`. Of a variation the source is the reference; for the task colorize the luma of the source
        is kept, and `colors` are the reference of chroma.
        """
        self.check(condition, task, options)
        if task == "variation" and condition.colors is not None:
            raise OptionError("the reference of a variation is its source: leave out colors")
        asked = options.refinement or Refinement()
        if task == "colorize" and condition.colors is None and (asked.factor, asked.low_pass) != _OF_COLORS:
            raise OptionError("factor and low_pass are of the colors that a photograph leans to: give colors too")
        many, process = condition.repeated(num_samples), self.config.process
        sigmas = process.sigmas(options.sampler, options.steps)
        last = len(sigmas) - 1
        until, since = (float(sigmas[last - round(share * last)]) for share in (asked.until, 1 - asked.since))
        reference, low_pass = 2 * many.source - 1, LOW_PASSES[asked.low_pass](asked.factor)
        if task == "colorize":
            low_pass = luma if many.colors is None else with_luma(low_pass)
            colors = reference if many.colors is None else 2 * many.colors - 1
            reference = luma(reference) + colors - luma(colors)
        x = draw(
            self.denoiser, reference.shape, process,
            partial(draw_noise, generator=generator, device=reference.device),
            sampler=options.sampler, steps=options.steps, callback=callback,
            correct=ilvr(reference, low_pass, until, asked.lagging, since),
        )  # fmt: skip
        return self.pictures(x, many, num_samples)
