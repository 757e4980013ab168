"""Coloring files and folders: which file becomes which, what is finished already, and nothing half-written.

A manifest in the output folder (.trichrome.jsonl, one JSON object per line, only ever appended) remembers for
every photo: the input's SHA-256, the settings, the weights, the outputs with their SHA-256. A line "begin" is
written before the first output of a photo and a line "done" after the last, so that after an interruption it
is known which files are this program's own: those are redone or kept, any other file that is in the way is
not touched.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.images import FORMATS, Photo, load_photo, save_gray, save_photo

from .fullres import full_size_doubt

if TYPE_CHECKING:
    from torch import Tensor

    from .color_pipeline import ColorPipeline, SmallPicture, StepCallback

__all__ = ["Job", "Report", "Settings", "color_files", "find_inputs", "plan"]

MANIFEST = ".trichrome.jsonl"
MANIFEST_FORMAT = 1
SUFFIX_OF = {"jpeg": ".jpg", "png": ".png", "tiff": ".tif", "webp": ".webp"}
GROUP_PIXELS = 64_000_000  # photos colored together on a GPU hold at most this many pixels


@dataclass(frozen=True)
class Settings:
    """What decides the outputs. A photo is finished only for the settings it was colored with."""

    samples: int = 1
    seed: int = 0
    steps: int | None = None
    dtype: str = "auto"
    preview: bool = False
    pool: int | None = None
    temperature: float | None = None
    doubt: bool = False
    format: str = "keep"
    quality: int = 95

    def record(self, suffix: str) -> dict[str, Any]:
        """As the manifest keeps them for an output of this suffix: `format` shows in the name, `quality`
        counts only where it is used."""
        kept = dataclasses.asdict(self)
        del kept["format"]
        if FORMATS[suffix.lower()] in ("png", "tiff"):
            del kept["quality"]
        return kept


@dataclass(frozen=True)
class Job:
    """One photo: where it is and, relative to the output folder, what it becomes: pictures, and a map of doubt."""

    source: Path
    pictures: tuple[Path, ...]
    doubt: Path | None = None

    @property
    def outputs(self) -> tuple[Path, ...]:
        return self.pictures if self.doubt is None else (*self.pictures, self.doubt)


@dataclass
class Report:
    """What happened. `failed` are (path, one-line reason); `notes` likewise, of photos that went well."""

    colored: int = 0
    skipped: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)
    notes: list[tuple[Path, str]] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Loaded:
    """A job under way: its photo, notes on its file, and what the manifest will call finished."""

    job: Job
    photo: Photo
    notes: tuple[str, ...]
    key: dict[str, Any]


class Refused(Exception):
    """A photo that is not colored, and why, in one line."""


# ---------------------------------------------------------------------- which file becomes which


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
    found: dict[Path, tuple[Path, Path]] = {}
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
                        found.setdefault(file.resolve(), (file, top / file.relative_to(path)))
        elif kind == "file":
            found.setdefault(path.resolve(), (path, Path(path.name)))
        else:
            report.failed.append((path, "no such file or folder"))
    return sorted(found.values(), key=lambda pair: pair[1].as_posix())


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
    maps = _maps(names) if settings.doubt else [None] * len(names)
    planned = [Job(source, _numbered(name, settings.samples), doubt)
               for (source, _), name, doubt in zip(inputs, names, maps, strict=True)]  # fmt: skip
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
    """Names of maps of doubt: a-doubt.png for a.jpg; beside an a.tif a.jpg-doubt.png."""
    short = [name.with_name(f"{name.stem}-doubt.png") for name in names]
    crowded = Counter(map(_key, short))
    return [name.with_name(f"{name.name}-doubt.png") if crowded[_key(map_)] > 1 else map_
            for name, map_ in zip(names, short, strict=True)]  # fmt: skip


def _key(name: Path) -> str:
    return os.path.normcase(name)


# ---------------------------------------------------------------------- what is finished


class Manifest:
    """The memory of an output folder: for each output, the last line that names it."""

    def __init__(self, out: Path) -> None:
        self.out, self.path = out, out / MANIFEST
        self.last: dict[str, dict[str, Any]] = {}
        self.unreadable = 0
        self._newline = b""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return
        if content and not content.endswith(b"\n"):
            self._newline = b"\n"  # a line cut short by a power failure must not swallow the next one
        for line in content.splitlines():
            try:
                record = json.loads(line)
                if record["format"] != MANIFEST_FORMAT or record["event"] not in ("begin", "done"):
                    raise ValueError("another format")
                self._remember(record)
            except (ValueError, KeyError, TypeError):
                self.unreadable += bool(line.strip())

    def _remember(self, record: dict[str, Any]) -> None:
        names = [output["path"] for output in record["outputs"]]
        self.last.update(dict.fromkeys(names, record))

    def append(self, record: dict[str, Any]) -> None:
        """One line, in one write, on the disk when this returns."""
        record = {"format": MANIFEST_FORMAT, **record}
        line = self._newline + json.dumps(record).encode() + b"\n"
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            written = os.write(handle, line)
            os.fsync(handle)
        finally:
            os.close(handle)
        if written != len(line):
            self._newline = b"\n"
            raise OSError(f"{self.path} could not be written to its end; is the disk full?")
        self._newline = b""
        self._remember(record)

    def is_finished(self, job: Job, key: dict[str, Any]) -> bool:
        """Whether the same input gave all outputs with the same settings and weights, and they are there."""
        records = [self.last.get(output.as_posix()) for output in job.outputs]
        record = records[0]
        if record is None or record["event"] != "done" or any(other is not record for other in records):
            return False
        try:
            return (record["key"] == key and _is_same(job.source, record["input"])
                    and all(_is_same(self.out / output["path"], output) for output in record["outputs"]))
        except (KeyError, TypeError):
            return False

    def is_own(self, output: Path) -> bool:
        """Whether the file in this place is as this program left it, or was being written when it stopped."""
        record = self.last.get(output.as_posix())
        if record is None:
            return False
        if record["event"] == "begin":
            return True
        entry = next(entry for entry in record["outputs"] if entry["path"] == output.as_posix())
        return _is_same(self.out / output, entry)


def _stamp(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": _sha256(path)}


def _is_same(path: Path, stamp: dict[str, Any]) -> bool:
    """The file is as stamped: at a glance (size and time to the nanosecond), else by its hash."""
    try:
        status = path.stat()
        if status.st_size != stamp["size"]:
            return False
        return status.st_mtime_ns == stamp["mtime_ns"] or _sha256(path) == stamp["sha256"]
    except (OSError, KeyError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---------------------------------------------------------------------- the work


def color_files(
    pipe: ColorPipeline,
    paths: Iterable[Path],
    out: Path,
    settings: Settings,
    *,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    step: StepCallback | None = None,
) -> Report:
    """Color all photos behind `paths` into the folder `out`; a bad file never stops the others.

    overwrite: color everything again, and replace files that are in the way (inputs never)
    say: gets each line worth reading as it happens, "path: reason" of failures among them
    progress: called as progress(done, total)
    step: the pipeline's `callback_on_step_end`
    """
    start = time.monotonic()
    report = Report()
    out.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(out)
    if manifest.unreadable:
        say(f"{manifest.path}: {manifest.unreadable} unreadable lines left out of account")

    jobs = plan(find_inputs(paths, out, report), out, settings, report)
    total = len(jobs) + len(report.failed)
    for path, reason in report.failed:
        say(f"{path}: {reason}")

    def advance() -> None:
        progress(report.colored + report.skipped + len(report.failed), total)

    def fail(job: Job, error: Exception) -> None:
        reason = _reason(error).removeprefix(f"{job.source}: ")
        report.failed.append((job.source, reason))
        say(f"{job.source}: {reason}")

    advance()
    weights = pipe.fingerprint()
    group: list[Loaded] = []
    for number, job in enumerate(jobs, 1):
        key = {"settings": settings.record(job.pictures[0].suffix), "weights": weights}
        try:
            if not overwrite and manifest.is_finished(job, key):
                report.skipped += 1
            else:
                _check_way(job, out, manifest, overwrite)
                group.append(Loaded(job, *_load(job), key))
        except Exception as error:
            fail(job, error)
        pixels = sum(loaded.photo.gray.size for loaded in group)
        if group and (len(group) >= pipe.batch_size or pixels >= GROUP_PIXELS or number == len(jobs)):
            _color_group(pipe, group, out, settings, manifest, report, say, fail, advance, step)
            group = []
        advance()
    report.seconds = time.monotonic() - start
    return report


def _check_way(job: Job, out: Path, manifest: Manifest, overwrite: bool) -> None:
    for output in job.outputs:
        path = out / output
        if path.is_dir():
            raise Refused(f"its output {path} is a folder")
        if path.exists() and not overwrite and not manifest.is_own(output):
            raise Refused(f"{path} is there already and is not, or no longer, what this program wrote; "
                          "--overwrite replaces it")


def _load(job: Job) -> tuple[Photo, tuple[str, ...]]:
    """The photo, and what was wrong with its file but not enough to refuse it."""
    if not job.source.is_file():
        raise Refused("not a regular file")
    notes: dict[str, None] = {}
    with _warnings_to(notes):
        photo = load_photo(job.source)
    return photo, tuple(notes)


@contextmanager
def _warnings_to(notes: dict[str, None]) -> Iterator[None]:
    """Warnings of the block become notes, one line each, instead of lines of Python source on stderr."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    notes.update((" ".join(str(warning.message).split()), None) for warning in caught)


