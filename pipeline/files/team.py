"""Several processes at work in one output folder: the command that has its lock gives jobs to its children.

Each worker is the same command with the same options, so that it reads them the same way. A worker that dies takes no
photo with it: those it had are given to another, which knows from the manifest what the dead one has begun.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from argparse import Namespace
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from pipeline.files.broken import OutputLost
from pipeline.files.records import Job
from pipeline.files.worker import line_of

__all__ = ["AHEAD", "TRIES", "Team", "WorkerError", "team_for"]

COMMAND = [sys.executable, "-m", "pipeline.cli"]
AHEAD = {"cuda": 18, "cpu": 3, "mps": 3}  # photos that a worker has at a time: two groups on a card, and two on the way
TRIES = 3  # of a photo whose worker dies
_POLL = 0.2  # seconds between looks at whether to stop


def team_for(options: Namespace, device: str) -> Team | None:
    """The workers that the options of the command ask for on a device of this type; None: one process is enough.

    Raises ValueError for more threads than a processor has cores: they would wait for each other most of the time.
    """
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count, threads = options.workers, options.threads or cores
    if count is None:
        count = {"cuda": torch.cuda.device_count(), "cpu": max(1, cores // threads)}.get(device, 1)
    if device == "cpu" and count > 1 and count * threads > cores:
        fit = f"--threads {cores // count}" if count <= cores else f"at most --workers {cores}"
        raise ValueError(f"{count} workers of {threads} threads each are more than the {cores} cores there are, and "
                         f"several times slower; give {fit}")
    return None if count == 1 else Team(count, options.arguments, AHEAD[device])


class WorkerError(RuntimeError):
    """Workers that can not work; the message is a sentence."""


@dataclass
class _Worker:
    process: subprocess.Popen[str]
    ready: bool = False
    given: dict[tuple[str, int | None], Job] = field(default_factory=dict)
    own: deque[Job] = field(default_factory=deque)  # those of a dead worker that it has replaced
    told_end: bool = False

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line)
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # its end is read from its answers


class Team:
    """`count` workers. arguments: of the command, from "colorize" on; ahead: photos given to a worker at a time

    say: gets each line that a worker says
    """

    def __init__(self, count: int, arguments: Sequence[str], ahead: int) -> None:
        self.count, self.arguments, self.ahead = count, list(arguments), ahead
        self.died = self._unready = 0
        self._workers: list[_Worker] = []
        self._answers: SimpleQueue[tuple[_Worker, str | None]] = SimpleQueue()

    def color(
        self, jobs: Sequence[Job], weights: Mapping[str, str], lock: int, stop: Callable[[], bool],
        say: Callable[[str], None],
    ) -> Iterator[tuple[Job, Mapping[str, Any]]]:  # fmt: skip
        """Yields each job with the record of what became of it (`Outcome.record`), until all are done or `stop()`.

        weights: what every worker must have loaded; lock: the handle of the folder's, which workers hold too
        Raises OutputLost, and WorkerError where workers can not start.
        """
        waiting, tries = deque(jobs), Counter[tuple[str, int | None]]()
        stopping = False
        try:
            for number in range(min(self.count, len(jobs))):
                self._start(number, lock)
            while any(worker.given or worker.own for worker in self._workers) or (waiting and not stopping):
                if not stopping and stop():
                    stopping = True
                    for worker in self._workers:
                        worker.tell('{"stop": true}\n')
                if not stopping:
                    self._give(waiting)
                try:
                    worker, line = self._answers.get(timeout=_POLL)
                except Empty:
                    continue
                if line is None:
                    yield from self._lost(worker, tries, lock, stopping, say)
                    continue
                yield from self._heard(worker, json.loads(line), weights, tries, say)
        finally:
            self._end()

    def _start(self, number: int, lock: int) -> _Worker:
        command = [*COMMAND, *self.arguments, "--as-worker", str(number)]
        # In a group of their own: Ctrl-C is for the command, which tells them.
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0,
            pass_fds=() if sys.platform == "win32" else (lock,),
        )  # fmt: skip
        worker = _Worker(process)
        self._workers.append(worker)
        threading.Thread(target=self._listen, args=(worker,), daemon=True).start()
        return worker

    def _listen(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        for line in worker.process.stdout:
            if not line.endswith("\n"):
                break  # cut off by its death
            self._answers.put((worker, line))
        self._answers.put((worker, None))

    def _give(self, waiting: deque[Job]) -> None:
        """In turn, so that no worker has many while another has none."""
        some = True
        while some:
            some = False
            for worker in self._workers:
                source = worker.own or waiting
                if worker.ready and not worker.told_end and source and len(worker.given) < self.ahead:
                    job = source.popleft()
                    worker.given[_key(job)] = job
                    worker.tell(line_of(job))
                    some = True
        for worker in self._workers:
            if not waiting and not worker.own and not worker.told_end:
                worker.told_end = True
                worker.tell('{"end": true}\n')

    def _heard(
        self, worker: _Worker, answer: Mapping[str, Any], weights: Mapping[str, str],
        tries: Counter[tuple[str, int | None]], say: Callable[[str], None],
    ) -> Iterator[tuple[Job, Mapping[str, Any]]]:  # fmt: skip
        if "lost" in answer:
            raise OutputLost(answer["lost"])
        if "ready" in answer:
            if answer["ready"] != weights:
                raise WorkerError("a worker has loaded other weights than the command: they changed meanwhile")
            worker.ready = True
        elif "said" in answer:
            say(answer["said"])
        else:
            outcome = answer["outcome"]
            job = worker.given.pop((outcome["input"], outcome.get("page")))
            if tries[_key(job)] and outcome["status"] == "skipped":  # finished by the worker that died
                outcome = {**outcome, "status": "colored"}
            yield job, outcome

    def _lost(
        self, worker: _Worker, tries: Counter[tuple[str, int | None]], lock: int, stopping: bool,
        say: Callable[[str], None],
    ) -> Iterator[tuple[Job, Mapping[str, Any]]]:  # fmt: skip
        """A worker has ended: its photos go to a new one, but for those that were given TRIES times."""
        number, code = self._workers.index(worker), worker.process.wait()
        left = [*worker.given.values(), *worker.own]
        self._unready = 0 if worker.ready else self._unready + 1
        if not worker.ready and (code >= 0 or self._unready == TRIES) and not stopping:
            raise WorkerError(f"a worker could not start: exit code {code}; its words are above")
        if stopping or (worker.ready and not left):
            worker.given.clear()
            worker.own.clear()
            return
        self.died += 1
        say(f"a worker ended with exit code {code}; its photos are given to another")
        again = []
        for job in left:
            tries[_key(job)] += job in worker.given.values()
            if tries[_key(job)] < TRIES:
                again.append(job)
                continue
            reason = (f"its worker ended {TRIES} times with it at hand, the last time with exit code {code}; -9 is "
                      "what the system does when memory runs out")  # fmt: skip
            say(f"{job.source}: {reason}")
            yield job, {"status": "failed", "outputs": [], "notes": [], "reason": reason}
        fresh = self._start(number, lock)
        self._workers.remove(fresh)
        self._workers[number] = fresh
        fresh.own.extend(again)

    def _end(self) -> None:
        """Every worker ends after the photo at hand; one that does not is killed."""
        for worker in self._workers:
            assert worker.process.stdin is not None
            try:
                worker.process.stdin.close()
            except BrokenPipeError:
                pass
        for worker in self._workers:
            worker.process.wait()


def _key(job: Job) -> tuple[str, int | None]:
    return str(job.source), job.page
