"""Stage 3, kind `diffusion`: color at 256x256 from color at 64x64 and the gray picture at 256x256.

Like SR3 and Palette (arXiv 2104.07636, 2111.05826), a conditional diffusion model; unlike them it draws chroma
only, and of the chroma only what bicubic enlargement gets wrong. That residual is small and mostly a matter of
where edges run, so the denoiser says it in the terms of a guided filter too: per place, how much of the gray picture's
fine detail and how much of the luma-guided enlargement belong to it. One step, the default, gives the answer in the
middle of those that are likely; more steps, from pure noise, draw one of them.
Pictures are seen as a 64x64 grid of 4x4 patches; an encoder of gray and enlarged chroma runs once, a light denoiser at
every step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.color.guided_filter import enlarge_chroma
from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, gray_from_rgb, lab_from_rgb, merge
from stages.corruptions.conditioning import disturbed_chroma, stray_detail
from stages.diffusion import Denoiser, denoising_loss
from stages.diffusion.noise import draw_noise, karras_sigmas
from stages.diffusion.samplers import SAMPLERS
from stages.faces import Generators, StepCallback, SuperResolver
from stages.graphs import Exports, Graph
from stages.nn.blocks import AxialBlock, NoiseEmbedding, ResidualBlock, group_norm, zero
from stages.options import OptionError, SampleOptions
from stages.precision import checked_finite

SIDE, LOW_SIDE = 256, 64
PATCH = SIDE // LOW_SIDE
PIXELS = PATCH**2
DETAIL_STD = 0.05  # of the gray picture's detail, what is lost at 64x64


@dataclass(frozen=True)
class DiffusionSuperResolverConfig:
    """Widths are (at 64x64, at 32x32, at 16x16) patches."""

    encoder_channels: tuple[int, int, int] = (64, 128, 192)
    denoiser_channels: tuple[int, int] = (64, 96)
    heads: int = 4
    chroma_std: float = 0.08
    residual_std: float = 0.01  # of chroma minus its bicubic enlargement, disturbed inputs included
    # training
    noise_levels: int = 2  # per picture and encoding
    noise_mean: float = 2.0  # of ln(sigma), sigma in units of residual_std
    noise_std: float = 1.5
    huber: float = 0.3  # of `denoising_loss`: most of the residual is nearly zero, and edges should not drown it
    disturb: float = 0.03  # strongest chroma noise of the 64x64 input
    stray: float = 0.0  # of `stray_detail` in the 64x64 input
    untouched: float = 0.5  # share of inputs that each of the two leaves as they are
    # sampling
    sampler: str = "dpmpp_2m"
    steps: int = 1
    sigma_min: float = 0.3
    sigma_max: float = 40.0  # the residual is one of smooth fields: at 5 the network still believes what it sees


class DiffusionSuperResolver(SuperResolver, Exports):
    kind, config_class = "diffusion", DiffusionSuperResolverConfig
    honors = frozenset({"superres_steps"})
    renamed_keys = {"chroma_spread": "chroma_std", "residual_spread": "residual_std"}
    training_side = SIDE

    def __init__(self, config: DiffusionSuperResolverConfig | None = None):
        config = config or DiffusionSuperResolverConfig()
        super().__init__(config)
        if config.sampler not in SAMPLERS:
            raise ValueError(f"sampler must be one of {sorted(SAMPLERS)}; got {config.sampler!r}")
        self.encoder = EdgeEncoder(config)
        self.denoiser = Denoiser(ResidualNetwork(config), sigma_data=1.0)

    @property
    def sampling(self) -> dict[str, str | int]:
        return {"sampler": self.config.sampler, "steps": self.config.steps}

    def num_steps(self, options: SampleOptions) -> int:
        return options.superres_steps or self.config.steps

    @property
    def network(self) -> ResidualNetwork:
        return cast(ResidualNetwork, self.denoiser.network)

    def forward(self, rgb: Tensor, label: Tensor | None = None) -> Tensor:
        """Loss of a batch: rgb (B, 3, 256, 256) in [0, 1] -> scalar, see `denoising_loss`."""
        if rgb.ndim != 4 or rgb.shape[1:] != (3, SIDE, SIDE):
            raise ValueError(f"rgb must be (B, 3, {SIDE}, {SIDE}) in [0, 1]; got {tuple(rgb.shape)}")
        gray, low = gray_from_rgb(rgb), chroma_from_rgb(resize(rgb, (LOW_SIDE, LOW_SIDE)))
        config, levels = self.config, self.config.noise_levels
        low = disturbed_chroma(low, config.disturb, config.untouched)
        if config.stray:
            low = low + stray_detail(resize(gray, (LOW_SIDE, LOW_SIDE)), config.stray, config.untouched)
        base, context = self._prepared(gray, low)
        target = F.pixel_unshuffle(chroma_from_rgb(rgb) - base, PATCH) / config.residual_std
        importance = F.pixel_unshuffle(sensitivity(merge(gray, base)), PATCH).repeat(1, 2, 1, 1)

        return denoising_loss(
            self.denoiser, target.repeat_interleave(levels, 0), config.noise_mean, config.noise_std, config.huber,
            importance.repeat_interleave(levels, 0), context=[m.repeat_interleave(levels, 0) for m in context],
        )  # fmt: skip

    @torch.no_grad()
    def sample(
        self,
        gray256: Tensor,
        rgb64: Tensor,
        options: SampleOptions = SampleOptions(),  # noqa: B008  (frozen)
        generator: Generators = None,
        callback: StepCallback | None = None,
    ) -> Tensor:
        """Color at 256x256 with the luma of gray256.

        gray256: (B, 1, 256, 256), rgb64: (B, 3, 64, 64), both in [0, 1]; generator: as `draw_noise` for B rows
        options: one step draws nothing: `generator` is not read
        callback: as for the samplers, of the residual over its standard deviation, as patches (B, 32, 64, 64)
        returns: rgb256 (B, 3, 256, 256)
        Raises RuntimeError where the networks' answers are not finite.
        """
        self.check_honored(options, SampleOptions.SUPERRES)
        self.check_shapes(gray256, rgb64)
        config = self.config
        base, maps = self._prepared(gray256, chroma_from_rgb(rgb64))
        steps = options.superres_steps or config.steps
        sigmas = karras_sigmas(steps, config.sigma_min, config.sigma_max)
        shape = (len(gray256), 2 * PIXELS, LOW_SIDE, LOW_SIDE)
        # A single step hardly sees its input, and what it sees of noise it only lets through: it starts amid the noise.
        noise = draw_noise(shape, generator, gray256.device) if steps > 1 else gray256.new_zeros(shape)

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            return self.denoiser(x, sigma, context=maps)

        residual = SAMPLERS[config.sampler](denoise, noise * config.sigma_max, sigmas, callback)
        return self._merged(gray256, base, residual)

    def in_one_step(self, gray256: Tensor, rgb64: Tensor) -> Tensor:
        """`sample` with one step, where every sampler takes the clean estimate amid the noise for its answer."""
        base, maps = self._prepared(gray256, chroma_from_rgb(rgb64))
        silent = gray256.new_zeros(len(gray256), 2 * PIXELS, LOW_SIDE, LOW_SIDE)
        return self._merged(gray256, base, self.denoiser(silent, self.config.sigma_max, context=maps))

    def graphs(self) -> list[Graph]:
        if self.config.steps != 1:
            raise OptionError(
                f"of kind {self.kind!r} of the family {self.family} weights that take one step can be exported; these "
                f"take {self.config.steps}"
            )
        generator = torch.Generator().manual_seed(0)
        inputs = {
            "gray256": torch.rand((1, 1, SIDE, SIDE), generator=generator),
            "rgb64": torch.rand((1, 3, LOW_SIDE, LOW_SIDE), generator=generator),
        }
        return [Graph("stage3", OneStep(self), inputs, ("rgb256",))]

    def _merged(self, gray: Tensor, base: Tensor, residual: Tensor) -> Tensor:
        checked_finite(residual, "the colors of stage 3")
        return merge(gray, base + F.pixel_shuffle(residual, PATCH) * self.config.residual_std)

    def _prepared(self, gray: Tensor, low: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Bicubic enlargement of low (B, 2, 64, 64), (B, 2, 256, 256), and what the denoiser has to know."""
        config, base = self.config, resize(low, (SIDE, SIDE))
        gray_low = resize(gray, (LOW_SIDE, LOW_SIDE))
        guided = enlarge_chroma(low, gray_low, gray)
        features = self.encoder(gray, torch.cat([base, guided], dim=1) / config.chroma_std)
        detail = ((gray - resize(gray_low, (SIDE, SIDE))) / DETAIL_STD).expand(-1, 2, -1, -1)
        return base, self.network.prepare(features, torch.cat([detail, (guided - base) / config.residual_std], 1))


