"""The colors of a scene: those of its key frames by the cascade, those between them along the flow.

One draw makes a scene: the noise key is that of its first frame, and the candidate the one chosen there. A key frame
takes the colors of the one before where the flow holds; the cascade is told of them as colors to keep, and so finds
those of what has come into view.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

from torch import Tensor

from pipeline.images import Photo
from pipeline.kept import Kept
from pipeline.known_colors import Guide
from pipeline.request import Request
from pipeline.sources import noise_sources
from pipeline.video.carrying import Colors, carried, continued, known, mixed
from pipeline.video.flow import Flow, Link
from pipeline.video.intervals import Frame, intervals
from stages.color.spaces import chroma_from_rgb, merge
from stages.seeds import NoiseSource

if TYPE_CHECKING:
    from pipeline.color_pipeline import ColorPipeline

__all__ = ["Colored", "Draw", "KeyColoring", "Start", "color_scene"]


@dataclass(frozen=True)
class Draw:
    """Whose noise a scene is made of, and which candidate it is."""

    noise_key: str
    candidate: int


@dataclass(frozen=True, eq=False)
class Start:
    """All that the frames after a key frame need to know."""

    colors: Colors
    draw: Draw


@dataclass(frozen=True, eq=False)
class Colored:
    """A frame and its chroma, (2, 256, 256); start: of a key frame, where a run can go on."""

    frame: Frame
    chroma: Tensor
    start: Start | None = None

    @property
    def rgb256(self) -> Tensor:
        """(3, 256, 256) in [0, 1], at the luma of the frame."""
        return merge(self.frame.gray256, self.chroma)


class KeyColoring:
    """The cascade on key frames.

    request: of one picture for each frame, see `pipeline.request`; reference: a picture in color, of all frames
    """

    def __init__(self, pipe: ColorPipeline, request: Request, seed: int, reference: Photo | None = None) -> None:
        self.pipe, self.request, self.seed, self.reference = pipe, request, seed, reference

    def begun(self, frame: Frame) -> Start:
        """The first key frame of a scene."""
        photo = frame.photo()
        (noise,) = noise_sources([photo], [self.seed], [None])
        guide = Guide(reference=self.reference)
        picture = self.pipe.small_photos([photo], [noise], self.request, [guide])[0].pictures[0]
        assert picture.info.candidate is not None  # a preview, which has none, is refused
        colors = Colors(chroma_from_rgb(picture.rgb), frame.gray256)
        return Start(colors, Draw(noise.key, picture.info.candidate))

    def continued(self, frame: Frame, before: Start, link: Link) -> Start:
        """A key frame whose link leads to the key frame before it."""
        told = carried(before.colors, link)
        trust = known(frame.gray256, told, link)
        options = replace(self.request.options, pool=None)
        request = replace(self.request, options=options, candidate=before.draw.candidate)
        kept = _kept(frame.gray256, told.chroma, trust)
        guide = Guide(kept=kept, reference=self.reference, alike=True)
        noise = NoiseSource(self.seed, before.draw.noise_key)
        small = self.pipe.small_photos([frame.photo()], [noise], request, [guide])[0]
        fresh = chroma_from_rgb(small.pictures[0].rgb)
        return replace(before, colors=continued(frame.gray256, told, trust, fresh))

    def told(self, gray256: Tensor, chroma: Tensor, colors: Tensor, trust: Tensor) -> Tensor:
        """The chroma of a key frame, (2, 256, 256), where `colors` hold as far as `trust` says, and, by likeness, in
        what is like these places.
        """
        photo = Photo(gray256[0].numpy(), 8)
        guide = Guide(kept=_kept(gray256, colors, trust), alike=True)
        rgb = self.pipe.put_right(photo, merge(gray256, chroma), guide)
        return chroma_from_rgb(rgb).lerp(colors, trust)


def color_scene(
    frames: Iterable[Frame], coloring: KeyColoring, flow: Flow, start: Start | None = None,
    keys: Mapping[int, Start] | None = None, wanted: Collection[int] = (),
) -> Iterator[Colored]:  # fmt: skip
    """Each frame of a scene, in order, or of its rest from a key frame on.

    start: of that key frame; None: the scene begins
    keys: what is known of all its key frames already, by number; wanted: frames that shall be key frames
    """
    frames = iter(frames)
    first = next(frames)
    if keys is not None:
        before = keys[first.number]
    else:
        before = coloring.begun(first) if start is None else start
    yield Colored(first, before.colors.chroma, before)
    for interval in intervals(chain([first], frames), flow, wanted):
        last, link = interval.frames[-1], interval.back[-1]
        assert link is not None
        after = coloring.continued(last, before, link) if keys is None else keys[last.number]
        between = zip(interval.frames, interval.back, interval.on, strict=True)
        for number, (frame, back, on) in enumerate(between):
            if back is not None and on is not None:
                share = number / (len(interval.frames) - 1)
                yield Colored(frame, mixed(before.colors, back, after.colors, on, share))
        yield Colored(last, after.colors.chroma, after)
        before = after


def _kept(gray256: Tensor, chroma: Tensor, trust: Tensor) -> Kept:
    return Kept(trust[0].numpy(), merge(gray256, chroma).permute(1, 2, 0).numpy())
