"""SqueezeNet features of pictures, and the distance of their distributions."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from stages.evaluation.pixel import MetricsError, PictureList, same_size_batches

SHORT_SIDE, ENLARGED_SIDE = 128, 192  # a short side under 128 px is first enlarged to 192


class _Fire(nn.Module):
    """Squeeze to few channels, expand by 1x1 and 3x3 side by side (Iandola et al. 2016, section 3.2)."""

    def __init__(self, channels: int, squeezed: int, expanded: int):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x).relu(), self.expand3x3(x).relu()], dim=1)


class SqueezeNetFeatures(nn.Module):
    """SqueezeNet 1.1 up to `features.12`, averaged over space: 8-bit pictures -> 512 numbers each.

    Input of the network is BGR, 0..255, minus (104, 117, 123); the first convolution has no padding and the
    pools round their size up. Pictures with a short side under 128 px are first enlarged (bicubic, clamped to
    0..255) until it is 192; a square becomes 192x192. Parameter names are torchvision's.
    """

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, stride=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            _Fire(64, 16, 64),
            _Fire(128, 16, 64),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            _Fire(128, 32, 128),
            _Fire(256, 32, 128),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            _Fire(256, 48, 192),
            _Fire(384, 48, 192),
            _Fire(384, 64, 256),
            _Fire(512, 64, 256),
        )
        self.register_buffer("mean", torch.tensor([104.0, 117.0, 123.0]).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    @classmethod
    def from_file(cls, path: str | Path) -> SqueezeNetFeatures:
        """Read the weights from a safetensors file; names and shapes must match exactly.

        Raises MetricsError when the file is missing, not safetensors, or of another network.
        """
        path = Path(path)
        if not path.is_file():
            raise MetricsError(
                f"no feature network at {path}: give a safetensors file of SqueezeNet 1.1 (torchvision's "
                "parameter names) with --features"
            )
        network = cls()
        try:
            network.load_state_dict(load_file(path), strict=True)
        except (SafetensorError, RuntimeError) as error:
            raise MetricsError(f"{path} does not hold the weights of SqueezeNet 1.1: {error}") from error
        return network

    @torch.inference_mode()
    def forward(self, pictures: Tensor) -> Tensor:
        """uint8 RGB (B, 3, H, W) -> float32 (B, 512)."""
        x = pictures.float()
        short = min(x.shape[-2:])
        if short < SHORT_SIDE:
            size = [round(side * ENLARGED_SIDE / short) for side in x.shape[-2:]]
            x = F.interpolate(x, size, mode="bicubic", align_corners=False).clamp(0, 255)
        return self.features(x.flip(1) - self.mean).mean((2, 3))

    def of(self, pictures: PictureList) -> Tensor:
        """Features of many pictures, in batches: -> float32 (N, 512)."""
        # 2^18 pixels per call keep the activations in cache on a CPU, and equal sizes give equal batches, so
        # equal pictures at equal places have bit-equal features.
        return torch.cat([self(part) for batch in same_size_batches(pictures) for part in batch.split(32)])


def polynomial_kernel(x: Tensor, y: Tensor) -> Tensor:
    """k(x, y) = (x.y / features + 1)^3: (n, d), (m, d) -> (n, m) float64."""
    return (x.double() @ y.double().T / x.shape[1] + 1) ** 3


def mmd2_unbiased(x: Tensor, y: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy of two samples, cubic kernel: (n, d), (m, d) -> a number.

    sum_{i != j} k(x_i, x_j) / n(n-1) + sum_{i != j} k(y_i, y_j) / m(m-1) - 2 mean k(x_i, y_j), which
    may be negative. Source: Gretton et al. 2012 (JMLR 13), equation 3.
    """
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise MetricsError(f"unbiased MMD^2 needs two pictures on each side, got {n} and {m}")
    inside = [(k.sum() - k.diagonal().sum()) for k in (polynomial_kernel(x, x), polynomial_kernel(y, y))]
    return float(inside[0] / (n * (n - 1)) + inside[1] / (m * (m - 1)) - 2 * polynomial_kernel(x, y).mean())

