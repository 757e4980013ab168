"""Stage 1, kind `coltran`: coarse colors of a 64x64 gray picture, symbol after symbol, with exact likelihoods.

The colorizer of ColTran (arXiv 2102.04432; `stages/nn/coltran/core.py` is its network): a pixel's three channels of 3
bits are one of 512 symbols, drawn in raster order from distributions that know the gray picture and all symbols before.
An auxiliary head that takes all pixels for independent steadies training (weight 0.01) and is the one-pass preview.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.color.spaces import COARSE_COLORS, chroma_from_rgb, coarse_from_rgb, gray_from_rgb, merge, rgb_from_coarse
from stages.diffusion.noise import draw_uniform
from stages.faces import CoarseColorizer, Draws, Encoding, Generators, GrayView, HasLikelihood, Scores, StepCallback
from stages.nn.coltran.core import ColTranCore, CoreSizes
from stages.nn.coltran.upsampler import checked_decode, rounded8
from stages.nn.pixelcnn.logistic_mixture import exact
from stages.options import SampleOptions
from stages.precision import checked_finite

SIDE, GRAYS = 64, 256


@dataclass(frozen=True)
class ColTranColorizerConfig:
    """The paper's sizes are in configs/stage1_coltran.toml."""

    channels: int = 96
    feed_forward: int = 96
    heads: int = 4
    encoder_layers: int = 3
    outer_layers: int = 2
    inner_layers: int = 2
    conditional_attention: bool = True  # the three conditionings; without any: ColTran-B, which only adds
    conditional_mlp: bool = True
    conditional_norm: bool = True
    one_plus: bool = False  # conditional scales as 1 + scale
    parallel_weight: float = 0.01  # of the auxiliary head's loss; the other's is the rest
    rounded: bool = False  # pictures to 8 bits before they are cut to 3, as in the released training
    # sampling
    temperature: float = 1.0  # of the logits; 0: the most likely symbol
    top_p: float = 1.0  # draw among the fewest symbols that hold this much probability
    pool: int = 1
    preview_decode: str = "mean"  # of the auxiliary head's distribution, or "argmax", as released


@dataclass(frozen=True)
class ColTranEncoding(Encoding):
    """z: what the gray encoder gives, (B, 64, 64, channels)."""

    z: Tensor


