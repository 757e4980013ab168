"""What ends a run at once: an output folder that is gone, read-only, or on a full disk."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

from pipeline.files.records import Report

FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENODEV, errno.ESTALE}


class OutputLost(Exception):
    """The output folder can not be written to; the message is a sentence that names it.

    report: how far the run came
    """

    report = Report()

    @classmethod
    def of(cls, out: Path, reason: str) -> OutputLost:
        return cls(f"the output folder {out} can not be written to: {reason}")


def check_output(out: Path) -> None:
    """Raises OutputLost where not even an empty file can be made in `out`."""
    if reason := _why_unusable(out):
        raise OutputLost.of(out, reason)


def check_still_there(out: Path, error: Exception) -> None:
    """After a failed write: raises OutputLost where the fault is the folder's and not one picture's."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in FATAL:
            raise OutputLost.of(out, cause.strerror or str(cause)) from error
        # libvips gives only the words of the system's errors.
        if reason := next((os.strerror(number) for number in FATAL if os.strerror(number) in str(cause)), None):
            raise OutputLost.of(out, reason) from error
        cause = cause.__cause__
    if reason := _why_unusable(out):
        raise OutputLost.of(out, reason) from error


def _why_unusable(out: Path) -> str | None:
    probe = out / f".probe.png.{secrets.token_hex(4)}.part"  # of the kind that the next run removes
    try:
        if not out.is_dir():
            return "it is not there any more"
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        probe.unlink()
    except OSError as error:
        return error.strerror or str(error)
    return None
