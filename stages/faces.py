"""The faces: what the stages of each family take, give, and may be able to do.

A family is a typed base class here, a kind is a subclass in a module of its own, and `stages/registry.py` is the one
table from (family, kind) to class. What a kind may or may not be able to do is declared: as a class attribute, or by a
base class beside the face, `HasLikelihood` or `Scores`. Tensors are named as everywhere in the project, see
docs/research/architecture.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Generator, Tensor

from stages.color.resample import resize, sharp_gray
from stages.color.spaces import chroma_from_rgb, coarse_from_rgb, merge, rgb_from_coarse
from stages.options import OptionError, SampleOptions
from stages.stage import Stage

__all__ = [
    "CoarseColorizer", "ColorUpsampler", "Critic", "Draws", "Encoding", "Generators", "GrayView", "HasLikelihood",
    "Scores", "StepCallback", "SuperResolver",
]  # fmt: skip

Generators = Generator | Sequence[Generator] | None
"""Where noise comes from: one generator for all rows, one for each row, or torch's own (None): see `draw_noise`."""
StepCallback = Callable[[int, float, Tensor, Tensor], object]
"""(step, noise level or share still open, x, clean estimate), called after each step of sampling."""


class HasLikelihood(ABC):
    """A stage that knows how likely a picture is, given what it is conditioned on."""

    bits_unit: ClassVar[str] = "dimension"
    """What the bits are counted per."""

    @abstractmethod
    def bits(self, rgb: Tensor) -> Tensor:
        """-log2 of the probability of pictures (B, 3, S, S), S the stage's side, per `bits_unit` -> (B,)."""


class Scores(ABC):
    """What draws can be reranked by: a likelihood, a critic."""

    @abstractmethod
    def score(self, gray64: Tensor, coarse64: Tensor) -> Tensor:
        """How good coarse colors are, more is better: gray64 (B, 1, 64, 64), coarse64 (B, 64, 64) -> (B,)."""


class Critic(Stage, Scores):
    """A stage that draws nothing and judges what stage 1 draws."""

    family = "critic"


@dataclass(frozen=True)
class GrayView:
    """Photographs as stage 1 sees them: gray64 (B, 1, 64, 64) and gray128 (B, 1, 128, 128), in [0, 1]."""

    gray64: Tensor
    gray128: Tensor

    @staticmethod
    def of(gray: Tensor) -> GrayView:
        """From gray (B, 1, H, W) of any size; enlarged where it has fewer pixels, see `sharp_gray`."""
        return GrayView(resize(gray, (64, 64)), sharp_gray(gray, 128))

    @staticmethod
    def cat(views: Sequence[GrayView]) -> GrayView:
        return GrayView(torch.cat([view.gray64 for view in views]), torch.cat([view.gray128 for view in views]))

    def to(self, device: torch.device) -> GrayView:
        return GrayView(self.gray64.to(device), self.gray128.to(device))

    def __len__(self) -> int:
        return len(self.gray64)

    def __post_init__(self) -> None:
        for name, gray, side in (("gray64", self.gray64, 64), ("gray128", self.gray128, 128)):
            if gray.shape != (len(self.gray64), 1, side, side):
                raise ValueError(f"{name} must be (B, 1, {side}, {side}) in [0, 1]; got {tuple(gray.shape)}")


@dataclass(frozen=True)
class Encoding:
    """What a coarse colorizer knows of B photographs before it draws: each kind adds its own to gray64."""

    gray64: Tensor

    def __len__(self) -> int:
        return len(self.gray64)


@dataclass(frozen=True)
class Draws:
    """Colors drawn by stage 1 for B photographs, N for each.

    coarse64: (B, N, 64, 64) int64 in 0..511
    chroma64: (B, N, 2, 64, 64), the same before it was rounded to 3 bits, where the kind knows it; else None
    """

    coarse64: Tensor
    chroma64: Tensor | None = None

    @staticmethod
    def of(gray64: Tensor, chroma64: Tensor) -> Draws:
        """From chroma (B, N, 2, 64, 64) at the luma gray64 (B, 1, 64, 64)."""
        return Draws(coarse_from_rgb(merge(gray64[:, None], chroma64)), chroma64)

    @staticmethod
    def cat(parts: Sequence[Draws]) -> Draws:
        """The draws of several calls for the same photographs."""
        chroma = [part.chroma64 for part in parts if part.chroma64 is not None]
        coarse = torch.cat([part.coarse64 for part in parts], dim=1)
        return Draws(coarse, torch.cat(chroma, dim=1) if len(chroma) == len(parts) else None)

    @property
    def chroma(self) -> Tensor:
        """Chroma as finely as it is known: (B, N, 2, 64, 64)."""
        return chroma_from_rgb(rgb_from_coarse(self.coarse64)) if self.chroma64 is None else self.chroma64


