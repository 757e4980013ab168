"""Depthwise convolution whose backward pass is quick on CPUs.

oneDNN has quick kernels for what a training step needs of a depthwise convolution in bfloat16, but for two: the
gradient of a 5x5 weight takes a hundred times as long as that of a 3x3, and the gradient of the input fifty times as
long at stride 2. The first is put together from four 3x3 windows of the kernel, the second is computed in float32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["depthwise_conv2d"]


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """`F.conv2d` with a kernel for each channel, as autocast casts. x (B, C, H, W), weight (C, 1, k, k), bias (C,)."""
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        x, weight = x.to(dtype), weight.to(dtype)
    y = _Depthwise.apply(x, weight, stride, padding)
    return y if bias is None else y + bias.to(y.dtype)[:, None, None]


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            wide = torch.float32 if ctx.stride > 1 and x.dtype == torch.bfloat16 else x.dtype
            grad_x = _gradients(
                grad.to(wide), x.to(wide), weight.to(wide), ctx.stride, ctx.padding, (True, False)
            )[0].to(x.dtype)
        if ctx.needs_input_grad[1]:
            grad_weight = _weight_gradient(grad, F.pad(x, [ctx.padding] * 4), weight, ctx.stride)
        return grad_x, grad_weight, None, None


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Of a kernel of up to 5x5, by windows of at most 3x3; x is padded already."""
    kernel, (height, width) = weight.shape[-1], grad.shape[-2:]
    if kernel <= 3:
        return _gradients(grad, x, weight, stride, 0, (False, True))[1]
    if kernel != 5:
        raise NotImplementedError(f"depthwise kernels are 1x1, 3x3 or 5x5; got {kernel}x{kernel}")
    whole = torch.empty_like(weight)
    for top in (0, 2):
        for left in (0, 2):  # rows and columns in the middle are computed twice, to the same values
            seen = x[..., top : top + (height - 1) * stride + 3, left : left + (width - 1) * stride + 3]
            window = weight[..., top : top + 3, left : left + 3].contiguous()
            seen = seen.contiguous(memory_format=torch.channels_last)
            whole[..., top : top + 3, left : left + 3] = _gradients(grad, seen, window, stride, 0, (False, True))[1]
    return whole


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """torch's own, of input and weight."""
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], len(weight), [*wanted, False]
    )[:2]
