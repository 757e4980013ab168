"""Which file becomes which."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from pipeline.files.guidance import HINTS, hints_files
from pipeline.files.records import Job, Report, Settings
from pipeline.images.photo import FORMATS, READ_ONLY
from pipeline.images.read import page_count

SUFFIX_OF = {"jpeg": ".jpg", "png": ".png", "tiff": ".tif", "webp": ".webp"}
OTHER_FORMAT = "of formats that are not read"
HIDDEN = "hidden"
NOT_FOLLOWED = "links to folders, which are not followed"
NO_PHOTO = "folders without a photograph"
NOT_CHOSEN = "left out by --include and --exclude"
OF_HINTS = "of hints, which their photos take"
LOST_HINTS = "of hints without their photo"


@dataclass(frozen=True)
class Chosen:
    """Which photos of folders are taken, by globs; those named directly always are.

    A glob with a slash is of the path below the folder given, another one of the name; * reaches over slashes.
    include: one of these must fit, where there are any; exclude: none of these may
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def takes(self, place: Path) -> bool:
        """place: below the folder that was given"""

        def fits(globs: Iterable[str]) -> bool:
            return any(fnmatchcase(place.as_posix() if "/" in glob else place.name, glob) for glob in globs)

        return (not self.include or fits(self.include)) and not fits(self.exclude)


def find_inputs(
    paths: Iterable[Path], out: Path, report: Report, chosen: Chosen = Chosen()  # noqa: B008  (frozen)
) -> list[tuple[Path, Path]]:
    """The photos behind the paths given: (file, its place relative to the output folder), sorted by place.

    A file is taken whatever its suffix. A folder is searched to the bottom for the suffixes that are read, hidden files
    and folders and the output folder left out; its structure is kept. Of several folders each keeps its own name too.
    A path that does not exist or can not be read is added to `report.failed`, what else is passed over to
    `report.ignored`. A file met twice counts once.
    """

    def unreadable(error: OSError) -> None:
        report.failed.append((Path(error.filename), error.strerror or str(error)))

    kinds: dict[Path, str] = {}
    for path in paths:
        try:
            path.stat()
            kinds[path] = "folder" if path.is_dir() else "file"
        except FileNotFoundError:
            dangling = path.is_symlink()
            report.failed.append((path, "a link that leads nowhere" if dangling else "no such file or folder"))
        except OSError as error:  # no right to look, too long a name, a link to itself
            unreadable(error)
    several = list(kinds.values()).count("folder") > 1
    photos: dict[str, tuple[Path, Path]] = {}
    target = os.path.realpath(out)
    for path, kind in kinds.items():
        if kind == "file" and path.name.endswith(HINTS):  # of a pattern like album/*
            report.ignored.append((path, OF_HINTS))
            continue
        if kind == "file":
            photos.setdefault(os.path.realpath(path), (path, Path(path.name)))
            continue
        top = Path(os.path.basename(os.path.realpath(path))) if several else Path()
        searched: list[Path] = []
        holding: set[Path] = set()
        for folder, folders, files in os.walk(path, onerror=unreadable):
            here = Path(folder)
            searched.append(here)
            folders[:] = _to_search(here, folders, target, report)
            hints = hints_files(here, files)
            for name in sorted(files):
                file = here / name
                if name in hints:
                    report.ignored.append((file, OF_HINTS if hints[name] else LOST_HINTS))
                    continue
                if reason := _why_ignored(name):
                    report.ignored += [(file, reason)] if not name.startswith(".trichrome.") else []
                    continue
                place = file.relative_to(path)
                if chosen.takes(place):
                    photos.setdefault(os.path.realpath(file), (file, top / place))
                else:
                    report.ignored.append((file, NOT_CHOSEN))
                holding.update((here, *here.parents))
        empty = set(searched) - holding
        report.ignored += [(folder, NO_PHOTO) for folder in searched if folder in empty and folder.parent not in empty]
    return sorted(photos.values(), key=lambda pair: pair[1].as_posix())


def _to_search(here: Path, folders: list[str], target: str, report: Report) -> list[str]:
    """The folders to go into; links and hidden ones are not, which the report says."""
    kept = []
    for name in sorted(folders):
        if os.path.realpath(here / name) == target:
            continue
        if name.startswith("."):
            report.ignored.append((here / name, HIDDEN))
        elif (here / name).is_symlink():
            report.ignored.append((here / name, NOT_FOLLOWED))
        else:
            kept.append(name)
    return kept


