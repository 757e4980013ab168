"""Draws of stage 1 under guidance: by the same network without its condition, or by weaker weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stages.diffusion.guidance import guided
from stages.diffusion.noise import draw_noise, karras_sigmas
from stages.diffusion.samplers import sample_dpmpp_2m
from stages.faces import Draws, Generators
from stages.stage1_coarse.diffusion import DiffusionColorizer
from stages.stage1_coarse.diffusion_networks import CHROMA_SIDE, DiffusionEncoding

__all__ = ["guided_draws"]


def guided_draws(
    stage: DiffusionColorizer, encoding: DiffusionEncoding, count: int, steps: int, weight: float,
    weaker: tuple[DiffusionColorizer, DiffusionEncoding] | None = None, interval: tuple[float, float] = (0.0, math.inf),
    generator: Generators = None,
) -> Draws:  # fmt: skip
    """`count` draws per photograph by DPM-Solver++, with the temperature and the chroma gain of the stage.

    weight, interval: see `guided`
    weaker: a stage and what it has made of the same photographs (autoguidance); None: the stage itself without its
        features, as it has seen a `condition_dropout` of its pictures
    """
    if weaker is None:
        other, mean = stage, encoding.hinted
        weaker_maps = stage.network.prepare(torch.zeros_like(encoding.told))
    else:
        other, seen = weaker
        mean, weaker_maps = seen.hinted, seen.maps
    maps, weak_maps = ([one.repeat_interleave(count, 0) for one in some] for some in (encoding.maps, weaker_maps))
    # Each diffuses what its own preview leaves open: the weaker one is asked in its own terms.
    apart = (encoding.hinted - mean).repeat_interleave(count, 0)

    def strong(x: Tensor, sigma: Tensor) -> Tensor:
        return stage.denoiser(x, sigma, context=maps)

    def weak(x: Tensor, sigma: Tensor) -> Tensor:
        return other.denoiser(x + apart, sigma, context=weak_maps) - apart

    config = stage.config
    sigmas = karras_sigmas(steps, config.sigma_min, config.sigma_max)
    noise = draw_noise((len(encoding) * count, 2, CHROMA_SIDE, CHROMA_SIDE), generator, encoding.gray64.device)
    start = stage.denoiser.start(noise, float(sigmas[0]))
    left_open = sample_dpmpp_2m(guided(strong, weak, weight, interval), start, sigmas)
    chroma = stage.chroma64(
        encoding.hinted.repeat_interleave(count, 0), left_open, config.temperature, config.chroma_gain
    )
    return Draws.of(encoding.gray64, chroma.unflatten(0, (len(encoding), count)))
