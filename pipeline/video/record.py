"""What a video says of its coloring: the record of `pipeline.provenance`, in the comment of its container.

Every container has room for a comment and every player shows it; a comment of the input stays, on the lines before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av

from pipeline.known_colors import Guide
from pipeline.provenance.maker import Maker
from pipeline.provenance.record import FORMAT, RECIPE, RecordError, sealed, software
from pipeline.provenance.settings import settings_of
from pipeline.video.errors import VideoError

__all__ = ["read_record", "video_record"]


def video_record(
    maker: Maker, guide: Guide, sha256: str, seed: int, hints: Mapping[int, Any], file: Mapping[str, Any]
) -> dict[str, Any]:
    """sha256: of the input; hints: SHA-256 of the files of hints, by their frame; file: how the output is coded"""
    settings = settings_of(maker.request, guide)
    if hints:
        settings["hints"] = {str(frame): digest for frame, digest in sorted(hints.items())}
    return sealed({
        "format": FORMAT, "colors": "synthesized", "software": software(), "recipe": RECIPE,
        "input": {"sha256": sha256}, "weights": dict(maker.weights()), "seed": seed, "noise_key": None,
        "candidate": None, "picture": None, "settings": settings, "run": dict(maker.run),
        "file": {"shows": "video", **file},
    })  # fmt: skip


def read_record(path: Path) -> dict[str, Any]:
    """The record of a video. Raises RecordError where there is none, VideoError for what is no video."""
    try:
        with av.open(str(path)) as container:
            comment = next((text for name, text in container.metadata.items() if name.lower() == "comment"), "")
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path} can not be read as a video: {error.strerror or error}") from error
    try:
        record = json.loads(comment.splitlines()[-1])
        if isinstance(record, dict):
            return record
    except (ValueError, IndexError, RecursionError):
        pass
    raise RecordError(f"{path} has no record of trichrome: it is no output of it, was made with --no-provenance, or "
                      "has lost its comment")  # fmt: skip
