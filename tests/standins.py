"""Stages small enough to test the pipeline without trained weights: the face of the real ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.color_pipeline import ColorPipeline
from stages.color.resample import resize
from stages.color.spaces import coarse_from_rgb, merge, rgb_from_coarse
from stages.diffusion.noise import draw_noise
from stages.stage import Stage
from stages.stage1_coarse.candidates import spread_order


@dataclass(frozen=True)
class StandInConfig:
    pool: int = 8


class StandIn(Stage):
    kind, config_class = "standin", StandInConfig

    def __init__(self, config: StandInConfig | None = None):
        super().__init__(config or StandInConfig())
        torch.manual_seed(self.stage)
        # Like a real network's, the last digits of a convolution may depend on the size of the batch.
        self.mix = nn.Conv2d(3, 2, 3, padding=1)
        self.batches: list[int] = []  # rows of each call
        self.seeds: list[int] = []  # of stage 1's rows


class StandIn1(StandIn):
    stage = 1

    @property
    def pool(self) -> int:
        return self.config.pool

    def sample(self, gray64, num_samples=1, generator=None, num_inference_steps=None, callback=None, temperature=None):
        self.batches.append(len(gray64) * num_samples)
        self.seeds += [one.initial_seed() for one in generator]
        noise = draw_noise((len(gray64) * num_samples, 2, 8, 8), generator)
        noise = noise if temperature is None else temperature * noise
        for step in range(num_inference_steps or 2):
            if callback is not None:
                callback(step, torch.tensor(1.0), noise, noise)
        gray = gray64.repeat_interleave(num_samples, 0)
        noise = resize(noise.to(gray.device), (64, 64))
        chroma = 0.2 * torch.tanh(self.mix(torch.cat([gray, noise], 1)) + noise)
        return coarse_from_rgb(merge(gray, chroma)).unflatten(0, (len(gray64), num_samples))

    def order(self, gray64: Tensor, coarse: Tensor, pool: int | None = None) -> Tensor:
        return spread_order(gray64, coarse, pool)

    def preview(self, gray64: Tensor) -> Tensor:
        return merge(gray64, 0.2 * torch.tanh(self.mix(gray64.expand(-1, 3, -1, -1))))


class StandIn2(StandIn):
    stage = 2

    def sample(self, gray64: Tensor, coarse64: Tensor, generator=None) -> Tensor:
        self.batches.append(len(gray64))
        return merge(gray64, 0.3 * torch.tanh(self.mix(rgb_from_coarse(coarse64))))


class StandIn3(StandIn):
    stage = 3

    def sample(self, gray256, rgb64, generator=None, num_inference_steps=None, callback=None) -> Tensor:
        self.batches.append(len(gray256))
        noise = draw_noise((len(gray256), 2, 256, 256), generator).to(gray256.device)
        for step in range(num_inference_steps or 1):
            if callback is not None:
                callback(step, torch.tensor(0.5), noise, noise)
        rgb = resize(rgb64, (256, 256))
        return merge(gray256, 0.3 * torch.tanh(self.mix(rgb)) + 0.05 * noise)


KINDS = {1: StandIn1, 2: StandIn2, 3: StandIn3}


def standin_pipeline() -> ColorPipeline:
    return ColorPipeline(*(kind() for kind in KINDS.values()))


def known_standins(monkeypatch) -> None:
    """Adds the stand-ins to the table of kinds, so that a saved stand-in pipeline can be loaded."""
    from stages import registry as kinds

    for stage, kind in KINDS.items():
        table = {**kinds.KINDS.get(stage, {}), "standin": (StandInConfig, kind)}
        monkeypatch.setitem(kinds.KINDS, stage, table)
