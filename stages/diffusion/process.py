"""A diffusion process of the VP kind as Palette, SR3 and GPIC have it: trained at continuous levels, sampled at any.

The network is told the level itself and not a number of steps, so the schedule of sampling is free of that of training:
Palette learns on 2000 steps and samples in 1000, with other betas. What is drawn is a picture in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from stages.diffusion.denoiser import Prediction, VPDenoiser, clamped
from stages.diffusion.losses import PREDICTED, diffusion_loss, l1, l2
from stages.diffusion.noise import LinearSchedule, gamma_from_sigma, karras_sigmas, rows_like, sigma_from_gamma
from stages.diffusion.samplers import SAMPLERS, Callback, Correct, Denoise, Noise, Sampler, sample_ancestral

__all__ = ["PALETTE_SAMPLING", "PALETTE_TRAINING", "SAMPLER_NAMES", "ProcessConfig", "draw", "process_loss"]

Norm = Literal["l1", "l2"]
Told = Literal["gamma", "root", "timestep"]
ANCESTRAL: dict[str, float] = {"algorithm2": 1.0, "posterior": 0.0}  # `variance` of `sample_ancestral`
SAMPLER_NAMES = (*ANCESTRAL, *SAMPLERS)
PALETTE_TRAINING, PALETTE_SAMPLING = LinearSchedule(2000, 1e-6, 0.01), LinearSchedule(1000, 1e-4, 0.09)
LOWEST_SIGMA = 0.005  # above 0, for samplers without noise: less than a level of 8 bits


@dataclass(frozen=True)
class ProcessConfig:
    """training, sampling: schedules of linear betas; those of Palette
    root: levels of training uniform in sqrt(gamma) between two of the schedule (WaveGrad, GPIC), else in gamma
    predicts: what the network answers with, and whose error is learned: "epsilon" (all of these papers), or "v", which
        says the color of a picture that is all noise, where epsilon must be right to a thousandth to say it
    norm: of that error, "l2" (the answer is a mean) or "l1" (a median)
    told: what the network is told of the level: "gamma" (Palette), its "root" (WaveGrad, SR3), or the "timestep" of the
        training schedule, for weights trained elsewhere (DDPM, ADM)
    sampler: "algorithm2" (Palette's: variance 1 - alpha, nothing clamped), "posterior" (DDPM's posterior, with clean
        estimates held in [-1, 1]), or one without noise, also clamped: "ddim", "heun", "dpmpp_2m"
    steps: of the sampler; the two that add noise take at most those of the schedule, evenly spaced
    """

    training: LinearSchedule = field(default=PALETTE_TRAINING)
    sampling: LinearSchedule = field(default=PALETTE_SAMPLING)
    root: bool = False
    predicts: str = "epsilon"
    norm: str = "l2"
    told: str = "gamma"
    sampler: str = "dpmpp_2m"
    steps: int = 32

    def __post_init__(self) -> None:
        for name, value, known in (
            ("predicts", self.predicts, get_args(Prediction)), ("norm", self.norm, get_args(Norm)),
            ("told", self.told, get_args(Told)), ("sampler", self.sampler, SAMPLER_NAMES),
        ):  # fmt: skip
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}")
        self.sigmas()

    def denoiser(self, network: nn.Module) -> VPDenoiser:
        """Of a network that was trained by this process."""
        return VPDenoiser(network, cast(Prediction, self.predicts), self.level)

    def level(self, sigma: Tensor) -> Tensor:
        """What the network is told of noise levels."""
        if self.told == "timestep":
            return self.training.timestep(sigma)
        gamma = gamma_from_sigma(sigma)
        return gamma.sqrt() if self.told == "root" else gamma

    def sigmas(self, sampler: str | None = None, steps: int | None = None) -> Tensor:
        """Falling levels of a sampler, float64. Raises ValueError where the schedule has not that many steps."""
        steps = steps or self.steps
        if (sampler or self.sampler) in ANCESTRAL:
            return self.sampling.sigmas(steps)
        low, high = sigma_from_gamma(self.training.gammas[[0, -1]]).tolist()
        return karras_sigmas(steps, max(low, LOWEST_SIGMA), high)


def process_loss(
    denoiser: Callable[..., Tensor],
    clean: Tensor,
    config: ProcessConfig,
    share: Tensor | None = None,
    **conditions: object,
) -> Tensor:
    """Mean error of what is predicted, to the power of the norm, at levels drawn from the training schedule.

    denoiser: (noisy, sigma, **conditions) -> clean estimate; clean: (B, ...) in [-1, 1]
    share: (B,), of each picture that is learned, where the clean estimate is right elsewhere: errors are then means
        over that share
    returns: scalar. Raises ValueError where the network knows nothing but timesteps
    """
    if config.told == "timestep":
        raise ValueError('levels between timesteps are learned here: told must be "gamma" or "root" in training')
    sigma = sigma_from_gamma(config.training.draw_gammas(len(clean), root=config.root)).to(clean.device, clean.dtype)
    norm, power = (l1, 1) if config.norm == "l1" else (l2, 2)
    importance = None if share is None else rows_like(share.clamp_min(1e-6) ** (-1 / power), clean)
    weight = PREDICTED[cast(Prediction, config.predicts)]
    return diffusion_loss(denoiser, clean, sigma, weight, norm, None, importance, **conditions)


def draw(
    denoise: Denoise,
    shape: Sequence[int],
    config: ProcessConfig,
    noise: Noise,
    *,
    sampler: str | None = None,
    steps: int | None = None,
    mean: Tensor | float = 0.0,
    correct: Correct | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Clean pictures of a shape, about in [-1, 1]. sampler, steps: None is what the config says.

    noise: where all of it comes from, the start included
    mean: of a clean picture, around which sampling begins, broadcast to the shape: its color leans there (GPIC)
    """
    name = sampler or config.sampler
    sigmas = config.sigmas(name, steps)
    white = noise(shape)
    x = mean + white * float(sigmas[0])
    run: Sampler
    if name in ANCESTRAL:
        run = partial(sample_ancestral, variance=ANCESTRAL[name])
    else:
        run = SAMPLERS[name]
    held = denoise if name == "algorithm2" else clamped(denoise)
    return run(held, torch.as_tensor(x), sigmas, callback, noise=noise, correct=correct)
