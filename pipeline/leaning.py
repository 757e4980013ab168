"""What the colors of a call lean to before hints are obeyed: a palette, and what references say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.known_colors import Guide
from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, merge
from stages.faces import CoarseColorizer, Encoding, GrayView
from stages.hints.palette import leaning
from stages.hints.reference import drawn_to, matched
from stages.options import OptionError

__all__ = ["Leaning", "matches_of"]


@dataclass(frozen=True)
class Leaning:
    """palette: chroma (K, 2); matches: of B photos, (B, 3, 32, 32) as `matches_of` gives them; each may be None."""

    palette: Tensor | None
    matches: Tensor | None

    def of_chroma(self, chroma: Tensor, photos: Tensor) -> Tensor:
        """Chroma (N, 2, H, W) of pictures; photos: (N,) which of the B photos each is of -> (N, 2, H, W)."""
        if self.palette is not None:
            chroma = leaning(chroma, self.palette)
        return chroma if self.matches is None else drawn_to(chroma, self.matches[photos])

    def of_rgb(self, rgb: Tensor, gray: Tensor, photos: Tensor) -> Tensor:
        """The same for pictures (N, 3, H, W) with the luma gray (N, 1, H, W)."""
        if self.palette is None and self.matches is None:
            return rgb
        lean = merge(gray, self.of_chroma(chroma_from_rgb(rgb), photos))
        if self.palette is not None or self.matches is None:
            return lean
        matched = self.matches[photos, :1].flatten(1).any(1)
        return torch.where(matched[:, None, None, None], lean, rgb)  # beside others a photo stays what it is alone


def matches_of(
    coarse: CoarseColorizer[Any], encoding: Encoding, guides: Sequence[Guide]  # Any: each kind has its own encoding
) -> Tensor | None:
    """What the references of B photos say of their colors, (B, 3, 32, 32) like `hints`; None where there are none.

    guides: of the first photos of the encoding; the others have no reference
    Raises OptionError where stage 1 has nothing by which places of two pictures are compared.
    """
    references = {place: guide.reference for place, guide in enumerate(guides) if guide.reference is not None}
    if not references:
        return None
    gray64 = encoding.gray64
    blank = torch.zeros(1, 1, 1, 1)
    views = [GrayView.of(torch.from_numpy(references[b].gray)[None, None] if b in references else blank)
             for b in range(len(encoding))]  # fmt: skip
    others = coarse.encode(GrayView.cat(views).to(gray64.device))
    features, other_features = coarse.features(encoding), coarse.features(others)
    if features is None or other_features is None:
        raise OptionError(f"reference can not be honored by kind {coarse.kind!r} of the family coarse: it has no "
                          "features by which places of two pictures are compared")  # fmt: skip
    matches = gray64.new_zeros(len(encoding), 3, 32, 32)
    for b, reference in references.items():
        assert reference.rgb is not None  # `reference_from` has read it
        one = slice(b, b + 1)
        chroma = resize(chroma_from_rgb(torch.from_numpy(reference.rgb).permute(2, 0, 1)[None]), (64, 64))
        planes = (gray64[one], features[one], others.gray64[one], other_features[one], chroma)
        matches[one] = matched(*(plane.float().cpu() for plane in planes)).to(matches)
    return matches
