"""What a unit of work holds, photo by photo: files of a folder, rows of Parquet, samples of WebDataset.

The content of a row becomes a file of a scratch folder just before it is read, and is colored as any photo is.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from pipeline.batch.places import Place
from pipeline.batch.samples import samples
from pipeline.batch.units import Unit
from pipeline.files.names import plan
from pipeline.files.records import Job, Report, Settings
from pipeline.images.photo import FORMATS, READ_ONLY, ImageError
from pipeline.images.read import _format_of

__all__ = ["Piece", "column_of", "members_of", "number_format", "pieces"]

_BATCH = 16  # rows that are read at a time
_SUFFIX = {"jpeg": ".jpg", "png": ".png", "tiff": ".tif", "webp": ".webp", "avif": ".avif", "heic": ".heic"}
_PICTURES = {suffix.removeprefix(".") for suffix in (*FORMATS, *READ_ONLY)}
_LONGEST = 150  # letters of a name that a row brings along


@dataclass
class Piece:
    """One photo of a unit, and what comes with it.

    key: its name, without a suffix; shown: as people are told of it
    job: where its content lies and what it becomes, below a folder of outputs; None where there is nothing to color
    error: why it has no picture
    row: the other columns of its row; members: the other files of its sample; prefix: of the picture's name among them
    given: what its row calls the picture
    """

    key: str
    shown: str
    job: Job | None
    error: str | None = None
    notes: tuple[str, ...] = ()
    row: pa.RecordBatch | None = None
    members: Mapping[str, bytes] = field(default_factory=dict)
    prefix: str = ""
    given: str | None = None


def pieces(unit: Unit, settings: Settings, column: str | None, folder: Path) -> Iterator[Piece]:
    """All of the unit, in order. folder: for the content of rows, and of photos from elsewhere

    Raises OSError, ValueError, pyarrow's and tarfile's errors for what is no such file, or a damaged one.
    """
    match unit.form:
        case "folder":
            return _photos(unit, folder)
        case "parquet":
            return _rows(unit, settings, column, folder)
        case "webdataset":
            return _samples(unit, settings, column, folder)


def column_of(schema: pa.Schema, column: str | None, path: str) -> str:
    """The column of pictures. Raises ValueError where there is none, or several to choose from."""
    fits = [field.name for field in schema if _holds_bytes(field.type)]
    if column is not None:
        if column in fits:
            return column
        raise ValueError(f"{path} has no column {column!r} of bytes, or of {{bytes, path}}; it has "
                         f"{', '.join(fits) or 'no column of that kind'}")  # fmt: skip
    if len(fits) != 1:
        raise ValueError(f"{path} has {len(fits)} columns of bytes, or of {{bytes, path}}"
                         f"{': ' if fits else ''}{', '.join(fits)}; name that of the pictures by --column")  # fmt: skip
    return fits[0]


def number_format(number: int) -> str:
    """Of rows and shards: as wide as most files need, so that names are in order."""
    return f"{number:06d}"


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _photos(unit: Unit, folder: Path) -> Iterator[Piece]:
    for number, (key, job) in enumerate(zip(_keys(unit.jobs), unit.jobs, strict=True)):
        piece = Piece(key, str(job.source), job)
        if unit.source is not None:
            copy = folder / f"{number_format(number)}{job.source.suffix}"
            try:
                Place(unit.source).fetch(str(job.source), copy)
            except OSError as error:
                piece.job, piece.error = None, f"could not be read: {error}"
            else:
                piece.job = Job(copy, job.pictures, job.uncertainty, job.overlay, job.page)
        yield piece


def _keys(jobs: Sequence[Job]) -> list[str]:
    """The names of what photos become, without a suffix; with a number where two would have one."""
    names = [job.pictures[0] for job in jobs]
    short = [
        name.with_name(name.stem if len(job.pictures) == 1 else name.stem.removesuffix("-1")).as_posix()
        for name, job in zip(names, jobs, strict=True)
    ]
    crowded = Counter(key.replace(".", "_") for key in short)
    return [key if crowded[key.replace(".", "_")] == 1 else f"{key}-{number_format(number)}"
            for number, key in enumerate(short)]  # fmt: skip


def _rows(unit: Unit, settings: Settings, column: str | None, folder: Path) -> Iterator[Piece]:
    assert unit.source is not None
    with Place(unit.source).fs.open_input_file(unit.path) as file, parquet.ParquetFile(file) as table:
        name = column_of(table.schema_arrow, column, unit.path)
        number = unit.first
        for batch in table.iter_batches(_BATCH, row_groups=[unit.group]):
            rest = batch.drop_columns([name])
            for place, value in enumerate(batch.column(name)):
                yield _row(value.as_py(), number, rest.slice(place, 1), unit, settings, folder)
                number += 1


def _row(
    value: bytes | Mapping[str, Any] | None, number: int, rest: pa.RecordBatch, unit: Unit, settings: Settings,
    folder: Path,
) -> Piece:  # fmt: skip
    content, given = (value.get("bytes"), value.get("path")) if isinstance(value, Mapping) else (value, None)
    base = PurePosixPath(given).name if isinstance(given, str) else ""
    stem, suffix = PurePosixPath(base).stem[:_LONGEST], PurePosixPath(base).suffix
    key = number_format(number) + (f"-{stem}" if stem else "")
    piece = Piece(key, str(unit.shown(key)), None, row=rest, given=base or None)
    if not content:
        piece.error = "the row holds no bytes" + (f", only the path {given}" if given else "")
        return piece
    suffix = suffix if suffix.lower().removeprefix(".") in _PICTURES else _suffix_of(content)
    return _placed(piece, content, number, Path(key + suffix), settings, folder)


def _samples(unit: Unit, settings: Settings, column: str | None, folder: Path) -> Iterator[Piece]:
    assert unit.source is not None
    seen: set[str] = set()
    with Place(unit.source).fs.open_input_stream(unit.path) as stream:
        for number, (key, members) in enumerate(samples(stream)):
            yield _sample(key, members, number, unit, settings, column, folder, seen)
            seen.add(key)


def _sample(
    key: str, members: dict[str, bytes], number: int, unit: Unit, settings: Settings, column: str | None,
    folder: Path, seen: set[str],
) -> Piece:  # fmt: skip
    piece = Piece(key, str(unit.shown(key)), None, members=members)
    path = PurePosixPath(key)
    if path.is_absolute() or ".." in path.parts or "\0" in key or key in seen:
        fault = "comes twice, with others between" if key in seen else "leads out of the folder"
        piece.key, piece.members = f"row-{number_format(number)}", {}
        piece.error = f"its key {key!r} {fault}"
        return piece
    fits = [name for name in members if name.rpartition(".")[2].lower() in _PICTURES]
    if column is not None:
        fits = [name for name in members if name == column]
    if len(fits) != 1:
        what = f"{len(fits)} pictures" if column is None else f"no {column}"
        piece.members = {name: content for name, content in members.items() if name not in fits}
        piece.error = f"the sample holds {what} ({', '.join(members)}); --column names the one to color"
        return piece
    prefix, dot, last = fits[0].rpartition(".")
    piece.prefix = prefix + dot
    piece.members = {name: content for name, content in members.items() if name != fits[0]}
    return _placed(piece, members[fits[0]], number, Path(f"{key}.{last}"), settings, folder)


def _placed(piece: Piece, content: bytes, number: int, place: Path, settings: Settings, folder: Path) -> Piece:
    """With its job: the content in a file, and the names of what it becomes."""
    file = folder / (number_format(number) + place.suffix)
    file.write_bytes(content)
    report = Report()
    jobs = plan([(file, place)], folder.parent / "out", settings, report)
    if report.failed:
        piece.error = report.failed[0][1]
    else:
        (piece.job,) = jobs
    return piece


def _suffix_of(content: bytes) -> str:
    try:
        return _SUFFIX[_format_of(content[:64])]
    except ImageError:
        return ".png"  # reading it will say what is wrong


def members_of(row: pa.RecordBatch) -> dict[str, bytes]:
    """The other columns of a row as a file of a WebDataset sample; bytes are in base64, other values as text."""
    if row.num_columns == 0:
        return {}
    (values,) = row.to_pylist()

    def shown(value: object) -> str:
        return b64encode(value).decode() if isinstance(value, bytes) else str(value)

    return {"json": json.dumps(values, default=shown).encode()}
