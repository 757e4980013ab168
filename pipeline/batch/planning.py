"""Which input becomes which unit of work."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from pipeline.batch.journal import JOURNAL
from pipeline.batch.places import Found, Place
from pipeline.batch.rows import column_of, number_format
from pipeline.batch.units import SUFFIXES, Form, Unit
from pipeline.files.guidance import HINTS, STROKES, Guidance
from pipeline.files.names import HIDDEN, NOT_CHOSEN, OTHER_FORMAT, Chosen, find_inputs, plan
from pipeline.files.outputs import reason_of
from pipeline.files.records import Job, Report, Settings
from pipeline.images.photo import FORMATS, READ_ONLY

__all__ = ["Shape", "form_of", "photos_of", "shards_of", "units_of_photos"]

OF_HINTS = "of hints, which are taken from folders of this machine alone"
OTHERS = "that are no shards"
_READERS = 16
_FORMS: dict[str, Form] = {".parquet": "parquet", ".tar": "webdataset"}
_FORMS |= dict.fromkeys((*FORMATS, *READ_ONLY), "folder")
_WORDS = {"folder": "photos", "parquet": "Parquet files", "webdataset": "WebDataset shards"}


@dataclass(frozen=True)
class Shape:
    """What the inputs are, and what the outputs shall be.

    read: None: as the names of the inputs say; write: None: as the inputs are
    column: of the pictures: a column of Parquet, or the end of names in WebDataset; None: there is only one
    per_shard: photos of a folder that go into one shard
    """

    read: Form | None = None
    write: Form | None = None
    column: str | None = None
    per_shard: int = 256


def form_of(inputs: Sequence[Place], out: Place, shape: Shape) -> tuple[Form, list[list[Found]]]:
    """What the inputs are, and the files in each. Raises ValueError where that can not be told, OSError."""
    found = [_inside(place, out) for place in inputs]
    if any(place.fs != inputs[0].fs for place in inputs):
        raise ValueError("the inputs of one command lie on one file system; these do not: start one for each")
    if shape.read is not None:
        return shape.read, found
    forms = {form for files in found for file in files if (form := _FORMS.get(_suffix(file))) and not _hidden(file)}
    if not forms:
        return "folder", found
    if len(forms) > 1:
        words = " and ".join(_WORDS[form] for form in sorted(forms))
        raise ValueError(f"the inputs hold {words}; say by --from which of them are meant")
    return forms.pop(), found


def photos_of(
    inputs: Sequence[Place], found: Sequence[Sequence[Found]], out: Place, settings: Settings, chosen: Chosen,
    report: Report,
) -> tuple[list[Job], dict[Path, Mapping[str, Any]]]:  # fmt: skip
    """The photos of folders, with the names of what they become; and the stamps of those that lie elsewhere.

    Sources are paths in the file system of the inputs.
    """
    target = out.local or Path(out.path)
    folders = [place.local for place in inputs]
    if all(folder is not None for folder in folders):
        local = [folder for folder in folders if folder is not None]
        return plan(find_inputs(local, target, report, chosen), target, settings, report), {}
    if settings.page == "all":
        raise ValueError("--page all: of folders of this machine alone; name one page, or copy the files here")
    photos: dict[str, tuple[Path, Path]] = {}
    stamps: dict[Path, Mapping[str, Any]] = {}
    for place, files in zip(inputs, found, strict=True):
        top = Path(posixpath.basename(place.path)) if len(inputs) > 1 and place.is_folder() else Path()
        for file in files:
            if reason := _why_not(file, chosen, place.is_folder()):
                report.ignored.append((Path(file.path), reason))
                continue
            photos.setdefault(file.path, (Path(file.path), top / file.place))
            stamps[Path(file.path)] = file.stamp()
    ordered = sorted(photos.values(), key=lambda pair: pair[1].as_posix())
    return plan(ordered, target, settings, report), stamps


def units_of_photos(
    jobs: Sequence[Job], stamps: Mapping[Path, Mapping[str, Any]], source: str | None, size: int,
    guidance: Guidance | None, report: Report,
) -> list[Unit]:  # fmt: skip
    """Photos in groups of `size`. What can not be read goes to `report.failed`.

    source: where they lie; None: here. guidance: part of their stamps; None: they have none, a manifest remembers them
    """
    entries: list[tuple[Job, Mapping[str, Any]]] = []
    for job in jobs:
        try:
            stamp = {} if guidance is None else stamps.get(job.source) or _stamp(job, guidance)
        except (OSError, ValueError) as error:
            report.failed.append((job.source, reason_of(error, job.source)))
            continue
        entries.append((job, stamp))
    groups = [entries[start : start + size] for start in range(0, len(entries), size)]
    return [
        Unit(f"part-{number_format(number)}", "folder", source, jobs=tuple(job for job, _ in group),
             stamps=tuple(stamp for _, stamp in group))
        for number, group in enumerate(groups)
    ]  # fmt: skip


def shards_of(
    form: Form, inputs: Sequence[Place], found: Sequence[Sequence[Found]], out: Place, to: Form, shape: Shape,
    chosen: Chosen, report: Report,
) -> list[Unit]:  # fmt: skip
    """Units of Parquet files and WebDataset shards. What can not be read goes to `report.failed`."""
    suffix, shards = SUFFIXES[form], list[tuple[Place, Found, str]]()
    for place, files in zip(inputs, found, strict=True):
        folder = place.is_folder()
        top = f"{posixpath.basename(place.path)}/" if folder and len(inputs) > 1 else ""
        for file in files:
            reason = HIDDEN if folder and _hidden(file) else OTHERS if folder and _suffix(file) != suffix else None
            if folder and reason is None and not chosen.takes(Path(file.place)):
                reason = NOT_CHOSEN
            if reason is not None:
                report.ignored.append((Path(file.path), reason))
            else:
                shards.append((place, file, top + file.place.removesuffix(suffix)))
    units: list[Unit] = []
    with ThreadPoolExecutor(_READERS) as readers:
        read = [readers.submit(_units_of_shard, form, place, file, name, shape) for place, file, name in shards]
        for (_, file, _), future in zip(shards, read, strict=True):
            try:
                if more := future.result():
                    units += more
                else:
                    report.ignored.append((Path(file.path), "without rows"))
            except (OSError, ValueError, pa.ArrowException) as error:
                report.failed.append((Path(file.path), reason_of(error, Path(file.path))))
    return _without_clashes(units, shards, out, to, report)


def _units_of_shard(form: Form, place: Place, file: Found, name: str, shape: Shape) -> list[Unit]:
    if form == "webdataset":
        return [Unit(name, form, place.name, file.path, stamps=(file.stamp(),))]
    with place.fs.open_input_file(file.path) as stream, parquet.ParquetFile(stream) as table:
        column_of(table.schema_arrow, shape.column, file.path)
        rows = [table.metadata.row_group(group).num_rows for group in range(table.metadata.num_row_groups)]
    return [
        Unit(name if len(rows) == 1 else f"{name}-{group:05d}", form, place.name, file.path, group, count,
             sum(rows[:group]), stamps=(file.stamp() | {"group": group},))
        for group, count in enumerate(rows)
    ]  # fmt: skip


def _without_clashes(
    units: Sequence[Unit], shards: Sequence[tuple[Place, Found, str]], out: Place, to: Form, report: Report
) -> list[Unit]:
    """But for those that would overwrite an input, or another."""
    taken = Counter(unit.name for unit in units)
    same_system = bool(shards) and shards[0][0].fs == out.fs
    inputs = {file.path for _, file, _ in shards} if same_system else set()
    kept = []
    for unit in units:
        output = posixpath.join(out.path, unit.name + SUFFIXES[to])
        if output in inputs:
            report.failed.append((unit.shown(), f"its output {output} is one of the inputs, which are never "
                                                "overwritten; choose another output folder"))  # fmt: skip
        elif taken[unit.name] > 1:
            report.failed.append((unit.shown(), f"another input would be written to {output} too; color them into "
                                                "separate folders"))  # fmt: skip
        else:
            kept.append(unit)
    return kept


def _inside(place: Place, out: Place) -> list[Found]:
    """The files in it, but for those of an output folder inside, and of a journal."""
    found = [file for file in place.found() if not file.place.startswith(f"{JOURNAL}/")]
    if place.fs != out.fs or not out.path.startswith(place.path.rstrip("/") + "/"):
        return found
    top = out.path.rstrip("/") + "/"
    return [file for file in found if not file.path.startswith(top)]


def _why_not(file: Found, chosen: Chosen, in_folder: bool) -> str | None:
    if not in_folder:
        return None
    if _hidden(file):
        return HIDDEN
    if file.path.endswith((HINTS, STROKES)):
        return OF_HINTS
    if _suffix(file) not in (*FORMATS, *READ_ONLY):
        return OTHER_FORMAT
    return None if chosen.takes(Path(file.place)) else NOT_CHOSEN


def _stamp(job: Job, guidance: Guidance) -> dict[str, Any]:
    status = job.source.stat()
    key = guidance.key(job.source)
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns} | ({"guidance": key} if key else {})


def _hidden(file: Found) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(file.place).parts)


def _suffix(file: Found) -> str:
    return PurePosixPath(file.place).suffix.lower()
