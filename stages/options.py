"""How pictures are drawn: one frozen object, from the command line to the stage."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar

__all__ = ["MAX_SHARPNESS", "OptionError", "SampleOptions"]

MAX_SHARPNESS = 2.0


class OptionError(ValueError):
    """An option that is out of range, or that the kind or mode at hand can not honor."""


@dataclass(frozen=True)
class SampleOptions:
    """None is everywhere what the weights ask for. Raises OptionError for a value out of range.

    steps: of stage 1's sampler, from 1
    superres_steps: of stage 3's, from 1
    temperature: of stage 1's draws, from 0: 1 as the model has learned them, less is surer and less varied, 0 all alike
    chroma_gain: factor on the chroma of stage 1's draws, from 0
    pool: draws of which the first picture is the most central, from 1; 1: no choosing
    sharpness: of the edges of color, from 0 to 2
    """

    steps: int | None = None
    superres_steps: int | None = None
    temperature: float | None = None
    chroma_gain: float | None = None
    pool: int | None = None
    sharpness: float | None = None

    COARSE: ClassVar = ("steps", "temperature", "chroma_gain")
    SUPERRES: ClassVar = ("superres_steps",)

    def __post_init__(self) -> None:
        for name in ("steps", "superres_steps", "pool"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise OptionError(f"{name} must be a whole number from 1; got {value!r}")
        for name, most in (("temperature", math.inf), ("chroma_gain", math.inf), ("sharpness", MAX_SHARPNESS)):
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (is_number and 0 <= value <= most and value < math.inf):
                limits = f"from 0 to {most:g}" if most < math.inf else "from 0"
                raise OptionError(f"{name} must be a number {limits}; got {value!r}")

    @property
    def given(self) -> list[str]:
        """The names of the options that are not None."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]
