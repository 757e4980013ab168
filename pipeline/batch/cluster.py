"""Actors of Ray Data: each keeps a pipeline and takes one unit of work after another.

An actor that ends is started again by Ray and gets its unit once more; what it has written counts, see `journal` and
the manifest of folders.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Self

from pipeline.batch.scratch import sweep
from pipeline.batch.units import Unit
from pipeline.batch.work import Task, Work
from pipeline.files.team import WorkerError

__all__ = ["Cluster"]

_POLL = 0.2  # seconds between looks at whether to stop
_ENDING = 2  # seconds that actors may take to end
_OBJECTS = 150_000_000  # bytes of a local Ray's shared memory: what passes between processes is a line for each photo


class Cluster:
    """A Ray of this machine, or the one at `address`, for a block.

    actors: None: as many as there is room for; threads: of each, which are its CPUs; gpus: of each, may be a fraction
    Raises WorkerError where there is no such cluster, or no room in it.
    """

    def __init__(self, address: str | None, actors: int | None, threads: int, gpus: float | None) -> None:
        self.address, self.actors, self.threads, self.gpus = address, actors, threads, gpus

    def __enter__(self) -> Self:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # what it prints of actors on stdout; its logs have it
        import ray

        local: dict[str, Any] = {"include_dashboard": False, "object_store_memory": _OBJECTS}
        handler = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address=self.address or "local", logging_level=logging.ERROR, log_to_driver=False,
                     **({} if self.address else local))  # fmt: skip
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = f"at {self.address}" if self.address else "on this machine"
            raise WorkerError(f"Ray can not be used {where}: {' '.join(str(error).split())}") from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray has put its own there
        try:
            self._make_room(ray.cluster_resources())
        except BaseException:
            ray.shutdown()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        ray.shutdown()
        limit = time.monotonic() + _ENDING
        while sweep() and time.monotonic() < limit:  # of actors that are ended with it
            time.sleep(_POLL)

    def _make_room(self, has: dict[str, float]) -> None:
        gpus = self.gpus if self.gpus is not None else float(has.get("GPU", 0) >= 1)
        rooms = [int(has.get("CPU", 0) // self.threads)] + ([int(has.get("GPU", 0) / gpus + 1e-6)] if gpus else [])
        if min(rooms) < (self.actors or 1):
            raise WorkerError(f"no room for {self.actors or 1} actors, each of {self.threads} CPUs and {gpus:g} GPUs: "
                              f"there are {has.get('CPU', 0):g} CPUs and {has.get('GPU', 0):g} GPUs; give fewer "
                              "--actors, --threads or --gpus-per-actor")  # fmt: skip
        self.count, self.each = self.actors or min(rooms), gpus

    def answers(self, task: Task, units: Sequence[str], tries: int, stop: Callable[[], bool]) -> Iterator[str]:
        """See `pipeline.batch.run.Pool`."""
        heard: SimpleQueue[str | BaseException | None] = SimpleQueue()

        def listen() -> None:
            try:
                for row in self._rows(task, units, tries):
                    heard.put(row["answer"])
                heard.put(None)
            except BaseException as error:
                heard.put(error)

        threading.Thread(target=listen, name="hears of actors", daemon=True).start()
        while not stop():
            try:
                answer = heard.get(timeout=_POLL)
            except Empty:
                continue
            if answer is None:
                return
            if isinstance(answer, BaseException):
                raise WorkerError(f"Ray has given up: {' '.join(str(answer).split())[:500]}") from answer
            yield answer

    def _rows(self, task: Task, units: Sequence[str], tries: int) -> Iterator[dict[str, Any]]:
        import ray.data

        for handler in logging.getLogger("ray.data").handlers:
            if isinstance(handler, logging.StreamHandler):  # its file keeps all of it
                handler.setLevel(logging.CRITICAL)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.max_errored_blocks = -1  # a unit whose actor died too often has no answer, and the others go on
        dataset = ray.data.from_items([{"unit": unit} for unit in units], override_num_blocks=len(units))
        answered = dataset.map_batches(
            _Actor, batch_size=1, fn_constructor_args=(task,), num_cpus=self.threads, num_gpus=self.each,
            # One at a time: those that wait at an actor would be lost with it, for no fault of theirs.
            compute=ray.data.ActorPoolStrategy(size=min(self.count, len(units)), max_tasks_in_flight_per_actor=1),
            max_restarts=-1, max_task_retries=tries - 1,
        )  # fmt: skip
        yield from answered.iter_rows()


class _Actor:
    """As Ray Data wants it: called with a batch of units."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.work: Work | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"answer": [self._answer(unit) for unit in batch["unit"]]}

    def _answer(self, line: str) -> str:
        unit, again = Unit.of(line), False
        if self.work is None:  # not when the actor is made, or Ray would try forever
            import ray

            again = ray.get_runtime_context().was_current_actor_reconstructed
            try:
                self.work = Work(self.task)
            except (WorkerError, ValueError, OSError) as error:
                return json.dumps({"misfit": f"an actor can not work: {error}"})
        return json.dumps({"unit": unit.name, "again": again, **self.work(unit)})
