"""Stage 1, kind `diffusion`: coarse colors of a 64x64 gray picture, drawn by a conditional diffusion model.

An encoder looks at the gray picture once: ImageNet features (stages/nn/efficientnet.py), which may see it in more
pixels, and the picture itself, joined from 4x4 up to 16x16. A light denoiser then turns noise into chroma, at every
step and for every candidate, with the encoder's features at hand (GPIC's idea). Chroma lives at 32x32, which the
networks see as four neighbors per position of a 16x16 grid; it is enlarged as JPEG decoders do. A parallel head on the
encoder regresses the chroma in one pass (ColTran's idea): the preview. What is diffused is what the preview leaves
open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from stages.color.spaces import chroma_from_rgb, coarse_from_rgb, merge
from stages.corruptions.conditioning import sharp_gray
from stages.corruptions.film import printed
from stages.diffusion import SpectralDenoiser, denoising_loss
from stages.diffusion.noise import draw_noise, geometric_sigmas, karras_sigmas
from stages.diffusion.samplers import SAMPLERS
from stages.diffusion.spectral import TunedSteps
from stages.nn.blocks import AxialBlock, NoiseEmbedding, ResidualBlock, group_norm, zero
from stages.nn.efficientnet import EfficientNetLite, imagenet_weights
from stages.stage import Stage
from stages.stage1_coarse.candidates import spread_order
from stages.stage1_coarse.temperature import checked_temperature

SIDE, CHROMA_SIDE, GRID = 64, 32, 16  # of the gray picture, of its chroma, of the networks' finest features
PATCH = CHROMA_SIDE // GRID
STAGE1_SAMPLERS = sorted([*SAMPLERS, "spectral"])


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
    chroma_spread: float = 0.08  # standard deviation of Cb and Cr over photographs
    # training
    noise_levels: int = 4  # per picture and encoding; 0 trains the encoder and its heads alone
    noise_mean: float = 1.0  # of ln(sigma), sigma in units of chroma_spread
    noise_std: float = 1.6
    preview_weight: float = 1.0
    label_weight: float = 0.2
    prints: float = 0.0  # share of the pictures whose gray imitates an old print
    # sampling
    sampler: str = "dpmpp_2m"  # or "spectral", the denoiser's own
    steps: int = 14
    tuned: int = 0  # steps that the weights hold `TunedSteps` for: used where as many are asked for
    sigma_min: float = 0.05
    sigma_max: float = 80.0  # where sampling begins, but in tuned steps: they begin at the first of their own levels
    temperature: float = 1.0  # how far draws go from the preview, as a share of where the model puts them; 0: nowhere
    vividness: float = 1.0  # of sampled chroma: corrects what networks and a low temperature lose in strength
    pool: int = 4  # candidates from which the default picture, the most central one, is chosen


class Encoded(NamedTuple):
    """What a photograph tells each of its draws: the preview (B, 2, 32, 32) and the denoiser's maps of it."""

    preview: Tensor
    maps: list[Tensor]


