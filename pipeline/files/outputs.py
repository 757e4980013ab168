"""The files of one photo: none in the way, all of them written, or a reason."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.files.broken import OutputLost, check_still_there
from pipeline.files.manifest import Manifest, stamp
from pipeline.files.records import Job, Loaded, Refused, Settings
from pipeline.full_resolution import UNCERTAINTY_WHITE, full_size_uncertainty
from pipeline.images.notes import collected
from pipeline.images.overlay import overlaid
from pipeline.images.photo import Photo
from pipeline.images.write import save_map, save_photo, written_as
from pipeline.output import ImageInfo, SmallPhoto
from pipeline.provenance.maker import Maker, shown_as
from pipeline.provenance.record import with_record

if TYPE_CHECKING:
    from pipeline.color_pipeline import ColorPipeline


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


class PhotoFiles:
    """The files of one photo and their two lines in the manifest, written step by step, see `steps`.

    Every step raises OutputLost where the folder, and not this photo, is at fault.
    maker: of the records that the files carry; None: they carry none
    notes: what is worth knowing of them, in their order
    """

    def __init__(
        self, loaded: Loaded, out: Path, settings: Settings, manifest: Manifest | None, maker: Maker | None,
        run: Mapping[str, str],
    ) -> None:  # fmt: skip
        self.job, self.out, self.settings, self.manifest, self.maker = loaded.job, out, settings, manifest, maker
        self.loaded, self.run = loaded, run
        self.notes = dict.fromkeys(loaded.notes)
        with collected() as notes:
            self.photo = written_as(self.job.pictures[0], loaded.photo)
        self.notes.update(notes)
        self._written: list[dict[str, object]] = []

    def begin(self) -> None:
        outputs = [{"path": output.as_posix()} for output in self.job.outputs]
        with _writing(self.out):
            if self.manifest is not None:
                self.manifest.append({"event": "begin", "input": self.loaded.source, "outputs": outputs})

    def picture(self, number: int, info: ImageInfo, rgb: NDArray[Any]) -> None:
        """number: of the picture among those of the photo, from 1; rgb: (H, W, 3) levels"""
        output = self.job.pictures[number - 1]
        with _writing(self.out), collected() as notes:
            for folder in reversed(output.parents[:-1]):  # below the output folder, which may be gone
                (self.out / folder).mkdir(exist_ok=True)
            photo = self._recorded(self.photo, info, number, "picture", output)
            save_photo(self.out / output, rgb, photo, quality=self.settings.quality)
            self._written.append({"path": output.as_posix(), "candidate": info.candidate, **stamp(self.out / output)})
        self.notes.update(notes)

    def maps(self, info: ImageInfo, levels: NDArray[np.uint8], rgb: NDArray[Any]) -> None:
        """The map of the first picture (H, W), and the same over that picture, (H, W, 3) levels."""
        job, bare = self.job, dataclasses.replace(self.photo, xmp=None)
        with _writing(self.out):
            if job.uncertainty is not None:
                told = self._recorded(bare, info, 1, "uncertainty", job.uncertainty)
                save_map(self.out / job.uncertainty, levels, bare.dpi, told.xmp)
            if job.overlay is not None:
                narrow = rgb if rgb.dtype == np.uint8 else np.rint(rgb / 257).astype(np.uint8)
                told = self._recorded(bare, info, 1, "overlay", job.overlay)
                save_map(self.out / job.overlay, overlaid(narrow, levels, UNCERTAINTY_WHITE), bare.dpi, told.xmp)
            for output in job.outputs[len(job.pictures) :]:
                self._written.append({"path": output.as_posix(), "candidate": None, **stamp(self.out / output)})

    def done(self) -> None:
        with _writing(self.out):
            if self.manifest is not None:
                self.manifest.append({
                    "event": "done", "input": self.loaded.source, "key": self.loaded.key, "outputs": self._written,
                    **self.run, "notes": list(self.notes),
                })  # fmt: skip

    def _recorded(self, photo: Photo, info: ImageInfo, number: int, what: str, output: Path) -> Photo:
        if self.maker is None:
            return photo
        file = shown_as(what, output, self.settings.quality)
        record = self.maker.record(photo, info, number, file, self.loaded.guide)
        return with_record(photo, record)


def steps(pipe: ColorPipeline, files: PhotoFiles, small: SmallPhoto) -> Iterator[Callable[[], None]]:
    """The steps that write a photo: the pipeline's work is done between them, the writing when they are called."""
    yield files.begin
    first: NDArray[Any] | None = None
    for number, picture in enumerate(small.pictures, 1):
        strength, kept = files.settings.strength, files.loaded.guide.kept
        full, said = pipe.full_size(files.photo, picture, files.photo.depth, strength, kept)
        files.notes.update(dict.fromkeys(said))
        first = full.rgb if first is None and small.uncertainty is not None else first
        yield partial(files.picture, number, picture.info, full.rgb)
    if small.uncertainty is not None and first is not None:
        levels = full_size_uncertainty(small.uncertainty, files.photo.gray.shape, levels=True)
        yield partial(files.maps, small.pictures[0].info, levels, first)
    yield files.done


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
