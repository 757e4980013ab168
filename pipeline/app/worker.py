"""One job after the other: the model is one, and a job takes all processors that there are."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.requests import Request

from pipeline.app.limits import Limits
from pipeline.app.problems import Problem

__all__ = ["Cancelled", "Job", "Worker"]

Result = TypeVar("Result")


class Cancelled(BaseException):
    """Ends a job that nobody waits for any more; no Exception, so that no photo is reported as failed by it."""


@dataclass(eq=False)
class Job:
    """One piece of work. done, total: how far it is, in its own units; a total of 0 where that is not known."""

    work: Callable[[Job], Any]
    future: Future[Any] = field(default_factory=Future)
    done: int = 0
    total: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raises Cancelled where nobody waits for the job any more."""
        if self.stopped.is_set():
            raise Cancelled

    def step(self, *_: object) -> None:
        """The pipeline's `callback_on_step_end`: where a job can be left."""
        self.check()

    def advance(self, done: int, total: int) -> None:
        self.check()
        self.done, self.total = done, total


class Worker:
    """A thread with a queue of `limits.queue` places."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._running: Job | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="trichrome-worker", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return len(self._jobs)

    def ahead_of(self, job: Job) -> int:
        """How many jobs come before this one: 0 for the one that runs."""
        with self._changed:
            place = self._jobs.index(job) + 1 if job in self._jobs else 0
            return place if self._running is not None or place == 0 else place - 1

    def check_free(self) -> None:
        """Raises Problem("busy") where the queue is full."""
        if self.waiting >= self.limits.queue:
            raise Problem("busy", f"{self.waiting} jobs are waiting, as many as this server takes; try again in a few "
                                  "seconds", {"Retry-After": "2"})  # fmt: skip

    def submit(self, work: Callable[[Job], Any]) -> Job:
        with self._changed:
            self.check_free()
            job = Job(work)
            self._jobs.append(job)
            self._changed.notify()
            return job

    def cancel(self, job: Job) -> None:
        """Gives the place of a waiting job free at once; a running one ends at its next step."""
        job.stopped.set()
        with self._changed, suppress(ValueError):
            self._jobs.remove(job)
            job.future.cancel()

    def close(self) -> None:
        with self._changed:
            self._ended = True
            for job in self._jobs:
                job.future.cancel()
            self._jobs.clear()
            if self._running is not None:
                self._running.stopped.set()
            self._changed.notify()
        self._thread.join()

    async def answer(
        self, request: Request, work: Callable[[Job], Result], *, seconds: float | None = None,
        started: Callable[[Job], object] = lambda job: None,
    ) -> Result:  # fmt: skip
        """What `work` returns. The job ends where the client hangs up, or has waited for `seconds`.

        started: told of the job. Raises Problem: busy, timeout or cancelled; and whatever the work raises.
        """
        job = self.submit(work)
        started(job)
        result = asyncio.ensure_future(asyncio.wrap_future(job.future))
        gone = asyncio.ensure_future(_hung_up(request.receive))
        seconds = self.limits.seconds if seconds is None else seconds
        try:
            await asyncio.wait({result, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if result.done() and not result.cancelled():
                return result.result()
            if gone.done() or result.cancelled():
                raise Problem("cancelled", "the client has hung up, or the server ends")
            raise Problem("timeout", f"no answer within {seconds:g} seconds; try fewer or smaller pictures")
        finally:
            self.cancel(job)
            gone.cancel()
            result.cancel()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._running = None
                self._changed.wait_for(lambda: self._jobs or self._ended)
                if self._ended:
                    return
                job = self._running = self._jobs.popleft()
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                job.check()
                job.future.set_result(job.work(job))
            except BaseException as error:  # also Cancelled: it is the job's end, not the thread's
                job.future.set_exception(error)
            del job  # and with it the pictures that its work holds


async def _hung_up(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
