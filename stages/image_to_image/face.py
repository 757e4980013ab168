"""The face of the family image_to_image: a condition in, whole pictures out, without the cascade."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, cast, get_args

import torch
from torch import Tensor

from stages.diffusion.corrections import Order, langevin
from stages.diffusion.process import SAMPLER_NAMES
from stages.diffusion.samplers import Correct
from stages.faces import Generators, StepCallback
from stages.options import OptionError
from stages.stage import Stage

__all__ = ["TASKS", "Condition", "Corrector", "ImageToImage", "Refinement", "Task", "TranslateOptions"]

Task = Literal["colorize", "inpaint", "uncrop", "jpeg", "line_art", "variation"]
TASKS: tuple[Task, ...] = get_args(Task)


@dataclass(frozen=True)
class Condition:
    """What is known of B pictures.

    source: (B, 3, H, W) in [0, 1]: gray in three channels, the picture with holes, the JPEG, the drawing in three
        channels, or the reference of a variation
    hole: (B, 1, H, W) bool, true where pictures are to be filled; elsewhere they stay as they are. None: nothing stays
    known: (B, 3, H, W) in [0, 1], what stays outside of the hole; None: the source itself
    colors: (B, 3, H, W) in [0, 1], a picture toward whose colors draws lean, for the kinds that can
    """

    source: Tensor
    hole: Tensor | None = None
    known: Tensor | None = None
    colors: Tensor | None = None

    def __post_init__(self) -> None:
        if self.source.ndim != 4 or self.source.shape[1] != 3:
            raise ValueError(f"source must be (B, 3, H, W) in [0, 1]; got {tuple(self.source.shape)}")
        shape = (len(self.source), 1, *self.source.shape[2:])
        if self.hole is not None and (self.hole.shape != shape or self.hole.dtype != torch.bool):
            raise ValueError(f"hole must be {shape} bool; got {tuple(self.hole.shape)} {self.hole.dtype}")
        if self.known is not None and (self.hole is None or self.known.shape != self.source.shape):
            raise ValueError(f"known must be {tuple(self.source.shape)}, beside a hole; got {tuple(self.known.shape)}")
        if self.colors is not None and self.colors.shape != self.source.shape:
            raise ValueError(f"colors must be {tuple(self.source.shape)}; got {tuple(self.colors.shape)}")

    @property
    def kept(self) -> Tensor:
        return self.source if self.known is None else self.known

    def to(self, device: torch.device) -> Condition:
        return self._each(lambda one: one.to(device))

    def repeated(self, count: int) -> Condition:
        """Each picture `count` times, in a row."""
        return self._each(lambda one: one.repeat_interleave(count, 0))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Condition:
        rest = (None if one is None else change(one) for one in (self.hole, self.known, self.colors))
        return Condition(change(self.source), *rest)


@dataclass(frozen=True)
class Corrector:
    """Langevin steps between those of the sampler, see `langevin`. steps = 0: none."""

    steps: int = 1
    snr: float = 0.16
    order: str = "predictor-corrector"  # or "corrector-predictor"
    annealed: bool = False

    def __post_init__(self) -> None:
        if self.steps < 0 or not self.snr > 0 or self.order not in get_args(Order):
            raise OptionError(f"a corrector needs steps >= 0, snr > 0 and an order of {get_args(Order)}; got {self}")

    def correction(self) -> Correct | None:
        """For a sampler; None: there is nothing to do."""
        order = cast(Order, self.order)
        return langevin(self.snr, self.steps, order, self.annealed) if self.steps else None


@dataclass(frozen=True)
class Refinement:
    """How a variation follows its reference (ILVR), see `stages.diffusion.ilvr`.

    factor: N, of the low pass; 1 gives the reference back, the side of the picture leaves its mean color alone
    low_pass: "bicubic" (the paper's) or "box", an exact projection
    since, until: shares of the sampler's steps, the first and the last ones, in which the model is free; 0: none. As in
        the authors' code with its `range_t`: until = (range_t + 1) / steps
    lagging: the reference as noisy as before the step, as in the authors' code
    """

    factor: int = 8
    low_pass: str = "bicubic"
    until: float = 0.0
    lagging: bool = False
    since: float = 0.0

    def __post_init__(self) -> None:
        shares = min(self.since, self.until) >= 0 and self.since + self.until < 1
        if self.factor < 1 or self.low_pass not in ("bicubic", "box") or not shares:
            raise OptionError(
                'a refinement needs factor >= 1, low_pass "bicubic" or "box", and since and until from 0 and together '
                f"below 1; got {self}"
            )


@dataclass(frozen=True)
class TranslateOptions:
    """None is everywhere what the weights ask for. Raises OptionError for a value out of range.

    steps: of the sampler, from 1; sampler: its name, see `ProcessConfig`
    corrector: Langevin steps between (gpic)
    start_color: red, green, blue in [0, 1], toward which colors lean from the start (gpic)
    refinement: of variations (unconditional)
    """

    steps: int | None = None
    sampler: str | None = None
    corrector: Corrector | None = None
    start_color: tuple[float, float, float] | None = None
    refinement: Refinement | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and (type(self.steps) is not int or self.steps < 1):
            raise OptionError(f"steps must be a whole number from 1; got {self.steps!r}")
        if self.sampler is not None and self.sampler not in SAMPLER_NAMES:
            raise OptionError(f"sampler must be one of {', '.join(SAMPLER_NAMES)}; got {self.sampler!r}")
        color = self.start_color
        if color is not None and (len(color) != 3 or not all(0 <= one <= 1 for one in color)):
            raise OptionError(f"start_color must be three numbers in [0, 1]; got {color!r}")

    @property
    def given(self) -> list[str]:
        """The names of the options that are not None."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]


class ImageToImage(Stage, ABC):
    """condition -> rgb. `honors` names fields of `TranslateOptions`."""

    family = "image_to_image"
    takes_colors: ClassVar[bool] = False
    """Whether a condition may name colors to lean to."""
    fills: ClassVar[frozenset[str]] = frozenset()
    """Tasks whose conditions need a hole."""
    may_fill: ClassVar[frozenset[str]] = frozenset()
    """Tasks whose conditions may have one."""
    any_side: ClassVar[bool] = False
    """Whether pictures may have other sides than `side`."""

    @property
    @abstractmethod
    def side(self) -> int:
        """Of the square pictures that it has learned."""

    @property
    @abstractmethod
    def tasks(self) -> tuple[Task, ...]:
        """What it can be asked for."""

    @property
    def training_side(self) -> int:
        return self.side

    @property
    def varied(self) -> bool:
        """Whether draws of one condition differ."""
        return self.sampling is not None

    @abstractmethod
    def condition(self, rgb: Tensor, task: Task) -> Condition:
        """What it is shown of pictures (B, 3, S, S) in training; corruptions from torch's global stream."""

    @abstractmethod
    def sample(
        self,
        condition: Condition,
        task: Task,
        num_samples: int = 1,
        options: TranslateOptions = TranslateOptions(),  # noqa: B008  (frozen)
        generator: Generators = None,
        callback: StepCallback | None = None,
    ) -> Tensor:
        """`num_samples` independent pictures per condition: (B, N, 3, H, W) in [0, 1].

        generator: for B * num_samples rows, condition-major
        Raises OptionError for a task or an option that it can not honor, ValueError for sides that are too odd for its
        network, RuntimeError for colors that are not finite.
        """

    def check(self, condition: Condition, task: str, options: TranslateOptions) -> None:
        """Raises OptionError for a task, options or parts of a condition that this kind, with these weights, knows
        nothing of, and for a part that is missing.
        """
        if task not in self.tasks:
            raise OptionError(
                f"task {task!r} is none of those that these weights, kind {self.kind!r}, have learned: "
                f"{', '.join(self.tasks)}"
            )
        for name in options.given:
            if name not in self.honors:
                raise OptionError(
                    f"{name} can not be honored by kind {self.kind!r} of the family {self.family}, which knows of "
                    f"these options: {', '.join(sorted(self.honors))}. Leave it out."
                )
        if condition.hole is None and task in self.fills:
            raise OptionError(f"task {task!r} needs a hole, to be filled")
        if condition.hole is not None and task not in self.fills | self.may_fill:
            raise OptionError(f"task {task!r} fills no hole; leave it out")
        if condition.colors is not None and not self.takes_colors:
            raise OptionError(f"colors to lean to mean nothing to kind {self.kind!r}; leave them out")


def check_tasks(tasks: Iterable[str], known: Iterable[str]) -> None:
    """Raises ValueError for a config without tasks, or with others than `known`."""
    tasks, known = list(tasks), list(known)
    if not tasks or len(set(tasks)) < len(tasks) or not set(tasks) <= set(known):
        raise ValueError(f"tasks must be some of {', '.join(known)}, each once; got {tasks}")
