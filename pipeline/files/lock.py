"""One command at a time in an output folder: `.trichrome.lock`, locked by the operating system.

The lock ends with its process, however that ends: a file left behind holds nobody up.
"""

from __future__ import annotations

import errno
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK = ".trichrome.lock"


class Locked(Exception):
    """Another command works in the output folder; the message is a sentence."""


@contextmanager
def locked(out: Path, say: Callable[[str], None]) -> Iterator[int]:
    """The folder for the block; gives the handle of its lock: a child that inherits it holds the folder too.

    Raises Locked while another process has it.
    say: is told where the file system knows no locks, and the folder is used without
    """
    path = out / LOCK
    handle = _open(path)
    try:
        if not _try(handle, out, say):
            owner = os.read(handle, 200).decode(errors="replace").strip() or "of unknown number"
            raise Locked(f"{out} is in use by another trichrome ({owner}); wait for it, or choose another folder")
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {platform.node()}\n".encode())
        try:
            yield handle
        finally:
            with suppress(OSError):  # the folder may be gone; elsewhere an open file can not be removed
                path.unlink()
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    """A handle of the lock file that is there: its last owner may be removing it at this moment."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        os.close(handle)


def _try(handle: int, out: Path, say: Callable[[str], None]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
            return False
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            raise
        say(f"{out}: its file system has no locks; do not start a second command for this folder")
    return True
