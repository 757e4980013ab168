"""What discriminators and generators are trained by. Every function is of one scale and gives a scalar.

    vanilla   the logarithm of the probability (Goodfellow et al. 2014), of a generator in its non-saturating form
    lsgan     squared distance from 1 for real, 0 for drawn (Mao et al. 2017, arXiv 1611.04076)
    hinge     (Lim and Ye 2017, arXiv 1705.02894; SAGAN)

Matching: what a discriminator finds in a drawn picture should be what it finds in the original (pix2pixHD).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Adversarial", "Matching", "check_losses", "discriminator_loss", "generator_loss", "matching_loss"]

Adversarial = Literal["vanilla", "lsgan", "hinge"]
Matching = Literal["layers", "concatenated"]
LAYERS = 4.0  # the sum of all layers' weights, as published for four layers


def check_losses(adversarial: str, matching: str) -> None:
    """Raises ValueError for names that are none of `Adversarial` and `Matching`."""
    for name, value, known in (("adversarial", adversarial, Adversarial), ("matching", matching, Matching)):
        if value not in get_args(known):
            raise ValueError(f"{name} must be one of {', '.join(get_args(known))}; got {value!r}")


def discriminator_loss(form: str, real: Tensor, drawn: Tensor, *, halved: bool = True) -> Tensor:
    """real, drawn: logits of any shape, each averaged. halved: half of the sum, as published; the hinge's never is."""
    if form == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + drawn).mean()
    if form == "vanilla":
        both = F.softplus(-real).mean() + F.softplus(drawn).mean()
    else:
        both = (real - 1).square().mean() + drawn.square().mean()
    return both / 2 if halved else both


def generator_loss(form: str, drawn: Tensor) -> Tensor:
    """drawn: logits of any shape"""
    if form == "hinge":
        return -drawn.mean()
    return F.softplus(-drawn).mean() if form == "vanilla" else (drawn - 1).square().mean()


def matching_loss(form: str, drawn: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Absolute difference of the maps of all layers, (B, C, h, w) each; no gradient flows into `real`.

    form: "layers", four times the mean over layers of each layer's mean (pix2pixHD: weight 1 for each of four layers);
        "concatenated", the mean over the elements of all layers, in which large early maps prevail (the hybrid)
    """
    apart = [(one.float() - other.detach().float()).abs() for one, other in zip(drawn, real, strict=True)]
    if form == "layers":
        return LAYERS * torch.stack([one.mean() for one in apart]).mean()
    return torch.stack([one.sum() for one in apart]).sum() / sum(one.numel() for one in apart)
