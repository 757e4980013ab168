"""Stages without networks, with the faces of the real ones: what they draw is told by their generators alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from stages.color.guided_filter import enlarge_chroma
from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, merge, rgb_from_coarse
from stages.faces import (
    CoarseColorizer,
    ColorUpsampler,
    Draws,
    Encoding,
    Generators,
    GrayView,
    HasLikelihood,
    StepCallback,
    SuperResolver,
)
from stages.options import SampleOptions
from stages.stage import Stage

DEFAULT = SampleOptions()


@dataclass(frozen=True)
class StandInConfig:
    pool: int = 3


class StandIn(Stage):
    kind, config_class = "stand-in", StandInConfig
    seeds: ClassVar[list[int]] = []  # of all generators that any stand-in of a family was given

    def __init__(self, config: StandInConfig | None = None):
        super().__init__(config or StandInConfig())
        self.register_buffer("mark", torch.ones(1))
        self.trained = {"ema": True}

    @property
    def sampling(self) -> dict[str, str | int]:
        return {"sampler": "none", "steps": 7}


def tints(generators: Generators, rows: int) -> Tensor:
    """A random flat chroma from each row's own generator: (rows, 2, 64, 64)."""
    assert isinstance(generators, Sequence) and len(generators) == rows
    drawn = [0.1 * torch.randn(2, 1, 1, generator=_fresh(one)) for one in generators]
    return torch.stack(drawn).expand(-1, -1, 64, 64)


def _fresh(generator: Generator) -> Generator:
    assert torch.equal(generator.get_state(), Generator().manual_seed(generator.initial_seed()).get_state())
    return generator


class StandInColorizer(StandIn, CoarseColorizer[Encoding]):
    honors = frozenset({"steps", "temperature", "chroma_gain"})
    seeds: ClassVar[list[int]] = []
    views: ClassVar[list[GrayView]] = []

    @property
    def pool(self) -> int:
        return self.config.pool

    def encode(self, view: GrayView) -> Encoding:
        self.views.append(view)
        return Encoding(view.gray64)

    def sample(
        self, encoding: Encoding, num_samples: int = 1, options: SampleOptions = DEFAULT, generator: Generators = None,
        callback: StepCallback | None = None,
    ) -> Draws:  # fmt: skip
        self.check_honored(options, SampleOptions.COARSE)
        assert isinstance(generator, Sequence)
        self.seeds.extend(one.initial_seed() for one in generator)
        chroma = tints(generator, len(encoding) * num_samples).unflatten(0, (len(encoding), num_samples))
        temperature = 1.0 if options.temperature is None else options.temperature
        return Draws.of(encoding.gray64, temperature * (1.0 if options.steps is None else 1.1) * chroma)

    def preview(self, encoding: Encoding) -> Tensor:
        return encoding.gray64.expand(-1, 3, -1, -1)


class CoarseOnly(StandInColorizer):
    """As an autoregressive model of symbols: it knows no chroma before rounding."""

    kind, honors = "stand-in-coarse", frozenset({"temperature"})

    def sample(
        self, encoding: Encoding, num_samples: int = 1, options: SampleOptions = DEFAULT, generator: Generators = None,
        callback: StepCallback | None = None,
    ) -> Draws:  # fmt: skip
        return Draws(super().sample(encoding, num_samples, options, generator).coarse64)


class StandInUpsampler(StandIn, ColorUpsampler):
    """Bin centers."""

    def upsample(self, gray64: Tensor, coarse64: Tensor) -> Tensor:
        return merge(gray64, chroma_from_rgb(rgb_from_coarse(coarse64)))


class StandInSuperResolver(StandIn, SuperResolver):
    """The luma-guided enlargement."""

    seeds: ClassVar[list[int]] = []

    def sample(
        self, gray256: Tensor, rgb64: Tensor, options: SampleOptions = DEFAULT, generator: Generators = None,
        callback: StepCallback | None = None,
    ) -> Tensor:  # fmt: skip
        self.check_honored(options, SampleOptions.SUPERRES)
        assert isinstance(generator, Sequence) and len(generator) == len(gray256)
        self.seeds.extend(one.initial_seed() for one in generator)
        gray64 = resize(gray256, (64, 64))
        return merge(gray256, enlarge_chroma(chroma_from_rgb(rgb64), gray64, gray256))


class LikelySuperResolver(StandInSuperResolver, HasLikelihood):
    """Its bits are the mean of the picture."""

    kind = "stand-in-likely"

    def bits(self, rgb: Tensor) -> Tensor:
        return rgb.mean((1, 2, 3))


KINDS: list[type[StandIn]] = [
    StandInColorizer, CoarseOnly, StandInUpsampler, StandInSuperResolver, LikelySuperResolver,
]  # fmt: skip
