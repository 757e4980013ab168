"""The files of one photo: none in the way, all of them written, or a reason."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.files.broken import OutputLost, check_still_there
from pipeline.files.manifest import Manifest, _stamp
from pipeline.files.records import Job, Loaded, Refused, Settings
from pipeline.full_resolution import UNCERTAINTY_WHITE, full_size_uncertainty
from pipeline.images.overlay import overlaid
from pipeline.images.write import save_map, save_photo, written_as

if TYPE_CHECKING:
    from pipeline.color_pipeline import ColorPipeline
    from pipeline.output import SmallPhoto


def check_way(job: Job, out: Path, manifest: Manifest | None, overwrite: bool) -> None:
    """Raises Refused where an output would take the place of a folder, or of a file that is not this program's."""
    for output in job.outputs:
        path = out / output
        if path.is_dir():
            raise Refused(f"its output {path} is a folder")
        if os.path.realpath(path) == os.path.realpath(job.source):
            raise Refused(f"its output {path} is the photo itself; an input is never overwritten")
        if overwrite or not path.exists():
            continue
        if manifest is None:
            raise Refused(f"{path} is there already; --overwrite replaces it")
        if not manifest.is_own(output):
            raise Refused(f"{path} is there already and is not, or no longer, what this program wrote; "
                          "--overwrite replaces it")  # fmt: skip


def write_outputs(
    pipe: ColorPipeline, loaded: Loaded, small: SmallPhoto, out: Path, settings: Settings, manifest: Manifest | None
) -> list[str]:
    """All outputs of one photo and their two lines in the manifest; returns the notes on them.

    Raises OutputLost where the folder, and not this photo, is at fault.
    """
    job, photo = loaded.job, loaded.photo
    notes = dict.fromkeys(loaded.notes)
    with _warnings_to(notes):
        photo = written_as(job.pictures[0], photo)
    source = {"path": str(job.source.resolve()), **_stamp(job.source)}
    with _writing(out):
        if manifest is not None:
            manifest.append({
                "event": "begin", "input": source, "outputs": [{"path": output.as_posix()} for output in job.outputs],
            })  # fmt: skip
    written: list[dict[str, object]] = []
    first = None
    for output, picture in zip(job.pictures, small.pictures, strict=True):
        full, said = pipe.full_size(photo, picture, photo.depth, settings.strength, loaded.guide.kept)
        notes.update(dict.fromkeys(said))
        first = full.rgb if first is None else first
        with _writing(out), _warnings_to(notes):
            (out / output).parent.mkdir(parents=True, exist_ok=True)
            save_photo(out / output, full.rgb, photo, quality=settings.quality)
            written.append(
                {"path": output.as_posix(), "candidate": picture.info.candidate, **_stamp(out / output)}
            )
    with _writing(out):
        if small.uncertainty is not None:
            levels = full_size_uncertainty(small.uncertainty, photo.gray.shape, levels=True)
            if job.uncertainty is not None:
                save_map(out / job.uncertainty, levels, photo.dpi)
            if job.overlay is not None and first is not None:
                narrow = first if first.dtype == np.uint8 else np.rint(first / 257).astype(np.uint8)
                save_map(out / job.overlay, overlaid(narrow, levels, UNCERTAINTY_WHITE), photo.dpi)
        for output in job.outputs[len(job.pictures) :]:
            written.append({"path": output.as_posix(), "candidate": None, **_stamp(out / output)})
        if manifest is not None:
            manifest.append({
                "event": "done", "input": source, "key": loaded.key, "outputs": written, "device": str(pipe.device),
                "dtype": str(pipe.dtype).removeprefix("torch."), "notes": list(notes),
            })  # fmt: skip
    return list(notes)


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """A failure of the block ends the run where it is the folder's fault."""
    if not out.is_dir():  # or what is made in its place would be another folder: a mount that is gone
        raise OutputLost.of(out, "it is not there any more")
    try:
        yield
    except Exception as error:
        check_still_there(out, error)
        raise


@contextmanager
def _warnings_to(notes: dict[str, None]) -> Iterator[None]:
    """Warnings of the block become notes, one line each, instead of lines of Python source on stderr."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    notes.update((" ".join(str(warning.message).split()), None) for warning in caught)


def reason_of(error: Exception, source: Path) -> str:
    """One line for a person, without the name of the photo; an error nobody foresaw keeps its type."""
    text = " ".join(str(error).removeprefix(f"{source}: ").split())
    if isinstance(error, MemoryError) or "out of memory" in text or "DefaultCPUAllocator" in text:
        return f"not enough memory ({text[:200]})" if text else "not enough memory"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else "")
    if isinstance(error, (Refused, OutputLost, ValueError)):
        return text
    return f"{type(error).__name__}: {text[:300]}"
