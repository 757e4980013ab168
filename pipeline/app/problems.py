"""What goes wrong, as a client sees it: {"error": {"code": …, "message": …}} with a status, in one place."""

from __future__ import annotations

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

__all__ = ["CODES", "Problem", "add_handlers", "answer"]

CODES = {
    "bad_request": (400, "The request is not what the address takes: a missing or unknown field, no multipart form."),
    "foreign": (403, "The Host or Origin of the request is another site's."),
    "not_found": (404, "There is no such address."),
    "not_allowed": (405, "The address takes another method."),
    "timeout": (408, "The answer took longer than the server waits."),
    "gone": (410, "The visit is over, its pictures are deleted."),
    "too_large": (413, "More bytes, pixels or files than the server takes."),
    "bad_picture": (415, "A file that is no picture, is damaged, or of a kind that is not read."),
    "bad_option": (422, "An option, or a file of hints, that can not be honored."),
    "busy": (429, "As many jobs wait as the server takes. Try again after the seconds of Retry-After."),
    "cancelled": (499, "The client has hung up."),
    "internal": (500, "A fault of the server."),
}
"""Of each code its status and meaning."""


class Problem(Exception):
    """code: one of CODES; message: a sentence for a person: what was expected, what came, what to do."""

    def __init__(self, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.headers = code, message, headers
        self.status = CODES[code][0]


def answer(problem: Problem) -> JSONResponse:
    body = {"error": {"code": problem.code, "message": problem.message}}
    return JSONResponse(body, problem.status, problem.headers)


def add_handlers(app: FastAPI) -> None:
    """Every error of the application in the one form."""

    @app.exception_handler(Problem)
    async def of_problem(_: Request, problem: Problem) -> JSONResponse:
        return answer(problem)

    @app.exception_handler(RequestValidationError)
    async def of_validation(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:])
        return answer(Problem("bad_request", f"{place}: {first['msg']}".removeprefix(": ")))

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "not_allowed"}.get(error.status_code, "bad_request")
        words = {"not_found": f"there is nothing at {request.url.path}",
                 "not_allowed": f"{request.url.path} does not take {request.method}"}  # fmt: skip
        return answer(Problem(code, words.get(code) or str(error.detail) or HTTPStatus(error.status_code).phrase))

    @app.exception_handler(Exception)
    async def of_fault(request: Request, error: Exception) -> JSONResponse:
        logging.getLogger("trichrome").error("%s %s", request.method, request.url.path, exc_info=error)
        return answer(Problem("internal", "the server made a mistake; what it was stands in its log"))
