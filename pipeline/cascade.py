"""The networks of one call: photographs in, small colored pictures out.

    gray64, gray128 ─> stage 1: encode ─> draws ─> order ─> coarse64 ─> stage 2: rgb64 ─┐
    gray256 ──────────────────────────────────────────────────> stage 3: rgb256 <───────┘

Noise belongs to (seed, noise key, candidate), and the networks always see batches of one fixed size, filled up with
copies, so a photo gets the same bytes alone, in a batch, and in another order (on one machine, number of threads and
dtype).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from pipeline.full_resolution import sharpened, strengthened
from pipeline.images import Photo
from pipeline.known_colors import Guide, KnownColors, Told, joined
from pipeline.leaning import Leaning, matches_of
from pipeline.open_photo import Once, cache_of
from pipeline.output import ImageInfo, SmallPhoto, SmallPicture, Suggestion
from pipeline.request import Request
from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, gray_from_rgb
from stages.faces import CoarseColorizer, ColorUpsampler, Draws, Encoding, GrayView, StepCallback, SuperResolver
from stages.hints.suggestions import suggestions
from stages.options import SampleOptions
from stages.precision import checked_finite
from stages.seeds import NoiseSource
from stages.stage1_coarse.candidates import spread_order
from stages.stage1_coarse.uncertainty import GRAY_SHARE, expected_error

__all__ = ["CANDIDATES", "UNCERTAINTY_DRAWS", "UNCERTAINTY_SIDE", "Cascade", "uncertainty_map"]

CANDIDATES = 4  # of stage 1 in one call without hints: candidate k always sits at place k mod 4
DRAWS_PER_PICTURE = 3  # where several pictures are asked for: see `spread_order`
UNCERTAINTY_DRAWS, UNCERTAINTY_SIDE = 32, 256

StageCallback = Callable[[str], StepCallback | None]
"""The callback of a stage, by its name."""


@dataclass(frozen=True)
class _Seen:
    """Photos as stage 1 sees them, and where draws of this are kept. told: of which it has been told hints."""

    encoding: Encoding
    once: Once
    told: Sequence[bool]


@dataclass(frozen=True)
class Cascade:
    """Three stages on one device.

    size: photos per call of the networks; dtype: of their insides, through autocast
    sharpness: of the edges of color, where a request does not say it
    """

    coarse: CoarseColorizer
    color: ColorUpsampler
    superres: SuperResolver
    device: torch.device
    dtype: torch.dtype
    size: int
    sharpness: float

    @torch.no_grad()
    def run(
        self, photos: Sequence[Photo], noise: Sequence[NoiseSource], guides: Sequence[Guide], request: Request,
        callback: StageCallback,
    ) -> list[SmallPhoto]:  # fmt: skip
        """What the networks say of each of at most `size` photos. Raises RuntimeError where colors are not finite."""
        sources = [*noise, *[noise[-1]] * (self.size - len(noise))]
        cache = cache_of(photos)
        with self._autocast():
            encoding = cache.within(self)("encoding", lambda: self._encoding(photos))
            known, matches = self._known(encoding, photos, guides), matches_of(self.coarse, encoding, guides)
            lean = Leaning(request.palette, matches)
            seen = _Seen(encoding, cache.within(self, *sources, None), [False] * self.size)
            told = self._told(encoding, known, matches)
            if told is None:
                hinted = seen
            else:
                encoding = self.coarse.with_hints(encoding, told.hints, told.reach)
                hints = told.hints.cpu()
                once = cache.within(self, *sources, hints.numpy().tobytes())
                hinted = _Seen(encoding, once, hints[:, 0].flatten(1).any(1).tolist())
            pictures = (
                self._previews(encoding, noise, known, lean) if request.preview
                else self._colored(seen, hinted, photos, sources, known, lean, request, callback)
            )  # fmt: skip
            if request.uncertainty:
                # As the model has learned them, where it can be asked for that.
                temperature = 1.0 if "temperature" in self.coarse.honors else None
                options = SampleOptions(steps=request.options.steps, temperature=temperature)
                candidates = range(UNCERTAINTY_DRAWS)
                draws = self._draws(hinted, sources, candidates, options, "uncertainty", None).chroma
                of = torch.arange(len(draws)).repeat_interleave(draws.shape[1])
                draws = lean.of_chroma(draws.flatten(0, 1), of).unflatten(0, draws.shape[:2])
        if not request.uncertainty:
            return [SmallPhoto(one) for one in pictures]
        answers = []
        for place, (photo, chroma, one) in enumerate(zip(photos, draws, pictures, strict=False)):
            picture = one[0].rgb[None].to(self.device)
            likely = chroma if known is None else known.draws_obeyed(place, chroma, picture)
            finished = strengthened(gray_from_rgb(picture), picture, request.strength)
            asked = self._suggestions(encoding, place, photo, picture, likely, known)
            answers.append(SmallPhoto(one, uncertainty_map(photo, likely, finished)[0], asked))
        return answers

    @torch.no_grad()
    def draws(self, photo: Photo, noise: NoiseSource) -> tuple[Tensor, Draws]:
        """gray64 of a photo, (1, 1, 64, 64), and the draws that four pictures of it are chosen from."""
        sources, cache = [noise] * self.size, cache_of([photo])
        with self._autocast():
            encoding = cache.within(self)("encoding", lambda: self._encoding([photo]))
            seen = _Seen(encoding, cache.within(self, *sources, None), [False] * self.size)
            draws = self._draws(seen, sources, range(DRAWS_PER_PICTURE * CANDIDATES), SampleOptions(), "stage1", None)
        return encoding.gray64[:1].float().cpu(), draws

    @torch.no_grad()
    def put_right(self, photo: Photo, rgb256: Tensor, guide: Guide) -> Tensor:
        """A picture of a photo at its luma after what the guide knows of places, whoever made it: (3, 256, 256)."""
        with self._autocast():
            known = self._known(self._encoding([photo]), [photo], [guide])
        if known is None:
            return rgb256
        return known.obeyed(rgb256[None].to(self.device), self._gray256([photo])[:1], torch.zeros(1).long())[0].cpu()

    def _suggestions(
        self, encoding: Encoding, photo: int, of: Photo, picture: Tensor, draws: Tensor, known: KnownColors | None
    ) -> list[Suggestion]:
        """Where a hint would tell most of a picture (1, 3, h, w). photo: its place in the encoding; draws: chroma."""
        row, features = slice(photo, photo + 1), self.coarse.features(encoding)
        return suggestions(
            encoding.gray64[row].cpu(), resize(chroma_from_rgb(picture), (64, 64)).cpu(), draws.cpu(),
            None if features is None else features[row].float().cpu(), None if known is None else known.at64[row].cpu(),
            (of.gray.shape[1], of.gray.shape[0]), GRAY_SHARE,
        )  # fmt: skip

    def _encoding(self, photos: Sequence[Photo]) -> Encoding:
        view = GrayView.cat([GrayView.of(torch.from_numpy(photo.gray)[None, None]) for photo in photos])
        view = GrayView(_padded(view.gray64, self.size), _padded(view.gray128, self.size)).to(self.device)
        return self.coarse.encode(view)

    def _gray256(self, photos: Sequence[Photo]) -> Tensor:
        return _padded(torch.cat([_small_gray(photo, 256) for photo in photos]), self.size).to(self.device)

    def _known(
        self, encoding: Encoding, photos: Sequence[Photo], guides: Sequence[Guide]
    ) -> KnownColors | None:
        """What is known of the photos, filled up to `size`; None where there is nothing."""
        if not any(guide.knows for guide in guides):
            return None
        at32, at64 = (
            _padded(KnownColors.rasterized(photos, guides, side), self.size).to(self.device) for side in (32, 64)
        )
        alike = any(guide.alike for guide in guides)
        return KnownColors(at32, at64, encoding.gray64, self.coarse.features(encoding), alike)

    def _told(self, encoding: Encoding, known: KnownColors | None, matches: Tensor | None) -> Told | None:
        """None where there is nothing to tell, or the weights have learned no hints."""
        hints = _told(known, matches)
        if hints is None or not self.coarse.takes_hints:
            return None
        return Told.of(hints, encoding.gray64, self.coarse.preview(encoding), self.coarse.features(encoding))

    def _previews(
        self, encoding: Encoding, noise: Sequence[NoiseSource], known: KnownColors | None, lean: Leaning
    ) -> list[list[SmallPicture]]:
        rgb64 = checked_finite(self.coarse.preview(encoding), "the colors of stage1").float()
        every = torch.arange(len(rgb64))
        rgb64 = lean.of_rgb(rgb64, encoding.gray64, every)
        if known is not None:
            rgb64 = known.obeyed(rgb64, encoding.gray64, every)
        rgb64 = rgb64.cpu()
        return [
            [SmallPicture(rgb, ImageInfo(place, None, None, source.key))]
            for place, (rgb, source) in enumerate(zip(rgb64, noise, strict=False))
        ]

    def _draws(
        self, seen: _Seen, noise: Sequence[NoiseSource], candidates: range, options: SampleOptions, purpose: str,
        callback: StepCallback | None, at_once: int = CANDIDATES,
    ) -> Draws:  # fmt: skip
        """At least these draws of each photo, in calls of `at_once`; the first of them is a multiple of that."""

        def drawn(first: int) -> Draws:
            streams = [one.generator(k, purpose) for one in noise for k in range(first, first + at_once)]
            draws = self.coarse.sample(seen.encoding, at_once, options, streams, callback)
            checked_finite(draws.chroma, "the colors of stage1")
            return draws

        firsts = candidates[::at_once]
        return Draws.cat([seen.once((purpose, first, at_once, options), partial(drawn, first)) for first in firsts])

    def _colored(
        self, seen: _Seen, hinted: _Seen, photos: Sequence[Photo], noise: Sequence[NoiseSource],
        known: KnownColors | None, lean: Leaning, request: Request, callback: StageCallback,
    ) -> list[list[SmallPicture]]:  # fmt: skip
        options, gray64 = request.options, seen.encoding.gray64
        pool = self.coarse.pool if options.pool is None else options.pool
        ordered = request.candidate is None and (pool > 1 or request.rank_with is not None)
        several = ordered and request.rank_with is None and request.num_samples > 1
        count = max(DRAWS_PER_PICTURE * request.num_samples if several else request.num_samples, pool)
        asked = replace(options, pool=None, superres_steps=None, sharpness=None)
        step, scores = callback("stage1"), None
        fours: dict[int, Tensor] = {}  # by the first candidate of a call
        if request.candidate is not None:
            chosen = torch.tensor([[request.candidate]]).expand(self.size, -1)
        elif not ordered:
            chosen = torch.arange(count).expand(self.size, -1)
        else:
            # The most central draws are those without hints: else all of a picture might change by one hint.
            of = seen if request.rank_with is None else hinted
            draws = self._draws(of, noise, range(count), asked, "stage1", step)
            chosen, scores = self._order(gray64, draws.coarse64[:, :count], pool, request)
            if of is seen:
                fours = dict(zip(range(0, count, CANDIDATES), draws.coarse64.split(CANDIDATES, 1), strict=True))

        # One row for each picture asked for; full calls of `size` rows, the last one padded.
        rows = [(b, int(k)) for b in range(len(photos)) for k in chosen[b, : request.num_samples]]
        for first in sorted({_first(k) for photo, k in rows if not hinted.told[photo]} - fours.keys()):
            call = range(first, first + CANDIDATES)
            fours[first] = self._draws(seen, noise, call, asked, "stage1", step).coarse64
        single: dict[int, Tensor] = {}  # with hints: a new hint asks for one picture, and a person waits for it
        for k in sorted({k for photo, k in rows if hinted.told[photo]}):
            single[k] = self._draws(hinted, noise, range(k, k + 1), asked, "stage1", step, at_once=1).coarse64[:, 0]
        gray256 = cache_of(photos).within(self)("gray256", lambda: self._gray256(photos))
        sharpness = self.sharpness if options.sharpness is None else options.sharpness
        pictures: list[list[SmallPicture]] = [[] for _ in photos]
        for wanted in _chunks(rows, self.size):
            padded = [*wanted, *[wanted[-1]] * (self.size - len(wanted))]
            b = torch.tensor([photo for photo, _ in padded], device=self.device)
            coarse64 = torch.stack([
                single[k][photo] if hinted.told[photo] else fours[_first(k)][photo, k % CANDIDATES]
                for photo, k in padded
            ])
            rgb64 = hinted.once(("rgb64", asked, *padded), partial(self._upsampled, gray64[b], coarse64))
            rgb64 = lean.of_rgb(rgb64, gray64[b], b)
            if known is not None:
                rgb64 = known.obeyed(rgb64, gray64[b], b.cpu())
            streams = [noise[photo].generator(candidate, "stage3") for photo, candidate in padded]
            only = SampleOptions(superres_steps=options.superres_steps)
            rgb256 = self.superres.sample(gray256[b], rgb64, only, streams, callback("stage3"))
            rgb256 = checked_finite(rgb256, "the colors of stage3").float()
            rgb256 = sharpened(gray256[b], rgb256, sharpness)
            if known is not None:
                rgb256 = known.obeyed(rgb256, gray256[b], b.cpu())
            rgb256 = rgb256.cpu()
            for (photo, candidate), rgb in zip(wanted, rgb256, strict=False):
                score = None if scores is None else scores[photo, candidate].item()
                source = noise[photo]
                info = ImageInfo(photo, candidate, source.seed, source.key, score=score)
                pictures[photo].append(SmallPicture(rgb, info))
        return pictures

    def _upsampled(self, gray64: Tensor, coarse64: Tensor) -> Tensor:
        return checked_finite(self.color.upsample(gray64, coarse64), "the colors of stage2").float()

    def _order(self, gray64: Tensor, coarse: Tensor, pool: int, request: Request) -> tuple[Tensor, Tensor | None]:
        """Candidates from the first to the last, and their scores where they are ranked by them; (B, N) on the CPU."""
        if request.rank_with is None:
            return spread_order(gray64, coarse, pool), None
        scores = torch.stack([request.rank_with.score(gray64, one).float() for one in coarse.unbind(1)], dim=1).cpu()
        checked_finite(scores, "the scores of the model that ranks")
        return scores.argsort(dim=1, descending=True, stable=True), scores

    def _autocast(self) -> AbstractContextManager[None]:
        enabled = self.dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self.dtype if enabled else None, enabled=enabled)


def uncertainty_map(photo: Photo, draws: Tensor, pictures: Tensor) -> Tensor:
    """How wrong pictures of a photo are to be expected, see `expected_error`, (K, 256, 256) on the CPU.

    draws: chroma (N, 2, h, w); pictures: (K, 3, h', w') in [0, 1], on the same device
    """
    gray = _small_gray(photo, UNCERTAINTY_SIDE)[0].to(draws.device)
    return expected_error(gray, draws, chroma_from_rgb(pictures)).cpu()


def _told(known: KnownColors | None, matches: Tensor | None) -> Tensor | None:
    """What stage 1 is told, (B, 3, 32, 32): what is known of places counts before what a reference says of them."""
    if known is None or matches is None:
        return matches if known is None else known.at32
    return joined(known.at32, matches)


def _first(candidate: int) -> int:
    """Of the candidates that are drawn with this one."""
    return candidate // CANDIDATES * CANDIDATES


def _small_gray(photo: Photo, side: int) -> Tensor:
    """(1, 1, side, side) on the CPU, whatever the photo's aspect."""
    return resize(torch.from_numpy(photo.gray)[None, None], (side, side))


def _padded(x: Tensor, size: int) -> Tensor:
    """x with its last row repeated up to `size` rows."""
    return torch.cat([x, x[-1:].expand(size - len(x), *x.shape[1:])]) if len(x) < size else x


def _chunks(rows: list[tuple[int, int]], size: int) -> Iterator[list[tuple[int, int]]]:
    for first in range(0, len(rows), size):
        yield rows[first : first + size]