def _why_ignored(name: str) -> str | None:
    if name.startswith("."):
        return HIDDEN
    return None if Path(name).suffix.lower() in (*FORMATS, *READ_ONLY) else OTHER_FORMAT


def plan(inputs: Sequence[tuple[Path, Path]], out: Path, settings: Settings, report: Report) -> list[Job]:
    """The names of all outputs, the same whatever the order of work.

    A photo keeps its name; with another format the suffix is exchanged. Where two photos would get one name,
    those whose suffix is exchanged keep the old one inside: a.png stays a.png, a.jpg beside it becomes
    a.jpg.png. The pages of a file become a-page1.tif, a-page2.tif. What still collides, or would overwrite an input,
    is refused in `report.failed`.
    """
    simple = [_renamed(place, settings.format) for _, place in inputs]
    crowded = Counter(map(_key, simple))
    names = []
    for (_, place), name in zip(inputs, simple, strict=True):
        if crowded[_key(name)] > 1 and name.name != place.name:
            name = place.with_name(place.name + name.suffix)
        names.append(name)

    jobs = []
    maps, overlays = _all_maps(names, settings)
    planned = [
        job
        for (source, _), name, uncertainty, overlay in zip(inputs, names, maps, overlays, strict=True)
        for job in _pages(Job(source, (name,), uncertainty, overlay), settings)
    ]
    planned = [replace(job, pictures=_numbered(job.pictures[0], settings.samples)) for job in planned]
    taken = Counter(_key(output) for job in planned for output in job.outputs)
    sources = {os.path.realpath(source) for source, _ in inputs}
    for job in planned:
        source = job.source
        in_the_way = next((output for output in job.outputs if os.path.realpath(out / output) in sources), None)
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


def plan_single(source: Path, output: Path, settings: Settings) -> Job:
    """One photo into files of the name given: x.jpg, or x-1.jpg to x-K.jpg; relative to the folder of `output`."""
    name = Path(output.name)
    (map_,), (overlay,) = _all_maps([name], settings)
    page = settings.page if isinstance(settings.page, int) else None
    return Job(source, _numbered(name, settings.samples), map_, overlay, page)


def _pages(job: Job, settings: Settings) -> list[Job]:
    if settings.page is None:
        return [job]
    if settings.page != "all":
        return [replace(job, page=settings.page)]
    count = page_count(job.source)
    if count == 1:
        return [replace(job, page=1)]

    def numbered(name: Path, number: int) -> Path:
        return name.with_name(f"{name.stem}-page{number:0{len(str(count))}d}{name.suffix}")

    return [
        replace(
            job, page=number, pictures=tuple(numbered(name, number) for name in job.pictures),
            uncertainty=None if job.uncertainty is None else numbered(job.uncertainty, number),
            overlay=None if job.overlay is None else numbered(job.overlay, number),
        )
        for number in range(1, count + 1)
    ]  # fmt: skip


def _renamed(place: Path, wanted: str) -> Path:
    suffix = place.suffix.lower()
    if suffix in READ_ONLY:
        return place.with_suffix(".png" if wanted == "keep" else SUFFIX_OF[wanted])
    if suffix not in FORMATS:  # a file without a known suffix, named on the command line
        return place.with_name(place.name + (".png" if wanted == "keep" else SUFFIX_OF[wanted]))
    if wanted == "keep" or FORMATS[suffix] == wanted:
        return place
    return place.with_suffix(SUFFIX_OF[wanted])


def _numbered(name: Path, samples: int) -> tuple[Path, ...]:
    if samples == 1:
        return (name,)
    return tuple(name.with_name(f"{name.stem}-{k}{name.suffix}") for k in range(1, samples + 1))


def _all_maps(names: Sequence[Path], settings: Settings) -> tuple[list[Path | None], list[Path | None]]:
    none: list[Path | None] = [None] * len(names)
    uncertainty = _maps(names, "uncertainty") if settings.uncertainty else none
    return uncertainty, _maps(names, "overlay") if settings.overlay else none


def _maps(names: Sequence[Path], what: str) -> list[Path | None]:
    """Names of uncertainty maps: a-uncertainty.png for a.jpg; beside an a.tif a.jpg-uncertainty.png."""
    short = [name.with_name(f"{name.stem}-{what}.png") for name in names]
    crowded = Counter(map(_key, short))
    return [name.with_name(f"{name.name}-{what}.png") if crowded[_key(map_)] > 1 else map_
            for name, map_ in zip(names, short, strict=True)]  # fmt: skip


def _key(name: Path) -> str:
    return os.path.normcase(name)
