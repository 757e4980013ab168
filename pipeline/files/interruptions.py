"""SIGINT and SIGTERM: the first stops after the photo at hand, the second at once.

Nothing is raised: an exception from a signal handler may come up in a callback of a C library, which swallows it
(pyvips has one, and most of the time of a write is spent there). The number of a signal goes through a socket to a
thread instead, which runs even while C code has the main thread.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

GOES_ON = "interrupted; the same command goes on where this one stopped"
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruptions:
    """Watches for the block, in the main thread only; elsewhere signals are left to the program.

    say: gets a sentence at the first signal; when: it stops, in that sentence
    signal: the number of the first signal, None before it
    """

    def __init__(
        self, say: Callable[[str], None] = lambda line: None, when: str = "after the photo at hand"
    ) -> None:
        self.say, self.when = say, when
        self.signal: int | None = None
        self._previous: dict[signal.Signals, Any] = {}  # Any: as the signal module gives it

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.signal is not None

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        self._previous = {number: signal.signal(number, _ignore) for number in SIGNALS}
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._previous:
            return
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._write.close()  # ends the watcher
        self._watcher.join()
        self._read.close()

    def _watch(self) -> None:
        while number := self._read.recv(1):
            if number[0] not in SIGNALS:
                continue
            if self.signal is not None:
                os._exit(128 + number[0])  # a half-written file keeps its name .….part; the next run removes it
            self.signal = number[0]
            self.say(f"interrupted: stops {self.when}; once more stops at once")


def _ignore(number: int, frame: FrameType | None) -> None:
    """The thread does the work: a handler must be there, or the default action is taken."""
