"""The door of the server: who may ask, and how much they may send.

Any website can make a browser post to a local port, and a name of its own can be made to lead there (DNS rebinding).
So the Host must be this machine's, the Origin the page's own, and a browser's word that another site asks is heeded.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.app.limits import Limits
from pipeline.app.problems import Problem, answer

__all__ = ["LOCAL", "Guard"]

LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
                               "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}  # fmt: skip


class Guard:
    """Middleware in front of everything.

    names: of this machine, beside LOCAL; addresses: also any IP address will do, for a server that others can reach
    """

    def __init__(self, app: ASGIApp, limits: Limits, names: Iterable[str] = (), addresses: bool = False) -> None:
        self.app, self.limits, self.addresses = app, limits, addresses
        self.names = LOCAL | {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    sent.setdefault(name, value)
            await send(message)

        problem = self._why_foreign(scope["method"], headers) or self._why_too_large(headers)
        if problem is not None:  # the rest of the request is not read
            problem.headers = {"Connection": "close"}
            await answer(problem)(scope, receive, send_safely)
            return
        received = 0

        async def receive_some() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.limits.bytes:  # of a body without a length
                raise self._too_large()
            return message

        await self.app(scope, receive_some, send_safely)

    def _why_foreign(self, method: str, headers: Headers) -> Problem | None:
        host = headers.get("host", "")
        if not self._is_ours(host):
            return Problem("foreign", f"this server does not answer to the Host {host[:100]!r}; trichrome serve "
                                      "--allow-host NAME lets it")  # fmt: skip
        origin = headers.get("origin")
        if origin is not None and _netloc(origin) != host.lower():
            return Problem("foreign", f"a page of {origin[:100]} may not use this server")
        # Requests without an Origin: pictures and scripts of other pages. A link to the page is none of these.
        navigates = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not navigates:
            return Problem("foreign", "a page of another site may not use this server")
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self.names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.addresses

    def _why_too_large(self, headers: Headers) -> Problem | None:
        length = headers.get("content-length", "0")
        if not length.isdigit():
            return Problem("bad_request", "Content-Length must be a number of bytes")
        return self._too_large() if int(length) > self.limits.bytes else None

    def _too_large(self) -> Problem:
        return Problem("too_large", f"a request may have {self.limits.megabytes} megabytes; send fewer or smaller "
                                    "files")  # fmt: skip


def _netloc(origin: str) -> str:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return ""
    return parts.netloc.lower() if parts.scheme in ("http", "https") else ""