E = TypeVar("E", bound=Encoding)


class CoarseColorizer(Stage, ABC, Generic[E]):
    """Stage 1: gray64 -> coarse64, several draws. Options it may honor: those of `SampleOptions.COARSE`."""

    family = "coarse"
    autoregressive: ClassVar[bool] = False
    """Drawn pixel after pixel: a photograph may take minutes, and each row of it is a step."""

    @property
    def pool(self) -> int:
        """Draws of which the default picture is the most central; 1: the first draw is taken."""
        return 1

    @abstractmethod
    def encode(self, view: GrayView) -> E:
        """What the draws of these photographs have in common; once per photograph."""

    @property
    def takes_hints(self) -> bool:
        """Whether `with_hints` knows what to do: the weights have learned hints."""
        return False

    def with_hints(self, encoding: E, hints: Tensor, reach: Tensor | None = None) -> E:
        """The encoding of the same photographs with known colors: (B, 3, 32, 32), weight and chroma · weight.

        reach: (B, 1, 32, 32) in [0, 1], by how much of it what hints change is changed; None: all of it, everywhere
        It costs little beside `encode`. Hints are counted from the photograph's own encoding, not from earlier hints.
        Raises OptionError where the weights have not learned hints.
        """
        raise OptionError(f"kind {self.kind!r} of the family {self.family}, with these weights, has not learned hints")

    def features(self, encoding: E) -> Tensor | None:
        """What the kind knows of each place, (B, C, h, w): two places with like features err alike. None: nothing."""
        return None

    @staticmethod
    def check_hints(encoding: Encoding, hints: Tensor) -> None:
        """Raises ValueError for hints of another shape."""
        if hints.shape != (len(encoding), 3, 32, 32):
            raise ValueError(f"hints must be ({len(encoding)}, 3, 32, 32); got {tuple(hints.shape)}")

    @abstractmethod
    def sample(
        self,
        encoding: E,
        num_samples: int = 1,
        options: SampleOptions = SampleOptions(),  # noqa: B008  (frozen)
        generator: Generators = None,
        callback: StepCallback | None = None,
    ) -> Draws:
        """`num_samples` independent draws per photograph.

        generator: for B * num_samples rows, photo-major
        Raises OptionError for an option that the kind can not honor, RuntimeError for colors that are not finite.
        """

    @abstractmethod
    def preview(self, encoding: E) -> Tensor:
        """Color in one pass, an average of what is likely: rgb64 (B, 3, 64, 64)."""

    def num_steps(self, options: SampleOptions) -> int | None:
        """Steps of `sample` as its callback counts them; None where it is not known."""
        return None


class ColorUpsampler(Stage, ABC):
    """Stage 2: gray64, coarse64 -> rgb64."""

    family = "color"

    @abstractmethod
    def upsample(self, gray64: Tensor, coarse64: Tensor) -> Tensor:
        """Colors with 8 bits and the luma of gray64: (B, 1, 64, 64), (B, 64, 64) int64 -> rgb64 (B, 3, 64, 64)."""


class SuperResolver(Stage, ABC):
    """Stage 3: gray256, rgb64 -> rgb256. The option it may honor: `superres_steps`."""

    family = "superres"

    @abstractmethod
    def sample(
        self,
        gray256: Tensor,
        rgb64: Tensor,
        options: SampleOptions = SampleOptions(),  # noqa: B008  (frozen)
        generator: Generators = None,
        callback: StepCallback | None = None,
    ) -> Tensor:
        """Color at 256x256 with the luma of gray256: (B, 1, 256, 256), (B, 3, 64, 64) -> rgb256 (B, 3, 256, 256)."""

    @staticmethod
    def check_shapes(gray256: Tensor, rgb64: Tensor) -> None:
        """Raise ValueError unless gray256 is (B, 1, 256, 256) and rgb64 (B, 3, 64, 64)."""
        low_shape = (*gray256.shape[:1], 3, 64, 64)
        if gray256.ndim != 4 or gray256.shape[1:] != (1, 256, 256) or rgb64.shape != low_shape:
            raise ValueError(
                "gray256 must be (B, 1, 256, 256) and rgb64 (B, 3, 64, 64); "
                f"got {tuple(gray256.shape)} and {tuple(rgb64.shape)}"
            )

    def num_steps(self, options: SampleOptions) -> int | None:
        """Steps of `sample` as its callback counts them; None where it is not known."""
        return None
