"""The folder of a run under way: what is finished of a video, so that a run that was killed goes on from there.

    .NAME.trichrome/
        key.json                      what decides the output: of another run nothing is taken
        survey.json                   times and scenes
        000000048-000000095.nut       a finished segment, or an empty file for frames that are written already
        000000096.npz                 colors of the key frame with which the next segment begins inside a scene
        keys-000000000/               key frames of a scene that has hints

It goes when the output has its name; of a folder of frames `finished.json` stays, the key of what made them.
Files get their names when all of them is on the disk.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from pipeline.files.lock import LOCK, locked
from pipeline.video.carrying import Colors
from pipeline.video.coloring import Draw, Start

__all__ = ["Work", "work_folder"]

_FINISHED = "finished.json"
_SEGMENT = re.compile(r"(\d{9})-(\d{9})\.\w+")


def work_folder(output: Path) -> Path:
    """Beside a file, inside a folder."""
    return output / ".trichrome-video" if output.is_dir() else output.with_name(f".{output.name}.trichrome")


class Work:
    """suffix: of segments"""

    def __init__(self, folder: Path, suffix: str) -> None:
        self.folder, self.suffix = folder, suffix
        self.under_way = folder / f"current{suffix}"

    @contextmanager
    def opened(self, key: dict[str, Any], say: Callable[[str], None]) -> Iterator[None]:
        """For one command at a time; what an earlier run has left of the same key is kept, all else goes.

        Raises Locked.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder, say):
            if self.read("key.json") != key:
                if (self.folder / "key.json").exists():
                    say(f"{self.folder}: begun with other settings, or of another input; begins anew")
                self._clear({LOCK})
                self.write("key.json", key)
            yield

    def end(self, key: dict[str, Any] | None) -> None:
        """All is finished. key: stays, for `is_finished`; None: nothing stays"""
        if key is None:
            shutil.rmtree(self.folder)
            return
        self.write(_FINISHED, key)
        self._clear({_FINISHED})

    def is_finished(self, key: dict[str, Any]) -> bool:
        return self.read(_FINISHED) == key

    def read(self, name: str) -> Any:
        """What `write` has left under this name; None where there is nothing."""
        try:
            return json.loads((self.folder / name).read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def write(self, name: str, value: Any) -> None:
        self._replace(name, lambda file: file.write(json.dumps(value).encode()))

    def segments(self) -> list[tuple[range, Path]]:
        """Finished ones, without a gap from the first frame on."""
        by_first = {}
        for path in self.folder.iterdir():
            if match := _SEGMENT.fullmatch(path.name):
                by_first[int(match[1])] = range(int(match[1]), int(match[2]) + 1), path
        chain, number = [], 0
        while number in by_first:
            chain.append(by_first[number])
            number = chain[-1][0].stop
        return chain

    def finish(self, frames: range, start: Start | None) -> None:
        """The segment under way is of these frames. start: of the next one, where it is of the same scene"""
        if start is not None:
            self._replace(f"{frames.stop:09d}.npz", lambda file: np.savez(
                file, chroma=start.colors.chroma.numpy(), origin=start.colors.origin.numpy(),
                candidate=start.draw.candidate, noise_key=start.draw.noise_key))  # fmt: skip
        with open(self.under_way, "ab") as file:
            os.fsync(file.fileno())
        os.replace(self.under_way, self.folder / f"{frames.start:09d}-{frames.stop - 1:09d}{self.suffix}")
        (self.folder / f"{frames.start:09d}.npz").unlink(missing_ok=True)

    def start(self, number: int) -> Start:
        """Of the frame of this number, with which the first unfinished segment begins."""
        with np.load(self.folder / f"{number:09d}.npz", allow_pickle=False) as saved:
            colors = Colors(torch.from_numpy(saved["chroma"]), torch.from_numpy(saved["origin"]))
            return Start(colors, Draw(str(saved["noise_key"]), int(saved["candidate"])))

    def _replace(self, name: str, write: Callable[[BinaryIO], object]) -> None:
        fresh = self.folder / f"{name}.fresh"
        with open(fresh, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self.folder / name)

    def _clear(self, but: Set[str]) -> None:
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in but:
                path.unlink()
