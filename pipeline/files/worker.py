"""A worker: a process that colors photos for the command that has started it.

It reads a line of JSON for each photo, {"job": …}, then {"end": true}, and answers in lines of JSON: {"ready": …} with
the fingerprint of its weights, {"said": …}, {"outcome": …} for each photo, {"lost": …} where the output folder is. On
{"stop": true}, and where its command is gone, it ends after the photo at hand.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING, Any

from pipeline.files.broken import OutputLost
from pipeline.files.coloring import Coloring
from pipeline.files.guidance import Guidance
from pipeline.files.manifest import Manifest
from pipeline.files.records import Job, Settings
from pipeline.files.report import Outcome
from pipeline.files.telling import Listeners, Telling

if TYPE_CHECKING:
    from pipeline.color_pipeline import ColorPipeline
    from stages.faces import Scores

__all__ = ["job_from", "line_of", "serve"]

_PR_SET_PDEATHSIG = 1


def line_of(job: Job) -> str:
    """The line that asks for a photo."""
    names = {name: None if (path := getattr(job, name)) is None else str(path) for name in ("uncertainty", "overlay")}
    asked = {"source": str(job.source), "pictures": [str(path) for path in job.pictures], "page": job.page, **names}
    return json.dumps({"job": asked}) + "\n"


def job_from(asked: dict[str, Any]) -> Job:
    """The job of `line_of`."""
    uncertainty, overlay = (None if asked[name] is None else Path(asked[name]) for name in ("uncertainty", "overlay"))
    return Job(Path(asked["source"]), tuple(map(Path, asked["pictures"])), uncertainty, overlay, asked["page"])


def serve(
    pipe: ColorPipeline, out: Path, settings: Settings, overwrite: bool, rank_with: Scores | None, guidance: Guidance
) -> int:
    """Colors what stdin asks for; returns the exit code."""
    _end_with_parent()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer

    def answer(kind: str, content: object) -> None:
        print(json.dumps({kind: content}), file=answers, flush=True)

    def each(outcome: Outcome) -> None:
        answer("outcome", json.loads(outcome.record()))

    asked = _Asked(sys.stdin)
    listeners = Listeners(say=lambda line: answer("said", line), each=each, stop=asked.stopped.is_set)
    coloring = Coloring(pipe, out, settings, overwrite, rank_with, guidance, Telling(out, listeners))
    coloring.manifest = Manifest(out)
    answer("ready", coloring.maker.weights())
    try:
        coloring.color(asked)
    except OutputLost as lost:
        answer("lost", str(lost))
        os._exit(1)  # its thread waits for stdin, which an ordinary end would wait for
    return 0


class _Asked:
    """The jobs that a file asks for, read in a thread, so that a word to stop is heard at once."""

    def __init__(self, file: IO[str]) -> None:
        self.stopped = threading.Event()
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        threading.Thread(target=self._read, args=(file,), daemon=True).start()

    def __iter__(self) -> Iterator[Job]:
        while (job := self._jobs.get()) is not None:
            yield job

    def _read(self, file: IO[str]) -> None:
        for line in file:
            message = json.loads(line)
            if "job" not in message:
                if "stop" in message:
                    self.stopped.set()
                self._jobs.put(None)
                return
            self._jobs.put(job_from(message["job"]))
        self.stopped.set()  # the command is gone
        self._jobs.put(None)


def _end_with_parent() -> None:
    """Linux ends this process with its command, however that ends; elsewhere the end of stdin does, after a photo."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
