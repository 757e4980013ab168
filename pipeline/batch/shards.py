"""Colored pictures as a Parquet file or a WebDataset shard; the same photos and settings give the same bytes."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from pipeline.batch.rows import Piece, members_of
from pipeline.batch.units import Form
from pipeline.files.records import Settings

__all__ = ["NOTES", "parts_of", "write_shard"]

IMAGE = "image"  # the column of pictures where the input has no name for it
NOTES = "trichrome.json"  # the file of a WebDataset sample that has what Parquet has in columns
_PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_GROUP_ROWS, _GROUP_BYTES = 100, 128 << 20  # of a row group, which is a unit of work where it is read again


def write_shard(
    to: Form, file: Path, pieces: Sequence[Piece], folder: Path, settings: Settings, column: str | None
) -> None:
    """folder: of the colored files; column: of the pictures in Parquet.

    A piece whose other files leave no room for its pictures gets an error.
    """
    if to == "parquet":
        _write_parquet(file, pieces, folder, settings, column or IMAGE)
    else:
        _write_tar(file, pieces, folder)


def parts_of(piece: Piece) -> dict[str, Path]:
    """What its files are called as parts of it: "" of one picture, "1", "2", … of several, "uncertainty", "overlay"."""
    job = piece.job
    if job is None or piece.error is not None:
        return {}
    numbers = [""] if len(job.pictures) == 1 else map(str, range(1, len(job.pictures) + 1))
    parts = dict(zip(numbers, job.pictures, strict=True))
    return parts | {name: path for name in ("uncertainty", "overlay") if (path := getattr(job, name)) is not None}


def _write_parquet(
    file: Path, pieces: Sequence[Piece], folder: Path, settings: Settings, column: str
) -> None:
    numbers = [column] if settings.samples == 1 else [f"{column}_{k}" for k in range(1, settings.samples + 1)]
    maps = [name for name, wanted in (("uncertainty", settings.uncertainty), ("overlay", settings.overlay)) if wanted]
    names = dict(zip([""] if settings.samples == 1 else map(str, range(1, settings.samples + 1)), numbers, strict=True))
    names |= dict(zip(maps, maps, strict=True))
    rest = _rest(pieces, {*names.values(), "notes", "error"})
    schema = pa.schema([
        *rest.schema, *(pa.field(name, _PICTURE) for name in names.values()),
        pa.field("notes", pa.list_(pa.string())), pa.field("error", pa.string()),
    ])  # fmt: skip
    with parquet.ParquetWriter(file, schema) as writer:
        for start, stop in _groups([_size(folder, piece) for piece in pieces]):
            group = pieces[start:stop]
            arrays: list[Any] = [column.combine_chunks() for column in rest.slice(start, stop - start).columns]
            for part in names:
                arrays.append(pa.array([_picture(piece, part, folder) for piece in group], _PICTURE))
            arrays.append(pa.array([list(piece.notes) for piece in group], pa.list_(pa.string())))
            arrays.append(pa.array([piece.error for piece in group], pa.string()))
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _rest(pieces: Sequence[Piece], taken: set[str]) -> pa.Table:
    """The other columns, and the key; the files of samples are columns of bytes. Those in `taken` get another name."""
    rows = [piece.row for piece in pieces if piece.row is not None]
    if rows and rows[0].num_columns:
        table = pa.Table.from_batches(rows).replace_schema_metadata(None)
    else:
        others = sorted({name for piece in pieces for name in piece.members})
        values = {name: pa.array([piece.members.get(name) for piece in pieces], pa.binary()) for name in others}
        table = pa.table(values) if values else pa.table({"key": _keys(pieces)})
    table = table.rename_columns([_free(name, {*taken, *table.column_names}) if name in taken else name
                                  for name in table.column_names])  # fmt: skip
    return table if "key" in table.column_names else table.add_column(0, "key", _keys(pieces))


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_before"
    return name


def _keys(pieces: Iterable[Piece]) -> pa.Array:
    return pa.array([_text(piece.key) for piece in pieces], pa.string())


def _picture(piece: Piece, part: str, folder: Path) -> dict[str, Any] | None:
    path = parts_of(piece).get(part)
    if path is None:
        return None
    name = path.name
    if piece.row is not None and piece.given is not None:  # as its row called it, without the number of the row
        name = name.partition("-")[2]
    return {"bytes": (folder / path).read_bytes(), "path": _text(name)}


def _groups(sizes: Sequence[int]) -> Iterable[tuple[int, int]]:
    start = held = 0
    for number, size in enumerate(sizes):
        if number > start and (number - start == _GROUP_ROWS or held + size > _GROUP_BYTES):
            yield start, number
            start, held = number, 0
        held += size
    if start < len(sizes):
        yield start, len(sizes)


def _size(folder: Path, piece: Piece) -> int:
    return sum((folder / path).stat().st_size for path in parts_of(piece).values())


def _write_tar(file: Path, pieces: Sequence[Piece], folder: Path) -> None:
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as tar:
        for piece in pieces:
            others = members_of(piece.row) if piece.row is not None else dict(piece.members)
            others.pop(NOTES, None)
            pictures = {_member(piece, part, path): path for part, path in parts_of(piece).items()}
            if clash := sorted(pictures.keys() & others.keys()):
                piece.error = f"its file {', '.join(clash)} has the name that its colored picture would have"
                pictures = {}
            notes = json.dumps({"notes": list(piece.notes), "error": piece.error}).encode()
            contents: Mapping[str, bytes | Path] = {**others, **pictures, NOTES: notes}
            key = _key_of(piece)
            for name in sorted(contents):
                value = contents[name]
                content = (folder / value).read_bytes() if isinstance(value, Path) else value
                info = tarfile.TarInfo(f"{key}.{name}")  # without a time, an owner
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def _member(piece: Piece, part: str, path: Path) -> str:
    return piece.prefix + (f"{part}." if part else "") + path.suffix.removeprefix(".")


def _key_of(piece: Piece) -> str:
    """Without a dot in its base name, where WebDataset would end it."""
    folder, slash, base = piece.key.rpartition("/")
    return folder + slash + base.replace(".", "_")


def _text(name: str) -> str:
    """A name that is no Unicode can not be text of Arrow."""
    return name.encode(errors="surrogateescape").decode(errors="replace")
