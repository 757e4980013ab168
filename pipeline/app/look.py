"""How a photograph is to look, as the page says it, and the call of the pipeline that makes it so."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pipeline.app.problems import Problem
from pipeline.files.names import SUFFIX_OF
from pipeline.images import FORMATS, ImageError, Photo
from stages.hints.hints import Hints

__all__ = ["Look", "colored_name", "hints_of", "options_of", "sentences"]


class Look(BaseModel):
    """What decides about a picture. hints: a hints file's content; reference: an upload of the visit."""

    model_config = ConfigDict(extra="forbid")

    seed: int = 0
    candidate: int | None = None
    hints: dict[str, Any] | None = None  # Any: read by `Hints`, which says what is wrong
    palette: list[str] = Field(default=[], max_length=64)
    reference: str | None = None
    strength: float = 1.0


def options_of(look: Look, reference: Photo | None) -> dict[str, Any]:  # Any: each option has its own type
    """Arguments of the pipeline's call. Raises Problem for hints that are none."""
    return {
        "generator": look.seed, "candidate": look.candidate, "palette": look.palette or None, "reference": reference,
        "hints": None if look.hints is None else hints_of(look.hints), "strength": look.strength,
    }  # fmt: skip


def hints_of(record: object) -> Hints:
    with sentences():
        return Hints.from_record(record)


@contextmanager
def sentences() -> Iterator[None]:
    """What the pipeline refuses in the block, as problems; notes of pictures are no warnings of the server."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except ImageError as error:
            raise Problem("bad_picture", str(error)) from error
        except ValueError as error:
            raise Problem("bad_option", str(error)) from error


def colored_name(name: str, photo: Photo) -> str:
    """Of the file that a photo is saved to: in its own format, whatever its name says."""
    path = PurePath(name)
    fits = FORMATS.get(path.suffix.lower()) == photo.format
    return f"{path.stem}-colored{path.suffix if fits else SUFFIX_OF[photo.format]}"
