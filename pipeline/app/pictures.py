"""What the page shows and saves of a photo: each function is one job of the worker.

options: of the pipeline's call, see `look.options_of`
"""

from __future__ import annotations

import base64
import io
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import numpy as np
from fastapi import Response
from PIL import Image

from pipeline.app.downloads import download, free_name
from pipeline.app.look import colored_name, sentences
from pipeline.app.worker import Job
from pipeline.color_pipeline import ColorPipeline
from pipeline.full_resolution import UNCERTAINTY_WHITE
from pipeline.open_photo import OpenPhoto
from pipeline.reduced import reduced

__all__ = ["colored", "doubts", "gray", "saved", "versions", "zipped"]

VERSIONS, THUMBNAIL_SIDE, MAP_SIDE = 4, 240, 256
QUALITY = 92  # of pictures that are only looked at


def gray(photo: OpenPhoto, side: int | None) -> bytes:
    """The photo without colors, as a JPEG with at most `side` pixels on its longer side."""
    shown, _ = reduced(photo, None, side)
    return _jpeg(Image.fromarray(np.rint(shown.gray * 255).astype(np.uint8)))


def colored(
    pipe: ColorPipeline, photo: OpenPhoto, options: dict[str, Any], side: int | None, job: Job
) -> tuple[bytes, int]:
    """The picture as such a JPEG, and the number of its draw."""
    with sentences():
        output = pipe(photo, max_side=side, callback_on_step_end=job.step, **options)
    candidate = output.info[0].candidate
    assert candidate is not None  # no preview
    return _jpeg(output.images[0]), candidate


def versions(pipe: ColorPipeline, photo: OpenPhoto, seed: int, job: Job) -> list[dict[str, Any]]:
    """Pictures to choose from: the numbers of their draws, and how they look."""
    with sentences():
        output = pipe(photo, num_samples=VERSIONS, generator=seed, max_side=THUMBNAIL_SIDE,
                      callback_on_step_end=job.step)  # fmt: skip
    return [
        {"candidate": info.candidate, "thumbnail": _address("jpeg", _jpeg(image))}
        for image, info in zip(output.images, output.info, strict=True)
    ]


def doubts(pipe: ColorPipeline, photo: OpenPhoto, options: dict[str, Any], job: Job) -> dict[str, Any]:
    """The uncertainty map of the picture, and the places to ask about."""
    with sentences():
        output = pipe(photo, uncertainty=True, max_side=MAP_SIDE, callback_on_step_end=job.step, **options)
    assert output.uncertainty is not None and output.suggestions is not None  # they were asked for
    file = io.BytesIO()
    output.uncertainty[0].save(file, "PNG")
    return {
        "map": _address("png", file.getvalue()), "white": UNCERTAINTY_WHITE,
        "suggestions": [vars(one) for one in output.suggestions[0]],
    }  # fmt: skip


def saved(pipe: ColorPipeline, name: str, photo: OpenPhoto, options: dict[str, Any], job: Job) -> Response:
    """The picture as a file with all pixels, in the format, the depth and with the metadata of its photo."""
    name, file = colored_name(name, photo), TemporaryFile(prefix="trichrome-")
    with TemporaryDirectory(prefix="trichrome-") as folder:
        path = _save(pipe, photo, options, Path(folder) / name, job)
        with path.open("rb") as written:
            shutil.copyfileobj(written, file)
    return download(file, name)


def zipped(
    pipe: ColorPipeline, opened: Iterable[tuple[str, OpenPhoto, dict[str, Any]]], count: int, job: Job
) -> Response:
    """Such files in a zip; of those with one name the later ones are numbered. opened: names, photos, options."""
    taken: set[str] = set()
    archive = TemporaryFile(prefix="trichrome-")
    with zipfile.ZipFile(archive, "w") as files, TemporaryDirectory(prefix="trichrome-") as folder:
        for number, (name, photo, options) in enumerate(opened):
            job.advance(number, count)
            path = _save(pipe, photo, options, Path(folder) / free_name(colored_name(name, photo), taken), job)
            files.write(path, path.name)
            path.unlink()
    return download(archive, "trichrome.zip")


def _save(pipe: ColorPipeline, photo: OpenPhoto, options: dict[str, Any], path: Path, job: Job) -> Path:
    with sentences():
        pipe(photo, max_side=1, callback_on_step_end=job.step, **options).save(path)
    return path


def _jpeg(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY, subsampling=0)
    return file.getvalue()


def _address(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
