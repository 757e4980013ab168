"""A request and hints as plain data, of which the same request can be made again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.known_colors import Guide
from pipeline.provenance.record import RecordError
from pipeline.request import Request
from stages.faces import Scores
from stages.hints.hints import Hints, Point
from stages.options import SampleOptions

__all__ = ["request_from", "settings_of"]

# Fields of a request that decide no picture, or that the record names elsewhere: what ranks is among the weights.
NOT_SETTINGS = {"uncertainty", "callback", "rank_with"}


def settings_of(request: Request, guide: Guide) -> dict[str, Any]:
    """What decides a picture and is not the default, as JSON has it; of pictures that guide it the SHA-256."""
    hints = guide.hints
    settings: dict[str, Any] = {name: getattr(request.options, name) for name in request.options.given}
    if request.num_samples > 1:
        settings["samples"] = request.num_samples
    if request.preview:
        settings["preview"] = True
    if request.palette is not None:
        settings["palette"] = request.palette.tolist()  # chroma
    if hints is not None:
        settings["hints"] = {"size": list(hints.size), "points": [list(point) for point in hints.points]}
        if hints.strokes is not None:
            settings["hints"]["strokes"] = hashlib.sha256(hints.strokes.tobytes()).hexdigest()
    if request.strength != 1:
        settings["strength"] = request.strength
    if request.candidate is not None:
        settings["candidate"] = request.candidate
    if guide.kept is not None:
        settings["keep"] = _sha256(guide.kept.mask)
    if guide.reference is not None:
        settings["reference"] = guide.reference.sha256 or _sha256(np.asarray(guide.reference.rgb))
    return settings


def request_from(settings: Mapping[str, Any], rank_with: Scores | None) -> tuple[Request, Hints | None]:
    """The request and the hints of `settings_of`. Raises RecordError for what can not be made again."""
    left = dict(settings)
    samples, preview = left.pop("samples", 1), left.pop("preview", False)
    palette, given = left.pop("palette", None), left.pop("hints", None)
    strength, candidate = left.pop("strength", 1.0), left.pop("candidate", None)
    pictures = [name for name in ("keep", "reference") if left.pop(name, None) is not None]
    pictures += ["strokes"] if isinstance(given, Mapping) and "strokes" in given else []
    if pictures:
        raise RecordError(f"it was made with {', '.join(pictures)}: pictures of which its record has the SHA-256 "
                          "alone; name them and the settings of its record in a call or command")  # fmt: skip
    options = {field.name: left.pop(field.name, None) for field in fields(SampleOptions)}
    if left:
        raise RecordError(f"it was made with {', '.join(sorted(left))}, which this version can not repeat; update it")
    try:
        hints = None if given is None else Hints(tuple(given["size"]), [Point(*point) for point in given["points"]])
        chroma = None if palette is None else torch.tensor(palette, dtype=torch.float32)
        request = Request(samples, preview, options=SampleOptions(**options), rank_with=rank_with, palette=chroma,
                          strength=strength, candidate=candidate)  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"its record asks for what can not be done: {error}") from error
    return request, hints


def _sha256(pixels: NDArray[Any]) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()
