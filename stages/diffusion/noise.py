"""Noise levels: how strongly a picture is drowned in Gaussian noise, and how to say so.

A noisy picture is written in the variance-exploding (VE) form everywhere in this package:

    x = x0 + sigma · epsilon,    epsilon ~ N(0, 1)

and `sigma`, a continuous number, is all that a sampler or a denoiser is told. Work written in the
variance-preserving (VP) form, with a discrete schedule of gamma (also called alpha-bar), is the same thing scaled:

    x_vp = sqrt(gamma) · x0 + sqrt(1 - gamma) · epsilon = x / sqrt(1 + sigma²),    gamma = 1 / (1 + sigma²)

so a schedule of DDPM, Palette or GPIC becomes falling sigmas (`LinearSchedule`), and its pictures go over by
`ve_from_vp` and `vp_from_ve`, without loss. Levels are float64: they span five and more decades.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Generator, Tensor

from stages.options import OptionError

__all__ = [
    "Level", "LinearSchedule", "draw_noise", "draw_uniform", "float64", "gamma_from_sigma", "geometric_sigmas",
    "karras_sigmas", "lognormal_sigmas", "rows_like", "sigma_from_gamma", "ve_from_vp", "vp_from_sigma", "vp_from_ve",
]  # fmt: skip

Level = float | Tensor
"""A noise level: one number for the whole batch (a float or a 0-d tensor), or one per row (B,)."""


def karras_sigmas(
    steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> Tensor:
    """Falling noise levels of a sampler, denser toward small noise as rho grows (Karras et al. 2022, eq. 5).

    returns: (steps + 1,) float64 on the CPU, from sigma_max down to sigma_min and then 0; [sigma_max, 0] for
        one step
    """
    _check_range("karras_sigmas", steps, sigma_min, sigma_max)
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    sigmas = (sigma_max ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def geometric_sigmas(steps: int, sigma_min: float = 0.05, sigma_max: float = 80.0) -> Tensor:
    """Falling noise levels, each the same share of the one before, as suits solvers that run on along ln(sigma).

    returns: (steps + 1,) float64 on the CPU, from sigma_max down to sigma_min and then 0; [sigma_max, 0] for
        one step
    """
    _check_range("geometric_sigmas", steps, sigma_min, sigma_max)
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    return torch.cat([sigma_max * (sigma_min / sigma_max) ** ramp, ramp.new_zeros(1)])


def lognormal_sigmas(
    shape: int | Sequence[int], mean: float = -1.2, std: float = 1.2, generator: Generator | None = None
) -> Tensor:
    """Noise levels of a training batch, ln sigma ~ N(mean, std²) (Karras et al. 2022, Table 1).

    returns: (*shape) float32 on the CPU
    """
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    return torch.exp(mean + std * draw_noise(shape, generator))


@dataclass(frozen=True)
class LinearSchedule:
    """The discrete schedule of DDPM (Ho et al. 2020, arXiv 2006.11239): beta_1 .. beta_T evenly spaced, in float64.

        gamma_t = prod over s <= t of (1 - beta_s),    sigma_t = sqrt(1 / gamma_t - 1)

    DDPM and ADM: (1000, 1e-4, 0.02). Palette: (2000, 1e-6, 0.01) in training, (1000, 1e-4, 0.09) in use.
    Tensors hold t = 1 .. T in order; the timestep that networks are told counts from 0.
    """

    steps: int
    first: float
    last: float

    def __post_init__(self) -> None:
        if self.steps < 2 or not 0 < self.first <= self.last < 1:
            raise ValueError(f"a linear schedule needs steps >= 2 and 0 < first <= last < 1; got {self}")

    @cached_property
    def betas(self) -> Tensor:
        """(T,), the variance that each step adds in VP form."""
        return torch.linspace(self.first, self.last, self.steps, dtype=torch.float64)

    @cached_property
    def gammas(self) -> Tensor:
        """(T,), the share of the signal in the variance of x_vp, falling."""
        return (1 - self.betas).cumprod(0)

    def sigmas(self, count: int | None = None) -> Tensor:
        """Falling noise levels of a sampler: all of the schedule's, or `count` of them, evenly spaced in t.

        returns: (count + 1,), from sigma_T down to sigma_1, as ADM respaces its steps, and then 0
        """
        count = self.steps if count is None else count
        if not 1 <= count <= self.steps:
            raise OptionError(f"of a schedule of {self.steps} steps, 1 to {self.steps} can be taken; got {count}")
        chosen = torch.linspace(self.steps - 1, 0, count, dtype=torch.float64).round().long()
        return torch.cat([sigma_from_gamma(self.gammas[chosen]), torch.zeros(1, dtype=torch.float64)])

    def timestep(self, sigma: Level) -> Tensor:
        """The timestep, from 0 to T - 1, of noise levels of any shape: whole at the schedule's sigmas, even in ln sigma
        between them. float64. Raises ValueError for levels that the schedule does not reach.
        """
        sigmas = sigma_from_gamma(self.gammas)
        level = float64(sigma).cpu()
        # float32 levels may lie a rounding error outside.
        if not ((level >= sigmas[0] * (1 - 1e-6)) & (level <= sigmas[-1] * (1 + 1e-6))).all():
            raise ValueError(f"{self} knows sigma from {sigmas[0]:.6g} to {sigmas[-1]:.6g}; got {level.tolist()}")
        upper = torch.searchsorted(sigmas, level).clamp(1, self.steps - 1)
        low, high = sigmas[upper - 1].log(), sigmas[upper].log()
        return upper - 1 + ((level.log() - low) / (high - low)).clamp(0, 1)

    def draw_gammas(
        self, count: int, generator: Generator | Sequence[Generator] | None = None, root: bool = False
    ) -> Tensor:
        """Levels of a training batch, also between those of the schedule: t uniform in 1 .. T, then gamma uniform
        between gamma_(t-1) and gamma_t, where gamma_0 = 1 (Chen et al. 2020, arXiv 2009.00713, section 3; Palette).

        generator: as for `draw_uniform`; root: uniform in sqrt(gamma) instead (WaveGrad, GPIC)
        returns: (count,) float64, below 1
        """
        time, share = draw_uniform((count, 2), generator).double().unbind(1)
        later = (time * self.steps).long()
        ends = torch.cat([torch.ones(1, dtype=torch.float64), self.gammas])
        ends = ends.sqrt() if root else ends
        level = ends[later + 1] + share * (ends[later] - ends[later + 1])
        return level.square() if root else level


def draw_noise(
    shape: Sequence[int],
    generator: Generator | Sequence[Generator] | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard normal noise that does not depend on where it is used.

    shape: of the result, rows first
    generator: None for torch's global one; one Generator for the whole tensor; or one per row, and then row i
        depends on generator i alone, whatever the size of the batch
    device, dtype: of the result. The numbers are drawn in float32 on the generator's device (the CPU, unless
        a caller made it elsewhere) and moved, so the same seed gives the same noise on every device
    """
    return _drawn(torch.randn, tuple(shape), generator).to(device, dtype)


