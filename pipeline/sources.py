"""Inputs of a call: photographs, seeds and noise keys in any of their forms."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.images.photo import Photo
from pipeline.images.read import load_photo
from pipeline.open_photo import cache_of
from stages.seeds import NoiseSource, noise_key

__all__ = ["NoiseKey", "Seed", "Source", "listed", "noise_keys_from", "noise_sources", "photo_from", "seeds_from"]

Source = str | Path | bytes | Image.Image | np.ndarray | Tensor | Photo
Seed = int | torch.Generator | None
NoiseKey = str | None


def photo_from(source: Source, keep_rgb: bool = False) -> Photo:
    """Any input of the pipeline as a `Photo`. keep_rgb: with its colors, of a `Photo` those that it was read with."""
    if isinstance(source, Photo):
        return source
    if isinstance(source, Tensor):
        if source.ndim not in (2, 3) or (source.ndim == 3 and source.shape[0] not in (1, 3)):
            hint = "; arrays have channels last, tensors first" if source.ndim == 3 else ""
            raise ValueError(
                f"a tensor must be (H, W), (1, H, W) or (3, H, W), or (B, 1 or 3, H, W) for B photos; got "
                f"{tuple(source.shape)}{hint}"
            )
        planes = (source if source.ndim == 3 else source.unsqueeze(0)).detach().cpu()
        planes = planes.float() if planes.is_floating_point() else planes
        return load_photo(planes.permute(1, 2, 0).numpy(), keep_rgb=keep_rgb)
    return load_photo(source, keep_rgb=keep_rgb)


def listed(gray: Source | Sequence[Source]) -> list[Source]:
    if isinstance(gray, (Tensor, np.ndarray)) and gray.ndim == 4:
        return list(gray)
    if isinstance(gray, (list, tuple)):
        return list(gray)
    return [gray]  # type: ignore[list-item]


def seeds_from(generator: Seed | Sequence[Seed], count: int) -> list[int]:
    """One integer seed per photo."""
    if isinstance(generator, (list, tuple)):
        if len(generator) != count:
            raise ValueError(f"generator is a list of {len(generator)}, but there are {count} photos; "
                             "give one for each")
        return [_seed(one) for one in generator]
    if generator is None:
        return [_seed(None) for _ in range(count)]
    return [_seed(generator)] * count  # type: ignore[arg-type]


def noise_sources(photos: Sequence[Photo], seeds: Sequence[int], keys: Sequence[NoiseKey]) -> list[NoiseSource]:
    """Where the noise of each photo comes from: the key given, else the photo's own."""

    def own(photo: Photo) -> str:
        return cache_of([photo]).within(photo.depth)("noise key", lambda: noise_key(photo.gray, photo.depth))

    return [
        NoiseSource(seed, own(photo) if key is None else key)
        for photo, seed, key in zip(photos, seeds, keys, strict=True)
    ]


def noise_keys_from(keys: NoiseKey | Sequence[NoiseKey], count: int) -> list[NoiseKey]:
    """One noise key per photo, None for its own."""
    if keys is None or isinstance(keys, str):
        return [keys] * count
    each = list(keys) if isinstance(keys, Sequence) else []
    if len(each) != count or not all(key is None or isinstance(key, str) for key in each):
        raise ValueError(f"noise_key must be text, None, or a list of these for {count} photos; got {keys!r}")
    return each


def _seed(generator: Seed) -> int:
    if generator is None:
        return secrets.randbits(48)
    if isinstance(generator, torch.Generator):
        return int(torch.randint(2**48, (), generator=generator, device=generator.device))
    if isinstance(generator, (int, np.integer)) and not isinstance(generator, bool):
        return int(generator)
    raise TypeError("generator must be None, an integer seed, a torch.Generator, or a list of these per "
                    f"photo; got {type(generator).__name__}")
