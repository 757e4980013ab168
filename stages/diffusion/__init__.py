"""The diffusion core shared by the stages: noise levels, preconditioned denoisers, samplers.

It knows nothing of pictures beyond their being tensors with rows first (and, in `spectral`, planes).
"""

from stages.diffusion.denoiser import Denoiser, denoising_loss
from stages.diffusion.noise import draw_noise, geometric_sigmas, karras_sigmas, lognormal_sigmas
from stages.diffusion.samplers import SAMPLERS, sample_ddim, sample_dpmpp_2m, sample_heun
from stages.diffusion.spectral import SpectralDenoiser, TunedSteps

__all__ = [
    "SAMPLERS", "Denoiser", "SpectralDenoiser", "TunedSteps", "denoising_loss", "draw_noise", "geometric_sigmas",
    "karras_sigmas", "lognormal_sigmas", "sample_ddim", "sample_dpmpp_2m", "sample_heun",
]  # fmt: skip
