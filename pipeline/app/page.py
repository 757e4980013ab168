"""What the page asks of the server, under /page: a visit, its photographs, and pictures of them.

Every request but the first shows the secret of the visit in the header Trichrome-Visit. A request that may take long
can name itself in Trichrome-Job; /page/jobs/NAME then says how far it is. To cancel is to hang up.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import PurePath
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from pipeline.app import pictures
from pipeline.app.look import Look, hints_of, options_of, sentences
from pipeline.app.visits import Visit, Visits
from pipeline.app.worker import Job, Worker
from pipeline.color_pipeline import ColorPipeline
from pipeline.open_photo import OpenPhoto

__all__ = ["page_routes"]

Secret = Annotated[str, Header(alias="Trichrome-Visit")]
Side = Annotated[int | None, Field(ge=16)]
"""Pixels of the longer side of what is shown; None: all."""
Result = TypeVar("Result")


class Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AskedGray(Asked):
    side: Side = None


class AskedLook(Asked):
    look: Look


class AskedPicture(AskedLook):
    side: Side = None


class AskedVersions(Asked):
    seed: int


class AskedColors(Asked):
    seed: int
    x: float
    y: float
    radius: float


class AskedHints(Asked):
    hints: Any  # read by `Hints`, which says what is wrong


class Ordered(AskedLook):
    photo: str


class AskedZip(Asked):
    photos: list[Ordered]


def page_routes(pipe: ColorPipeline, worker: Worker, visits: Visits, local: bool) -> APIRouter:
    """local: whether the server answers to this machine alone, as the page then says"""
    router, jobs = APIRouter(prefix="/page", include_in_schema=False), dict[tuple[str, str], Job]()
    limits = worker.limits

    async def done(request: Request, work: Callable[[Job], Result], seconds: float | None = None) -> Result:
        """The work's result, its progress to be asked for while it lasts."""
        key = request.headers.get("Trichrome-Visit", ""), request.headers.get("Trichrome-Job", "")
        try:
            return await worker.answer(request, work, seconds=seconds, started=lambda job: jobs.update({key: job}))
        finally:
            jobs.pop(key, None)

    async def of_photo(request: Request, key: str, work: Callable[[OpenPhoto, Job], Result]) -> Result:
        upload = visits.visit(request.headers.get("Trichrome-Visit", "")).upload(key)
        return await done(request, lambda job: work(visits.opened(upload), job))

    def options(visit: Visit, look: Look) -> dict[str, Any]:
        other = None if look.reference is None else visits.opened(visit.upload(look.reference), keep_rgb=True)
        return options_of(look, other)

    async def of_look(
        request: Request, key: str, look: Look, work: Callable[[OpenPhoto, dict[str, Any], Job], Result]
    ) -> Result:
        visit = visits.visit(request.headers.get("Trichrome-Visit", ""))
        return await of_photo(request, key, lambda photo, job: work(photo, options(visit, look), job))

    @router.post("/visit")
    async def begin() -> dict[str, Any]:
        told = {"megabytes": limits.megabytes, "megapixels": limits.megapixels, "photos": limits.photos}
        return {"visit": visits.begin(), "local": local, "limits": told}

    @router.post("/visit/end", status_code=204)
    async def end(request: Request) -> None:
        visits.end((await request.body()).decode("ascii", "replace"))

    @router.get("/jobs/{name}")
    async def progress(name: str, secret: Secret) -> dict[str, int]:
        job = jobs.get((secret, name))
        if job is None:  # it has not come yet, or is done
            return {"ahead": 0, "done": 0, "total": 0}
        return {"ahead": worker.ahead_of(job), "done": job.done, "total": job.total}

    @router.post("/photos")
    async def add(request: Request, name: str, secret: Secret) -> dict[str, Any]:
        visit, file = visits.visit(secret), tempfile.TemporaryFile(prefix="trichrome-")
        async for chunk in request.stream():
            file.write(chunk)
        plain = PurePath(name.replace("\\", "/")).name[-200:] or "picture"
        key, photo = await done(request, lambda job: visits.add(visit, plain, file))
        height, width = photo.gray.shape
        return {"id": key, "width": width, "height": height, "depth": photo.depth, "format": photo.format,
                "is_color": photo.is_color, "notes": photo.notes}  # fmt: skip

    @router.delete("/photos/{key}", status_code=204)
    async def remove(key: str, secret: Secret) -> None:
        visits.remove(visits.visit(secret), key)

    @router.post("/photos/{key}/gray")
    async def gray(request: Request, key: str, asked: AskedGray) -> Response:
        content = await of_photo(request, key, lambda photo, job: pictures.gray(photo, asked.side))
        return Response(content, media_type="image/jpeg")

    @router.post("/photos/{key}/picture")
    async def picture(request: Request, key: str, asked: AskedPicture) -> Response:
        def work(photo: OpenPhoto, options: dict[str, Any], job: Job) -> tuple[bytes, int]:
            return pictures.colored(pipe, photo, options, asked.side, job)

        content, candidate = await of_look(request, key, asked.look, work)
        return Response(content, media_type="image/jpeg", headers={"Trichrome-Candidate": str(candidate)})

    @router.post("/photos/{key}/versions")
    async def versions(request: Request, key: str, asked: AskedVersions) -> dict[str, Any]:
        work = await of_photo(request, key, lambda photo, job: pictures.versions(pipe, photo, asked.seed, job))
        return {"versions": work}

    @router.post("/photos/{key}/uncertainty")
    async def uncertainty(request: Request, key: str, asked: AskedLook) -> dict[str, Any]:
        return await of_look(request, key, asked.look, partial(pictures.doubts, pipe))

    @router.post("/photos/{key}/colors")
    async def colors(request: Request, key: str, asked: AskedColors) -> dict[str, Any]:
        def work(photo: OpenPhoto, job: Job) -> tuple[str, ...]:
            with sentences():
                return pipe.colors_at(photo, asked.x, asked.y, asked.radius, asked.seed)

        return {"colors": await of_photo(request, key, work)}

    @router.post("/hints")
    async def hints(secret: Secret, asked: AskedHints) -> dict[str, Any]:
        visits.visit(secret)
        checked = hints_of(asked.hints)
        points = [{**point._asdict(), "color": "#{:02x}{:02x}{:02x}".format(*point.color)} for point in checked.points]
        return {"size": checked.size, "points": points}

    @router.post("/photos/{key}/file")
    async def file(request: Request, key: str, asked: AskedLook) -> Response:
        name = visits.visit(request.headers.get("Trichrome-Visit", "")).upload(key).name
        return await of_look(request, key, asked.look, partial(pictures.saved, pipe, name))

    @router.post("/zip")
    async def zipped(request: Request, secret: Secret, asked: AskedZip) -> Response:
        visit = visits.visit(secret)
        ordered = [(visit.upload(one.photo), one.look) for one in asked.photos]

        def work(job: Job) -> Response:
            opened = ((one.name, visits.opened(one), options(visit, look)) for one, look in ordered)
            return pictures.zipped(pipe, opened, len(ordered), job)

        return await done(request, work, seconds=limits.seconds * max(1, len(ordered)))

    return router
