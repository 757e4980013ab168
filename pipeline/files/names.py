"""Which file becomes which."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.images.photo import FORMATS

if TYPE_CHECKING:

    pass

from pipeline.files.records import Job, Report, Settings

SUFFIX_OF = {"jpeg": ".jpg", "png": ".png", "tiff": ".tif", "webp": ".webp"}


def find_inputs(
    paths: Iterable[Path], out: Path, report: Report
) -> list[tuple[Path, Path]]:
    """The photos behind the paths given: (file, its place relative to the output folder), sorted by place.

    A file is taken whatever its suffix. A folder is searched to the bottom for the suffixes of `FORMATS`,
    hidden files and folders and the output folder left out; its structure is kept. Of several folders each
    keeps its own name too. A path that does not exist or can not be read is added to `report.failed`. A file met
    twice counts once.
    """
    def unreadable(error: OSError) -> None:
        report.failed.append((Path(error.filename), error.strerror or str(error)))

    kinds: dict[Path, str] = {}
    for path in paths:
        try:
            kinds[path] = "folder" if path.is_dir() else "file" if path.exists() else "nothing"
        except OSError as error:  # no right to look, too long a name
            unreadable(error)
    several = list(kinds.values()).count("folder") > 1
    by_target: dict[Path, tuple[Path, Path]] = {}
    out = out.resolve()
    for path, kind in kinds.items():
        if kind == "folder":
            top = Path(path.resolve().name) if several else Path()
            for folder, folders, files in os.walk(path, onerror=unreadable):
                here = Path(folder)
                folders[:] = sorted(
                    name for name in folders if not name.startswith(".") and (here / name).resolve() != out
                )
                for name in sorted(files):
                    if not name.startswith(".") and Path(name).suffix.lower() in FORMATS:
                        file = here / name
                        by_target.setdefault(file.resolve(), (file, top / file.relative_to(path)))
        elif kind == "file":
            by_target.setdefault(path.resolve(), (path, Path(path.name)))
        else:
            report.failed.append((path, "no such file or folder"))
    return sorted(by_target.values(), key=lambda pair: pair[1].as_posix())


def plan(
    inputs: Sequence[tuple[Path, Path]], out: Path, settings: Settings, report: Report
) -> list[Job]:
    """The names of all outputs, the same whatever the order of work.

    A photo keeps its name; with another format the suffix is exchanged. Where two photos would get one name,
    those whose suffix is exchanged keep the old one inside: a.png stays a.png, a.jpg beside it becomes
    a.jpg.png. What still collides, or would overwrite an input, is refused in `report.failed`.
    """
    simple = [_renamed(place, settings.format) for _, place in inputs]
    crowded = Counter(map(_key, simple))
    names = []
    for (_, place), name in zip(inputs, simple, strict=True):
        if crowded[_key(name)] > 1 and name.name != place.name:
            name = place.with_name(place.name + name.suffix)
        names.append(name)

    jobs = []
    maps = _maps(names) if settings.uncertainty else [None] * len(names)
    planned = [Job(source, _numbered(name, settings.samples), uncertainty)
               for (source, _), name, uncertainty in zip(inputs, names, maps, strict=True)]  # fmt: skip
    taken = Counter(_key(output) for job in planned for output in job.outputs)
    sources = {source.resolve() for source, _ in inputs}
    for job in planned:
        source = job.source
        in_the_way = next((output for output in job.outputs if (out / output).resolve() in sources), None)
        twice = next((output for output in job.outputs if taken[_key(output)] > 1), None)
        if in_the_way is not None:
            report.failed.append((source, f"its output {out / in_the_way} is one of the inputs, which are "
                                          "never overwritten; choose another output folder"))
        elif twice is not None:
            report.failed.append((source, f"another input would be written to {out / twice} too; color them "
                                          "into separate folders"))
        else:
            jobs.append(job)
    return jobs


def _renamed(place: Path, wanted: str) -> Path:
    suffix = place.suffix.lower()
    if suffix not in FORMATS:  # a file without a known suffix, named on the command line
        return place.with_name(place.name + (".png" if wanted == "keep" else SUFFIX_OF[wanted]))
    if wanted == "keep" or FORMATS[suffix] == wanted:
        return place
    return place.with_suffix(SUFFIX_OF[wanted])


def _numbered(name: Path, samples: int) -> tuple[Path, ...]:
    if samples == 1:
        return (name,)
    return tuple(name.with_name(f"{name.stem}-{k}{name.suffix}") for k in range(1, samples + 1))


def _maps(names: Sequence[Path]) -> list[Path | None]:
    """Names of uncertainty maps: a-uncertainty.png for a.jpg; beside an a.tif a.jpg-uncertainty.png."""
    short = [name.with_name(f"{name.stem}-uncertainty.png") for name in names]
    crowded = Counter(map(_key, short))
    return [name.with_name(f"{name.name}-uncertainty.png") if crowded[_key(map_)] > 1 else map_
            for name, map_ in zip(names, short, strict=True)]  # fmt: skip


def _key(name: Path) -> str:
    return os.path.normcase(name)
