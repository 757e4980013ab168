"""Inception-v3 as it stands in the file that Fréchet inception distances are made with.

Heusel et al. 2017 (arXiv 1706.08500) take pool features of TensorFlow's inception-2015-12-05; pytorch-fid has its
weights as a state dict, pt_inception-2015-12-05-6726825d.pth. What differs from Inception-v3 elsewhere: 1008 classes,
average pools that leave the padding out, and a largest value instead of an average in the pool of the last block. Names
of parameters are those of that file (torchvision's), `num_batches_tracked` aside.

Pictures are enlarged to 299x299 bilinearly and without antialiasing, as pytorch-fid does. TensorFlow's own resize has
other corners, so figures of the two differ in their last digits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FID_FILE", "InceptionV3"]

FID_FILE = "6726825d"  # how the SHA-256 of pytorch-fid's file begins
SIDE = 299
FEATURES, CLASSES = 2048, 1008

Conv = tuple[str, int, tuple[int, int]]
"""(name, channels that come out, kernel)"""
Chain = list[list[Conv]]
"""One after another; several in one place see the same, and their answers are concatenated."""


class _Convolution(nn.Module):
    """Without bias, normalized, ReLU. Padded to keep the size at stride 1, not at all at stride 2."""

    def __init__(self, channels: int, out: int, kernel: tuple[int, int], stride: int = 1, padded: bool = True):
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if padded and stride == 1 else (0, 0)
        self.conv = nn.Conv2d(channels, out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu()


class _Mixed(nn.Module):
    """Chains of convolutions side by side, and beside them a pool.

    pool: "average" (without the padding) or "largest", 3x3, followed by a convolution to `pooled` channels
    halving: the last convolution of each chain, and the pool, have stride 2; the pool is then all of its branch
    """

    def __init__(
        self, channels: int, chains: list[Chain], pool: str, pooled: int = 0, *, halving: bool = False
    ) -> None:
        super().__init__()
        self.names = [[[name for name, *_ in fork] for fork in chain] for chain in chains]
        self.pool, self.stride = pool, 2 if halving else 1
        self.width = pooled or channels
        for chain in chains:
            width = channels
            for fork in chain:
                stride = self.stride if fork is chain[-1] else 1
                for name, out, kernel in fork:
                    self.add_module(name, _Convolution(width, out, kernel, stride))
                width = sum(out for _, out, _ in fork)
            self.width += width
        self.branch_pool = _Convolution(channels, pooled, (1, 1)) if pooled else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        answers = []
        for chain in self.names:
            y = x
            for fork in chain:
                y = torch.cat([self.get_submodule(name)(y) for name in fork], dim=1)
            answers.append(y)
        return torch.cat([*answers, self.branch_pool(self.pooled(x))], dim=1)

    def pooled(self, x: Tensor) -> Tensor:
        padding = 1 if self.stride == 1 else 0
        if self.pool == "largest":
            return F.max_pool2d(x, 3, self.stride, padding)
        return F.avg_pool2d(x, 3, self.stride, padding, count_include_pad=False)


def _doubled(*widths: int) -> Chain:
    """A 1x1 and two 3x3 convolutions."""
    return [[(f"branch3x3dbl_{number}", width, (1, 1) if number == 1 else (3, 3))]
            for number, width in enumerate(widths, start=1)]  # fmt: skip


def _block_a(channels: int, pooled: int) -> _Mixed:
    chains: list[Chain] = [
        [[("branch1x1", 64, (1, 1))]], [[("branch5x5_1", 48, (1, 1))], [("branch5x5_2", 64, (5, 5))]],
        _doubled(64, 96, 96),
    ]  # fmt: skip
    return _Mixed(channels, chains, "average", pooled)


def _block_b(channels: int) -> _Mixed:
    return _Mixed(channels, [[[("branch3x3", 384, (3, 3))]], _doubled(64, 96, 96)], "largest", halving=True)


def _block_c(channels: int, inner: int) -> _Mixed:
    lying, standing = (1, 7), (7, 1)
    chains: list[Chain] = [
        [[("branch1x1", 192, (1, 1))]],
        [[("branch7x7_1", inner, (1, 1))], [("branch7x7_2", inner, lying)], [("branch7x7_3", 192, standing)]],
        [[("branch7x7dbl_1", inner, (1, 1))], [("branch7x7dbl_2", inner, standing)],
         [("branch7x7dbl_3", inner, lying)], [("branch7x7dbl_4", inner, standing)], [("branch7x7dbl_5", 192, lying)]],
    ]  # fmt: skip
    return _Mixed(channels, chains, "average", 192)


def _block_d(channels: int) -> _Mixed:
    chains: list[Chain] = [
        [[("branch3x3_1", 192, (1, 1))], [("branch3x3_2", 320, (3, 3))]],
        [[("branch7x7x3_1", 192, (1, 1))], [("branch7x7x3_2", 192, (1, 7))], [("branch7x7x3_3", 192, (7, 1))],
         [("branch7x7x3_4", 192, (3, 3))]],
    ]  # fmt: skip
    return _Mixed(channels, chains, "largest", halving=True)


def _block_e(channels: int, pool: str) -> _Mixed:
    def both(name: str) -> list[Conv]:
        return [(f"{name}a", 384, (1, 3)), (f"{name}b", 384, (3, 1))]

    chains: list[Chain] = [
        [[("branch1x1", 320, (1, 1))]], [[("branch3x3_1", 384, (1, 1))], both("branch3x3_2")],
        [*_doubled(448, 384), both("branch3x3dbl_3")],
    ]  # fmt: skip
    return _Mixed(channels, chains, pool, 192)


class InceptionV3(nn.Module):
    """8-bit pictures of any size -> features of the last pool, and what it thinks of the classes."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Convolution(3, 32, (3, 3), 2)
        self.Conv2d_2a_3x3 = _Convolution(32, 32, (3, 3), padded=False)
        self.Conv2d_2b_3x3 = _Convolution(32, 64, (3, 3))
        self.Conv2d_3b_1x1 = _Convolution(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = _Convolution(80, 192, (3, 3), padded=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _block_a(192, 32), _block_a(256, 64), _block_a(288, 64)
        self.Mixed_6a, self.Mixed_6b = _block_b(288), _block_c(768, 128)
        self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = _block_c(768, 160), _block_c(768, 160), _block_c(768, 192)
        self.Mixed_7a = _block_d(768)
        self.Mixed_7b, self.Mixed_7c = _block_e(1280, "average"), _block_e(2048, "largest")
        self.fc = nn.Linear(FEATURES, CLASSES)
        self.requires_grad_(False).eval()

    @torch.inference_mode()
    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 RGB (B, 3, H, W) -> features (B, 2048), and scores of the classes (B, 1008) without the bias, which
        the inception score is made of (Salimans et al. 2016 leave it out).
        """
        x = F.interpolate(pictures.float() / 255, (SIDE, SIDE), mode="bilinear", align_corners=False)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(2 * x - 1)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = F.max_pool2d(x, 3, 2)
        for block in (self.Mixed_5b, self.Mixed_5c, self.Mixed_5d, self.Mixed_6a, self.Mixed_6b, self.Mixed_6c,
                      self.Mixed_6d, self.Mixed_6e, self.Mixed_7a, self.Mixed_7b, self.Mixed_7c):  # fmt: skip
            x = block(x)
        features = x.mean((2, 3))
        return features, features @ self.fc.weight.T
