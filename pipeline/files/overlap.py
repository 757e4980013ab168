"""Reading ahead and writing behind: what a run does beside the networks, in threads, within bounds.

    Ahead: items are read in one thread, in their order ─> the caller ─> Behind: the steps of each photo, in their order

The networks stay in the caller's thread, and nothing of torch runs in the others: a second team of OpenMP threads would
make the first one sleep between its tasks, which costs the networks two thirds of their speed on two cores.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from queue import Empty, SimpleQueue
from typing import Any, Generic, Self, TypeVar

from pipeline.files.broken import OutputLost

__all__ = ["Ahead", "Behind", "Budget", "Chain"]

Item = TypeVar("Item")
Result = TypeVar("Result")
Name = TypeVar("Name")


class Budget:
    """How much may be in memory: so many photos, and pixels up to a limit that the last one read may exceed."""

    def __init__(self, photos: int, pixels: int) -> None:
        self._limits, self._held = (photos, pixels), (0, 0)
        self._changed, self._closed = threading.Condition(), False

    def wait(self) -> bool:
        """Until there is room for one more; False once it is closed."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or all(held < limit for held, limit in zip(self._held, self._limits, strict=True))
            )
            return not self._closed

    def take(self, pixels: int) -> None:
        self._change(1, pixels)

    def give(self, pixels: int) -> None:
        self._change(-1, -pixels)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _change(self, photos: int, pixels: int) -> None:
        with self._changed:
            self._held = self._held[0] + photos, self._held[1] + pixels
            self._changed.notify_all()


class Ahead(Generic[Item, Result]):
    """Yields (item, what `read` made of it, or the exception that it raised), made in a thread while there is room.

    size: pixels of a result. Whoever takes a result gives them, and its place, back to the budget.
    """

    _END: Any = object()

    def __init__(
        self, items: Iterable[Item], read: Callable[[Item], Result], budget: Budget, size: Callable[[Result], int]
    ) -> None:
        self._items, self._read, self._budget, self._size = items, read, budget, size
        self._ready: SimpleQueue[tuple[Item, Result | BaseException] | None] = SimpleQueue()
        self._waits = False  # for the next item
        self._thread = threading.Thread(target=self._work, name="reads ahead", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.close()
        while self._thread.is_alive() and not self._waits:  # for an item that may never come; it ends with the process
            self._thread.join(0.05)

    def __iter__(self) -> Iterator[tuple[Item, Result | BaseException]]:
        while (ready := self._ready.get()) is not None:
            yield ready

    def _work(self) -> None:
        try:
            items = iter(self._items)
            while True:
                self._waits = True
                item = next(items, self._END)
                self._waits = False
                if item is self._END or not self._budget.wait():
                    break
                try:
                    result: Result | BaseException = self._read(item)
                except BaseException as error:  # the caller's thread decides about it
                    result = error
                self._budget.take(0 if isinstance(result, BaseException) else self._size(result))
                self._ready.put((item, result))
        finally:
            self._ready.put(None)


class Behind(Generic[Name]):
    """Runs chains of steps in `threads` threads; a step waits for the one before it in its own chain alone.

    At most `threads` + 1 steps are held: `Chain.add` waits for room. Once the output folder is lost, or a step was
    interrupted, no further step is run, and `ended` raises.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, "writes behind")
        self._room = threading.Semaphore(threads + 1)
        self._ended: SimpleQueue[tuple[Name, Exception | None]] = SimpleQueue()
        self._lost: tuple[Name, BaseException] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Waits for all that was added."""
        self._pool.shutdown()

    def ended(self) -> Iterator[tuple[Name, Exception | None]]:
        """The chains that have ended since, each with the error that ended it. Raises what ends the whole run."""
        while True:
            try:
                name, error = self._ended.get_nowait()
            except Empty:
                break
            if self._lost is None or self._lost[0] is not name:
                yield name, error
        if self._lost is not None:
            name, lost = self._lost
            if isinstance(lost, OutputLost):
                yield name, lost
            raise lost


class Chain(Generic[Name]):
    """The steps of one photo, in order; after one that fails the others are left out.

    name: what `Behind.ended` calls it; free: called at its end, whatever the end
    """

    def __init__(self, behind: Behind[Name], name: Name, free: Callable[[], None]) -> None:
        self._behind, self._name, self._free = behind, name, free
        self._last: Future[None] | None = None
        self._error: Exception | None = None

    def add(self, step: Callable[[], None]) -> None:
        self._behind._room.acquire()
        try:
            self._last = self._behind._pool.submit(self._run, step, self._last)
        except BaseException:
            self._behind._room.release()
            raise

    def end(self, error: Exception | None = None) -> None:
        """No step follows. error: what the caller itself ends it with."""
        self._behind._pool.submit(self._close, self._last, error)

    def _run(self, step: Callable[[], None], before: Future[None] | None) -> None:
        try:
            _after(before)
            if self._error is None and self._behind._lost is None:
                step()
        except BaseException as error:
            if isinstance(error, Exception):
                self._error = error
            if isinstance(error, OutputLost) or not isinstance(error, Exception):
                self._behind._lost = self._name, error
        finally:
            del step  # and the picture that it holds
            self._behind._room.release()

    def _close(self, before: Future[None] | None, error: Exception | None) -> None:
        _after(before)
        self._free()
        if self._behind._lost is None:
            self._behind._ended.put((self._name, self._error or error))


def _after(before: Future[None] | None) -> None:
    """A step is in the pool's queue behind the one it waits for, which so has a thread already."""
    if before is not None:
        wait([before])
