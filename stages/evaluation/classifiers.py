"""Classifiers of ImageNet's 1000 classes, for inception scores and accuracies of generated pictures.

Palette (arXiv 2111.05826) takes ResNet-50 in its text and EfficientNet-B0 in its appendix. Here are ResNet-50 (He et
al. 2015, arXiv 1512.03385, stride in the 3x3 convolution; names of parameters are torchvision's), and
EfficientNet-Lite0, whose published file the package's extra `train` installs. Pictures are resized to a short side of
256, bilinearly with antialiasing, and cut to the central 224x224.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.nn.efficientnet import Conv, EfficientNetLite, folded, folded_convolution

__all__ = ["CLASSES", "EfficientNetLite0", "ResNet50", "classifier_of"]

CLASSES = 1000
SHORT_SIDE, SIDE = 256, 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's photographs, as torchvision has them


def central(pictures: Tensor) -> Tensor:
    """uint8 RGB (B, 3, H, W) -> what classifiers see, (B, 3, 224, 224) in [0, 1]."""
    height, width = pictures.shape[-2:]
    scale = SHORT_SIDE / min(height, width)
    size = [round(height * scale), round(width * scale)]
    x = F.interpolate(pictures.float() / 255, size, mode="bilinear", antialias=True)
    top, left = (size[0] - SIDE) // 2, (size[1] - SIDE) // 2
    return x[..., top : top + SIDE, left : left + SIDE]


class _Bottleneck(nn.Module):
    def __init__(self, channels: int, inner: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, 4 * inner, 1, bias=False), nn.BatchNorm2d(4 * inner)
        self.downsample = None
        if channels != 4 * inner:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, 4 * inner, 1, stride, bias=False), nn.BatchNorm2d(4 * inner)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn3(self.conv3(self.bn2(self.conv2(y)).relu()))
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class ResNet50(nn.Module):
    """8-bit pictures of any size -> scores of the classes."""

    name = "resnet50"

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        channels = 64
        for number, (inner, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], start=1):
            layer = nn.Sequential()
            for block in range(blocks):
                layer.append(_Bottleneck(channels, inner, 2 if block == 0 and number > 1 else 1))
                channels = 4 * inner
            self.add_module(f"layer{number}", layer)
        self.fc = nn.Linear(channels, CLASSES)
        self.requires_grad_(False).eval()

    @torch.inference_mode()
    def forward(self, pictures: Tensor) -> Tensor:
        """uint8 RGB (B, 3, H, W) -> (B, 1000)."""
        x = central(pictures)
        x = (x - x.new_tensor(MEAN).view(3, 1, 1)) / x.new_tensor(DEVIATION).view(3, 1, 1)
        x = F.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        return self.fc(x.mean((2, 3)))


class EfficientNetLite0(nn.Module):
    """8-bit pictures of any size -> scores of the classes. The backbone is one that stage 1 can start from."""

    name = "efficientnet_lite0"

    def __init__(self) -> None:
        super().__init__()
        self.backbone = EfficientNetLite("lite0")
        self.head = Conv(self.backbone.feature_channels[-1], 1280, 1)
        self.fc = nn.Linear(1280, CLASSES)
        self.requires_grad_(False).eval()

    @torch.inference_mode()
    def forward(self, pictures: Tensor) -> Tensor:
        """uint8 RGB (B, 3, H, W) -> (B, 1000)."""
        x = self.backbone.of_rgb(central(pictures))[-1]
        return self.fc(F.relu6(self.head(x)).mean((2, 3)))


def classifier_of(weights: dict[str, Tensor]) -> ResNet50 | EfficientNetLite0:
    """The classifier whose published weights these are. Raises ValueError for others."""
    if "layer4.2.conv3.weight" in weights:
        network = ResNet50()
        network.load_state_dict(weights)
        return network
    head = weights.get("_conv_head.weight")
    if head is None or head.shape[1] != 320:
        raise ValueError("neither torchvision's ResNet-50 nor the published EfficientNet-Lite0")
    kept = {f"backbone.{name}": value for name, value in folded(weights).items()}
    kept |= folded_convolution(weights, "_conv_head", "_bn1", "head")
    lite = EfficientNetLite0()
    lite.load_state_dict(kept | {"fc.weight": weights["_fc.weight"], "fc.bias": weights["_fc.bias"]})
    return lite
