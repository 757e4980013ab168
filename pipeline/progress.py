"""A progress bar of sampling: `pipe(photo, callback_on_step_end=StepBar())`.

For stages that draw pixel after pixel, or processors that take their time. One line per stage, one more for every four
candidates of stage 1, which are drawn together.
"""

from __future__ import annotations

import sys
from typing import Any, TextIO

from tqdm import tqdm


class StepBar:
    """Counts the steps of each stage.

    file: where the bars are drawn, stderr by default; leave: whether a finished bar stays there
    """

    def __init__(self, file: TextIO | None = None, *, leave: bool = True) -> None:
        self.file, self.leave = file, leave
        self.bar: tqdm | None = None

    def __call__(self, pipe: object, step: int, sigma: float, tensors: dict[str, Any]) -> None:
        name = tensors["stage"]
        if step == 0 or self.bar is None:
            self.close()
            file, total = self.file or sys.stderr, tensors["steps"]
            self.bar = tqdm(desc=name, total=total, unit="step", file=file, leave=self.leave)
        self.bar.update(step + 1 - self.bar.n)

    def close(self) -> None:
        """Ends the last bar; a program that goes on to print wants that."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
