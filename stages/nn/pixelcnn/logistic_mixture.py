"""Mixtures of discretized logistics over two chroma channels (PixelCNN++, arXiv 1701.05517; PIC, arXiv 1705.04258).

A pixel has 8 K parameters: K logits, 3 K coefficients, and for each channel K means and K logarithms of scales. The
first channel's mean follows the lightness, the second's the lightness and the first channel. Values are in [-1, 1] and
a probability is that of the bin of width 2/255 around a value; bins at the ends reach to infinity.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PARAMETERS = 8  # per component
HALF_BIN = 1 / 255
EDGE = 0.999  # values beyond it lie in the bins at the ends
LOG_SCALE_MIN = -7.0


@dataclass
class LogisticMixture:
    """One mixture per row: all (N, K) but `lightness`, (N, 1); `of` makes it from a network's answers."""

    logits: Tensor
    coefficients: tuple[Tensor, Tensor, Tensor]
    means: tuple[Tensor, Tensor]
    log_scales: tuple[Tensor, Tensor]
    lightness: Tensor

    @classmethod
    def of(cls, parameters: Tensor, lightness: Tensor) -> LogisticMixture:
        """parameters: (N, 8 K); lightness: (N,), in [-1, 1]"""
        if parameters.ndim != 2 or parameters.shape[1] % PARAMETERS or lightness.shape != parameters.shape[:1]:
            shapes = f"{tuple(parameters.shape)} and {tuple(lightness.shape)}"
            raise ValueError(f"parameters must be (N, 8 K) and lightness (N,); got {shapes}")
        logits, c0, c1, c2, m1, m2, s1, s2 = parameters.float().chunk(PARAMETERS, dim=1)
        return cls(
            logits, (c0.tanh(), c1.tanh(), c2.tanh()), (m1, m2),
            (s1.clamp_min(LOG_SCALE_MIN), s2.clamp_min(LOG_SCALE_MIN)), lightness.float()[:, None],
        )  # fmt: skip

    def locations(self, first: Tensor) -> tuple[Tensor, Tensor]:
        """Means (N, K) of the two channels where the first one has the value `first`, (N, K) or (N, 1)."""
        c0, c1, c2 = self.coefficients
        return self.means[0] + c0 * self.lightness, self.means[1] + c1 * self.lightness + c2 * first

    def log_probability(self, values: Tensor) -> Tensor:
        """Natural logarithm of the probability of two values: (N, 2) -> (N,)."""
        first, second = values.float()[:, :1], values.float()[:, 1:]
        location1, location2 = self.locations(first)
        each = (
            self.logits.log_softmax(1)
            + _log_bin(first, location1, self.log_scales[0])
            + _log_bin(second, location2, self.log_scales[1])
        )
        return each.logsumexp(1)

    def draw(self, uniform: Tensor, temperature: float = 1.0) -> Tensor:
        """Values (N, 2) by inversion; uniform: (N, 3) in [0, 1), for the component and the two channels.

        temperature: of the logits, and of the logistic's width; 0: the mean of the likeliest component
        """
        if temperature == 0:
            k = self.logits.argmax(1, keepdim=True)
        else:
            cumulative = (exact(self.logits) / temperature).softmax(1).cumsum(1)
            threshold = exact(uniform[:, :1]) * cumulative[:, -1:]
            k = torch.searchsorted(cumulative, threshold, right=True).clamp(max=self.logits.shape[1] - 1)
        logistic = temperature * torch.logit(uniform[:, 1:].clamp(1e-5, 1 - 1e-5))
        scale1, scale2 = (scale.gather(1, k).exp() for scale in self.log_scales)
        # The second channel's location needs the first one's value, and only that of the chosen component.
        first = (self.locations(uniform[:, :1])[0].gather(1, k) + scale1 * logistic[:, :1]).clamp(-1, 1)
        second = (self.locations(first)[1].gather(1, k) + scale2 * logistic[:, 1:]).clamp(-1, 1)
        return torch.cat([first, second], dim=1)

    def mean(self) -> Tensor:
        """Expected values: (N, 2), cut to [-1, 1]."""
        share = self.logits.softmax(1)
        location1, _ = self.locations(self.means[0])
        location2 = self.locations(location1)[1]
        return torch.stack([(share * location1).sum(1), (share * location2).sum(1)], dim=1).clamp(-1, 1)


def exact(x: Tensor) -> Tensor:
    """Float64 where the device has it."""
    return x.float() if x.device.type == "mps" else x.double()


def _log_bin(value: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
    """log of a logistic's probability in the bin around `value` (arXiv 1701.05517, equation 2), exact in the tails."""
    centered, inverse = value - location, torch.exp(-log_scale)
    plus, minus = inverse * (centered + HALF_BIN), inverse * (centered - HALF_BIN)
    # sigmoid(plus) - sigmoid(minus) without the difference of two numbers that are nearly equal
    inside = F.logsigmoid(plus) + F.logsigmoid(-minus) + torch.log(-torch.expm1(-2 * HALF_BIN * inverse))
    return torch.where(value < -EDGE, F.logsigmoid(plus), torch.where(value > EDGE, F.logsigmoid(-minus), inside))