def _color_group(
    pipe: ColorPipeline,
    group: list[Loaded],
    out: Path,
    settings: Settings,
    manifest: Manifest,
    report: Report,
    say: Callable[[str], None],
    fail: Callable[[Job, Exception], None],
    advance: Callable[[], None],
    step: StepCallback | None,
) -> None:
    """The networks for all photos of the group at once, then each photo at full size, picture by picture."""
    photos = [loaded.photo for loaded in group]
    try:
        seeds = [settings.seed] * len(group)
        small = pipe.small_pictures(
            photos, seeds,
            num_samples=settings.samples, num_inference_steps=settings.steps,
            preview=settings.preview, pool=settings.pool, temperature=settings.temperature, callback_on_step_end=step,
        )
        doubts: Sequence[Tensor | None] = [None] * len(group)
        if settings.doubt:
            doubts = pipe.doubt_maps(photos, seeds, [pictures[0].rgb[None] for pictures in small], settings.steps)
    except Exception as error:
        for loaded in group:
            fail(loaded.job, error)
        return
    for loaded, pictures, doubt in zip(group, small, doubts, strict=True):
        try:
            notes = _write(pipe, loaded, pictures, doubt, out, settings, manifest)
        except Exception as error:
            fail(loaded.job, error)
        else:
            report.colored += 1
            for note in notes:
                report.notes.append((loaded.job.source, note))
                say(f"{loaded.job.source}: note: {note}")
        advance()


