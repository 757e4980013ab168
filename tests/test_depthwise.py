"""The quick backward pass of depthwise convolutions, against torch's own."""

import pytest
import torch
import torch.nn.functional as F

from stages.nn.depthwise import depthwise_conv2d
from stages.nn.efficientnet import Conv


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize(("stride", "padded"), [(1, True), (2, False)])
def test_gradients_are_those_of_torch(kernel, stride, padded):
    padding = kernel // 2 if padded else 0
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_(True)
        for shape in ((2, 6, 13, 11), (6, 1, kernel, kernel), (6,))
    )
    expected, y = F.conv2d(x, weight, bias, stride, padding, 1, 6), depthwise_conv2d(x, weight, bias, stride, padding)
    assert torch.allclose(y, expected, atol=1e-13)
    upstream = torch.randn(y.shape, dtype=torch.float64, generator=generator)
    gradients = zip(*(torch.autograd.grad(one, (x, weight, bias), upstream) for one in (y, expected)), strict=True)
    for ours, torchs in gradients:
        assert torch.allclose(ours, torchs, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
def test_under_autocast_the_gradients_are_as_near_as_torchs_own(stride):
    """To float32's, from bfloat16: the weight's gradient is float32 again."""
    torch.manual_seed(0)
    conv, x = Conv(8, 8, 5, stride, groups=8), torch.randn(4, 8, 12, 12)
    exact = torch.autograd.grad(conv(x).square().sum(), conv.weight)[0]
    with torch.autocast("cpu", torch.bfloat16):
        y = conv(x)
    ours = torch.autograd.grad(y.float().square().sum(), conv.weight)[0]
    assert y.dtype == torch.bfloat16 and ours.dtype == torch.float32
    assert (ours - exact).norm() < 0.01 * exact.norm()


def test_a_frozen_convolution_stays_torchs_own(monkeypatch):
    monkeypatch.setattr("stages.nn.efficientnet.depthwise_conv2d", None)  # would fail if it were called
    conv = Conv(4, 4, 5, groups=4).requires_grad_(False)
    x = torch.randn(1, 4, 6, 6, requires_grad=True)
    assert torch.equal(conv(x), F.conv2d(x, conv.weight, conv.bias, 1, 2, 1, 4))


def test_other_kernels_are_refused():
    x, weight = torch.randn(1, 2, 9, 9), torch.randn(2, 1, 7, 7, requires_grad=True)
    with pytest.raises(NotImplementedError, match="1x1, 3x3 or 5x5; got 7x7"):
        depthwise_conv2d(x, weight, None, 1, 3).sum().backward()
