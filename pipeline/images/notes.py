"""Notes: what is worth knowing of a picture that could be read or written all the same."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_notes: ContextVar[dict[str, None] | None] = ContextVar("notes", default=None)


def note(text: str) -> None:
    """Tells whoever reads or writes a picture, see `collected`; outside of that it is a warning."""
    _tell(text, 4)


def pass_on(notes: Iterable[str]) -> None:
    """Tells notes that a block has collected to whoever collects around it; else they are warnings of the caller."""
    for text in notes:
        _tell(text, 4)


def _tell(text: str, level: int) -> None:
    notes = _notes.get()
    if notes is None:
        warnings.warn(text, stacklevel=level)
    else:
        notes[" ".join(text.split())] = None


@contextmanager
def collected() -> Iterator[dict[str, None]]:
    """The notes of the block, each once, in their order; of this thread only, unlike `warnings.catch_warnings`."""
    notes: dict[str, None] = {}
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)
