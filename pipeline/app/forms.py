"""A multipart form as options of `trichrome colorize`: its fields are named like them, and nothing else is taken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, Any

from starlette.datastructures import FormData, UploadFile

from pipeline.app.downloads import free_name
from pipeline.app.limits import Limits
from pipeline.app.problems import Problem

__all__ = ["FIELDS", "FILES", "OPTIONS", "Form", "form_schema", "form_of"]

NUMBER, WHOLE, FLAG, TEXT = "number", "integer", "boolean", "string"
OPTIONS: Mapping[str, tuple[str, str]] = {
    "samples": (WHOLE, "pictures per photo; of several a zip comes back"),
    "seed": (WHOLE, "another seed, other colors"),
    "candidate": (WHOLE, "number of the draw that is the one picture"),
    "steps": (WHOLE, "sampling steps of stage 1"),
    "pool": (WHOLE, "draws of which the first picture is the most central"),
    "superres-steps": (WHOLE, "sampling steps of stage 3"),
    "temperature": (NUMBER, "of stage 1's draws: less is surer and less varied"),
    "chroma-gain": (NUMBER, "factor on the chroma of stage 1's draws"),
    "sharpness": (NUMBER, "of the edges of color, 0 to 2"),
    "strength": (NUMBER, "factor on the chroma of the finished picture, 0 (gray) to 2"),
    "hint": (TEXT, "a known color of a place, X,Y,COLOR or X,Y,COLOR,R in pixels of the upright photo; may come again"),
    "palette": (TEXT, "colors that the picture leans to, such as navy,#c08040,gray"),
    "preview": (FLAG, "one-pass colors: fast and pale"),
    "uncertainty": (FLAG, "also the map of where the colors may be wrong"),
    "uncertainty-overlay": (FLAG, "also the map over the picture"),
    "page": (TEXT, "of TIFF and WebP files that hold several pictures: a number, or all"),
    "format": (TEXT, "keep, png, jpeg, tiff or webp"),
    "quality": (WHOLE, "of JPEG and WebP, 1 to 100"),
}
"""Fields that are options of the command: their types and meanings."""
FILES: Mapping[str, str] = {
    "file": "photographs: JPEG, PNG, TIFF or WebP; several may come",
    "hints": "the JSON of a hints file; of several photographs one for each, in their order",
    "reference": "a picture in color whose colors guide",
    "keep": "a mask of the photograph's size: white keeps the color that is there",
}
FIELDS = (*FILES, *OPTIONS)
REPEATED = ("file", "hints", "hint")


@dataclass
class Form:
    """photos: names and contents; hints: of each photo, or none at all; pictures: reference and keep
    options: as given, a name may come again
    """

    photos: list[tuple[str, IO[bytes]]]
    hints: list[str]
    pictures: dict[str, IO[bytes]]
    options: list[tuple[str, str]]

    def written(self, folder: Path) -> tuple[list[Path], list[str]]:
        """The photos, each with its hints beside it, as files of a folder; and the command's arguments for the rest."""
        arguments = [argument for name, value in self.options for argument in _argument(name, value)]
        for name, content in self.pictures.items():
            arguments.append(f"--{name}={_copy(content, folder / name)}")
        paths, taken = [], set(self.pictures)
        for place, (name, content) in enumerate(self.photos):
            paths.append(_copy(content, folder / free_name(name, taken)))
            if self.hints:
                paths[-1].with_name(f"{paths[-1].name}.hints.json").write_text(self.hints[place], encoding="utf-8")
        return paths, arguments


def form_of(data: FormData, limits: Limits, fields: Sequence[str] = FIELDS) -> Form:
    """fields: those that are taken. Raises Problem for others, for missing ones and those of the wrong kind."""
    form = Form([], [], {}, [])
    for name, value in data.multi_items():
        if name not in fields:
            known = ", ".join(sorted(fields))
            raise Problem("bad_request", f"there is no field {name[:100]!r}; these are taken: {known}")
        if name not in REPEATED and len(data.getlist(name)) > 1:
            raise Problem("bad_request", f"the field {name} may come once; got {len(data.getlist(name))}")
        if name == "hints":
            form.hints.append(_json(value))
        elif isinstance(value, UploadFile) is not (name in FILES):
            wanted = "a file" if name in FILES else "a value, no file"
            raise Problem("bad_request", f"the field {name} must be {wanted}")
        elif isinstance(value, str):
            form.options.append((name, value))
        elif name == "file":
            form.photos.append((_plain(value.filename or ""), value.file))
        else:
            form.pictures[name] = value.file
    if not form.photos:
        raise Problem("bad_request", "a photograph is missing: send it as the field file of a multipart form")
    if len(form.photos) > limits.files:
        raise Problem("too_large", f"a request may have {limits.files} photographs; got {len(form.photos)}")
    if form.hints and len(form.hints) != len(form.photos):
        raise Problem("bad_request", f"hints must come for each of {len(form.photos)} photographs, in their order; got "
                                     f"{len(form.hints)}")  # fmt: skip
    return form


def form_schema(fields: Sequence[str] = FIELDS) -> dict[str, Any]:  # Any: JSON
    """The form as OpenAPI describes it."""
    binary = {"type": "string", "format": "binary"}
    properties: dict[str, Any] = {name: {**binary, "description": meaning} for name, meaning in FILES.items()}
    properties["file"] = {"type": "array", "items": binary, "description": FILES["file"]}
    properties["hints"] = {"type": "string", "description": FILES["hints"]}
    properties |= {name: {"type": kind, "description": meaning} for name, (kind, meaning) in OPTIONS.items()}
    taken = {name: properties[name] for name in fields}
    schema = {"type": "object", "required": ["file"], "properties": taken, "additionalProperties": False}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def _argument(name: str, value: str) -> list[str]:
    if OPTIONS[name][0] != FLAG:
        return [f"--{name}={value}"]
    if value.lower() not in ("true", "false", "1", "0"):
        raise Problem("bad_option", f"{name} must be true or false; got {value[:100]!r}")
    return [f"--{name}"] if value.lower() in ("true", "1") else []


def _json(value: UploadFile | str) -> str:
    try:
        text = value if isinstance(value, str) else value.file.read().decode()
        json.loads(text)
    except (ValueError, RecursionError) as error:  # also of Unicode
        raise Problem("bad_option", f"hints must be the JSON of a hints file: {error}") from error
    return text


def _plain(name: str) -> str:
    """A name that is safe in a folder: no way out of it, nothing hidden, nothing that does not print."""
    printable = "".join(char if char.isprintable() else "_" for char in name.replace("\\", "/"))
    path = PurePath(printable.rsplit("/", 1)[-1].lstrip(". "))
    return f"{path.stem[:60] or 'photo'}{path.suffix[:8]}"


def _copy(content: IO[bytes], path: Path) -> Path:
    with path.open("wb") as file:
        shutil.copyfileobj(content, file)
    return path
