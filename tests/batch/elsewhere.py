"""A file system that fsspec alone knows: this machine's, under the scheme elsewhere://."""

from __future__ import annotations

from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

HERE = Path(__file__).parent


class Elsewhere(LocalFileSystem):
    protocol = "elsewhere"

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("elsewhere://"))


def register() -> None:
    fsspec.register_implementation("elsewhere", Elsewhere, clobber=True)


def as_installed(folder: Path) -> str:
    """A PYTHONPATH by which every process knows it, as if it were an installed package."""
    package = folder / "elsewhere-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[fsspec.specs]\nelsewhere = elsewhere:Elsewhere\n")
    return f"{folder}:{HERE}"
