"""What a person is told of a video that can not be colored; nothing here needs the extra."""

from __future__ import annotations

import importlib.util

__all__ = ["SUFFIXES", "VideoError", "check_extra"]

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")  # of videos that are written

NEEDED = {"av": "PyAV", "cv2": "OpenCV"}


class VideoError(ValueError):
    """A video that can not be read, colored or written; the message is a sentence."""


def check_extra() -> None:
    """Raises VideoError where the libraries of the extra `video` are missing."""
    if missing := [name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None]:
        raise VideoError(f"it needs {', '.join(missing)}: pip install 'trichrome[video]'")
