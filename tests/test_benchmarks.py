"""What the benchmarks count; they are not timed here."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.training import convolution_backward_flop


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
