"""Stage 1, kind `diffusion`, as two graphs: what a photograph's draws have in common, and a draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from stages.color.spaces import coarse_from_rgb, merge
from stages.diffusion.exponential import exponential_steps, integrated
from stages.diffusion.noise import draw_noise
from stages.faces import GrayView
from stages.graphs import Graph
from stages.options import OptionError
from stages.stage1_coarse.diffusion_networks import CHROMA_SIDE, GRID, SIDE

if TYPE_CHECKING:
    from stages.stage1_coarse.diffusion import DiffusionColorizer

__all__ = ["graphs_of"]


def graphs_of(stage: DiffusionColorizer) -> list[Graph]:
    """`stage1_encode` and `stage1_draw`. Raises OptionError for samplers other than the exponential integrator."""
    config = stage.config
    if config.sampler != "spectral":
        raise OptionError(
            f"of kind {stage.kind!r} of the family {stage.family} weights with the sampler 'spectral' can be exported; "
            f"these have {config.sampler!r}"
        )
    generator = torch.Generator().manual_seed(0)

    def between_0_and_1(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    gray64 = between_0_and_1(1, 1, SIDE, SIDE)
    photograph = {"gray64": gray64, "gray128": between_0_and_1(1, 1, 2 * SIDE, 2 * SIDE)}
    if stage.takes_hints:
        photograph["hints"] = torch.zeros(1, 3, CHROMA_SIDE, CHROMA_SIDE)
    drawing = {
        "features": draw_noise((1, config.encoder_channels[0], GRID, GRID), generator),
        "mean32": draw_noise((1, 2, CHROMA_SIDE, CHROMA_SIDE), generator),
        "gray64": gray64,
        "noise": draw_noise((1, 2, CHROMA_SIDE, CHROMA_SIDE), generator),
        "temperature": torch.tensor(config.temperature),
        "chroma_gain": torch.tensor(config.chroma_gain),
    }
    defaults = {"temperature": config.temperature, "chroma_gain": config.chroma_gain}
    untold = {"hints": 0.0} if stage.takes_hints else {}
    return [
        Graph("stage1_encode", Encode(stage), photograph, ("features", "mean32", "preview64"), untold),
        Graph("stage1_draw", Draw(stage), drawing, ("coarse64", "chroma64"), defaults),
    ]


class Encode(nn.Module):
    """A photograph, once: gray64 (1, 1, 64, 64), gray128 (1, 1, 128, 128), and where hints were learned
    hints (1, 3, 32, 32) -> features, the mean of all draws, (1, 2, 32, 32) in units of `chroma_std`, and the preview
    rgb64 (1, 3, 64, 64).
    """

    def __init__(self, stage: DiffusionColorizer) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, gray64: Tensor, gray128: Tensor, hints: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        encoding = self.stage.encode(GrayView(gray64, gray128))
        if hints is not None:
            encoding = self.stage.with_hints(encoding, hints)
        return encoding.told, encoding.hinted, self.stage.preview(encoding)


class Draw(nn.Module):
    """A draw, with all of its steps in one graph: features, mean32 and gray64 of the photograph, noise (1, 2, 32, 32),
    temperature and chroma gain, both () -> coarse64 (1, 64, 64) int64 and chroma64 (1, 2, 64, 64).
    """

    def __init__(self, stage: DiffusionColorizer) -> None:
        super().__init__()
        self.stage = stage
        self.steps = exponential_steps(stage.denoiser, stage.levels(stage.config.steps))

    def forward(
        self, features: Tensor, mean32: Tensor, gray64: Tensor, noise: Tensor, temperature: Tensor, chroma_gain: Tensor
    ) -> tuple[Tensor, Tensor]:
        stage = self.stage
        left_open = integrated(stage.denoiser, noise, self.steps, context=stage.network.prepare(features))
        chroma64 = stage.chroma64(mean32, left_open, temperature, chroma_gain)
        return coarse_from_rgb(merge(gray64, chroma64)), chroma64
