"""The server as a whole: its parts put together, and run until it is stopped."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from pipeline.app.api import Colorize, api_routes
from pipeline.app.guard import Guard
from pipeline.app.limits import Limits
from pipeline.app.page import page_routes
from pipeline.app.problems import add_handlers
from pipeline.app.visits import Visits
from pipeline.app.worker import Worker
from pipeline.color_pipeline import ColorPipeline

__all__ = ["create_app", "run"]

HERE = Path(__file__).parent
TIDIED_EVERY = 30  # seconds
# Swagger UI writes styles into its elements and has pictures in its style sheet.
DOCS_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"


def create_app(
    pipe: ColorPipeline, colorize: Colorize, limits: Limits = Limits(), *,  # noqa: B008  (frozen)
    page: bool = True, names: tuple[str, ...] = (), addresses: bool = False,
) -> FastAPI:  # fmt: skip
    """The application: the API, and the page if it is asked for. colorize: the command; names, addresses: see `Guard`.
    """
    worker, visits = Worker(limits), Visits(limits)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        tidying = asyncio.create_task(_tidied(visits))
        try:
            yield
        finally:
            tidying.cancel()
            worker.close()
            visits.close()

    app = FastAPI(title="Trichrome", version=version("trichrome"), lifespan=life, docs_url=None, redoc_url=None,
                  openapi_url="/openapi.json", redirect_slashes=False)  # fmt: skip
    app.add_middleware(Guard, limits=limits, names=names, addresses=addresses)
    add_handlers(app)
    app.state.worker, app.state.visits = worker, visits
    app.include_router(api_routes(pipe, worker, colorize))
    app.mount("/docs/swagger-ui", StaticFiles(directory=HERE / "swagger_ui"))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(HERE / "docs" / "index.html", headers={"Content-Security-Policy": DOCS_POLICY})

    @app.get("/docs/start.js", include_in_schema=False)
    async def docs_start() -> FileResponse:
        return FileResponse(HERE / "docs" / "start.js")

    if page:
        app.include_router(page_routes(pipe, worker, visits, local=not (names or addresses)))
        app.mount("/static", StaticFiles(directory=HERE / "page"))

        @app.get("/", include_in_schema=False)
        async def index() -> FileResponse:
            return FileResponse(HERE / "page" / "index.html")

    return app


def run(app: FastAPI, listener: socket.socket, started: Callable[[], object] = lambda: None) -> None:
    """Serves until a signal comes. started: called once requests are answered."""
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5, server_header=False)
    server = uvicorn.Server(config)

    async def serve() -> None:
        serving = asyncio.create_task(server.serve([listener]))
        while not (server.started or serving.done()):
            await asyncio.sleep(0.02)
        if not serving.done():
            started()
        await serving

    with suppress(KeyboardInterrupt):  # which uvicorn raises again once it has ended
        asyncio.run(serve())


async def _tidied(visits: Visits) -> None:
    while True:
        await asyncio.sleep(TIDIED_EVERY)
        visits.tidy()
