"""What colors the pictures of one run or call, and the record of each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.images.photo import Photo
from pipeline.images.write import format_of
from pipeline.known_colors import Guide
from pipeline.output import ImageInfo
from pipeline.provenance.record import FORMAT, RECIPE, sealed, software
from pipeline.provenance.settings import settings_of
from pipeline.request import Request

__all__ = ["Maker", "shown_as"]


@dataclass(frozen=True)
class Maker:
    """weights: gives the fingerprint of the pipeline; run: what decides last digits: device, dtype, threads of a CPU"""

    request: Request
    weights: Callable[[], Mapping[str, str]]
    run: Mapping[str, Any]

    def record(
        self, photo: Photo, info: ImageInfo, place: int, file: Mapping[str, Any], guide: Guide
    ) -> dict[str, Any]:
        """Of one output. place: of its picture among those of the photo, from 1; file: see `shown_as`
        """
        source: dict[str, Any] | None = None if photo.sha256 is None else {"sha256": photo.sha256}
        if source is not None and photo.page is not None:
            source["page"] = photo.page
        return sealed({
            "format": FORMAT, "colors": "synthesized", "software": software(), "recipe": RECIPE, "input": source,
            "weights": dict(self.weights()), "seed": info.seed, "noise_key": info.noise_key,
            "candidate": info.candidate, "picture": place, "settings": settings_of(self.request, guide),
            "run": dict(self.run), "file": dict(file),
        })  # fmt: skip


def shown_as(what: str, path: Path, quality: int) -> dict[str, Any]:
    """What a file shows, and how it is coded: its format and, where that is used, its quality; raises ImageError."""
    kind = format_of(path)
    return {"shows": what, "format": kind} | ({"quality": quality} if kind in ("jpeg", "webp") else {})
