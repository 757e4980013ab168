"""A pipeline without networks, for tests of files: every picture gets one tint. As a program it is `trichrome` so."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from unittest import mock

import torch
from torch import Tensor, nn

from pipeline import cli
from pipeline.color_pipeline import ColorPipeline
from pipeline.files import team
from stages.color.resample import resize
from stages.color.spaces import merge
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
class PlainConfig:
    pass


class Plain(Stage):
    kind, config_class = "plain", PlainConfig

    def __init__(self) -> None:
        super().__init__(PlainConfig())
        self.tint = nn.Parameter(torch.tensor([-0.1, 0.12]))

    def tinted(self, gray: Tensor) -> Tensor:
        return merge(gray, self.tint.view(1, 2, 1, 1).expand(len(gray), 2, *gray.shape[-2:]))


class Plain1(Plain, CoarseColorizer[Encoding]):
    @property
    def pool(self) -> int:
        return 1

    def encode(self, view: GrayView) -> Encoding:
        return Encoding(view.gray64)

    def sample(
        self, encoding: Encoding, num_samples: int = 1, options: SampleOptions = SampleOptions(),  # noqa: B008
        generator: Generators = None, callback: StepCallback | None = None,
    ) -> Draws:  # fmt: skip
        return Draws.of(encoding.gray64, self.tint.view(2, 1, 1).expand(len(encoding), num_samples, 2, 64, 64))

    def preview(self, encoding: Encoding) -> Tensor:
        return self.tinted(encoding.gray64)


class Plain2(Plain, ColorUpsampler):
    def upsample(self, gray64: Tensor, coarse64: Tensor) -> Tensor:
        return self.tinted(gray64)


class Plain3(Plain, SuperResolver):
    def sample(
        self, gray256: Tensor, rgb64: Tensor, options: SampleOptions = SampleOptions(),  # noqa: B008
        generator: Generators = None, callback: StepCallback | None = None,
    ) -> Tensor:  # fmt: skip
        return merge(gray256, resize(self.tint.view(1, 2, 1, 1).expand(len(gray256), 2, 8, 8), (256, 256)))


def plain_pipeline() -> ColorPipeline:
    return ColorPipeline(Plain1(), Plain2(), Plain3())


if __name__ == "__main__":
    # As its own worker it is given all of the command.
    given = sys.argv[1:] if sys.argv[1] in ("colorize", "batch", "video") else ["colorize", *sys.argv[1:]]
    team.COMMAND = [sys.executable, __file__]
    with mock.patch.object(ColorPipeline, "from_pretrained", lambda source=None, **_: plain_pipeline()):
        sys.argv[1:] = [*given, "--device", "cpu"]
        cli.command()
