"""Stage 1, kind `pic`: coarse colors of a 64x64 gray picture, drawn pixel after pixel in Lab, with exact likelihoods.

Probabilistic image colorization (PIC, arXiv 1705.04258; `stages/nn/pixelcnn` has its networks): an embedding of
the gray picture conditions a shallow PixelCNN++ over a smaller color picture, whose pixels are mixtures of discretized
logistics over a and b. The embedding alone must predict the colors too, which makes it a one-pass colorizer.

What differs from the paper: the stage is given the luma, not Lab's lightness, so that what stands for L is the
lightness of the gray pixel, and at the end the L is found at which a, b and the luma agree. The canvas holds L, a and
b, not RGB: no color leaves the gamut or is rounded on the way, and the sampler computes what training computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.color.lightness import chroma_at_luma, lightness
from stages.color.spaces import chroma_from_rgb, gray_from_rgb, lab_from_rgb, merge, rgb_from_coarse
from stages.diffusion.noise import draw_uniform
from stages.faces import CoarseColorizer, Draws, Encoding, Generators, GrayView, HasLikelihood, Scores, StepCallback
from stages.nn.pixelcnn.layers import Convolution, initialized_by_data
from stages.nn.pixelcnn.logistic_mixture import PARAMETERS, LogisticMixture
from stages.nn.pixelcnn.network import GrayEmbedding, PixelNetwork
from stages.options import SampleOptions
from stages.precision import checked_finite

SIDE = 64
INITIAL_PICTURES = 100  # that set the scales of the layers
INITIAL_SCALE = 0.06  # of every component; times the logistic's 1.8 that of a and b over photographs


@dataclass(frozen=True)
class PICColorizerConfig:
    """The published sizes: configs/stage1_pic.toml. Of the embedding: one entry per level, from fine to coarse."""

    embedding_channels: tuple[int, ...] = (24, 48, 96, 128)
    embedding_strides: tuple[int, ...] = (1, 2, 2, 1)
    embedding_blocks: tuple[int, ...] = (1, 2, 2, 3)
    embedding_dilations: tuple[int, ...] = (1, 1, 1, 2)
    embedding_width: int = 96  # what the pixels hear; the first 8 K of it are also the embedding's own prediction
    channels: int = 64
    blocks: int = 4
    components: int = 10
    dropout: float = 0.1
    subsampling: str = "area"  # of the colors; "strided", every n-th pixel, is the published one
    embedding_weight: float = 1.0  # of the embedding's own loss
    # sampling
    temperature: float = 1.0  # 0: always the mean of the likeliest component
    pool: int = 1


@dataclass(frozen=True)
class PICEncoding(Encoding):
    """embedding: of the gray picture, (B, embedding_width, 64 / s, 64 / s)."""

    embedding: Tensor


class PICColorizer(CoarseColorizer[PICEncoding], HasLikelihood, Scores):
    kind, config_class = "pic", PICColorizerConfig
    honors = frozenset({"temperature"})
    autoregressive = True
    training_side = SIDE
    bits_unit = "dimension"

    def __init__(self, config: PICColorizerConfig | None = None):
        config = config or PICColorizerConfig()
        super().__init__(config)
        if config.subsampling not in ("area", "strided"):
            raise ValueError(f'subsampling must be "area" or "strided"; got {config.subsampling!r}')
        SampleOptions(temperature=config.temperature)  # raises where it is out of range
        out = PARAMETERS * config.components
        if config.embedding_width < out:
            raise ValueError(f"embedding_width must be at least 8 · components = {out}; got {config.embedding_width}")
        levels = {len(getattr(config, f"embedding_{name}")) for name in ("channels", "strides", "blocks", "dilations")}
        self.factor = math.prod(config.embedding_strides)
        if len(levels) > 1 or SIDE % self.factor:
            raise ValueError(
                "the embedding's channels, strides, blocks and dilations must have one entry per level, and the "
                f"strides' product must divide {SIDE}; got {config}"
            )
        self.embedding = GrayEmbedding(
            config.embedding_channels, config.embedding_strides, config.embedding_blocks, config.embedding_dilations,
            config.embedding_width, config.dropout,
        )  # fmt: skip
        self.pixels = PixelNetwork(3, config.embedding_width, config.channels, config.blocks, out, config.dropout)

    @property
    def pool(self) -> int:
        return self.config.pool

    def num_steps(self, options: SampleOptions) -> int:
        return SIDE // self.factor

    # training

    def forward(self, rgb: Tensor, label: Tensor | None = None) -> Tensor:
        """Bits per dimension of the pixels, plus the embedding's own: rgb (B, 3, 64, 64) in [0, 1] -> scalar."""
        if rgb.ndim != 4 or rgb.shape[1:] != (3, SIDE, SIDE):
            raise ValueError(f"rgb must be (B, 3, {SIDE}, {SIDE}) in [0, 1]; got {tuple(rgb.shape)}")
        lab = self._small_lab(rgb)
        embedding = self.embedding(lightness(gray_from_rgb(rgb)))
        pixels = self._bits(self.pixels(lab, embedding), lab).mean()
        return pixels + self.config.embedding_weight * self._bits(self._alone(embedding), lab).mean()

    @torch.no_grad()
    def fit_to(self, batches: Iterable[Tensor]) -> None:
        """Sets the scales of all layers from photographs (B, 3, 64, 64), unless they were trained before.

        The pixels' mixtures start narrow and near gray: the first pixel, whom no neighbor tells anything, learns
        slowly, and all others follow the color that it draws.
        """
        if any(bool((layer.gain != 1).any()) for layer in self.modules() if isinstance(layer, Convolution)):
            return
        rgb = torch.cat(list(batches))[:INITIAL_PICTURES]
        with initialized_by_data(self):
            self.pixels(self._small_lab(rgb), self.embedding(lightness(gray_from_rgb(rgb))))
        write = self.pixels.write
        write.gain.mul_(0.1)
        write.bias.mul_(0.1)
        write.bias[-2 * self.config.components :] = math.log(INITIAL_SCALE)

    # likelihoods

    @torch.no_grad()
    def bits(self, rgb: Tensor) -> Tensor:
        """-log2 p(a, b | gray) per dimension of the small color picture: rgb (B, 3, 64, 64) -> (B,)."""
        lab = self._small_lab(rgb)
        return self._bits(self.pixels(lab, self.embedding(lightness(gray_from_rgb(rgb)))), lab).mean((1, 2))

    @torch.no_grad()
    def score(self, gray64: Tensor, coarse64: Tensor) -> Tensor:
        """The likelihood in bits per dimension, log2 p(a, b | gray), of coarse colors: see `Scores`."""
        return -self.bits(merge(gray64, chroma_from_rgb(rgb_from_coarse(coarse64))))

    # use

    @torch.no_grad()
    def encode(self, view: GrayView) -> PICEncoding:
        return PICEncoding(view.gray64, self.embedding(lightness(view.gray64)))

    @torch.no_grad()
    def sample(
        self,
        encoding: PICEncoding,
        num_samples: int = 1,
        options: SampleOptions = SampleOptions(),  # noqa: B008  (frozen)
        generator: Generators = None,
        callback: StepCallback | None = None,
    ) -> Draws:
        """`num_samples` independent draws per photograph, see `CoarseColorizer`; every pixel of the small picture is a
        step.

        options: temperature is that of the mixtures' logits and widths
        callback: called after each of its rows with the row's number, the share of the picture still open, and twice
            L, a and b so far (B * num_samples, 3, rows, 64 / s)
        """
        self.check_honored(options, SampleOptions.COARSE)
        if num_samples < 1:
            raise ValueError(f"num_samples must be 1 or more; got {num_samples}")
        temperature = self.config.temperature if options.temperature is None else options.temperature
        gray64 = encoding.gray64
        rows, side = len(encoding) * num_samples, SIDE // self.factor
        uniform = draw_uniform((rows, 3, side, side), generator, gray64.device)
        embedding = encoding.embedding.repeat_interleave(num_samples, 0)
        light = lightness(self._small(gray64)).repeat_interleave(num_samples, 0)
        worst = torch.zeros((), device=embedding.device)

        def choose(parameters: Tensor, i: int, j: int) -> Tensor:
            torch.maximum(worst, parameters.abs().amax(), out=worst)  # NaN stays NaN
            here = light[:, :, i, j]
            mixture = LogisticMixture.of(parameters, here[:, 0])
            return torch.cat([here, mixture.draw(uniform[:, :, i, j], temperature)], dim=1)

        def progress(row: int, canvas: Tensor) -> None:
            if callback is not None:
                callback(row, 1 - (row + 1) / side, canvas, canvas)

        # Not in half precision: every step would cast the weights again, for no gain in speed.
        with torch.autocast(embedding.device.type, enabled=False):
            lab = self.pixels.draw(embedding.float(), choose, progress)
        checked_finite(worst, "the mixtures of stage 1")  # a color is drawn from NaNs too
        chroma = self._chroma64(gray64.repeat_interleave(num_samples, 0), lab[:, 1:])
        return Draws.of(gray64, chroma.unflatten(0, (len(encoding), num_samples)))

    @torch.no_grad()
    def preview(self, encoding: PICEncoding) -> Tensor:
        """The mean of the embedding's own prediction."""
        parameters = checked_finite(self._alone(encoding.embedding), "the mixtures of stage 1")
        shape = (len(encoding), *parameters.shape[2:], 2)
        ab = _mixture(parameters, lightness(self._small(encoding.gray64))).mean().view(shape).permute(0, 3, 1, 2)
        return merge(encoding.gray64, self._chroma64(encoding.gray64, ab))

    # inside

    def _small(self, picture: Tensor) -> Tensor:
        """Subsampled to the small picture's side, 64 / s."""
        if self.config.subsampling == "strided":
            return picture[..., :: self.factor, :: self.factor]
        return F.avg_pool2d(picture, self.factor)

    def _small_lab(self, rgb: Tensor) -> Tensor:
        """L of the gray pixel, a and b of the small picture, in [-1, 1] (PIC's constants): (B, 3, 64/s, 64/s)."""
        small = self._small(rgb)
        a, b = lab_from_rgb(small).float()[:, 1:].unbind(1)
        return torch.cat([lightness(gray_from_rgb(small)), torch.stack([(a - 0.5) / 127.5, (b + 0.5) / 127.5], 1)], 1)

    def _alone(self, embedding: Tensor) -> Tensor:
        return embedding[:, : PARAMETERS * self.config.components]

    @staticmethod
    def _bits(parameters: Tensor, lab: Tensor) -> Tensor:
        """Bits per dimension at each pixel: (B, 8 K, h, w), (B, 3, h, w) -> (B, h, w)."""
        values = lab[:, 1:].permute(0, 2, 3, 1).reshape(-1, 2)
        nats = -_mixture(parameters, lab[:, :1]).log_probability(values)
        return nats.view(lab[:, 0].shape) / (2 * math.log(2))

    def _chroma64(self, gray64: Tensor, ab: Tensor) -> Tensor:
        """Cb and Cr (B, 2, 64, 64) of normalized a and b (B, 2, 64/s, 64/s), enlarged, at the luma of gray64."""
        if self.config.subsampling == "strided":  # a value stands where its pixel was: at the first of s, not amid them
            side = self.factor * ab.shape[-1] + 1
            grown = F.pad(ab, (0, 1, 0, 1), mode="replicate")
            ab = F.interpolate(grown, (side, side), mode="bilinear", align_corners=True)[..., :SIDE, :SIDE]
        else:
            ab = F.interpolate(ab, (SIDE, SIDE), mode="bilinear", align_corners=False)
        return chroma_at_luma(gray64, 127.5 * ab + ab.new_tensor([0.5, -0.5])[:, None, None])


def _mixture(parameters: Tensor, light: Tensor) -> LogisticMixture:
    """One mixture per pixel, in raster order: (B, 8 K, h, w), (B, 1, h, w) -> B · h · w rows."""
    return LogisticMixture.of(parameters.permute(0, 2, 3, 1).flatten(0, 2), light.flatten())
