"""Stage 1, kind `diffusion`: coarse colors of a 64x64 gray picture, drawn by a conditional diffusion model.

An encoder looks at the gray picture once: ImageNet features (stages/nn/efficientnet.py), which may see it in more
pixels, and the picture itself, joined from 4x4 up to 16x16. A light denoiser then turns noise into chroma, at every
step and for every candidate, with the encoder's features at hand (GPIC's idea). Chroma lives at 32x32, which the
networks see as four neighbors per position of a 16x16 grid; it is enlarged as JPEG decoders do. A parallel head on the
encoder regresses the chroma in one pass (ColTran's idea): the preview. What is diffused is what the preview leaves
open.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.color.spaces import chroma_from_rgb, merge
from stages.corruptions.film import film_degraded
from stages.corruptions.hints import drawn_hints
from stages.diffusion import FewSteps, WienerDenoiser, denoising_loss, sample_exponential
from stages.diffusion.exponential import exponential_steps
from stages.diffusion.noise import draw_noise, geometric_sigmas, karras_sigmas
from stages.diffusion.samplers import SAMPLERS
from stages.faces import CoarseColorizer, Draws, Generators, GrayView, StepCallback
from stages.graphs import Exports, Graph
from stages.nn.efficientnet import imagenet_weights
from stages.nn.hint_attention import HintAttention
from stages.options import OptionError, SampleOptions
from stages.precision import checked_finite
from stages.stage1_coarse.diffusion_graphs import Draw, graphs_of
from stages.stage1_coarse.diffusion_networks import (
    CHROMA_SIDE,
    SIDE,
    ChromaNetwork,
    DiffusionColorizerConfig,
    DiffusionEncoding,
    GrayEncoder,
)

STAGE1_SAMPLERS = sorted([*SAMPLERS, "spectral"])


class DiffusionColorizer(CoarseColorizer[DiffusionEncoding], Exports):
    kind, config_class = "diffusion", DiffusionColorizerConfig
    honors = frozenset({"steps", "temperature", "chroma_gain"})
    renamed_keys = {"vividness": "chroma_gain", "prints": "film", "chroma_spread": "chroma_std"}
    new_parameters = ("hints.",)
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
        if not 0 <= config.film <= 1:
            raise ValueError(f"film is a share of the pictures, from 0 to 1; got {config.film}")
        for name in ("hints", "condition_dropout"):
            if not 0 <= (share := getattr(config, name)) <= 1:
                raise ValueError(f"{name} is a share of the pictures, from 0 to 1; got {share}")
        if not 0 <= config.drop_path < 1:
            raise ValueError(f"drop_path is a share of the pictures, from 0 to less than 1; got {config.drop_path}")
        SampleOptions(temperature=config.temperature, chroma_gain=config.chroma_gain)  # raises where out of range
        self.encoder = GrayEncoder(config)
        self.denoiser = WienerDenoiser(ChromaNetwork(config), 2, CHROMA_SIDE, CHROMA_SIDE)
        self.hints = HintAttention(config.encoder_channels[0]) if config.hints else None
        self.tuned: FewSteps | None = None
        if config.tuned:
            levels = geometric_sigmas(config.tuned, config.sigma_min, config.sigma_max)[:-1]
            self.tuned = FewSteps(levels, sum(self.network.modulations))

    @property
    def network(self) -> ChromaNetwork:
        return cast(ChromaNetwork, self.denoiser.network)

    @property
    def pool(self) -> int:
        return self.config.pool

    @property
    def takes_hints(self) -> bool:
        return self.hints is not None

    @property
    def sampling(self) -> dict[str, str | int]:
        return {"sampler": self.config.sampler, "steps": self.config.steps}

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
        gray, target, config = self._gray(rgb, self.config.film), self._chroma32(rgb), self.config
        frozen = not any(p.requires_grad for p in self.encoder.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            features, preview, logits = self.encoder(*gray)
        preview = preview.float()
        loss = rgb.new_zeros(())
        if not frozen:
            loss = loss + config.preview_weight * F.smooth_l1_loss(preview, target, beta=0.5)
            if label is not None and config.classes:
                entropy = F.cross_entropy(logits.float(), label, ignore_index=-1, reduction="sum")
                loss = loss + config.label_weight * entropy / (label >= 0).sum().clamp_min(1)
        if self.hints is not None:
            hints = drawn_hints(target, config.hints)
            some = hints[:, 0].flatten(1).any(1)
            if some.any():
                told, hinted = self.hints(features[some], gray[0][some], preview[some], hints[some])
                features, preview = features.float().clone(), preview.clone()
                features[some], preview[some] = told, hinted
                share = some.float().mean()
                loss = loss + config.preview_weight * share * F.smooth_l1_loss(hinted, target[some], beta=0.5)
        if config.noise_levels:
            if config.condition_dropout:
                kept = torch.rand(len(rgb), 1, 1, 1) >= config.condition_dropout
                features = features * kept.to(features)
            levels = config.noise_levels
            loss = loss + denoising_loss(
                self.denoiser, (target - preview.detach()).repeat_interleave(levels, 0),
                config.noise_mean, config.noise_std,
                context=[m.repeat_interleave(levels, 0) for m in self.network.prepare(features)],
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
    def encode(self, view: GrayView) -> DiffusionEncoding:
        features, preview, _ = self.encoder(view.gray64, self._sharp(view))
        preview = preview.float()
        return DiffusionEncoding(view.gray64, features, preview, features, preview, self.network.prepare(features))

    def features(self, encoding: DiffusionEncoding) -> Tensor:
        return encoding.features

    @torch.no_grad()
    def with_hints(
        self, encoding: DiffusionEncoding, hints: Tensor, reach: Tensor | None = None
    ) -> DiffusionEncoding:
        if self.hints is None:
            return super().with_hints(encoding, hints, reach)
        self.check_hints(encoding, hints)
        weight, known = hints[:, :1], hints[:, 1:] / self.config.chroma_std
        features, hinted = self.hints(
            encoding.features, encoding.gray64, encoding.preview, torch.cat([weight, known], dim=1)
        )
        if reach is not None:
            features = torch.lerp(encoding.features.float(), features.float(), F.avg_pool2d(reach.float(), 2))
            hinted = torch.lerp(encoding.preview, hinted, reach.float())
        return replace(encoding, told=features, hinted=hinted, maps=self.network.prepare(features))

    @torch.no_grad()
    def sample(
        self,
        encoding: DiffusionEncoding,
        num_samples: int = 1,
        options: SampleOptions = SampleOptions(),  # noqa: B008  (frozen)
        generator: Generators = None,
        callback: StepCallback | None = None,
    ) -> Draws:
        """`num_samples` independent draws per photograph, see `CoarseColorizer`.

        options: steps are distilled where their number is the config's `tuned`; temperature is the share that is taken
            of the way from the preview, which is the mean of all draws, to the draw; chroma_gain is a factor on all
        callback: as for the samplers (`stages.diffusion.samplers`), of what the preview leaves open, (B * K, 2, 32, 32)
        """
        self.check_honored(options, SampleOptions.COARSE)
        if num_samples < 1:
            raise ValueError(f"num_samples must be 1 or more; got {num_samples}")
        config, rows = self.config, len(encoding) * num_samples
        temperature = config.temperature if options.temperature is None else options.temperature
        gain = config.chroma_gain if options.chroma_gain is None else options.chroma_gain
        steps = options.steps or config.steps
        maps = [m.repeat_interleave(num_samples, 0) for m in encoding.maps]
        noise = draw_noise((rows, 2, CHROMA_SIDE, CHROMA_SIDE), generator, encoding.gray64.device)
        if config.sampler == "spectral":
            left_open = sample_exponential(self.denoiser, noise, self.levels(steps), callback, context=maps)
        else:
            sigmas = self._sigmas(steps)
            start = self.denoiser.start(noise, float(sigmas[0]))
            left_open = SAMPLERS[config.sampler](
                lambda x, sigma: self.denoiser(x, sigma, context=maps), start, sigmas, callback
            )
        chroma = self.chroma64(encoding.hinted.repeat_interleave(num_samples, 0), left_open, temperature, gain)
        return Draws.of(encoding.gray64, chroma.unflatten(0, (len(encoding), num_samples)))

    @torch.no_grad()
    def preview(self, encoding: DiffusionEncoding) -> Tensor:
        return merge(encoding.gray64, self._enlarged(checked_finite(encoding.hinted, "the colors of stage 1")))

    def num_steps(self, options: SampleOptions) -> int:
        return options.steps or self.config.steps

    def levels(self, steps: int) -> FewSteps | Tensor:
        """What the exponential integrator takes so many steps by: those that are distilled, or noise levels."""
        return self.tuned if self.tuned is not None and steps == self.config.tuned else self._sigmas(steps)

    def chroma64(self, mean: Tensor, left_open: Tensor, temperature: float | Tensor, gain: float | Tensor) -> Tensor:
        """Chroma (B, 2, 64, 64) of draws: the preview, and what sampling made of what it leaves open, (B, 2, 32, 32) in
        units of `chroma_std`. Raises RuntimeError where it is not finite.
        """
        chroma = mean + temperature * left_open
        return self._enlarged(gain * checked_finite(chroma, "the colors of stage 1"))

    def graphs(self) -> list[Graph]:
        if self.config.sampler != "spectral":
            raise OptionError(
                f"of kind {self.kind!r} of the family {self.family} weights with the sampler 'spectral' can be "
                f"exported; these have {self.config.sampler!r}"
            )
        steps = exponential_steps(self.denoiser, self.levels(self.config.steps))
        return graphs_of(self, Draw(self.denoiser, steps, self.chroma64))

    # inside

    def _sigmas(self, steps: int) -> Tensor:
        """Falling noise levels of so many steps, and 0."""
        config = self.config
        schedule = geometric_sigmas if config.sampler == "spectral" else karras_sigmas
        return schedule(steps, config.sigma_min, config.sigma_max)

    def _sharp(self, view: GrayView) -> Tensor:
        return view.gray128 if self.config.gray_side == 2 * SIDE else view.gray64

    def _gray(self, rgb: Tensor, film: float = 0.0) -> tuple[Tensor, Tensor]:
        """The gray of rgb (B, 3, S, S) as the encoder takes it: (B, 1, 64, 64) and (B, 1, S, S)."""
        sharp = film_degraded(rgb, film)
        return F.avg_pool2d(sharp, rgb.shape[-1] // SIDE), sharp

    def _chroma32(self, rgb: Tensor) -> Tensor:
        """Chroma of rgb (B, 3, S, S) in units of its standard deviation: (B, 2, 32, 32)."""
        return F.avg_pool2d(chroma_from_rgb(rgb), rgb.shape[-1] // CHROMA_SIDE) / self.config.chroma_std

    def _enlarged(self, chroma: Tensor) -> Tensor:
        # JPEG decoders enlarge 4:2:0 chroma the same way; along-the-luma enlargement measured no better here.
        chroma = chroma * self.config.chroma_std
        return F.interpolate(chroma, (SIDE, SIDE), mode="bilinear", align_corners=False)