class ColTranColorizer(CoarseColorizer[ColTranEncoding], HasLikelihood, Scores):
    kind, config_class = "coltran", ColTranColorizerConfig
    honors = frozenset({"temperature"})
    autoregressive = True
    training_side = SIDE
    bits_unit = "symbol"

    def __init__(self, config: ColTranColorizerConfig | None = None):
        config = config or ColTranColorizerConfig()
        super().__init__(config)
        SampleOptions(temperature=config.temperature)  # raises where it is out of range
        checked_decode("preview_decode", config.preview_decode)
        if not 0 < config.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1]; got {config.top_p}")
        shared = {name: getattr(config, name) for name in (
            "channels", "feed_forward", "heads", "encoder_layers", "outer_layers", "inner_layers",
            "conditional_attention", "conditional_mlp", "conditional_norm", "one_plus",
        )}  # fmt: skip
        self.core = ColTranCore(CoreSizes(height=SIDE, width=SIDE, symbols=COARSE_COLORS, grays=GRAYS, **shared))

    @property
    def pool(self) -> int:
        return self.config.pool

    def num_steps(self, options: SampleOptions) -> int:
        return SIDE

    def forward(self, rgb: Tensor, label: Tensor | None = None) -> Tensor:
        """Bits per symbol: rgb (B, 3, 64, 64) in [0, 1] -> scalar (paper, section 4.1)."""
        if rgb.ndim != 4 or rgb.shape[1:] != (3, SIDE, SIDE):
            raise ValueError(f"rgb must be (B, 3, {SIDE}, {SIDE}) in [0, 1]; got {tuple(rgb.shape)}")
        rgb = rounded8(rgb) if self.config.rounded else rgb
        symbols = coarse_from_rgb(rgb)
        z = self.core.encode(gray_levels(gray_from_rgb(rgb)))
        weight = self.config.parallel_weight
        loss = (1 - weight) * bits(self.core.logits(z, symbols), symbols).mean()
        return loss + weight * bits(self.core.parallel_logits(z), symbols).mean() if weight else loss

    @torch.no_grad()
    def bits(self, rgb: Tensor) -> Tensor:
        """What the coarse colors of pictures cost: rgb (B, 3, 64, 64) in [0, 1] -> bits per symbol (B,)."""
        rgb = rounded8(rgb) if self.config.rounded else rgb
        return -self.score(gray_from_rgb(rgb), coarse_from_rgb(rgb))

    @torch.no_grad()
    def score(self, gray64: Tensor, coarse64: Tensor) -> Tensor:
        """The likelihood in bits per symbol, log2 p(coarse | gray): see `Scores`."""
        logits = self.core.logits(self.core.encode(gray_levels(gray64)), coarse64)
        return -bits(logits, coarse64).mean((1, 2))

    @torch.no_grad()
    def encode(self, view: GrayView) -> ColTranEncoding:
        return ColTranEncoding(view.gray64, self.core.encode(gray_levels(view.gray64)))

    @torch.no_grad()
    def sample(
        self,
        encoding: ColTranEncoding,
        num_samples: int = 1,
        options: SampleOptions = SampleOptions(),  # noqa: B008  (frozen)
        generator: Generators = None,
        callback: StepCallback | None = None,
    ) -> Draws:
        """`num_samples` independent draws per photograph, see `CoarseColorizer`; every symbol is a step.

        options: temperature is that of the logits
        callback: called after each row with its number, the share of the picture still open, and twice the symbols so
            far (B * num_samples, rows, 64)
        """
        self.check_honored(options, SampleOptions.COARSE)
        if num_samples < 1:
            raise ValueError(f"num_samples must be 1 or more; got {num_samples}")
        temperature = self.config.temperature if options.temperature is None else options.temperature
        rows = len(encoding) * num_samples
        z = encoding.z.repeat_interleave(num_samples, 0)
        uniform = draw_uniform((rows, SIDE, SIDE), generator, z.device)
        worst = z.new_zeros(())

        def choose(logits: Tensor, i: int, j: int) -> Tensor:
            torch.maximum(worst, logits.abs().amax(), out=worst)  # NaN stays NaN
            return drawn(logits, uniform[:, i, j], temperature, self.config.top_p)

        def progress(row: int, symbols: Tensor) -> None:
            if callback is not None:
                callback(row, 1 - (row + 1) / SIDE, symbols, symbols)

        # Not in half precision: every one of the 4096 steps would cast the weights again, for no gain in speed.
        with torch.autocast(z.device.type, enabled=False):
            symbols = self.core.sample(z, choose, progress)
        checked_finite(worst, "the logits of stage 1")  # a symbol is drawn from NaNs too
        return Draws(symbols.unflatten(0, (len(encoding), num_samples)))

    @torch.no_grad()
    def preview(self, encoding: ColTranEncoding) -> Tensor:
        """The mean of the parallel head or (`preview_decode`) its likeliest symbols."""
        logits = self.core.parallel_logits(encoding.z)
        symbols = torch.arange(COARSE_COLORS, device=logits.device)[:, None, None]
        colors = rgb_from_coarse(symbols)[:, :, 0, 0]  # (512, 3)
        checked_finite(logits.amax(-1), "the logits of stage 1")  # NaN has an argmax too
        with torch.autocast(logits.device.type, enabled=False):  # half precision has too few colors for a mean
            mean = self.config.preview_decode == "mean"
            rgb = logits.float().softmax(-1) @ colors if mean else colors[logits.argmax(-1)]
        return merge(encoding.gray64, chroma_from_rgb(rgb.permute(0, 3, 1, 2)))


def gray_levels(gray: Tensor) -> Tensor:
    """Gray (B, 1, H, W) in [0, 1] as 8-bit levels (B, H, W) int64."""
    return (gray.squeeze(1) * (GRAYS - 1)).round().long().clamp(0, GRAYS - 1)


def bits(logits: Tensor, symbols: Tensor) -> Tensor:
    """-log2 of the probability of each symbol: logits (B, H, W, symbols) -> (B, H, W)."""
    return F.cross_entropy(logits.float().movedim(-1, 1), symbols, reduction="none") / math.log(2)


def drawn(logits: Tensor, uniform: Tensor, temperature: float = 1.0, top_p: float = 1.0) -> Tensor:
    """One symbol per row, by inversion of the distribution function.

    logits: (B, symbols); uniform: (B,) in [0, 1); temperature: of the logits, 0 for the most likely symbol
    top_p: only the likeliest symbols take part, the fewest whose probabilities reach this sum (Holtzman et al. 2020,
        arXiv 1904.09751)
    """
    if temperature == 0:
        return logits.argmax(-1)
    probability = (exact(logits) / temperature).softmax(-1)
    if top_p < 1:
        ranked, order = probability.sort(-1, descending=True)
        ranked = ranked.masked_fill(ranked.cumsum(-1) - ranked >= top_p, 0)  # what came before reaches it already
        probability = torch.zeros_like(probability).scatter(-1, order, ranked)
    cumulative = probability.cumsum(-1)
    threshold = exact(uniform)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, threshold, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
