"""Kind `gpic`: colors for line drawings, many for one.

After GPIC (Furusawa et al. 2021, arXiv 2109.14518): an encoder reads the drawing alone, a U-Net denoises and is given
the encoder's features at every size; the noise level is continuous, between the steps of the schedule (xi); the loss is
the absolute error of the answer, which in the paper is the noise. Drawn by predictor and Langevin corrector, from a
start that may lean to a color. The encoder runs once for all steps and all draws of a drawing.

Its sizes, its schedule and its corrector's parameters are not known to us: those here, and the form of the encoder, are
choices.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.corruptions.line_art import drawn_line_art
from stages.diffusion.corrections import chained, keep_known
from stages.diffusion.noise import LinearSchedule, draw_noise
from stages.diffusion.process import ProcessConfig, draw, process_loss
from stages.faces import Generators, StepCallback
from stages.image_to_image.denoising import DenoisingImageToImage
from stages.image_to_image.face import Condition, Corrector, Task, TranslateOptions
from stages.nn.blocks import ResidualBlock, group_norm
from stages.nn.unet import UNetConfig
from stages.options import OptionError

__all__ = ["GPIC", "GPICConfig", "LineEncoder"]

DDPM = LinearSchedule(1000, 1e-4, 0.02)
# Its noise ends at sigma = 12, where a start still says something of the color; with DDPM's, at 158, next to nothing.
LEANING = LinearSchedule(1000, 1e-6, 0.01)


def _process() -> ProcessConfig:
    return ProcessConfig(
        training=DDPM, sampling=DDPM, root=True, norm="l1", told="root", sampler="posterior", steps=100
    )


@dataclass(frozen=True)
class GPICConfig:
    side: int = 64
    unet: UNetConfig = field(default_factory=UNetConfig)
    encoder_blocks: int = 2  # residual blocks of the line encoder at each size
    process: ProcessConfig = field(default_factory=_process)
    leaning: LinearSchedule = field(default=LEANING)  # of sampling from a start that leans to a color
    corrector: Corrector = field(default_factory=Corrector)


class GPIC(DenoisingImageToImage):
    kind, config_class = "gpic", GPICConfig
    honors = frozenset({"steps", "sampler", "corrector", "start_color"})
    may_fill = frozenset({"line_art"})
    takes_colors = True

    def __init__(self, config: GPICConfig | None = None):
        config = config or GPICConfig()
        super().__init__(config, inputs=3)
        self.encoder = LineEncoder(config.unet.entering, config.encoder_blocks)

    @property
    def tasks(self) -> tuple[Task, ...]:
        return ("line_art",)

    def condition(self, rgb: Tensor, task: Task) -> Condition:
        return Condition(drawn_line_art(rgb).expand(-1, 3, -1, -1))

    def forward(self, rgb: Tensor, label: Tensor | None = None) -> Tensor:
        """Mean absolute error of what the network predicts: rgb (B, 3, S, S) in [0, 1] -> scalar."""
        self.check_rgb(rgb)
        features = self.encoder(drawn_line_art(rgb))
        return process_loss(self.denoiser, 2 * rgb - 1, self.config.process, features=features)

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
        """See `ImageToImage`. The drawing is the first channel of the source, dark lines on white. Colors lean to
        `start_color`, or to the condition's `colors`, place by place; outside of a hole `known` pixels stay.
        """
        self.check(condition, task, options)
        if condition.hole is not None and condition.known is None:
            raise OptionError("beside a hole, a drawing needs the known colors around it")
        mean: Tensor | float = 0.0
        if options.start_color is not None:
            if condition.colors is not None:
                raise OptionError("give start_color or colors, not both")
            mean = 2 * condition.source.new_tensor(options.start_color).view(1, 3, 1, 1) - 1
        many = condition.repeated(num_samples)
        if many.colors is not None:
            mean = 2 * many.colors - 1
        leans = options.start_color is not None or many.colors is not None
        process = replace(self.config.process, sampling=self.config.leaning) if leans else self.config.process
        correct = (options.corrector or self.config.corrector).correction()
        if many.hole is not None:
            keep = keep_known(2 * many.kept - 1, ~many.hole)
            correct = keep if correct is None else chained(correct, keep)
        features = [one.repeat_interleave(num_samples, 0) for one in self.encoder(condition.source[:, :1])]
        x = draw(
            partial(self.denoiser, features=features), many.source.shape, process,
            partial(draw_noise, generator=generator, device=many.source.device),
            sampler=options.sampler, steps=options.steps, mean=mean, callback=callback,
            correct=correct,
        )  # fmt: skip
        return self.pictures(x, many, num_samples)


class LineEncoder(nn.Module):
    """What a drawing says, for each level of a U-Net: (B, 1, H, W) in [0, 1] -> maps (B, widths[l], H / 2^l, W / 2^l).

    It knows nothing of noise, so it runs once for a drawing.
    """

    def __init__(self, widths: tuple[int, ...], blocks: int) -> None:
        super().__init__()
        self.read = nn.Conv2d(1, widths[0], 3, padding=1)
        self.levels = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(width) for _ in range(blocks))) for width in widths
        )
        self.shrink = nn.ModuleList(
            nn.Conv2d(width, wide, 3, stride=2, padding=1) for width, wide in zip(widths, widths[1:], strict=False)
        )
        self.norms = nn.ModuleList(group_norm(width) for width in widths)
        self.write = nn.ModuleList(nn.Conv2d(width, width, 1) for width in widths)

    def forward(self, drawing: Tensor) -> list[Tensor]:
        x, features = self.read(2 * drawing - 1), []
        for level, blocks in enumerate(self.levels):
            x = blocks(x if level == 0 else self.shrink[level - 1](x))
            features.append(self.write[level](F.silu(self.norms[level](x))))
        return features