def draw_uniform(
    shape: Sequence[int],
    generator: Generator | Sequence[Generator] | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Float32 numbers from [0, 1), drawn as `draw_noise` draws its own."""
    return _drawn(torch.rand, tuple(shape), generator).to(device)


def _check_range(name: str, steps: int, sigma_min: float, sigma_max: float) -> None:
    if steps < 1 or not 0 < sigma_min < sigma_max:
        raise ValueError(
            f"{name} needs steps >= 1 and 0 < sigma_min < sigma_max; "
            f"got steps={steps}, sigma_min={sigma_min}, sigma_max={sigma_max}"
        )


def _drawn(
    draw: Callable[..., Tensor], shape: tuple[int, ...], generator: Generator | Sequence[Generator] | None
) -> Tensor:
    if generator is None or isinstance(generator, Generator):
        device = "cpu" if generator is None else generator.device
        return draw(shape, generator=generator, device=device, dtype=torch.float32)
    generators = list(generator)
    if not shape or len(generators) != shape[0]:
        raise ValueError(
            f"a sequence of generators must hold one per row; got {len(generators)} for the shape {shape}"
        )
    if not generators:
        return torch.zeros(shape)
    return torch.stack([_drawn(draw, shape[1:], one) for one in generators])


def sigma_from_gamma(gamma: Level) -> Tensor:
    """VE noise level of the VP signal share gamma (alpha-bar) in (0, 1]: sqrt(1/gamma - 1), float64."""
    gamma = float64(gamma)
    return ((1 - gamma) / gamma).sqrt()


def gamma_from_sigma(sigma: Level) -> Tensor:
    """VP signal share of the VE noise level sigma >= 0: 1 / (1 + sigma²), float64."""
    return 1 / (1 + float64(sigma) ** 2)


def vp_from_sigma(sigma: Level) -> tuple[Tensor, Tensor]:
    """VP coefficients (alpha, std) of the VE noise level sigma: x_vp = alpha · x0 + std · epsilon.

    alpha = 1 / sqrt(1 + sigma²) = sqrt(gamma), std = sigma / sqrt(1 + sigma²) = sqrt(1 - gamma), float64
    """
    sigma = float64(sigma)
    alpha = torch.rsqrt(1 + sigma**2)
    return alpha, sigma * alpha


def vp_from_ve(x: Tensor, sigma: Level) -> Tensor:
    """The VP form sqrt(gamma) · x of the noisy picture x (B, ...) in VE form."""
    return x * rows_like(vp_from_sigma(sigma)[0], x)


def ve_from_vp(x_vp: Tensor, sigma: Level) -> Tensor:
    """The VE form x_vp / sqrt(gamma) of the noisy picture x_vp (B, ...) in VP form."""
    return x_vp * rows_like((1 + float64(sigma) ** 2).sqrt(), x_vp)


def rows_like(level: Level, x: Tensor) -> Tensor:
    """`level`, one number or one per row (B,), shaped to multiply x (B, ...), in its dtype, on its device."""
    level = torch.as_tensor(level)
    if level.dim() and level.shape != x.shape[:1]:
        raise ValueError(
            "a noise level must be one number or one per row (B,); "
            f"got {tuple(level.shape)} for x of {tuple(x.shape)}"
        )
    return level.to(x.dtype).to(x.device).reshape(level.shape + (1,) * (x.dim() - 1 if level.dim() else 0))


def float64(level: Level) -> Tensor:
    """The level in float64, on the CPU: Apple's GPUs know no float64."""
    return torch.as_tensor(level.cpu() if isinstance(level, Tensor) else level, dtype=torch.float64)