class OneStep(nn.Module):
    """`in_one_step`, as a graph."""

    def __init__(self, stage: DiffusionSuperResolver) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, gray256: Tensor, rgb64: Tensor) -> Tensor:
        return self.stage.in_one_step(gray256, rgb64)


def sensitivity(rgb: Tensor) -> Tensor:
    """How much a change of chroma counts to the eye beside colors (B, 3, H, W), (B, 1, H, W): 1 at gray, less at
    vivid ones. CIEDE2000 divides by 1 + 0.045 C* along and by 1 + 0.015 C* across the chroma; this is between.
    """
    return 1 / (1 + 0.03 * lab_from_rgb(rgb)[:, 1:].square().sum(1, keepdim=True).sqrt())


class EdgeEncoder(nn.Module):
    """gray (B, 1, 256, 256) and chroma enlarged in two ways (B, 4, 256, 256), of unit variance -> features (B, C, 64,
    64); runs once.
    """

    def __init__(self, config: DiffusionSuperResolverConfig):
        super().__init__()
        fine, middle, coarse = config.encoder_channels
        self.read = nn.Conv2d(5 * PIXELS, fine, 3, padding=1)
        self.fine = nn.ModuleList([ResidualBlock(fine), ResidualBlock(fine)])
        self.shrink32 = nn.Conv2d(fine, middle, 2, stride=2)
        self.middle = nn.ModuleList([ResidualBlock(middle), AxialBlock(middle, config.heads, LOW_SIDE // 2)])
        self.shrink16 = nn.Conv2d(middle, coarse, 2, stride=2)
        self.coarse = nn.ModuleList([ResidualBlock(coarse), AxialBlock(coarse, config.heads, LOW_SIDE // 4)])
        self.grow32 = nn.Conv2d(coarse, middle, 1)
        self.middle_up = ResidualBlock(middle)
        self.grow64 = nn.Conv2d(middle, fine, 1)
        self.norm = group_norm(fine)

    def forward(self, gray: Tensor, chroma: Tensor) -> Tensor:
        x = self.read(F.pixel_unshuffle(torch.cat([2 * gray - 1, chroma], dim=1), PATCH))
        x = self.fine[0](x)
        y = self.shrink32(x)
        for block in self.middle:
            y = block(y)
        z = self.shrink16(y)
        for block in self.coarse:
            z = block(z)
        y = self.middle_up(y + F.interpolate(self.grow32(z), scale_factor=2.0, mode="nearest"))
        x = self.fine[1](x + F.interpolate(self.grow64(y), scale_factor=2.0, mode="nearest"))
        return F.silu(self.norm(x))


class ResidualNetwork(nn.Module):
    """The light network of every step: x (B, 32, 64, 64), c_noise (B,), context of `prepare` -> (B, 32, 64, 64).

    What it answers is a free part per pixel and a share, smooth over places, of each of the details.
    """

    def __init__(self, config: DiffusionSuperResolverConfig):
        super().__init__()
        (fine, coarse), width = config.denoiser_channels, config.encoder_channels[0]
        code = 2 * fine
        self.embedding = NoiseEmbedding(code)
        self.read = nn.Conv2d(2 * PIXELS, fine, 3, padding=1)
        self.down = ResidualBlock(fine, code)
        self.shrink = nn.Conv2d(fine, coarse, 2, stride=2)
        self.middle = ResidualBlock(coarse, code)
        self.grow = nn.Conv2d(coarse, fine, 1)
        self.up = ResidualBlock(fine, code)
        self.norm = group_norm(fine)
        self.write = zero(nn.Conv2d(fine, 2 * PIXELS, 3, padding=1))
        self.share = zero(nn.Conv2d(fine, 4, 3, padding=1))
        self.context = nn.ModuleList([
            nn.Conv2d(width, fine, 1), nn.Conv2d(width, coarse, 2, stride=2), nn.Conv2d(width, fine, 1),
        ])  # fmt: skip

    def prepare(self, features: Tensor, details: Tensor) -> list[Tensor]:
        """The encoder's features as one map per block, and the details (B, 4, 256, 256), of gray and of the guided
        enlargement, each for Cb and Cr: the part of the network that knows no noise.
        """
        return [*(layer(features) for layer in self.context), details]

    def forward(self, x: Tensor, c_noise: Tensor, context: list[Tensor]) -> Tensor:
        code = self.embedding(c_noise)
        x = self.down(self.read(x), code, context[0])
        y = self.middle(self.shrink(x), code, context[1])
        x = x + F.interpolate(self.grow(y), scale_factor=2.0, mode="nearest")
        x = self.up(x, code, context[2])
        x = F.silu(self.norm(x))
        share = F.interpolate(self.share(x), scale_factor=float(PATCH), mode="bilinear", align_corners=False)
        gray, guided = (share * context[3]).chunk(2, dim=1)
        return self.write(x) + F.pixel_unshuffle(gray + guided, PATCH)
