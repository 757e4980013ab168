"""The queue: one after the other, full at its limit, and a client that has gone leaves its place."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.requests import Request

from pipeline.app.limits import Limits
from pipeline.app.problems import Problem
from pipeline.app.worker import Cancelled, Job, Worker


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker(Limits(queue=2, seconds=30))
    worker.submit(lambda job: None).future.result(5)  # the thread is there
    yield worker
    worker.close()


class Blocked:
    """Work that goes on until it is let go, or its job is cancelled."""

    def __init__(self) -> None:
        self.begun, self.free, self.ended = threading.Event(), threading.Event(), threading.Event()

    def __call__(self, job: Job) -> str:
        self.begun.set()
        try:
            while not self.free.wait(0.005):
                job.step()
            return "done"
        finally:
            self.ended.set()


def request_that(receive: Callable[[], Any]) -> Request:
    return Request({"type": "http", "headers": []}, receive)


async def waiting_forever() -> dict[str, str]:
    await asyncio.Event().wait()
    raise AssertionError


def test_jobs_run_one_after_the_other_in_their_order(worker):
    order: list[int] = []
    first = worker.submit(blocked := Blocked())
    assert blocked.begun.wait(5)
    jobs = [worker.submit(lambda job, k=k: order.append(k)) for k in range(2)]
    assert [worker.ahead_of(job) for job in (first, *jobs)] == [0, 1, 2]
    blocked.free.set()
    for job in jobs:
        job.future.result(5)
    assert order == [0, 1]


def test_a_full_queue_says_busy_and_a_cancelled_job_leaves_its_place(worker):
    worker.submit(blocked := Blocked())
    assert blocked.begun.wait(5)
    waiting = [worker.submit(lambda job: None) for _ in range(2)]
    with pytest.raises(Problem, match="2 jobs are waiting") as busy:
        worker.submit(lambda job: None)
    assert (busy.value.status, busy.value.headers) == (429, {"Retry-After": "2"})
    worker.cancel(waiting[0])
    assert worker.waiting == 1
    again = worker.submit(lambda job: None)
    blocked.free.set()
    again.future.result(5)
    assert waiting[0].future.cancelled()


def test_a_client_that_hangs_up_ends_its_job(worker):
    blocked = Blocked()

    async def hang_up() -> dict[str, str]:
        while not blocked.begun.is_set():
            await asyncio.sleep(0.005)
        return {"type": "http.disconnect"}

    with pytest.raises(Problem) as problem:
        asyncio.run(worker.answer(request_that(hang_up), blocked))
    assert problem.value.code == "cancelled" and blocked.ended.wait(5)
    assert worker.submit(lambda job: "next").future.result(5) == "next"


def test_what_takes_too_long_is_a_timeout(worker):
    blocked = Blocked()
    with pytest.raises(Problem, match="no answer within 0.05 seconds") as problem:
        asyncio.run(worker.answer(request_that(waiting_forever), blocked, seconds=0.05))
    assert problem.value.code == "timeout" and blocked.ended.wait(5)


def test_results_and_errors_reach_who_asked(worker):
    assert asyncio.run(worker.answer(request_that(waiting_forever), lambda job: 7)) == 7
    with pytest.raises(ZeroDivisionError):
        asyncio.run(worker.answer(request_that(waiting_forever), lambda job: 1 / 0))


def test_a_job_that_ends_by_cancelling_does_not_end_the_worker(worker):
    def work(job: Job) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        worker.submit(work).future.result(5)
    assert worker.submit(lambda job: "alive").future.result(5) == "alive"


def test_closing_ends_what_runs_and_what_waits():
    worker = Worker(Limits())
    worker.submit(blocked := Blocked())
    assert blocked.begun.wait(5)
    waiting = worker.submit(lambda job: None)
    worker.close()
    assert blocked.ended.is_set() and waiting.future.cancelled()
