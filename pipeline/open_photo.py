"""A photo that stays open: what the networks have made of it is kept between calls.

    photo = OpenPhoto.of("scan.tif")
    pipe(photo, generator=0)              # as any photo
    pipe(photo, generator=0, hints=[…])   # neither the encoder runs again, nor draws that hints do not change

The pictures have the same bytes as those of the photo itself, whatever was asked before. What is kept hangs on all that
decides about it, so nothing needs to be told when an option, the weights or the device change.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from PIL import Image

from pipeline.images.photo import Photo
from pipeline.images.read import load_photo

__all__ = ["Cache", "Once", "OpenPhoto", "cache_of"]

ENTRIES = 256  # of at most 130 kB but for the encoding: a few tens of megabytes for a photo that is steered for long

Value = TypeVar("Value")


class Once(Protocol):
    """once(name, compute): the value of that name, computed where it is not known yet."""

    def __call__(self, name: Hashable, compute: Callable[[], Value]) -> Value: ...


class Cache:
    """Results by what they were made of; of more than ENTRIES the one goes that was not used for the longest time."""

    def __init__(self) -> None:
        self._values: OrderedDict[Hashable, Any] = OrderedDict()  # Any: each key has its own type of value

    def within(self, *scope: Hashable) -> Once:
        """Where values are kept that hang on nothing but `scope` and their names."""
        return partial(self._once, scope)

    def _once(self, scope: Hashable, name: Hashable, compute: Callable[[], Value]) -> Value:
        key = scope, name
        if key not in self._values:
            self._values[key] = compute()
        self._values.move_to_end(key)
        if len(self._values) > ENTRIES:
            self._values.popitem(last=False)
        return self._values[key]


@dataclass(eq=False)
class OpenPhoto(Photo):
    """A `Photo` with a cache of what the networks have made of it. For one thread at a time."""

    cache: Cache = field(default_factory=Cache, init=False, repr=False)  # so that a replaced photo has another one

    @classmethod
    def of(cls, source: str | Path | bytes | Image.Image | np.ndarray | Photo) -> Self:
        """A photo, or what `load_photo` takes, opened."""
        if isinstance(source, cls):
            return source
        return cls(**vars(source if isinstance(source, Photo) else load_photo(source)))


def cache_of(photos: Sequence[Photo]) -> Cache:
    """Where results of a call are kept: with the photo, if it is a single open one, else nowhere after the call."""
    one = photos[0] if len(photos) == 1 else None
    return one.cache if isinstance(one, OpenPhoto) else Cache()
