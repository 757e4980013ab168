"""Coloring files and folders: which file becomes which, what is finished already, and nothing half-written.

A manifest in the output folder (.trichrome.jsonl, one JSON object per line, only ever appended) remembers for
every photo: the input's SHA-256, the settings, the weights, the outputs with their SHA-256. A line "begin" is
written before the first output of a photo and a line "done" after the last, so that after an interruption it
is known which files are this program's own: those are redone or kept, any other file that is in the way is
not touched.
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.full_resolution import full_size_uncertainty
from pipeline.images.photo import FORMATS, Photo
from pipeline.images.read import load_photo
from pipeline.images.write import save_gray, save_photo

if TYPE_CHECKING:
    from pipeline.color_pipeline import ColorPipeline
    from pipeline.output import SmallPhoto
    from stages.faces import Scores

from pipeline.files.manifest import RECIPE, Manifest, _stamp
from pipeline.files.names import find_inputs, plan
from pipeline.files.records import Job, Refused, Report, Settings
from pipeline.request import Request, StepCallback
from pipeline.sources import noise_sources

GROUP_PIXELS = 64_000_000  # photos colored together on a GPU hold at most this many pixels


@dataclass(frozen=True)
class Loaded:
    """A job under way: its photo, notes on its file, and what the manifest will call finished."""

    job: Job
    photo: Photo
    notes: tuple[str, ...]
    key: dict[str, Any]


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
    rank_with: Scores | None = None,
) -> Report:
    """Color all photos behind `paths` into the folder `out`; a bad file never stops the others.

    overwrite: color everything again, and replace files that are in the way (inputs never)
    say: gets each line worth reading as it happens, "path: reason" of failures among them
    progress: called as progress(done, total)
    step: the pipeline's `callback_on_step_end`
    rank_with: what candidates are put in order by
    Raises OptionError for settings that the pipeline can not honor.
    """
    start = time.monotonic()
    report = Report()
    request = Request(
        settings.samples, settings.preview, settings.uncertainty, settings.options, rank_with, step
    ).checked_for(pipe.coarse, pipe.superres)
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
    weights = pipe.fingerprint(rank_with)
    group: list[Loaded] = []
    for number, job in enumerate(jobs, 1):
        key = {"recipe": RECIPE, "settings": settings.record(job.pictures[0].suffix), "weights": weights}
        try:
            if not overwrite and manifest.is_finished(job, key):
                report.skipped += 1
            else:
                _check_way(job, out, manifest, overwrite)
                if (recipe := manifest.other_recipe(job)) is not None:
                    say(f"{job.source}: was colored by recipe {recipe}; today's is {RECIPE}, which gives other colors: "
                        "colored again")  # fmt: skip
                group.append(Loaded(job, *_load(job), key))
        except Exception as error:
            fail(job, error)
        pixels = sum(loaded.photo.gray.size for loaded in group)
        if group and (len(group) >= pipe.batch_size or pixels >= GROUP_PIXELS or number == len(jobs)):
            _color_group(pipe, group, request, out, settings, manifest, report, say, fail, advance)
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
    request: Request,
    out: Path,
    settings: Settings,
    manifest: Manifest,
    report: Report,
    say: Callable[[str], None],
    fail: Callable[[Job, Exception], None],
    advance: Callable[[], None],
) -> None:
    """The networks for all photos of the group at once, then each photo at full size, picture by picture."""
    photos = [loaded.photo for loaded in group]
    try:
        noise = noise_sources(photos, [settings.seed] * len(group), [None] * len(group))
        small = pipe.small_photos(photos, noise, request)
    except Exception as error:
        if len(group) == 1:
            fail(group[0].job, error)
            advance()
            return
        for loaded in group:  # one bad photo must not take the others with it
            _color_group(pipe, [loaded], request, out, settings, manifest, report, say, fail, advance)
        return
    for loaded, colored in zip(group, small, strict=True):
        try:
            notes = _write(pipe, loaded, colored, out, settings, manifest)
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
    small: SmallPhoto,
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
    for output, picture in zip(job.pictures, small.pictures, strict=True):
        full, said = pipe.full_size(photo, picture, photo.depth)
        notes.update(dict.fromkeys(said))
        path = out / output
        path.parent.mkdir(parents=True, exist_ok=True)
        with _warnings_to(notes):
            save_photo(path, full.rgb, photo, quality=settings.quality)
        written.append({"path": output.as_posix(), "candidate": picture.info.candidate, **_stamp(path)})
    if job.uncertainty is not None and small.uncertainty is not None:
        levels = full_size_uncertainty(small.uncertainty, photo.gray.shape, levels=True)
        save_gray(out / job.uncertainty, levels, photo.dpi)
        written.append({"path": job.uncertainty.as_posix(), "candidate": None, **_stamp(out / job.uncertainty)})
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
