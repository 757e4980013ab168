"""Hints for single frames, and how they reach all frames of their scene.

A scene with hints is colored key frame by key frame first. Then each correction changes the key frame that it is for,
and the change goes from key frame to key frame along the flow, to both ends of the scene: where the flow holds, the
change is added; elsewhere what is like the changed places follows by likeness. What lies between key frames is made of
these afterwards, as in any scene.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.files.guidance import Guidance
from pipeline.known_colors import Guide
from pipeline.video.carrying import Colors
from pipeline.video.coloring import Draw, KeyColoring, Start
from pipeline.video.flow import Flow, Link, sampled
from pipeline.video.intervals import Frame, intervals
from stages.color.spaces import chroma_from_rgb, merge

__all__ = ["Keys", "color_keys", "guide_of"]

INDEX = "index.json"
UNSEEN = 1 / 512  # of chroma: a change that is nowhere larger is carried no further


class Keys(Mapping[int, Start]):
    """Key frames of a scene in a folder: a scene of minutes has hundreds, of three megabytes each.

    complete: whether `close` has been called, now or by an earlier run
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.numbers: list[int] = []
        self.draw: Draw | None = None
        self.complete = (folder / INDEX).exists()
        if self.complete:
            index = json.loads((folder / INDEX).read_bytes())
            self.numbers, self.draw = index["numbers"], Draw(**index["draw"])

    def close(self) -> None:
        """All of them are there, corrected: from now on they are taken from the folder."""
        assert self.draw is not None
        fresh = self.folder / f"{INDEX}.fresh"
        fresh.write_text(json.dumps({"numbers": self.numbers, "draw": asdict(self.draw)}))
        fresh.replace(self.folder / INDEX)
        self.complete = True

    def add(self, number: int, start: Start, gray256: Tensor, back: Link | None, on: Link | None) -> None:
        """The next one. back: how it hangs on the one before; on: how that one hangs on it"""
        self.numbers.append(number)
        self.draw = start.draw
        self.put(number, start.colors)
        planes: dict[str, Any] = {"gray": gray256.numpy()}
        for name, link in (("back", back), ("on", on)):
            if link is not None:
                planes[name] = torch.cat([link.displacement, link.trust]).numpy()
        np.savez(self.folder / f"{number}-frame.npz", **planes)

    def put(self, number: int, colors: Colors) -> None:
        np.savez(self.folder / f"{number}.npz", chroma=colors.chroma.numpy(), origin=colors.origin.numpy())

    def gray256(self, number: int) -> Tensor:
        return self._plane(number, "gray")

    def link(self, number: int, other: int) -> Link:
        """How a key frame hangs on the one before or after it."""
        planes = self._plane(number, "back") if other < number else self._plane(other, "on")
        return Link(planes[:2], planes[2:])

    def __getitem__(self, number: int) -> Start:
        assert self.draw is not None
        with np.load(self.folder / f"{number}.npz", allow_pickle=False) as planes:
            colors = Colors(torch.from_numpy(planes["chroma"]), torch.from_numpy(planes["origin"]))
        return Start(colors, self.draw)

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def _plane(self, number: int, name: str) -> Tensor:
        with np.load(self.folder / f"{number}-frame.npz", allow_pickle=False) as planes:
            return torch.from_numpy(planes[name])


def guide_of(path: Path, frame: Frame) -> Guide:
    """A hints file, or a picture of strokes, for a frame. Raises ValueError, OSError for one that does not fit it."""
    return Guidance(hints=path).guide(path, frame.photo(), pages=False)[0]


def color_keys(
    frames: Iterable[Frame], coloring: KeyColoring, flow: Flow, hints: Mapping[int, Path], keys: Keys
) -> Iterator[Frame]:
    """Fills `keys` with the key frames of a whole scene after its corrections; gives its frames as they pass.

    hints: files by the number of their frame, which is of this scene
    """
    frames = iter(frames)
    first = next(frames)
    before = coloring.begun(first)
    guides: dict[int, tuple[Frame, Guide]] = {}

    def met(frame: Frame) -> Frame:
        if frame.number in hints:
            guides[frame.number] = frame, guide_of(hints[frame.number], frame)
        return frame

    keys.add(met(first).number, before, first.gray256, None, None)
    yield first
    for interval in intervals(chain([first], map(met, frames)), flow, hints.keys()):
        last, link = interval.frames[-1], interval.back[-1]
        assert link is not None
        before = coloring.continued(last, before, link)
        keys.add(last.number, before, last.gray256, link, interval.on[0])
        yield from interval.frames[1:]
    for number, (frame, guide) in sorted(guides.items()):
        correct(keys, number, frame, guide, coloring)
    keys.close()


def correct(keys: Keys, number: int, frame: Frame, guide: Guide, coloring: KeyColoring) -> None:
    """One correction, carried to both ends of the scene."""
    old = keys[number].colors
    rgb = coloring.pipe.put_right(frame.photo(), merge(frame.gray256, old.chroma), guide)
    chroma = chroma_from_rgb(rgb)
    keys.put(number, Colors(chroma, old.origin))
    place = keys.numbers.index(number)
    for way in (keys.numbers[place:], keys.numbers[place::-1]):
        _carry(keys, way, chroma - old.chroma, coloring)


def _carry(keys: Keys, way: Sequence[int], change: Tensor, coloring: KeyColoring) -> None:
    """A change of the first key frame of the way goes to the others."""
    for here, there in pairwise(way):
        if change.abs().max() < UNSEEN:
            return
        link, old = keys.link(there, here), keys[there].colors
        told = old.chroma + sampled(change, link.displacement)
        chroma = coloring.told(keys.gray256(there), old.chroma, told, link.trust)
        keys.put(there, Colors(chroma, old.origin))
        change = chroma - old.chroma
