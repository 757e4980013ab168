"""The content loss of pix2pixHD: pictures compared by the features of VGG19 (Simonyan and Zisserman 2015, 1409.1556).

No weights come with it: they are given as a file. The network sees pictures in [-1, 1] and not by ImageNet's mean and
standard deviation, as in the published code.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from stages.checkpoint import CheckpointError

__all__ = ["VGG19", "content_loss"]

# Widths of the convolutions up to relu5_1; "M": the side is halved.
LAYERS = (64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512)
WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)  # of relu1_1, relu2_1, … relu5_1


class VGG19(nn.Module):
    """(B, 3, H, W) in [-1, 1] -> the maps relu1_1 to relu5_1. Parameters have torchvision's names."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.taken: list[int] = []
        width, fresh = 3, True
        for wide in LAYERS:
            if isinstance(wide, str):
                layers.append(nn.MaxPool2d(2))
                fresh = True
                continue
            layers += [nn.Conv2d(width, wide, 3, padding=1), nn.ReLU()]
            if fresh:
                self.taken.append(len(layers) - 1)
            width, fresh = wide, False
        self.features = nn.Sequential(*layers)
        self.requires_grad_(False).eval()

    @classmethod
    def from_file(cls, path: str | Path) -> VGG19:
        """From safetensors with torchvision's names of vgg19; what comes after relu5_1 is left out.

        Raises CheckpointError where the file is missing, is none, or holds another network.
        """
        network = cls()
        wanted = network.state_dict()
        try:
            weights = {name: value for name, value in load_file(path).items() if name in wanted}
            network.load_state_dict(weights)
        except (SafetensorError, OSError, RuntimeError) as error:
            raise CheckpointError(f"content_weights: {path} does not hold the weights of VGG19: {error}") from error
        return network

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self.taken:
                maps.append(x)
        return maps


def content_loss(network: VGG19, drawn: Tensor, real: Tensor) -> Tensor:
    """Weighted absolute difference of the features of pictures (B, 3, H, W) in [-1, 1] -> scalar."""
    with torch.no_grad():
        wanted = network(real)
    pairs = zip(WEIGHTS, network(drawn), wanted, strict=True)
    return torch.stack([weight * F.l1_loss(one, other) for weight, one, other in pairs]).sum()
