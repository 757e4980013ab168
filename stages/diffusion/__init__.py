"""The diffusion core shared by the stages: noise levels, denoisers, losses, samplers and what guides or corrects them.

It knows nothing of pictures beyond their being tensors with rows first (and, in `wiener`, planes).
"""

from stages.diffusion.corrections import chained, ilvr, keep_known, langevin
from stages.diffusion.denoiser import Denoiser, VPDenoiser, clamped, knowing
from stages.diffusion.exponential import sample_exponential
from stages.diffusion.few_step import FewSteps
from stages.diffusion.guidance import guided
from stages.diffusion.losses import denoising_loss, diffusion_loss
from stages.diffusion.noise import LinearSchedule, draw_noise, geometric_sigmas, karras_sigmas, lognormal_sigmas
from stages.diffusion.process import ProcessConfig, draw, process_loss
from stages.diffusion.samplers import SAMPLERS, sample_ancestral, sample_ddim, sample_dpmpp_2m, sample_heun
from stages.diffusion.wiener import WienerDenoiser

__all__ = [
    "SAMPLERS", "Denoiser", "FewSteps", "LinearSchedule", "ProcessConfig", "VPDenoiser", "WienerDenoiser", "chained",
    "clamped", "denoising_loss", "diffusion_loss", "draw", "draw_noise", "geometric_sigmas", "guided", "ilvr",
    "karras_sigmas", "keep_known", "knowing", "langevin", "lognormal_sigmas", "process_loss", "sample_ancestral",
    "sample_ddim", "sample_dpmpp_2m", "sample_exponential", "sample_heun",
]  # fmt: skip
