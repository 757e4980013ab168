"""What the benchmarks count; they are not timed here."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import cpu
from benchmarks.cpu import judged, line, parts
from benchmarks.training import convolution_backward_flop
from pipeline import ColorPipeline, cascade, sources
from pipeline.files import coloring, outputs
from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, merge, rgb_from_coarse
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

DEFAULT = SampleOptions()


@dataclass(frozen=True)
class Empty:
    pass


@pytest.mark.parametrize("groups", [1, 4, 32])
@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_of_convolutions_cost_what_the_forward_pass_costs(groups, frozen):
    x = torch.randn(2, 32, 8, 8, requires_grad=True)
    weight = torch.randn(32, 32 // groups, 3, 3, requires_grad=not frozen)
    counted = {torch.ops.aten.convolution_backward: convolution_backward_flop}
    with FlopCounterMode(display=False, custom_mapping=counted) as counter:
        F.conv2d(x, weight, None, 1, 1, 1, groups).sum().backward()
    forward = 2 * 2 * 64 * 32 * (32 // groups) * 9
    assert counter.get_total_flops() == forward * (2 if frozen else 3)


def test_bounds_are_judged_at_the_rate_of_the_processor():
    """1.5 s and 1.5 GB at 200 GFLOP/s; at half of that rate 3 s, and no more memory."""
    name = "1 megapixel, PIL to PIL"
    for seconds, gigabytes, gflops, met in ((1.5, 1.5, 200, True), (1.6, 1.0, 200, False), (2.9, 1.0, 100, True),
                                            (0.9, 1.0, 400, False), (0.1, 1.6, 100, False)):  # fmt: skip
        row = judged(name, {"seconds": seconds, "peak_gb": gigabytes, "gflops": gflops})
        assert (row["met"], row["scaled_bound_seconds"]) == (met, 300 / gflops) and name in line(row)
    free = judged("1 megapixel, preview", {"seconds": 1e3, "peak_gb": 1.0, "gflops": 1})
    assert free["met"] and free["scaled_bound_seconds"] is None and "NOT MET" not in line(free)


class Steady(ColorUpsampler):
    """Coarse colors as they are."""

    kind, config_class = "steady", Empty

    def upsample(self, gray64: Tensor, coarse64: Tensor) -> Tensor:
        return merge(gray64, chroma_from_rgb(rgb_from_coarse(coarse64)))


class Enlarging(SuperResolver):
    kind, config_class = "enlarging", Empty

    def sample(
        self, gray256: Tensor, rgb64: Tensor, options: SampleOptions = DEFAULT, generator: Generators = None,
        callback: StepCallback | None = None,
    ) -> Tensor:  # fmt: skip
        return merge(gray256, chroma_from_rgb(resize(rgb64, (256, 256))))


class Ticking(CoarseColorizer[Encoding]):
    """Each call to draw takes a second of the clock."""

    kind, config_class, pool = "ticking", Empty, 8
    honors = frozenset({"temperature"})
    clock: ClassVar[list[int]] = [0]

    def encode(self, view: GrayView) -> Encoding:
        return Encoding(view.gray64)

    def sample(
        self, encoding: Encoding, num_samples: int = 1, options: SampleOptions = DEFAULT, generator: Generators = None,
        callback: StepCallback | None = None,
    ) -> Draws:  # fmt: skip
        self.clock[0] += 1
        chroma = 0.1 * draw_noise((len(encoding), num_samples, 2, 1, 1))
        return Draws.of(encoding.gray64, chroma.expand(-1, -1, -1, 64, 64))

    def preview(self, encoding: Encoding) -> Tensor:
        return encoding.gray64.expand(-1, 3, -1, -1)


def test_parts_add_up_to_the_call(monkeypatch):
    """Work within a part is that part's: the draws of an uncertainty map are not those of the picture."""
    pipe, clock = ColorPipeline(Ticking(Empty()), Steady(Empty()), Enlarging(Empty())), Ticking.clock
    clock[0] = 0
    monkeypatch.setattr(cpu, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    before = [cascade.spread_order, cascade.Cascade._draws, sources.load_photo, coloring.load_photo, outputs.save_photo]
    spent = parts(pipe, lambda: pipe(np.zeros((20, 30), np.uint8), generator=0, uncertainty=True))
    of_picture, of_map = (draws // cascade.CANDIDATES for draws in (8, cascade.UNCERTAINTY_DRAWS))
    assert (spent["draws"], spent["uncertainty map"]) == (of_picture, of_map) and of_map > of_picture > 0
    assert sum(spent.values()) == clock[0] == of_picture + of_map
    assert {"read", "encode", "order", "stage 2", "stage 3", "merge"} <= set(spent)
    after = [cascade.spread_order, cascade.Cascade._draws, sources.load_photo, coloring.load_photo, outputs.save_photo]
    assert before == after and "encode" not in vars(pipe.coarse)  # the clocks are gone
