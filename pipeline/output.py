"""What a call answers: pictures, how each came about, and maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from stages.hints.suggestions import Suggestion

__all__ = ["ColorPipelineOutput", "ImageInfo", "SmallPhoto", "SmallPicture", "Suggestion"]


@dataclass(frozen=True)
class ImageInfo:
    """How one picture came about.

    photo: index of its photo in the call
    candidate: number k of the draw (the pool is ordered afterwards, so the first picture may be any k);
        None for a preview, which draws nothing
    seed: of its photo: the same photo, seed and settings give this picture again, and its uncertainty map; None for a
        preview without such a map
    noise_key: whose noise the draws are made of, see `stages.seeds`: by default the SHA-256 of the photo's gray levels
    notes: what went another way than planned, in words (memory ran out, smaller strips were used)
    score: what its coarse colors are worth to the model that candidates are ranked with, more is better; None without
    """

    photo: int
    candidate: int | None
    seed: int | None
    noise_key: str
    notes: tuple[str, ...] = ()
    score: float | None = None


@dataclass(frozen=True)
class SmallPicture:
    """rgb: (3, 256, 256) float32 on the CPU (64 for a preview), not yet at the photo's size; its `info`."""

    rgb: Tensor
    info: ImageInfo


@dataclass(frozen=True)
class SmallPhoto:
    """What the networks have to say of one photo: its pictures, and of the first one the uncertainty map (256, 256) and
    the places whose colors would tell most.
    """

    pictures: list[SmallPicture]
    uncertainty: Tensor | None = None
    suggestions: list[Suggestion] | None = None


@dataclass(frozen=True)
class ColorPipelineOutput:
    """images: flat list, all candidates of the first photo first, in their order; info: one for each.

    uncertainty: where it was asked for, one map per photo at its size: how wrong its first picture is to be expected
        there, as the mean CIEDE2000 difference of 32 draws at temperature 1, and of gray, from it. "np" and "pt":
        float32 (H, W); "pil": 8-bit gray, see `full_size_uncertainty`
    suggestions: beside the maps, for each photo up to five places to ask a person about, in the order of asking
    savers: one for each picture, called with a path, a quality, and whether the file gets a record; what they keep are
        photos and small pictures
    """

    images: list[Any]  # Any: PIL images, arrays or tensors, by `output_type`
    info: list[ImageInfo]
    uncertainty: list[Any] | None = None
    suggestions: list[list[Suggestion]] | None = None
    savers: list[Callable[[Path, int, bool | None], None]] = field(default_factory=list, repr=False)

    def save(
        self, path: str | Path, picture: int = 0, quality: int = 95, overwrite: bool = False, *,
        provenance: bool | None = None,
    ) -> None:  # fmt: skip
        """Write a picture as the command would: with the depth, alpha, resolution and metadata of its photo.

        path: the suffix chooses the format: .jpg, .png, .tif, .webp; quality: of JPEG and WebP, 1 to 100
        picture: its place in `images`; overwrite: replace a file that is there
        provenance: the file says that its colors are synthesized, and how to make it again; None: where the pipeline
            keeps such records, as ColorPipeline does
        What the format can not carry is a warning. Raises FileExistsError, IndexError, ImageError (a ValueError).
        """
        if not 0 <= picture < len(self.savers):
            raise IndexError(f"picture must be 0 to {len(self.savers) - 1}, a place in images; got {picture}")
        if type(quality) is not int or not 1 <= quality <= 100:
            raise ValueError(f"quality must be a whole number from 1 to 100; got {quality!r}")
        if not overwrite and Path(path).exists():
            raise FileExistsError(f"{path} is there already; overwrite=True replaces it")
        self.savers[picture](Path(path), quality, provenance)
