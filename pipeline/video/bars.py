"""Progress of a video on stderr, with the time that is left: a bar for each thing that is done."""

from __future__ import annotations

import sys

from pipeline.files.terminal import Lines

__all__ = ["Bars"]


class Bars(Lines):
    """Bars, one after the other."""

    def __init__(self, show: bool) -> None:
        super().__init__(show)
        self.what = ""

    def update(self, what: str, done: int, total: int | None) -> None:
        if not self.show:
            return
        if what != self.what:
            from tqdm import tqdm

            self.close()
            self.what = what
            self.bar = tqdm(desc=what, total=total, initial=done, unit="frame", file=sys.stderr, dynamic_ncols=True)
        self.bar.update(done - self.bar.n)
