"""What is asked of the networks in one call, checked as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from stages.faces import CoarseColorizer, Scores
from stages.options import OptionError, SampleOptions
from stages.stage import Stage

__all__ = ["MOST_STRENGTH", "OutputType", "Request", "StepCallback", "reranker"]

MOST_STRENGTH = 2
OutputType = Literal["pil", "np", "pt"]
StepCallback = Callable[[Any, int, float, dict[str, Any]], object]
"""f(pipe, step, sigma, {"stage": name, "x": …, "x0": …, "steps": N or None}), after each step of stages 1 and 3."""


@dataclass(frozen=True)
class Request:
    """How many pictures of each photo, and how. Raises OptionError where one excludes another.

    num_samples: pictures per photo; preview: one pass of stage 1 in place of the cascade
    candidate: number of the draw that is the one picture; None: it is chosen
    palette: chroma of the colors that pictures lean to, (K, 2), see `stages.hints.palette`
    strength: factor on the chroma of the finished pictures, 0 to 2
    uncertainty: also a map of the first picture; rank_with: what draws are put in order by, see `reranker`
    """

    num_samples: int = 1
    preview: bool = False
    uncertainty: bool = False
    options: SampleOptions = field(default_factory=SampleOptions)
    rank_with: Scores | None = None
    callback: StepCallback | None = None
    palette: Tensor | None = None
    strength: float = 1.0
    candidate: int | None = None

    def __post_init__(self) -> None:
        number = isinstance(self.strength, int | float) and not isinstance(self.strength, bool)
        if not number or not 0 <= self.strength <= MOST_STRENGTH:
            raise OptionError(f"strength must be a number from 0 to {MOST_STRENGTH}; got {self.strength!r}")
        if type(self.num_samples) is not int or self.num_samples < 1:
            raise OptionError(f"num_samples must be a whole number from 1; got {self.num_samples!r}")
        if self.candidate is not None:
            if type(self.candidate) is not int or self.candidate < 0:
                raise OptionError(f"candidate must be a whole number from 0; got {self.candidate!r}")
            chosen = {"num_samples": self.num_samples > 1, "pool": self.options.pool is not None,
                      "rank_with": self.rank_with is not None, "preview": self.preview}  # fmt: skip
            if unused := [name for name, given in chosen.items() if given]:
                raise OptionError(f"candidate is the one draw wanted, so there is nothing for {', '.join(unused)} to "
                                  "choose. Leave one of them out")  # fmt: skip
        if not self.preview:
            return
        if self.num_samples > 1:
            raise OptionError(f"a preview is one picture per photo; got num_samples={self.num_samples}")
        drawn = {"steps"} if self.uncertainty else set()  # the map is drawn also beside a preview
        unused = [name for name in self.options.given if name not in drawn]
        if self.callback is not None:
            unused.append("callback_on_step_end")
        if self.rank_with is not None:
            unused.append("rank_with")
        if unused:
            raise OptionError(f"a preview is one pass that draws nothing: it can not honor {', '.join(unused)}. "
                              "Leave them out, or leave out preview")  # fmt: skip

    def checked_for(self, coarse: CoarseColorizer, superres: Stage) -> Request:
        """The request itself. Raises OptionError for what these stages can not honor."""
        coarse.check_honored(self.options, SampleOptions.COARSE)
        superres.check_honored(self.options, SampleOptions.SUPERRES)
        pool = coarse.pool if self.options.pool is None else self.options.pool
        if self.rank_with is not None and max(pool, self.num_samples) == 1:
            raise OptionError("rank_with has nothing to rank: one candidate is drawn. Ask for a pool or several "
                              "pictures, or leave it out")  # fmt: skip
        return self


def reranker(stage: object, device: torch.device) -> Scores:
    """`stage` as what draws can be put in order by.

    Raises OptionError where it is none, elsewhere, or still in training mode: a stage of the caller's is not moved.
    """
    if not (isinstance(stage, Stage) and isinstance(stage, Scores)):
        what = f"kind {stage.kind!r} of the family {stage.family}" if isinstance(stage, Stage) else repr(stage)
        raise OptionError(
            f"to rank candidates, a stage must be able to score them (a critic; coarse: coltran, pic); got {what}"
        )
    parameter = next(iter(stage.parameters()), None)
    if stage.training or (parameter is not None and parameter.device.type != device.type):
        raise OptionError(f"what ranks must be in evaluation mode, on {device}: call .eval() and .to({str(device)!r})")
    return stage
