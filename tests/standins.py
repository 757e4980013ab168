"""Stages small enough to test the pipeline without trained weights: the faces of the real ones."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from pipeline.color_pipeline import ColorPipeline
from stages import registry
from stages.color.resample import resize
from stages.color.spaces import coarse_from_rgb, merge, rgb_from_coarse
from stages.diffusion.noise import draw_noise
from stages.faces import (
    CoarseColorizer,
    ColorUpsampler,
    Draws,
    Encoding,
    Generators,
    GrayView,
    StepCallback,
    SuperResolver,
)
from stages.options import SampleOptions
from stages.stage import Stage


@dataclass(frozen=True)
class StandInConfig:
    pool: int = 8


class StandIn(Stage):
    kind, config_class = "standin", StandInConfig

    def __init__(self, config: StandInConfig | None = None):
        super().__init__(config or StandInConfig())
        torch.manual_seed(len(self.family))
        # Like a real network's, the last digits of a convolution may depend on the size of the batch.
        self.mix = nn.Conv2d(3, 2, 3, padding=1)
        self.batches: list[int] = []  # rows of each call
        self.seeds: list[int] = []  # of stage 1's rows


class StandIn1(StandIn, CoarseColorizer[Encoding]):
    honors = frozenset({"steps", "temperature", "chroma_gain"})

    @property
    def pool(self) -> int:
        return self.config.pool

    @torch.no_grad()
    def encode(self, view: GrayView) -> Encoding:
        return Encoding(view.gray64)

    @torch.no_grad()
    def sample(
        self,
        encoding: Encoding,
        num_samples: int = 1,
        options: SampleOptions = SampleOptions(),  # noqa: B008  (frozen)
        generator: Generators = None,
        callback: StepCallback | None = None,
    ) -> Draws:
        self.check_honored(options, SampleOptions.COARSE)
        rows = len(encoding) * num_samples
        self.batches.append(rows)
        if isinstance(generator, list):
            self.seeds += [one.initial_seed() for one in generator]
        noise = draw_noise((rows, 2, 8, 8), generator)
        noise = noise if options.temperature is None else options.temperature * noise
        for step in range(options.steps or 2):
            if callback is not None:
                callback(step, 1.0, noise, noise)
        gray = encoding.gray64.repeat_interleave(num_samples, 0)
        noise = resize(noise.to(gray.device), (64, 64))
        gain = 1.0 if options.chroma_gain is None else options.chroma_gain
        chroma = gain * 0.2 * torch.tanh(self.mix(torch.cat([gray, noise], 1)) + noise)
        return Draws(coarse_from_rgb(merge(gray, chroma)).unflatten(0, (len(encoding), num_samples)))

    @torch.no_grad()
    def preview(self, encoding: Encoding) -> Tensor:
        return merge(encoding.gray64, 0.2 * torch.tanh(self.mix(encoding.gray64.expand(-1, 3, -1, -1))))


class Featured(StandIn1):
    """Can tell which places are alike."""

    def features(self, encoding: Encoding) -> Tensor:
        return encoding.gray64[..., ::4, ::4]


class StandIn2(StandIn, ColorUpsampler):
    @torch.no_grad()
    def upsample(self, gray64: Tensor, coarse64: Tensor) -> Tensor:
        self.batches.append(len(gray64))
        return merge(gray64, 0.3 * torch.tanh(self.mix(rgb_from_coarse(coarse64))))


class StandIn3(StandIn, SuperResolver):
    honors = frozenset({"superres_steps"})

    @torch.no_grad()
    def sample(
        self,
        gray256: Tensor,
        rgb64: Tensor,
        options: SampleOptions = SampleOptions(),  # noqa: B008  (frozen)
        generator: Generators = None,
        callback: StepCallback | None = None,
    ) -> Tensor:
        self.check_honored(options, SampleOptions.SUPERRES)
        self.batches.append(len(gray256))
        noise = draw_noise((len(gray256), 2, 256, 256), generator).to(gray256.device)
        for step in range(options.superres_steps or 1):
            if callback is not None:
                callback(step, 0.5, noise, noise)
        rgb = resize(rgb64, (256, 256))
        return merge(gray256, 0.3 * torch.tanh(self.mix(rgb)) + 0.05 * noise)


class Poisoned(StandIn1):
    """Overflows on photographs that are white: their colors are NaN."""

    def sample(self, encoding, *arguments, **named) -> Draws:
        chroma = super().sample(encoding, *arguments, **named).chroma
        chroma[self._white(encoding)] = torch.nan
        return Draws.of(encoding.gray64, chroma)

    def preview(self, encoding: Encoding) -> Tensor:
        rgb = super().preview(encoding)
        rgb[self._white(encoding)] = torch.nan
        return rgb

    @staticmethod
    def _white(encoding: Encoding) -> Tensor:
        return encoding.gray64.mean((1, 2, 3)) > 0.99


STANDINS: tuple[type[StandIn], ...] = (StandIn1, StandIn2, StandIn3)


def standin_pipeline() -> ColorPipeline:
    return ColorPipeline(StandIn1(), StandIn2(), StandIn3())


def known_standins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers the stand-ins, so that a saved stand-in pipeline can be loaded; in a table that the test's end undoes.
    """
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))
    for stand_in in STANDINS:
        registry.register(stand_in.family, stand_in.kind, stand_in.config_class, stand_in)
