"""Files that grow beside the pictures of a run: its report, its sheet. One that fails is given up, not the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pipeline.files.report import Outcome

__all__ = ["Beside", "BesideFile"]


class BesideFile(Protocol):
    path: Path

    def each(self, outcome: Outcome) -> None:
        """Takes in what became of a photo. Raises OSError."""

    def close(self) -> None:
        """Ends it. Raises OSError."""

    def give_up(self) -> None:
        """Ends one that has failed, and raises nothing."""


class Beside:
    """say: gets a sentence for each file that fails; `lost`: whether one did"""

    def __init__(self, say: Callable[[str], None], *files: BesideFile | None) -> None:
        self.say, self.files, self.lost = say, [one for one in files if one is not None], False

    def each(self, outcome: Outcome) -> None:
        for file in list(self.files):
            self._try(file, lambda file: file.each(outcome))

    def close(self) -> None:
        while self.files:
            file = self.files[0]
            if self._try(file, lambda file: file.close()):
                self.files.remove(file)

    def _try(self, file: BesideFile, do: Callable[[BesideFile], None]) -> bool:
        try:
            do(file)
        except OSError as error:
            self.lost = True
            self.files.remove(file)
            file.give_up()
            self.say(f"{file.path} could not be written: {error.strerror or error}; photos are colored without it")
            return False
        return True
