"""Known colors in a call: from what a person gives, over the tensors of the stages, into every picture.

A stage 1 that has learned hints is told of them (`with_hints`), as far as places are like theirs. Whatever it makes of
them, what is known is obeyed: the difference that is left between a picture and its hints is spread along the
photograph (`stages.hints.spread`), at 64x64 before stage 3 and once more after it, so neither 3 bits nor a chroma gain
change a color that was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.images import Photo
from pipeline.kept import Kept
from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, merge
from stages.hints.hints import Hints
from stages.hints.spread import reach, spread, spread_alike

__all__ = ["Guide", "KnownColors", "Told", "joined"]


@dataclass(frozen=True, eq=False)
class Guide:
    """What a person gives for one photo: hints, colors of its own that it keeps, and another picture in color.

    alike: what is known goes to what is like it and not to what is beside it: where nearly all is known, as of a frame
        of a video, colors would else be drawn from the border of the known over all that has come into view
    """

    hints: Hints | None = None
    kept: Kept | None = None
    reference: Photo | None = None
    alike: bool = False

    @property
    def knows(self) -> bool:
        """Whether it says colors of places."""
        return self.hints is not None or self.kept is not None


def joined(first: Tensor, second: Tensor) -> Tensor:
    """Known colors where `first` has them, elsewhere those of `second`: two tensors `hints` (B, 3, S, S)."""
    return first + (1 - first[:, :1]) * second


@dataclass(frozen=True, eq=False)
class Told:
    """What a stage 1 that has learned hints is told: hints (B, 3, 32, 32), and how far they go, (B, 1, 32, 32)."""

    hints: Tensor
    reach: Tensor

    @staticmethod
    def of(hints: Tensor, gray64: Tensor, preview: Tensor, features: Tensor | None) -> Told:
        """preview: rgb (B, 3, 64, 64), before any hints; features: see `KnownColors`"""
        gray, chroma = (resize(one.float(), (32, 32)).cpu() for one in (gray64, chroma_from_rgb(preview)))
        far = reach(gray, hints.cpu(), chroma, None if features is None else features.float().cpu())
        return Told(hints, far.to(hints.device))


@dataclass(frozen=True)
class KnownColors:
    """What is known of the colors of B photos, as the stages know it.

    at32: (B, 3, 32, 32), at64: (B, 3, 64, 64), weight and chroma · weight; gray64: (B, 1, 64, 64)
    features: of stage 1's encoder, (B, C, h, w), which tell what is alike; None: luma and place alone do
    alike: see `Guide`; of all of them
    """

    at32: Tensor
    at64: Tensor
    gray64: Tensor
    features: Tensor | None
    alike: bool = False

    @staticmethod
    def rasterized(photos: Sequence[Photo], guides: Sequence[Guide], side: int) -> Tensor:
        """(B, 3, side, side), zeros for a photo of which nothing is known; what is kept counts before hints."""
        rows = []
        for photo, guide in zip(photos, guides, strict=True):
            kept = torch.zeros(3, side, side) if guide.kept is None else guide.kept.rasterized(side)
            if guide.hints is not None:
                hints = guide.hints.rasterized(torch.from_numpy(photo.gray)[None], side)
                kept = joined(kept[None], hints[None])[0]
            rows.append(kept)
        return torch.stack(rows)

    def obeyed(self, rgb: Tensor, gray: Tensor, photos: Tensor) -> Tensor:
        """Pictures with the hints of their photos put right: rgb (N, 3, S, S) with the luma gray (N, 1, S, S), S a
        multiple of 64; photos: (N,) which of the B photos each is of -> (N, 3, S, S).
        """
        chroma = chroma_from_rgb(rgb)
        small = resize(chroma, (64, 64))
        features = None if self.features is None else self.features[photos].float().cpu()
        known = self.at64[photos].cpu()
        gray64, before = self.gray64[photos].cpu(), small.cpu()
        if self.alike:
            told = (None if features is None else features[n : n + 1] for n in range(len(photos)))
            parts = zip(gray64.split(1), known.split(1), before.split(1), told, strict=True)
            wanted = torch.cat([spread_alike(g, k, b, b, f) for g, k, b, f in parts]).to(rgb.device)
        else:
            wanted = spread(gray64, known, before, features).to(rgb.device)
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
