"""The commands `trichrome app` and `trichrome serve`: the web page and the HTTP API of this machine."""

from __future__ import annotations

import argparse
import importlib.util
import socket
import sys
import webbrowser
from functools import partial
from typing import Any

from pipeline.arguments import add_networks, from_one, placement
from pipeline.colorize import run_colorize
from pipeline.files.report import misuse

# torch and FastAPI take seconds to import: nothing up here may load them.

__all__ = ["add_command"]

NEEDED = {"fastapi": "FastAPI", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}
LOCAL, PORT = "127.0.0.1", 8000


def add_command(commands: Any) -> None:  # Any: argparse does not name its type
    """Adds `app` and `serve` to the subcommands of `trichrome`."""
    app = commands.add_parser(
        "app", help="color photographs on a web page of your own",
        description="Opens a web page that colors photographs. It answers to this machine alone.",
    )  # fmt: skip
    app.add_argument("--port", type=int, metavar="N", help=f"default {PORT}, or a free one where that is taken")
    app.add_argument("--no-browser", action="store_true", help="only say where the page is")
    app.set_defaults(host=LOCAL, no_page=False, allow_host=[])
    serve = commands.add_parser(
        "serve", help="the web page and the HTTP API, also for other machines",
        description="Serves the web page at / and the HTTP API at /v1, which /docs describes. Without --host it "
                    "answers to this machine alone. It knows no passwords: put it behind something that does.",
    )  # fmt: skip
    serve.add_argument("--host", default=LOCAL, help="address to listen at, 0.0.0.0 for all (default %(default)s)")
    serve.add_argument("--port", type=int, default=PORT, metavar="N", help="default %(default)s")
    serve.add_argument("--no-page", action="store_true", help="the API alone")
    serve.add_argument("--allow-host", action="append", default=[], metavar="NAME",
                       help="a name under which clients reach this machine (repeatable)")  # fmt: skip
    serve.set_defaults(no_browser=True)
    for name, parser in (("app", app), ("serve", serve)):
        add = parser.add_argument
        add("--max-megapixels", type=from_one, default=100, metavar="N", help="of one picture (default %(default)s)")
        add("--max-megabytes", type=from_one, default=200, metavar="N", help="of one request (default %(default)s)")
        add("--queue", type=from_one, default=16, metavar="N", help="requests that may wait (default %(default)s)")
        add_networks(parser)
        parser.set_defaults(run=partial(_serve, name))


def _serve(command: str, options: argparse.Namespace) -> int:
    if missing := [name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None]:
        return misuse(command, f"it needs {', '.join(missing)}: pip install 'trichrome[app]'")
    try:
        listener = _listener(options.host, options.port)
    except (OSError, OverflowError) as error:  # a port out of range is an OverflowError
        reason = getattr(error, "strerror", None) or error
        place = f"{options.host}, port {options.port}"
        return misuse(command, f"it can not listen at {place}: {reason}; choose another --port")

    from pipeline.app.limits import Limits
    from pipeline.app.server import create_app, run
    from pipeline.color_pipeline import ColorPipeline

    with listener:
        try:
            pipe = ColorPipeline.from_pretrained(options.weights).to(*placement(options.device, options.dtype))
        except (ValueError, OSError) as error:
            return misuse(command, error)
        host, port = listener.getsockname()[:2]
        address = f"http://{_shown(host)}:{port}/"
        limits = Limits(megapixels=options.max_megapixels, megabytes=options.max_megabytes, queue=options.queue)
        others = host != LOCAL and host != "::1"
        app = create_app(pipe, run_colorize, limits, page=not options.no_page, names=tuple(options.allow_host),
                         addresses=others)  # fmt: skip

        def started() -> None:
            print(f"Trichrome is at {address}{'docs' if options.no_page else ''} (Ctrl-C ends it)", flush=True)
            if others:
                print("note: other machines can reach it, and it knows no passwords", file=sys.stderr, flush=True)
            if not options.no_browser:
                webbrowser.open(address)

        run(app, listener, started)
    return 0


def _listener(host: str, port: int | None) -> socket.socket:
    """Listens, at any free port where none is given and the usual one is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, PORT if port is None else port), family=family)
    except OSError:
        if port is not None:
            raise
        return socket.create_server((host, 0), family=family)


def _shown(host: str) -> str:
    if host in ("0.0.0.0", "::"):
        return LOCAL
    return f"[{host}]" if ":" in host else host
