"""What the benchmarks count; they are not timed here."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from standins import standin_pipeline
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import cpu
from benchmarks.cpu import judged, line, parts
from benchmarks.training import convolution_backward_flop
from pipeline import sources
from pipeline.color_pipeline import CANDIDATES, UNCERTAINTY_DRAWS
from pipeline.files import run


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


def test_parts_add_up_to_the_call(monkeypatch):
    """Work within a part is that part's: the draws of a uncertainty map are not those of the picture."""
    for module, name in ((sources, "load_photo"), (run, "load_photo"), (run, "save_photo")):
        monkeypatch.setattr(module, name, getattr(module, name))  # `parts` replaces them; put back at the end
    pipe, clock = standin_pipeline(), [0]
    monkeypatch.setattr(cpu, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    sample = pipe.stages["stage1"].sample

    def slow(*args, **kwargs):
        clock[0] += 1
        return sample(*args, **kwargs)

    monkeypatch.setattr(pipe.stages["stage1"], "sample", slow)
    spent = parts(pipe, lambda: pipe(np.zeros((20, 30), np.uint8), generator=0, uncertainty=True))
    of_picture, of_map = (draws // CANDIDATES for draws in (8, UNCERTAINTY_DRAWS))
    assert (spent["draws"], spent["uncertainty map"]) == (of_picture, of_map) and of_map > of_picture > 0
    assert sum(spent.values()) == clock[0] == of_picture + of_map