def _write(
    pipe: ColorPipeline,
    loaded: Loaded,
    pictures: Sequence[SmallPicture],
    doubt: Tensor | None,
    out: Path,
    settings: Settings,
    manifest: Manifest,
) -> list[str]:
    """All outputs of one photo and their two lines in the manifest; returns the notes on them."""
    job, photo = loaded.job, loaded.photo
    notes = dict.fromkeys(loaded.notes)
    if FORMATS[job.pictures[0].suffix.lower()] in ("jpeg", "webp") and photo.depth == 16:
        photo = dataclasses.replace(photo, depth=8)
        notes["16 bits became 8, all that JPEG and WebP hold; --format png or tiff keeps them"] = None
    source = {"path": str(job.source.resolve()), **_stamp(job.source)}
    manifest.append({
        "event": "begin", "input": source, "outputs": [{"path": output.as_posix()} for output in job.outputs],
    })
    written = []
    for output, picture in zip(job.pictures, pictures, strict=True):
        full, said = pipe.full_size(photo, picture, photo.depth)
        notes.update(dict.fromkeys(said))
        path = out / output
        path.parent.mkdir(parents=True, exist_ok=True)
        with _warnings_to(notes):
            save_photo(path, full.rgb, photo, quality=settings.quality)
        written.append({"path": output.as_posix(), "candidate": picture.info.candidate, **_stamp(path)})
    if job.doubt is not None and doubt is not None:
        save_gray(out / job.doubt, full_size_doubt(doubt[0], photo.gray.shape, levels=True), photo.dpi)
        written.append({"path": job.doubt.as_posix(), "candidate": None, **_stamp(out / job.doubt)})
    manifest.append({
        "event": "done", "input": source, "key": loaded.key, "outputs": written,
        "device": str(pipe.device), "dtype": str(pipe.dtype).removeprefix("torch."), "notes": list(notes),
    })
    return list(notes)


def _reason(error: Exception) -> str:
    """One line for a person; an error nobody foresaw keeps its type."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "out of memory" in text or "DefaultCPUAllocator" in text:
        return f"not enough memory, even in strips of one row ({text[:200]})" if text else "not enough memory"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else "")
    if isinstance(error, (Refused, ValueError)):
        return text
    return f"{type(error).__name__}: {text[:300]}"
