"""The HTTP API, under /v1: the command `trichrome colorize` as a form, with the same answers byte for byte."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from fastapi import APIRouter, Request, Response

from pipeline.app.downloads import download
from pipeline.app.forms import Form, form_of, form_schema
from pipeline.app.limits import Limits
from pipeline.app.look import Look, options_of, sentences
from pipeline.app.problems import CODES, Problem
from pipeline.app.worker import Job, Worker
from pipeline.color_pipeline import ColorPipeline
from pipeline.files.records import Report
from pipeline.files.report import Outcome
from pipeline.files.run import Listeners
from pipeline.full_resolution import UNCERTAINTY_WHITE
from pipeline.images import ImageError, load_photo
from pipeline.steering import palette_of

__all__ = ["Colorize", "api_routes"]

Colorize = Callable[[ColorPipeline, Sequence[str], Listeners], Report]
"""The command with an open pipeline: arguments as of `trichrome colorize`. Raises ValueError for a wrong use."""
MAPPED = ("file", "hints", "reference", "seed", "candidate", "palette", "strength")  # fields of the map
STATUSES: dict[int | str, dict[str, Any]] = {
    status: {"description": f"{code}: {meaning}"} for code, (status, meaning) in CODES.items() if code != "internal"
}


def api_routes(pipe: ColorPipeline, worker: Worker, colorize: Colorize) -> APIRouter:
    router, limits, weights = APIRouter(prefix="/v1", responses=STATUSES), worker.limits, pipe.fingerprint()

    @router.get("/health")
    async def health() -> dict[str, Any]:
        """Whether the server answers, what it runs, and how many jobs wait."""
        return {
            "status": "ok", "version": version("trichrome"), "weights": weights, "device": str(pipe.device),
            "waiting": worker.waiting,
            "limits": {"megabytes": limits.megabytes, "megapixels": limits.megapixels, "files": limits.files,
                       "queue": limits.queue, "seconds": limits.seconds},
        }  # fmt: skip

    @router.post("/colorize", openapi_extra=form_schema(), response_class=Response)
    async def colorized(request: Request) -> Response:
        """Colors photographs as the command `trichrome colorize` does, whose options the fields are.

        One photograph and one picture of it come back as a picture; else a zip, whose report.jsonl says what became of
        each photograph.
        """
        worker.check_free()
        async with request.form(max_files=limits.files + 3, max_fields=limits.files + 64) as data:
            form = form_of(data, limits)
            return await worker.answer(request, lambda job: _colorized(pipe, colorize, form, limits, job))

    @router.post("/uncertainty", openapi_extra=form_schema(MAPPED))
    async def uncertainty(request: Request) -> dict[str, Any]:
        """Where the picture may well be wrong, and where a hint would tell most.

        map: PNG in base64, of the photograph's size, black for an expected CIEDE2000 error of 0, white from `white` on.
        """
        worker.check_free()
        async with request.form(max_files=3, max_fields=8) as data:
            form = form_of(data, limits, MAPPED)
            return await worker.answer(request, lambda job: _uncertainty(pipe, form, limits, job))

    return router


def _colorized(pipe: ColorPipeline, colorize: Colorize, form: Form, limits: Limits, job: Job) -> Response:
    outcomes: list[Outcome] = []
    with TemporaryDirectory(prefix="trichrome-") as folder:
        sent, out = Path(folder) / "in", Path(folder) / "out"
        sent.mkdir()
        paths, arguments = form.written(sent)
        _check_pictures(form, sent, limits)
        previewed = "--preview" in arguments
        hears = Listeners(each=outcomes.append, progress=job.advance, step=None if previewed else job.step)
        arguments += [f"--output={out}", f"--max-megapixels={limits.megapixels}", "--", *map(str, paths)]
        try:
            colorize(pipe, arguments, hears)
        except ValueError as error:
            raise Problem("bad_option", _without(folder, str(error))) from error
        written = [path for outcome in outcomes for path in outcome.outputs]
        if not written:
            reasons = "; ".join(f"{one.input.name}: {_without(folder, one.reason or '')}" for one in outcomes)
            raise Problem(_why_none(paths, limits), reasons)
        if len(paths) == len(written) == 1:
            file = TemporaryFile(prefix="trichrome-")
            file.write(written[0].read_bytes())
            return download(file, written[0].name)
        archive = TemporaryFile(prefix="trichrome-")
        with zipfile.ZipFile(archive, "w") as zipped:
            for path in written:
                zipped.write(path, path.relative_to(out))
            zipped.writestr("report.jsonl", "".join(_line(outcome, out, folder) for outcome in outcomes))
        return download(archive, "colored.zip")


def _why_none(paths: Sequence[Path], limits: Limits) -> str:
    """The code of a failure: whether the pictures can not be read, or what was asked for does not fit them."""
    try:
        for path in paths:
            load_photo(path, max_pixels=limits.pixels)
    except ImageError:
        return "bad_picture"
    return "bad_option"


def _check_pictures(form: Form, folder: Path, limits: Limits) -> None:
    """Reference and mask within the server's limits, which the command does not know."""
    for name in form.pictures:
        try:
            load_photo(folder / name, max_pixels=limits.pixels)
        except ImageError as error:
            raise Problem("bad_picture", str(error).removeprefix(f"{folder}/")) from error


def _uncertainty(pipe: ColorPipeline, form: Form, limits: Limits, job: Job) -> dict[str, Any]:
    if len(form.photos) != 1:
        raise Problem("bad_request", f"a map is of one photograph; got {len(form.photos)}")
    given: dict[str, Any] = dict(form.options)
    with sentences():
        if "palette" in given:
            given["palette"] = _palette(given["palette"])
        look = Look(**given, hints=json.loads(form.hints[0]) if form.hints else None)
        reference = form.pictures.get("reference")
        other = None if reference is None else load_photo(reference.read(), max_pixels=limits.pixels, keep_rgb=True)
        photo = load_photo(form.photos[0][1].read(), max_pixels=limits.pixels)
        output = pipe(photo, uncertainty=True, callback_on_step_end=job.step, **options_of(look, other))
    assert output.uncertainty is not None and output.suggestions is not None  # they were asked for
    file = io.BytesIO()
    output.uncertainty[0].save(file, "PNG")
    return {
        "size": [photo.gray.shape[1], photo.gray.shape[0]], "white": UNCERTAINTY_WHITE,
        "map": base64.b64encode(file.getvalue()).decode(), "suggestions": [vars(one) for one in output.suggestions[0]],
    }  # fmt: skip


def _palette(text: str) -> list[str]:
    try:
        return list(palette_of(text))
    except ArgumentTypeError as error:
        raise Problem("bad_option", f"palette: {error}") from error


def _line(outcome: Outcome, out: Path, folder: str) -> str:
    """Of the report, with the names that the client knows."""
    record = json.loads(outcome.record())
    record["input"] = outcome.input.name
    record["outputs"] = [str(path.relative_to(out)) for path in outcome.outputs]
    return _without(folder, json.dumps(record)) + "\n"


def _without(folder: str, text: str) -> str:
    """A sentence without the server's own folders."""
    return text.replace(f"{folder}/in/", "").replace(f"{folder}/out/", "")
