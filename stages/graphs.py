"""What of a stage runs without torch: functions of tensors alone, which an exporter writes as graphs.

A kind that can be exported declares it by the base class `Exports` beside its face. Graphs raise nothing: whoever runs
one looks whether its answers are finite.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

__all__ = ["Exports", "Graph"]


@dataclass(frozen=True)
class Graph:
    """A function of tensors.

    name: of its file; says which part of the stage it is
    module: its `forward` takes the tensors of `inputs` in their order, and returns those of `outputs` in theirs
    inputs: an example of each, of one photograph: shapes are those that the graph takes
    defaults: of inputs that need not be chosen, one number for all of the tensor
    """

    name: str
    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    defaults: Mapping[str, float] = field(default_factory=dict)


class Exports(ABC):
    """A stage that can be exported."""

    @abstractmethod
    def graphs(self) -> list[Graph]:
        """Its parts, in the order they are used. Raises OptionError where these weights can not be exported."""
