"""The command `trichrome`: its subcommands, each in a module of its own."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from pipeline import colorize, info, serve, translate
from pipeline.batch import command as batch
from pipeline.export import command as export
from pipeline.files.interruptions import GOES_ON, SIGNALS
from pipeline.video import command as video

# torch takes more than a second to import: nothing up here may load it.

__all__ = ["command", "main"]


def command() -> NoReturn:
    """The process `trichrome`: `main`, and its exit code.

    Python takes a while to end with torch in it. Once the work is done no signal makes that look like a failure.
    """
    code = main()
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the arguments `argv` (by default those of the process); returns the exit code."""
    parser = _parser()
    try:
        options = parser.parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    options.arguments = sys.argv[1:] if argv is None else argv
    if options.run is None:  # no command was named
        parser.print_help(sys.stderr)
        return 2
    try:
        return options.run(options)
    except KeyboardInterrupt:  # before the first photo: then `Interruptions` watches
        print(GOES_ON, file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="trichrome", description="Colors black-and-white photographs.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="")
    for command in (colorize, batch, translate, video, info, export, serve):
        command.add_command(commands)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser, *_: object) -> None:
        from importlib.metadata import version

        print(f"trichrome {version('trichrome')}")
        parser.exit()


if __name__ == "__main__":
    command()
