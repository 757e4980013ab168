"""Where files lie: folders of this machine, or object stores that pyarrow or fsspec knows.

A file appears under its name complete or not at all: it is written beside it, as `.NAME.xxxxxxxx.part`, and renamed.
"""

from __future__ import annotations

import os
import posixpath
import re
import secrets
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs as pafs

from pipeline.files.broken import OutputLost, check_still_there
from pipeline.images.photo import FORMATS

__all__ = ["Found", "Place"]

_WRITTEN = "|".join(map(re.escape, (*FORMATS, ".parquet", ".tar", ".jsonl")))
_PART = re.compile(rf"\..+({_WRITTEN})\.[0-9a-f]{{8}}\.part", re.IGNORECASE | re.DOTALL)
# They have no folders: making one would leave an empty object.
_OBJECT_STORES = {"s3", "gcs", "abfs"}
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Found:
    """A file. path: in its file system; place: below the folder that was searched, of a file its name"""

    path: str
    place: str
    size: int
    mtime_ns: int

    def stamp(self) -> dict[str, Any]:
        return {"size": self.size, "mtime_ns": self.mtime_ns}


@dataclass(frozen=True)
class Place:
    """A folder or file by the name that people give it: a path, or `scheme://…`.

    Raises ValueError where no file system is known for it, OSError where that does not answer.
    """

    name: str

    @property
    def fs(self) -> pafs.FileSystem:
        return _opened(self.name)[0]

    @property
    def path(self) -> str:
        """In its file system, without the scheme."""
        return _opened(self.name)[1]

    @property
    def local(self) -> Path | None:
        """None where it is not of this machine."""
        return Path(self.path) if isinstance(self.fs, pafs.LocalFileSystem) else None

    def found(self) -> list[Found]:
        """All files in it to the bottom, sorted by place; of a file itself. Raises OSError where there is nothing."""
        if self.local is not None:
            return _found_here(self.local)
        (info,) = self.fs.get_file_info([self.path])
        if info.type == pafs.FileType.NotFound:
            raise FileNotFoundError(f"{self.name}: no such file or folder")
        if info.type == pafs.FileType.File:
            return [_found(info, posixpath.basename(info.path))]
        infos = self.fs.get_file_info(pafs.FileSelector(self.path, recursive=True))
        top = self.path.rstrip("/") + "/"
        files = (_found(info, info.path.removeprefix(top)) for info in infos if info.type == pafs.FileType.File)
        return sorted(files, key=lambda file: file.place)

    def is_folder(self) -> bool:
        if self.local is not None:
            return self.local.is_dir()
        (info,) = self.fs.get_file_info([self.path])
        return bool(info.type == pafs.FileType.Directory)

    def prepare(self) -> None:
        """Makes the folder. Raises OutputLost where that can not be."""
        if self.fs.type_name in _OBJECT_STORES:
            return
        try:
            self.fs.create_dir(self.path)
        except OSError as error:
            raise OutputLost(f"the output folder {self.name} can not be made: {error}") from error

    def read(self, path: str) -> bytes:
        if self.local is not None:
            return Path(path).read_bytes()
        with self.fs.open_input_stream(path) as stream:
            return bytes(stream.read())

    def fetch(self, path: str, target: Path) -> None:
        """A copy on this machine."""
        with self.fs.open_input_stream(path) as source, open(target, "wb") as file:
            shutil.copyfileobj(source, file, _BLOCK)

    def put(self, file: Path, name: str) -> int:
        """The local file becomes `name` in this folder and replaces what has it; returns its size. Raises OutputLost.
        """
        folder, base = posixpath.split(posixpath.join(self.path, name))
        temporary = posixpath.join(folder, f".{_cut(base)}.{secrets.token_hex(4)}.part")
        try:
            if self.local is not None:
                self._put_here(file, Path(temporary), base)
            else:
                self._put_there(file, temporary, base)
        except OSError as error:
            if self.local is None:
                raise OutputLost(f"the output {self.name} can not be written to: {error}") from error
            check_still_there(self.local, error)
            raise
        return file.stat().st_size

    def _put_here(self, file: Path, temporary: Path, base: str) -> None:
        if self.local is None or not self.local.is_dir():  # or another folder would be made in its place
            raise OutputLost.of(Path(self.path), "it is not there any more")
        temporary.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(file, "rb") as source, open(temporary, "xb") as target:
                shutil.copyfileobj(source, target, _BLOCK)
                target.flush()
                os.fsync(target.fileno())
            os.replace(temporary, temporary.with_name(base))
        finally:
            temporary.unlink(missing_ok=True)

    def _put_there(self, file: Path, temporary: str, base: str) -> None:
        folder = posixpath.dirname(temporary)
        if self.fs.type_name not in _OBJECT_STORES:
            self.fs.create_dir(folder)
        try:
            with open(file, "rb") as source, self.fs.open_output_stream(temporary) as target:
                shutil.copyfileobj(source, target, _BLOCK)
            self.fs.move(temporary, posixpath.join(folder, base))
        except BaseException:
            self._removed(temporary)
            raise

    def without_parts(self, files: Iterable[Found]) -> tuple[list[Found], int]:
        """The files but for those that killed writers have left, which are removed; and how many these were."""
        kept, removed = [], 0
        for file in files:
            if _PART.fullmatch(posixpath.basename(file.path)):
                removed += 1
                self._removed(file.path)
            else:
                kept.append(file)
        return kept, removed

    def _removed(self, path: str) -> None:
        try:
            if self.local is not None:
                os.unlink(path)
            else:
                self.fs.delete_file(path)
        except OSError:  # it is gone, or the next run sees to it
            pass


@cache
def _opened(name: str) -> tuple[pafs.FileSystem, str]:
    if "://" not in name:
        return pafs.LocalFileSystem(), os.path.abspath(name)
    try:
        fs, path = pafs.FileSystem.from_uri(name)
    except pa.ArrowInvalid:  # a scheme that pyarrow does not know, or an address that it does not understand
        fs, path = _by_fsspec(name)
    except pa.ArrowNotImplementedError as error:
        raise ValueError(f"{name}: this pyarrow can not open it: {error}") from error
    return fs, path.rstrip("/") or path


def _by_fsspec(name: str) -> tuple[pafs.FileSystem, str]:
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(name)
    except (ImportError, ValueError) as error:  # fsspec says which package is missing
        raise ValueError(f"{name}: no file system is known for it: {error}") from error
    return pafs.PyFileSystem(pafs.FSSpecHandler(fs)), path


def _found_here(path: Path) -> list[Found]:
    """By the system's own calls: pyarrow refuses names that are no Unicode."""

    def refused(error: OSError) -> None:
        raise error

    def found(file: Path, place: str) -> Found:
        status = file.stat()
        return Found(str(file), place, status.st_size, status.st_mtime_ns)

    if not path.is_dir():
        return [found(path, path.name)]
    files = (Path(folder, name) for folder, _, names in os.walk(path, onerror=refused) for name in names)
    regular = (file for file in files if file.is_file())
    return sorted((found(file, file.relative_to(path).as_posix()) for file in regular), key=lambda one: one.place)


def _found(info: pafs.FileInfo, place: str) -> Found:
    return Found(info.path, place, info.size or 0, info.mtime_ns or 0)


def _cut(name: str) -> str:
    """With its suffix, and room for what is added."""
    stem, suffix = posixpath.splitext(name)
    while len(os.fsencode(stem)) > 100:
        stem = stem[:-1]
    return stem + suffix
