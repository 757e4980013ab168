"""Stage 1, kind `diffusion`, as two graphs: what a photograph's draws have in common, and a draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from stages.color.spaces import coarse_from_rgb, merge
from stages.diffusion import WienerDenoiser
from stages.diffusion.exponential import ExponentialStep, integrated
from stages.diffusion.noise import draw_noise
from stages.faces import CoarseColorizer, GrayView
from stages.graphs import Graph
from stages.stage1_coarse.diffusion_networks import CHROMA_SIDE, GRID, SIDE, ChromaNetwork, DiffusionEncoding

__all__ = ["Draw", "Encode", "graphs_of"]


def graphs_of(stage: CoarseColorizer[DiffusionEncoding], draw: Draw) -> list[Graph]:
    """`stage1_encode` and `stage1_draw`."""
    config, generator = stage.config, torch.Generator().manual_seed(0)
    gray64 = torch.rand((1, 1, SIDE, SIDE), generator=generator)
    photograph = {"gray64": gray64, "gray128": torch.rand((1, 1, 2 * SIDE, 2 * SIDE), generator=generator)}
    untold: dict[str, float] = {}
    if stage.takes_hints:
        photograph["hints"], untold = torch.zeros(1, 3, CHROMA_SIDE, CHROMA_SIDE), {"hints": 0.0}
    numbers = {"temperature": config.temperature, "chroma_gain": config.chroma_gain}
    drawing = {
        "features": draw_noise((1, config.encoder_channels[0], GRID, GRID), generator),
        "mean32": draw_noise((1, 2, CHROMA_SIDE, CHROMA_SIDE), generator),
        "gray64": gray64,
        "noise": draw_noise((1, 2, CHROMA_SIDE, CHROMA_SIDE), generator),
    } | {name: torch.tensor(number) for name, number in numbers.items()}
    return [
        Graph("stage1_encode", Encode(stage), photograph, ("features", "mean32", "preview64"), untold),
        Graph("stage1_draw", draw, drawing, ("coarse64", "chroma64"), numbers),
    ]


class Encode(nn.Module):
    """A photograph, once: gray64 (1, 1, 64, 64), gray128 (1, 1, 128, 128), and where hints were learned
    hints (1, 3, 32, 32) -> features, the mean of all draws, (1, 2, 32, 32) in units of `chroma_std`, and the preview
    rgb64 (1, 3, 64, 64).
    """

    def __init__(self, stage: CoarseColorizer[DiffusionEncoding]) -> None:
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

    chroma64: of the stage: (mean32, what the steps end with, temperature, chroma gain) -> chroma64
    """

    def __init__(
        self, denoiser: WienerDenoiser, steps: Sequence[ExponentialStep], chroma64: Callable[..., Tensor]
    ) -> None:
        super().__init__()
        self.denoiser, self.steps, self.chroma64 = denoiser, steps, chroma64

    def forward(
        self, features: Tensor, mean32: Tensor, gray64: Tensor, noise: Tensor, temperature: Tensor, chroma_gain: Tensor
    ) -> tuple[Tensor, Tensor]:
        maps = cast(ChromaNetwork, self.denoiser.network).prepare(features)
        left_open = integrated(self.denoiser, noise, self.steps, context=maps)
        chroma64 = self.chroma64(mean32, left_open, temperature, chroma_gain)
        return coarse_from_rgb(merge(gray64, chroma64)), chroma64
