"""Whose words are libvips' words: it keeps one buffer of messages for all threads.

Threads read and write side by side, and what fails is done again while no other uses libvips: then its words are of
this file. Even to look up a method of an image clears the buffer (pyvips asks whether it is a property first).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.images.vips import forget_messages

__all__ = ["alone", "together"]

_changed = threading.Condition()
_together = _waiting = 0
_alone = False


@contextmanager
def together() -> Iterator[None]:
    """Use of libvips beside others; what it says of an error may be about another file."""
    global _together
    with _changed:
        _changed.wait_for(lambda: not _alone and not _waiting)
        _together += 1
    try:
        yield
    finally:
        with _changed:
            _together -= 1
            _changed.notify_all()


@contextmanager
def alone() -> Iterator[None]:
    """Use of libvips while no other thread has it, its messages empty at first."""
    global _alone, _waiting
    with _changed:
        _waiting += 1
        _changed.wait_for(lambda: not _alone and not _together)
        _waiting -= 1
        _alone = True
    try:
        forget_messages()
        yield
    finally:
        with _changed:
            _alone = False
            _changed.notify_all()
