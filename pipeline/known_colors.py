"""Known colors in a call: from what a person gives, over the tensors of the stages, into every picture.

A stage 1 that has learned hints is told of them (`with_hints`). Whatever it makes of them, what is known is obeyed: the
difference that is left between a picture and its hints is spread along the photograph (`stages.hints.spread`), at 64x64
before stage 3 and once more after it, so neither 3 bits nor a chroma gain change a color that was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pipeline.images import Photo
from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, merge
from stages.hints.hints import Hints, Point
from stages.hints.spread import spread, spread_alike

__all__ = ["HintsSource", "KnownColors", "hints_for", "hints_per_photo"]

HintsSource = Hints | Image.Image | Sequence[Sequence[object]] | None
"""Points (x, y, color) or (x, y, color, radius), an RGBA picture of strokes, `Hints`, or nothing."""


def hints_per_photo(hints: HintsSource | Sequence[HintsSource], several: bool, count: int) -> list[HintsSource]:
    """One entry per photo. several: whether the call is for a list of photos, which takes a list of hints."""
    if hints is None:
        return [None] * count
    if not several:
        return [hints]  # type: ignore[list-item]  # of one photo
    if not isinstance(hints, list | tuple) or len(hints) != count:
        raise ValueError(f"hints of several photos must be a list of {count}, one entry for each or None; got "
                         f"{len(hints) if isinstance(hints, list | tuple) else type(hints).__name__}")  # fmt: skip
    return list(hints)


def hints_for(photo: Photo, source: HintsSource) -> Hints | None:
    """The hints of one photo, None where there are none. Raises ValueError for hints of another photo, see `Hints`."""
    if source is None:
        return None
    size = (photo.gray.shape[1], photo.gray.shape[0])
    if isinstance(source, Hints):
        hints = source
    elif isinstance(source, Image.Image):
        hints = Hints(size, strokes=source)
    else:
        hints = Hints(size, [_point(point) for point in source])
    if hints.size != size:
        raise ValueError(f"these hints are for a photo of {hints.size[0]}x{hints.size[1]} pixels; got one of "
                         f"{size[0]}x{size[1]}, upright. Make them anew for it.")  # fmt: skip
    return hints if hints.points or hints.strokes is not None else None


def _point(point: Sequence[object]) -> Point:
    if not isinstance(point, list | tuple) or not 3 <= len(point) <= 4:
        raise ValueError(f"a hint must be (x, y, color) or (x, y, color, radius); got {point!r}")
    return Point(*point)


@dataclass(frozen=True)
class KnownColors:
    """The hints of B photos as the stages know them.

    at32: (B, 3, 32, 32), at64: (B, 3, 64, 64), weight and chroma · weight; gray64: (B, 1, 64, 64)
    features: of stage 1's encoder, (B, C, h, w), which tell what is alike; None: luma and place alone do
    """

    at32: Tensor
    at64: Tensor
    gray64: Tensor
    features: Tensor | None

    @staticmethod
    def rasterized(photos: Sequence[Photo], hints: Sequence[Hints | None], side: int) -> Tensor:
        """(B, 3, side, side), zeros for a photo without hints."""
        rows = [
            torch.zeros(3, side, side) if one is None else one.rasterized(torch.from_numpy(photo.gray)[None], side)
            for photo, one in zip(photos, hints, strict=True)
        ]
        return torch.stack(rows)

    def obeyed(self, rgb: Tensor, gray: Tensor, photos: Tensor) -> Tensor:
        """Pictures with the hints of their photos put right: rgb (N, 3, S, S) with the luma gray (N, 1, S, S), S a
        multiple of 64; photos: (N,) which of the B photos each is of -> (N, 3, S, S).
        """
        chroma = chroma_from_rgb(rgb)
        small = resize(chroma, (64, 64))
        features = None if self.features is None else self.features[photos].float().cpu()
        known = self.at64[photos].cpu()
        wanted = spread(self.gray64[photos].cpu(), known, small.cpu(), features).to(rgb.device)
        correction = wanted - small
        if chroma.shape[-1] != 64:
            size = (chroma.shape[-2], chroma.shape[-1])
            correction = F.interpolate(correction, size, mode="bilinear", align_corners=False)
        hinted = self.at64[photos, :1].flatten(1).any(1).to(rgb.device)[:, None, None, None]
        return torch.where(hinted, merge(gray, chroma + correction), rgb)

    def draws_obeyed(self, photo: int, draws: Tensor, picture: Tensor) -> Tensor:
        """Draws of a photo beside a picture of it, as far as hints about the one are hints about the others.

        draws: chroma (N, 2, 64, 64); picture: (1, 3, h, w) -> (N, 2, 64, 64)
        """
        one = slice(photo, photo + 1)
        features = None if self.features is None else self.features[one].float().cpu()
        chroma = resize(chroma_from_rgb(picture), (64, 64)).cpu()
        gray64, hints = self.gray64[one].cpu(), self.at64[one].cpu()
        return spread_alike(gray64, hints, chroma, draws.cpu(), features).to(draws.device)