class DiffusionColorizer(Stage):
    stage, kind, config_class = 1, "diffusion", DiffusionColorizerConfig
    finishing_parameters = ("tuned.",)

    def __init__(self, config: DiffusionColorizerConfig | None = None):
        config = config or DiffusionColorizerConfig()
        super().__init__(config)
        if config.sampler not in STAGE1_SAMPLERS:
            raise ValueError(f"sampler must be one of {STAGE1_SAMPLERS}; got {config.sampler!r}")
        if config.tuned and (config.tuned, "spectral") != (config.steps, config.sampler):
            raise ValueError(
                f"these weights hold {config.tuned} tuned steps of the sampler spectral; got steps {config.steps} and "
                f"sampler {config.sampler!r}. Tune others (train_scripts/tune_steps.py) or take the untuned weights."
            )
        if config.gray_side not in (SIDE, 2 * SIDE):
            raise ValueError(f"gray_side must be {SIDE} or {2 * SIDE}; got {config.gray_side}")
        if not 0 <= config.prints <= 1:
            raise ValueError(f"prints is a share of the pictures, from 0 to 1; got {config.prints}")
        checked_temperature(config.temperature)
        self.encoder = GrayEncoder(config)
        self.denoiser = SpectralDenoiser(ChromaNetwork(config), 2, CHROMA_SIDE, CHROMA_SIDE)
        self.tuned: TunedSteps | None = None
        if config.tuned:
            levels = geometric_sigmas(config.tuned, config.sigma_min, config.sigma_max)[:-1]
            self.tuned = TunedSteps(levels, sum(self.network.modulations))

    @property
    def network(self) -> ChromaNetwork:
        return cast(ChromaNetwork, self.denoiser.network)

    @property
    def pool(self) -> int:
        return self.config.pool

    @property
    def gray_side(self) -> int:
        """Side of the gray picture that `sample` and `preview` can make use of: `sharp`."""
        return self.config.gray_side

    @property
    def training_side(self) -> int:
        return self.config.gray_side

    @property
    def label_classes(self) -> int:
        return self.config.classes

    @property
    def frozen_parameters(self) -> tuple[str, ...]:
        """The stem and the first blocks of the backbone."""
        blocks = tuple(f"encoder.backbone.blocks.{index}." for index in range(self.config.backbone_frozen))
        return ("encoder.backbone.stem.", *blocks) if blocks else ()

    def load_pretrained_backbone(self) -> None:
        """Starts the encoder from the public ImageNet weights; see `imagenet_weights` for what can go wrong."""
        self.encoder.backbone.load_state_dict(imagenet_weights(self.config.backbone))

    # training

    def forward(self, rgb: Tensor, label: Tensor | None = None) -> Tensor:
        """Loss of a batch: rgb (B, 3, S, S) in [0, 1], S = `gray_side`; label (B,) int64, -1: unknown -> scalar."""
        side = self.config.gray_side
        if rgb.ndim != 4 or rgb.shape[1:] != (3, side, side):
            raise ValueError(f"rgb must be (B, 3, {side}, {side}) in [0, 1]; got {tuple(rgb.shape)}")
        gray, target = self._gray(rgb, self.config.prints), self._chroma32(rgb)
        frozen = not any(p.requires_grad for p in self.encoder.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            context, preview, logits = self.encoder(*gray)
        loss = rgb.new_zeros(())
        if not frozen:
            loss = loss + self.config.preview_weight * F.smooth_l1_loss(preview.float(), target, beta=0.5)
            if label is not None and self.config.classes:
                entropy = F.cross_entropy(logits.float(), label, ignore_index=-1, reduction="sum")
                loss = loss + self.config.label_weight * entropy / (label >= 0).sum().clamp_min(1)
        if self.config.noise_levels:
            config, levels = self.config, self.config.noise_levels
            loss = loss + denoising_loss(
                self.denoiser, (target - preview.detach().float()).repeat_interleave(levels, 0),
                config.noise_mean, config.noise_std,
                context=[m.repeat_interleave(levels, 0) for m in self.network.prepare(context)],
            )  # fmt: skip
        return loss

    @torch.no_grad()
    def fit_to(self, batches: Iterable[Tensor]) -> None:
        """Takes the spectrum of what the preview leaves open from photographs (B, 3, S, S), S = `gray_side`.

        It is taken once, when a run starts, so the encoder should be finished then. Where both are trained at once the
        preview is gray at the start and the spectrum that of all chroma: right in kind, too large in size.
        """
        self.denoiser.fit(
            torch.cat([self._chroma32(rgb) - self.encoder(*self._gray(rgb))[1].float() for rgb in batches])
        )

    # use

    @torch.no_grad()
    def sample(
        self,
        gray64: Tensor,
        num_samples: int = 1,
        generator: Generator | Sequence[Generator] | None = None,
        num_inference_steps: int | None = None,
        callback: Callable[[int, float, Tensor, Tensor], Any] | None = None,
        sharp: Tensor | None = None,
        temperature: float | None = None,
        encoded: Encoded | None = None,
    ) -> Tensor:
        """Coarse colors, `num_samples` independent draws per picture.

        gray64: (B, 1, 64, 64) in [0, 1]; generator: as `draw_noise` for B * num_samples rows, photo-major
        num_inference_steps: None: the config's. Steps are tuned where their number is the config's `tuned`
        callback: as for the samplers (`stages.diffusion.samplers`), of what the preview leaves open, (B * K, 2, 32, 32)
        sharp: the same photographs at `gray_side`, (B, 1, S, S); None: gray64 enlarged
        temperature: 1: draws of the model as it is; less: nearer to the preview, which is their mean, so nearer to the
            truth and less varied; None: the config's. The config's vividness is a factor on all of them
        encoded: of the same pictures, where draws are made in several calls (`sharp` is not read then); None: they are
            encoded here
        returns: (B, num_samples, 64, 64) int64 in 0..511
        """
        settings = (num_inference_steps, callback, sharp, temperature, encoded)
        chroma = self.sample_chroma(gray64, num_samples, generator, *settings)
        return coarse_from_rgb(merge(gray64[:, None], chroma))

    @torch.no_grad()
    def sample_chroma(
        self,
        gray64: Tensor,
        num_samples: int = 1,
        generator: Generator | Sequence[Generator] | None = None,
        num_inference_steps: int | None = None,
        callback: Callable[[int, float, Tensor, Tensor], Any] | None = None,
        sharp: Tensor | None = None,
        temperature: float | None = None,
        encoded: Encoded | None = None,
    ) -> Tensor:
        """As `sample`, before the colors are rounded to 3 bits: (B, num_samples, 2, 64, 64) chroma."""
        self._check_gray(gray64, sharp)
        if num_samples < 1:
            raise ValueError(f"num_samples must be 1 or more; got {num_samples}")
        config, batch = self.config, len(gray64)
        temperature = checked_temperature(config.temperature if temperature is None else temperature)
        encoded = encoded or self.encode(gray64, sharp)
        if len(encoded.preview) != batch:
            raise ValueError(f"encoded is of {len(encoded.preview)} pictures; gray64 holds {batch}")
        maps = [m.repeat_interleave(num_samples, 0) for m in encoded.maps]
        steps = config.steps if num_inference_steps is None else num_inference_steps
        noise = draw_noise((batch * num_samples, 2, CHROMA_SIDE, CHROMA_SIDE), generator, gray64.device)
        if config.sampler == "spectral":
            tuned = self.tuned if steps == config.tuned else None
            left_open = self.denoiser.sample(noise, tuned or self._sigmas(steps), callback, context=maps)
        else:
            sigmas = self._sigmas(steps)
            start = self.denoiser.start(noise, float(sigmas[0]))
            left_open = SAMPLERS[config.sampler](
                lambda x, sigma: self.denoiser(x, sigma, context=maps), start, sigmas, callback
            )
        chroma = encoded.preview.repeat_interleave(num_samples, 0) + temperature * left_open
        chroma = self._enlarged(config.vividness * chroma)
        return chroma.unflatten(0, (batch, num_samples))

    @torch.no_grad()
    def encode(self, gray64: Tensor, sharp: Tensor | None = None) -> Encoded:
        """What `sample` knows of gray64 (B, 1, 64, 64), and `sharp` if given, before it draws anything."""
        self._check_gray(gray64, sharp)
        context, preview, _ = self.encoder(gray64, sharp)
        return Encoded(preview.float(), self.network.prepare(context))

    @torch.no_grad()
    def preview(self, gray64: Tensor, sharp: Tensor | None = None) -> Tensor:
        """Color in one pass of the encoder, an average of what is likely: (B, 1, 64, 64) -> rgb64 (B, 3, 64, 64)."""
        self._check_gray(gray64, sharp)
        _, preview, _ = self.encoder(gray64, sharp)
        return merge(gray64, self._enlarged(preview.float()))

    def order(self, gray64: Tensor, coarse: Tensor, pool: int | None = None) -> Tensor:
        """Draws (B, N, 64, 64), the most central of the first `pool` (None: N) first, then what else there is, see
        `spread_order`: indices (B, N) on the CPU.
        """
        return spread_order(gray64, coarse, pool)

    # inside

    def _sigmas(self, steps: int) -> Tensor:
        """Falling noise levels of so many steps, and 0."""
        config = self.config
        spread = geometric_sigmas if config.sampler == "spectral" else karras_sigmas
        return spread(steps, config.sigma_min, config.sigma_max)

    def _gray(self, rgb: Tensor, prints: float = 0.0) -> tuple[Tensor, Tensor]:
        """The gray of rgb (B, 3, S, S) as the encoder takes it: (B, 1, 64, 64) and (B, 1, S, S)."""
        sharp = printed(rgb, prints)
        return F.avg_pool2d(sharp, rgb.shape[-1] // SIDE), sharp

    def _chroma32(self, rgb: Tensor) -> Tensor:
        """Chroma of rgb (B, 3, S, S) in units of its spread: (B, 2, 32, 32)."""
        return F.avg_pool2d(chroma_from_rgb(rgb), rgb.shape[-1] // CHROMA_SIDE) / self.config.chroma_spread

    def _enlarged(self, chroma: Tensor) -> Tensor:
        # JPEG decoders enlarge 4:2:0 chroma the same way; along-the-luma enlargement measured no better here.
        chroma = chroma * self.config.chroma_spread
        return F.interpolate(chroma, (SIDE, SIDE), mode="bilinear", align_corners=False)

    def _check_gray(self, gray64: Tensor, sharp: Tensor | None) -> None:
        if gray64.ndim != 4 or gray64.shape[1:] != (1, SIDE, SIDE):
            raise ValueError(f"gray64 must be (B, 1, {SIDE}, {SIDE}) in [0, 1]; got {tuple(gray64.shape)}")
        side = self.config.gray_side
        if sharp is not None and sharp.shape != (len(gray64), 1, side, side):
            raise ValueError(f"sharp must be ({len(gray64)}, 1, {side}, {side}) in [0, 1]; got {tuple(sharp.shape)}")


class GrayEncoder(nn.Module):
    """What is in the picture: gray64 (B, 1, 64, 64) -> features (B, C, 16, 16), preview (B, 2, 32, 32) in
    units of `chroma_spread`, class logits.

    sharp: the picture at `gray_side`, (B, 1, S, S), for the backbone; None: gray64 enlarged
    """

    def __init__(self, config: DiffusionColorizerConfig):
        super().__init__()
        fine, coarse = config.encoder_channels
        self.side, self.gray_side = config.backbone_side, config.gray_side
        self.backbone = EfficientNetLite(config.backbone)
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

    def forward(self, gray64: Tensor, sharp: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        if sharp is None:
            sharp = sharp_gray(gray64, self.gray_side)
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
    maps of `prepare`; modulation (sum of `modulations`,), see `TunedSteps` -> (B, 2, 32, 32)
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
