"""Inputs of a call: photographs and seeds of any form."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.images.photo import Photo
from pipeline.images.read import load_photo
from pipeline.options import Seed, Source


def candidate_generator(seed: int, candidate: int, stage: str = "stage1") -> torch.Generator:
    """Randomness of one candidate of one photo: SHA-256 of all three, so that no two share a stream."""
    digest = hashlib.sha256(f"trichrome {seed} {candidate} {stage}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def photo_from(source: Source) -> Photo:
    """Any input of the pipeline as a `Photo`."""
    if isinstance(source, Photo):
        return source
    if isinstance(source, Tensor):
        if source.ndim not in (2, 3) or (source.ndim == 3 and source.shape[0] not in (1, 3)):
            raise ValueError(f"a tensor must be (H, W), (1, H, W) or (3, H, W); got {tuple(source.shape)}")
        planes = (source if source.ndim == 3 else source.unsqueeze(0)).detach().cpu()
        planes = planes.float() if planes.is_floating_point() else planes
        return load_photo(planes.permute(1, 2, 0).numpy())
    return load_photo(source)


def _listed(gray: Source | Sequence[Source]) -> list[Source]:
    if isinstance(gray, (Tensor, np.ndarray)) and gray.ndim == 4:
        return list(gray)
    if isinstance(gray, (list, tuple)):
        return list(gray)
    return [gray]  # type: ignore[list-item]


def _seeds(generator: Seed | Sequence[Seed], count: int) -> list[int]:
    """One integer seed per photo."""
    if isinstance(generator, (list, tuple)):
        if len(generator) != count:
            raise ValueError(f"generator is a list of {len(generator)}, but there are {count} photos; "
                             "give one for each")
        return [_seed(one) for one in generator]
    if generator is None:
        return [_seed(None) for _ in range(count)]
    return [_seed(generator)] * count  # type: ignore[arg-type]


def _seed(generator: Seed) -> int:
    if generator is None:
        return secrets.randbits(48)
    if isinstance(generator, torch.Generator):
        return int(torch.randint(2**48, (), generator=generator, device=generator.device))
    if isinstance(generator, (int, np.integer)) and not isinstance(generator, bool):
        return int(generator)
    raise TypeError("generator must be None, an integer seed, a torch.Generator, or a list of these per "
                    f"photo; got {type(generator).__name__}")
