"""The networks of stage 1, kind `diffusion`: the gray encoder, once per photograph; the denoiser's, every step."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from stages.faces import Encoding
from stages.nn.blocks import AxialBlock, NoiseEmbedding, ResidualBlock, group_norm, zero
from stages.nn.efficientnet import EfficientNetLite

__all__ = [
    "CHROMA_SIDE", "GRID", "SIDE", "ChromaNetwork", "DiffusionColorizerConfig", "DiffusionEncoding", "GrayEncoder",
]  # fmt: skip

SIDE, CHROMA_SIDE, GRID = 64, 32, 16  # of the gray picture, of its chroma, of the networks' finest features
PATCH = CHROMA_SIDE // GRID


@dataclass(frozen=True)
class DiffusionColorizerConfig:
    """Sizes, loss and sampling of the stage; widths are (at 16x16, at 8x8)."""

    backbone: str = "lite2"
    backbone_side: int = 128  # gray64 is enlarged to this before the backbone sees it
    gray_side: int = 64  # 128: the backbone sees the photograph itself at 128x128, where it has that many pixels
    backbone_frozen: int = 7  # the stem and this many blocks stay as they were loaded, in all training: they see edges
    encoder_channels: tuple[int, int] = (128, 256)
    encoder_blocks: int = 2
    denoiser_channels: tuple[int, int] = (96, 192)
    denoiser_blocks: tuple[int, int] = (1, 3)  # before and after the middle at 16x16, in the middle at 8x8
    heads: int = 4
    classes: int = 200  # of the auxiliary label; 0 without
    chroma_std: float = 0.08  # standard deviation of Cb and Cr over photographs
    # training
    noise_levels: int = 4  # per picture and encoding; 0 trains the encoder and its heads alone
    noise_mean: float = 1.0  # of ln(sigma), sigma in units of chroma_std
    noise_std: float = 1.6
    preview_weight: float = 1.0
    label_weight: float = 0.2
    film: float = 0.0  # share of the pictures whose gray is degraded as by old film
    hints: float = 0.0  # share of the pictures that are shown hints; above 0 the network has a path for them
    drop_path: float = 0.0  # of the backbone, as in `EfficientNetLite`: stochastic depth
    condition_dropout: float = 0.0  # share of the pictures whose denoiser is told nothing of them, for guidance
    # sampling
    sampler: str = "dpmpp_2m"  # or "spectral", the exponential integrator
    steps: int = 14
    tuned: int = 0  # steps that the weights hold `FewSteps` for: used where as many are asked for
    sigma_min: float = 0.05
    sigma_max: float = 80.0  # where sampling begins, but in tuned steps: they begin at the first of their own levels
    temperature: float = 1.0  # how far draws go from the preview, as a share of where the model puts them; 0: nowhere
    chroma_gain: float = 1.0  # of sampled chroma: corrects what networks and a low temperature lose in strength
    pool: int = 4  # candidates from which the default picture, the most central one, is chosen


@dataclass(frozen=True)
class DiffusionEncoding(Encoding):
    """What a photograph tells each of its draws.

    features: of the encoder, (B, C, 16, 16); preview: (B, 2, 32, 32) in units of `chroma_std`; both before any hints
    told, hinted: both with the hints, the same without any; maps: the denoiser's, see `ChromaNetwork.prepare`
    """

    features: Tensor
    preview: Tensor
    told: Tensor
    hinted: Tensor
    maps: list[Tensor]


class GrayEncoder(nn.Module):
    """What is in the picture: gray64 (B, 1, 64, 64) -> features (B, C, 16, 16), preview (B, 2, 32, 32) in
    units of `chroma_std`, class logits.

    sharp: the picture at `gray_side`, (B, 1, S, S), for the backbone
    """

    def __init__(self, config: DiffusionColorizerConfig):
        super().__init__()
        fine, coarse = config.encoder_channels
        self.side = config.backbone_side
        self.backbone = EfficientNetLite(config.backbone, config.drop_path)
        at8, at16, at32 = self.backbone.feature_channels
        self.from4 = nn.Conv2d(at32, coarse, 1)
        self.from8 = nn.Conv2d(at16, coarse, 1)
        self.blocks8 = nn.ModuleList()
        for _ in range(config.encoder_blocks):
            self.blocks8 += [ResidualBlock(coarse), AxialBlock(coarse, config.heads, GRID // 2)]
        self.up = nn.Conv2d(coarse, fine, 1)
        self.from16 = nn.Conv2d(at8, fine, 1)
        self.from_gray = nn.Conv2d((SIDE // GRID) ** 2, fine, 3, padding=1)
        self.blocks16 = nn.ModuleList()
        for _ in range(config.encoder_blocks):
            self.blocks16 += [ResidualBlock(fine), AxialBlock(fine, config.heads, GRID)]
        self.norm = group_norm(fine)
        self.preview = zero(nn.Conv2d(fine, 2 * PATCH**2, 1))
        self.label = nn.Linear(coarse, config.classes) if config.classes else None

    def forward(self, gray64: Tensor, sharp: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        large = F.interpolate(sharp, (self.side, self.side), mode="bilinear", align_corners=False)
        at8, at16, at32 = self.backbone(large)
        x = _to_side(self.from8(at16), GRID // 2) + _to_side(self.from4(at32), GRID // 2)
        for block in self.blocks8:
            x = block(x)
        logits = None if self.label is None else self.label(x.mean((2, 3)))
        x = self.up(_to_side(x, GRID)) + _to_side(self.from16(at8), GRID)
        x = x + self.from_gray(F.pixel_unshuffle(gray64 - 0.5, SIDE // GRID))
        for block in self.blocks16:
            x = block(x)
        x = F.silu(self.norm(x))
        return x, F.pixel_shuffle(self.preview(x), PATCH), logits


class ChromaNetwork(nn.Module):
    """The light network that runs at every step, a U of 16x16, 8x8 and 16x16 with skips.

    forward: x (B, 4, 32, 32), what the preview leaves open, noisy, and a first guess at it; c_noise (B,); context: the
    maps of `prepare`; modulation (sum of `modulations`,), see `FewSteps` -> (B, 2, 32, 32)
    """

    def __init__(self, config: DiffusionColorizerConfig):
        super().__init__()
        (fine, coarse), (outer, inner) = config.denoiser_channels, config.denoiser_blocks
        code = 2 * fine
        self.embedding = NoiseEmbedding(code)
        self.read = nn.Conv2d(4 * PATCH**2, fine, 3, padding=1)
        self.down = nn.ModuleList(ResidualBlock(fine, code) for _ in range(outer))
        self.shrink = nn.Conv2d(fine, coarse, 2, stride=2)
        self.middle = nn.ModuleList(ResidualBlock(coarse, code) for _ in range(inner))
        self.attention = nn.ModuleList(AxialBlock(coarse, config.heads, GRID // 2) for _ in range(inner))
        self.grow = nn.Conv2d(coarse, fine, 1)
        self.attention16 = AxialBlock(fine, config.heads, GRID)
        self.up = nn.ModuleList(ResidualBlock(fine, code) for _ in range(outer))
        self.norm = group_norm(fine)
        self.write = zero(nn.Conv2d(fine, 2 * PATCH**2, 3, padding=1))
        # What the encoder has to say to each block, computed once per photograph.
        width = config.encoder_channels[0]
        self.context = nn.ModuleList(nn.Conv2d(width, fine, 1) for _ in range(2 * outer))
        self.context8 = nn.ModuleList(nn.Conv2d(width, coarse, 2, stride=2) for _ in range(inner))

    def prepare(self, context: Tensor) -> list[Tensor]:
        """The encoder's features (B, C, 16, 16) as one map per block: the part of the network that knows no noise."""
        return [layer(context) for layer in (*self.context, *self.context8)]

    @property
    def modulations(self) -> list[int]:
        """How many scales and shifts each block has, from the first to the last."""
        return [2 * block.norm2.num_channels for block in (*self.down, *self.middle, *self.up)]

    def forward(
        self, x: Tensor, c_noise: Tensor, context: list[Tensor], modulation: Tensor | None = None
    ) -> Tensor:
        code, outer, inner = self.embedding(c_noise), len(self.down), len(self.middle)
        parts = [None] * len(self.modulations) if modulation is None else modulation.split(self.modulations)
        x = self.read(F.pixel_unshuffle(x, PATCH))
        for block, extra, own in zip(self.down, context[:outer], parts[:outer], strict=True):
            x = block(x, code, extra, own)
        y = self.shrink(x)
        middle = zip(self.middle, self.attention, context[2 * outer :], parts[outer : outer + inner], strict=True)
        for block, attend, extra, own in middle:
            y = attend(block(y, code, extra, own))
        x = self.attention16(x + F.interpolate(self.grow(y), scale_factor=2.0, mode="nearest"))
        for block, extra, own in zip(self.up, context[outer : 2 * outer], parts[outer + inner :], strict=True):
            x = block(x, code, extra, own)
        return F.pixel_shuffle(self.write(F.silu(self.norm(x))), PATCH)


def _to_side(x: Tensor, side: int) -> Tensor:
    return x if x.shape[-1] == side else F.interpolate(x, (side, side), mode="bilinear", align_corners=False)
