"""The cascade in one call: a photograph of any size in, colored pictures of the same size out.

    photo ─> gray (H, W) ─┬─ gray64, gray128, gray256 ─> the networks (cascade.py) ─> rgb256
                          └─ merge (full_resolution.py): chroma of rgb256 and the photo's own gray ─> rgb (H, W)

Nothing that changes a picture is state of the pipeline but its stages and where they run: calls from several threads
do not know of each other.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.cascade import Cascade
from pipeline.folder import digest_of, load_stages, save_stages
from pipeline.full_resolution import FullSize, full_size_rgb, full_size_uncertainty, is_out_of_memory
from pipeline.guides import HintsSource, guide_for, one_per_photo, reference_from
from pipeline.images import Photo, save_photo
from pipeline.images.write import written_as
from pipeline.kept import Kept
from pipeline.known_colors import Guide
from pipeline.output import ColorPipelineOutput, ImageInfo, SmallPhoto, SmallPicture, Suggestion
from pipeline.placement import why_not
from pipeline.provenance.maker import Maker, shown_as
from pipeline.provenance.record import with_record
from pipeline.reduced import reduced
from pipeline.request import OutputType, Request, StepCallback, reranker
from pipeline.sources import (
    NoiseKey,
    Seed,
    Source,
    listed,
    noise_keys_from,
    noise_sources,
    photo_from,
    seeds_from,
)
from stages.faces import CoarseColorizer, ColorUpsampler, Scores, SuperResolver
from stages.faces import StepCallback as StageStep
from stages.hints.hints import RADIUS_SHARE, Hints, Point
from stages.hints.palette import palette_chroma
from stages.hints.suggestions import colors_at
from stages.options import OptionError, SampleOptions
from stages.seeds import NoiseSource
from stages.stage import Stage

__all__ = ["ColorPipeline"]

RENAMED = {"doubt": "uncertainty", "vividness": "chroma_gain"}


class ColorPipeline:
    """Three trained stages and what joins them. Make one with `from_pretrained`.

    sharpness: of the edges of color where a call does not say it; stored with the weights
    """

    def __init__(
        self, coarse: CoarseColorizer, color: ColorUpsampler, superres: SuperResolver, sharpness: float = 0.0
    ) -> None:
        self.coarse, self.color, self.superres = coarse, color, superres
        SampleOptions(sharpness=sharpness)  # raises where it is out of range
        self.sharpness = float(sharpness)
        for stage in self.stages.values():
            stage.eval().requires_grad_(False)
        self.device, self.dtype, self.batch_size = torch.device("cpu"), torch.float32, 1
        self.to(self.device)

    @property
    def stages(self) -> dict[str, Stage]:
        """By the names of their folders."""
        return {"stage1": self.coarse, "stage2": self.color, "stage3": self.superres}

    # files

    @classmethod
    def from_pretrained(cls, source: str | Path | None = None, *, revision: str | None = None) -> Self:
        """The pipeline stored in a folder, on the hub, or (None) inside this package.

        source: a folder with model_index.json, stage1/, stage2/, stage3/, or a hub id "owner/name"
        revision: branch, tag or commit of a hub id
        Raises CheckpointError when anything is missing, changed, of an unknown format, or a pickle.
        """
        return cls(*load_stages(source, revision))

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write the pipeline to `folder`: all of it or nothing. Replaces a pipeline that is there, nothing else.

        dtype: of the stored weights; by default as they are
        """
        save_stages(Path(folder), self.stages, self.sharpness, dtype)

    def fingerprint(self, rank_with: Scores | None = None) -> dict[str, str]:
        """SHA-256 of the weights in use and of their settings, per stage (names, shapes and values, not files), and
        the sharpness; rank_with: what draws are put in order by, too.
        """
        fingerprints = {"sharpness": str(self.sharpness)}
        named = self.stages
        if isinstance(rank_with, Stage):
            named["rank_with"] = rank_with
        elif rank_with is not None:
            raise OptionError(f"what ranks must be a stage, whose weights can be told apart; got {rank_with!r}")
        return fingerprints | {name: digest_of(stage) for name, stage in named.items()}

    def maker(self, request: Request) -> Maker:
        """What makes the records of the pictures that the pipeline, as it is now, colors for this request."""
        run: dict[str, Any] = {"device": self.device.type, "dtype": str(self.dtype).removeprefix("torch.")}
        if self.device.type == "cpu":
            run["threads"] = torch.get_num_threads()
        return Maker(request, cache(partial(self.fingerprint, request.rank_with)), run)

    # where and how it runs

    def to(self, device: str | torch.device | torch.dtype | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move to a device, choose the precision of the networks, or both; returns the pipeline.

        dtype: float32, or bfloat16 / float16 (through autocast) where the hardware has them; else a
        ValueError with the reason. Luma and merge are float32 always.
        """
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        new_device = self.device if device is None else torch.device(device)
        new_dtype = self.dtype if dtype is None else dtype
        if reason := why_not(new_device, new_dtype):
            raise ValueError(f"{new_device} with {str(new_dtype).removeprefix('torch.')}: {reason}")
        for stage in self.stages.values():
            stage.to(new_device)
        self.device, self.dtype = new_device, new_dtype
        # Photos per call of the networks. On a CPU one at a time is as fast as several.
        self.batch_size = 8 if new_device.type == "cuda" else 1
        return self

    # coloring

    def __call__(
        self,
        gray: Source | Sequence[Source],
        num_samples: int = 1,
        num_inference_steps: int | tuple[int | None, int | None] | None = None,
        generator: Seed | Sequence[Seed] = None,
        preview: bool = False,
        pool: int | None = None,
        output_type: OutputType = "pil",
        callback_on_step_end: StepCallback | None = None,
        uncertainty: bool = False,
        temperature: float | None = None,
        *,
        chroma_gain: float | None = None,
        sharpness: float | None = None,
        noise_key: NoiseKey | Sequence[NoiseKey] = None,
        rank_with: Scores | None = None,
        hints: HintsSource | Sequence[HintsSource] = None,
        palette: Sequence[str | Sequence[int]] | None = None,
        reference: Source | Sequence[Source | None] | None = None,
        keep: Source | Sequence[Source | None] | None = None,
        strength: float = 1.0,
        candidate: int | None = None,
        max_side: int | None = None,
        **unknown: object,
    ) -> ColorPipelineOutput:
        """Color one photo or several.

        gray: PIL image, path, bytes of a file, array or tensor, or a list of these, mixed as you like. Arrays (H, W),
            (H, W, 1 to 4); tensors (H, W), (1 or 3, H, W), or (B, 1 or 3, H, W) for B photos; uint8, uint16,
            or floats in [0, 1], which count as 16 bits. Of a color picture only the luma is used.
        num_samples: pictures per photo: first the one that is given where one is asked for, then, chosen among three
            times as many draws, those that best stand for what else there is; or best first (`rank_with`)
        num_inference_steps: steps of stage 1, or a pair for stages 1 and 3; None: each stage's own
        generator: None (fresh; the seed is in the output's info), an int, a torch.Generator (one seed is drawn
            from it), each for all photos of the call, or a list with one of them per photo
        preview: one pass of stage 1 instead of the cascade: fast, averaged colors, nothing random
        pool: draws of which the first picture is the most central; None: stage 1's own number. 1: no choosing, the
            pictures are the first draws
        output_type: "pil" 8-bit RGB images; "np" arrays (H, W, 3), uint16 where the input had 16 bits, else
            uint8; "pt" float32 tensors (3, H, W) in [0, 1], not rounded
        callback_on_step_end: called as f(pipe, step, sigma, {"stage": name, "x": …, "x0": …, "steps": N}) after each
            step; N is None where it is not known
        uncertainty: also a map per photo of how uncertain the colors of its first picture are, from 32 draws more, and
            suggestions of places to give hints at, see `ColorPipelineOutput`
        temperature: of stage 1's draws: less is surer and less varied, 1 as the model has learned them (but for the
            chroma gain, which stays), 0 all draws alike; None: stage 1's own
        chroma_gain: factor on the chroma of stage 1's draws; None: stage 1's own
        sharpness: of the edges of color, 0 to 2; None: the pipeline's own
        noise_key: whose noise the draws are made of: text, or a list with one per photo; None: the photo's own, a hash
            of its gray levels. Photos of one key and seed share their noise: frames of a film, a retouched scan
        rank_with: a stage that scores draws (`stages.faces.Scores`): they are put in order by it, the best first
        hints: known colors of the photo: a list of (x, y, color) or (x, y, color, radius), in pixels of the upright
            photo, the color as PIL.ImageColor reads it or (R, G, B) of 0..255, the radius by default 1/64 of the longer
            side; an RGBA picture of strokes of the photo's size; or `Hints`. For a list of photos a list with one each
        palette: colors that the pictures lean to, wherever they are, as for hints; add a gray to let gray things be
        reference: a picture in color, of any size: what is like its places leans to their colors. keep: a mask of the
            photo's size: white keeps the color that the photo has there, to the bit, and is a hint for the rest; black
            is colored; grays mix the chroma. Of both for a list of photos a list with one each, or None
        strength: factor on the chroma of the finished picture, 0 (gray) to 2; not of what is kept
        candidate: number of the draw that is the one picture, as an earlier `info` says it; None: it is chosen
        max_side: pictures and maps have at most so many pixels on their longer side, for a quick look; what is saved
            has the photo's size
        Raises OptionError (a ValueError) for an option that the stages or the preview can not honor.
        """
        for name in unknown:
            now = f"; it is called {RENAMED[name]} now" if name in RENAMED else ""
            raise TypeError(f"ColorPipeline takes no argument {name!r}{now}")
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f'output_type must be "pil", "np" or "pt"; got {output_type!r}')
        steps = num_inference_steps if isinstance(num_inference_steps, tuple) else (num_inference_steps, None)
        if len(steps) != 2:
            raise OptionError("num_inference_steps must be a whole number, or a pair for stages 1 and 3, either of "
                              f"which may be None; got {num_inference_steps!r}")  # fmt: skip
        options = SampleOptions(steps[0], steps[1], temperature, chroma_gain, pool, sharpness)
        ranking = None if rank_with is None else reranker(rank_with, self.device)
        request = Request(num_samples, preview, uncertainty, options, ranking, callback_on_step_end,
                          None if palette is None else palette_chroma(palette), strength, candidate)  # fmt: skip
        maker = self.maker(request)
        sources = listed(gray)
        several = isinstance(gray, list | tuple) or (isinstance(gray, Tensor | np.ndarray) and gray.ndim == 4)
        count = len(sources)
        given = [one_per_photo(name, one, several, count) for name, one in (("hints", hints), ("keep", keep))]
        references = one_per_photo("reference", reference, several, count)
        seeds, keys = seeds_from(generator, count), noise_keys_from(noise_key, count)
        images: list[Any] = []  # Any: by `output_type`
        infos: list[ImageInfo] = []
        maps: list[Any] = []
        suggestions: list[list[Suggestion]] = []
        savers: list[Callable[[Path, int, bool | None], None]] = []
        for start in range(0, count, self.batch_size):
            group = slice(start, start + self.batch_size)
            masks = given[1][group]
            photos = [photo_from(source, mask is not None) for source, mask in zip(sources[group], masks, strict=True)]
            noise = noise_sources(photos, seeds[group], keys[group])
            others = [None if one is None else reference_from(one) for one in references[group]]
            guides = list(map(guide_for, photos, given[0][group], masks, others))
            colored = self.small_photos(photos, noise, request, guides)
            for place, (photo, small) in enumerate(zip(photos, colored, strict=True)):
                shown, kept = reduced(photo, guides[place].kept, max_side)
                for number, picture in enumerate(small.pictures, 1):
                    depth = {"pil": 8, "np": photo.depth, "pt": None}[output_type]
                    full, notes = self.full_size(shown, picture, depth, strength, kept)
                    images.append(Image.fromarray(full.rgb) if output_type == "pil" else full.rgb)
                    record = partial(maker.record, photo, picture.info, number, guide=guides[place])
                    savers.append(partial(self._save, photo, picture, record, strength, guides[place].kept))
                    seed = seeds[start + place] if uncertainty else picture.info.seed
                    infos.append(replace(picture.info, photo=start + place, seed=seed, notes=notes))
                if small.uncertainty is not None:
                    whole = full_size_uncertainty(small.uncertainty, shown.gray.shape, levels=output_type == "pil")
                    as_asked: dict[str, Callable[[Any], Any]] = {
                        "pil": Image.fromarray, "np": np.asarray, "pt": torch.from_numpy,
                    }  # fmt: skip
                    maps.append(as_asked[output_type](whole))
                suggestions.append(small.suggestions or [])
        for note in dict.fromkeys(note for info in infos for note in info.notes):
            warnings.warn(note, RuntimeWarning, stacklevel=2)
        return ColorPipelineOutput(
            images, infos, maps if uncertainty else None, suggestions if uncertainty else None, savers
        )

    def colors_at(
        self, photo: Source, x: float, y: float, radius: float | None = None, generator: Seed = None,
        noise_key: NoiseKey = None,
    ) -> tuple[str, ...]:  # fmt: skip
        """Up to five colors that a photo's draws have around a place, "#rrggbb", the most typical first.

        x, y, radius: as of a hint; generator, noise_key: as of a call. Raises ValueError for a place outside the photo.
        """
        photo = photo_from(photo)
        height, width = photo.gray.shape
        radius = max(width, height) * RADIUS_SHARE if radius is None else radius
        Hints((width, height), [Point(x, y, "gray", radius)])  # raises where the photo has no such place
        (noise,) = noise_sources([photo], seeds_from(generator, 1), [noise_key])
        gray64, draws = self._cascade(self.batch_size).draws(photo, noise)
        return colors_at(gray64, draws.chroma[0].float().cpu(), (x, y), radius, (width, height))

    def small_photos(
        self,
        photos: Sequence[Photo],
        noise: Sequence[NoiseSource],
        request: Request,
        guides: Sequence[Guide] | None = None,
    ) -> list[SmallPhoto]:
        """The networks' part: what they say of each photo, at their own size. guides: one per photo; None: none.

        When memory runs out, half as many photos are seen at a time, which the notes of the pictures say.
        """
        request.checked_for(self.coarse, self.superres)
        guides = [Guide()] * len(photos) if guides is None else guides
        size = self.batch_size
        notes: tuple[str, ...] = ()
        small: list[SmallPhoto] = []
        while len(small) < len(photos):
            part = slice(len(small), len(small) + size)
            try:
                step = partial(self._step, request)
                colored = self._cascade(size).run(photos[part], noise[part], guides[part], request, step)
            except (RuntimeError, MemoryError) as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
                colored = None
            if colored is not None:
                small += [_noted(one, part.start, notes) for one in colored]
                continue
            # Outside the except block, whose traceback holds the tensors.
            size //= 2
            notes = (f"memory ran out: the networks saw {size} photos at a time instead of {self.batch_size}; colors "
                     "may differ in the last digit from another run",)  # fmt: skip
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return small

    def put_right(self, photo: Photo, rgb256: Tensor, guide: Guide) -> Tensor:
        """A small picture of a photo, (3, 256, 256) at its luma, after the hints and kept colors of a guide."""
        return self._cascade(self.batch_size).put_right(photo, rgb256, guide)

    def full_size(
        self, photo: Photo, picture: SmallPicture, depth: int | None, strength: float = 1.0, kept: Kept | None = None
    ) -> tuple[FullSize, tuple[str, ...]]:
        """The small picture's colors on the photo (see `full_resolution.full_size_rgb`), and the notes on both."""
        full = full_size_rgb(photo.gray, picture.rgb, depth, strength=strength, kept=kept, device=self.device)
        notes = picture.info.notes
        if full.halvings:
            notes += (f"memory ran out at full resolution: strips of {full.strip_rows} rows were used "
                      "(the picture is the same)",)
        return full, notes

    def _cascade(self, size: int) -> Cascade:
        return Cascade(self.coarse, self.color, self.superres, self.device, self.dtype, size, self.sharpness)

    def _save(
        self, photo: Photo, picture: SmallPicture, record: Callable[..., dict[str, Any]], strength: float,
        kept: Kept | None, path: Path, quality: int, provenance: bool | None,
    ) -> None:  # fmt: skip
        photo = written_as(path, photo)
        full, _ = self.full_size(photo, picture, photo.depth, strength, kept)
        if provenance is not False:
            photo = with_record(photo, record(file=shown_as("picture", path, quality)))
        save_photo(path, full.rgb, photo, quality=quality)

    def _step(self, request: Request, stage: str) -> StageStep | None:
        callback = request.callback
        if callback is None:
            return None
        steps = (self.coarse if stage == "stage1" else self.superres).num_steps(request.options)
        return lambda step, sigma, x, x0: callback(
            self, step, float(sigma), {"stage": stage, "x": x, "x0": x0, "steps": steps}
        )


def _noted(small: SmallPhoto, first: int, notes: tuple[str, ...]) -> SmallPhoto:
    """With notes, and the places of photos counted from the first of the call instead of the batch."""
    return replace(small, pictures=[
        replace(one, info=replace(one.info, photo=first + one.info.photo, notes=notes)) for one in small.pictures
    ])  # fmt: skip
