"""The cascade in one call: a photograph of any size in, colored pictures of the same size out.

    photo ─> gray (H, W) ─┬─ gray64 ─> stage 1: candidates ─> order ─> coarse64 ─> stage 2: rgb64 ─┐
                          ├─ gray256 ───────────────────────────────────> stage 3: rgb256 <────────┘
                          └─ merge: chroma of rgb256, sharpened, and the photo's own gray ─> rgb (H, W)

Randomness belongs to (seed of the photo, number of the candidate), and the networks always see batches of one
fixed size, so the same seed gives the same bytes alone, in a batch, and in another order (on one machine,
number of threads and dtype).
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pipeline.folder import FORMAT, MAX_SHARPNESS, STAGES, _check_files, _locate, read_index
from pipeline.full_resolution import FullSize, full_size_doubt, full_size_rgb, is_out_of_memory, sharpened
from pipeline.images.photo import Photo
from pipeline.options import ColorPipelineOutput, ImageInfo, Rows, Seed, SmallPicture, Source, StepCallback
from pipeline.placement import why_not
from pipeline.sources import _listed, _seeds, candidate_generator, photo_from
from stages.checkpoint import CheckpointError, replaced_folder, sha256_of
from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, rgb_from_coarse
from stages.corruptions.conditioning import sharp_gray
from stages.registry import load_stage
from stages.stage1_coarse.temperature import checked_temperature
from stages.stage1_coarse.uncertainty import expected_error

CANDIDATES = 4  # candidates of stage 1 in one call: candidate k always sits at place k mod 4
DOUBT_DRAWS, DOUBT_SIDE = 32, 256  # of the map of doubt
DRAWS = 3  # for each picture, where several are asked for: see `spread_order`


class ColorPipeline:
    """Three trained stages and what joins them. Make one with `from_pretrained`.

    sharpness: of the colors, see `sharpened`; stages answer with means over likely edges, which are soft
    """

    def __init__(self, stage1: nn.Module, stage2: nn.Module, stage3: nn.Module, sharpness: float = 0.0) -> None:
        self.sharpness = sharpness
        self.stages: dict[str, Any] = {"stage1": stage1, "stage2": stage2, "stage3": stage3}
        for stage in self.stages.values():
            stage.eval().requires_grad_(False)
        self.judge: Any = None
        self.device = torch.device("cpu")
        self.dtype = torch.float32
        self.to(self.device)

    @property
    def sharpness(self) -> float:
        """Of the edges of color; setting it to a number outside [0, 2] raises ValueError."""
        return self._sharpness

    @sharpness.setter
    def sharpness(self, value: float) -> None:
        if not 0 <= value <= MAX_SHARPNESS:
            raise ValueError(f"sharpness must be in [0, {MAX_SHARPNESS}]; got {value}")
        self._sharpness = float(value)

    # ------------------------------------------------------------------ files

    @classmethod
    def from_pretrained(
        cls, source: str | Path | None = None, *, revision: str | None = None
    ) -> ColorPipeline:
        """The pipeline stored in a folder, on the hub, or (None) inside this package.

        source: a folder with model_index.json, stage1/, stage2/, stage3/, or a hub id "owner/name"
        revision: branch, tag or commit of a hub id
        Raises CheckpointError when anything is missing, changed, of an unknown format, or a pickle.
        """
        folder, inside = _locate(source, revision)
        entries, sharpness = read_index(folder)
        loaded: dict[str, Any] = {}
        for name, entry in entries.items():
            _check_files(folder / name, inside)
            weights = folder / name / "model.safetensors"
            if (found := sha256_of(weights)) != entry["sha256"]:
                raise CheckpointError(
                    f"{weights} is not the file that model_index.json names: SHA-256 {found}, "
                    f"expected {entry['sha256']}. Copy the folder again."
                )
            stage = load_stage(folder / name)
            if (stage.stage, stage.kind) != (STAGES[name], entry["kind"]):
                raise CheckpointError(
                    f"{folder / name} holds stage {stage.stage} of kind {stage.kind!r}; model_index.json "
                    f"says stage {STAGES[name]} of kind {entry['kind']!r}"
                )
            loaded[name] = stage
        return cls(**loaded, sharpness=sharpness)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write the pipeline to `folder`: all of it or nothing. Replaces a pipeline that is there, nothing
        else.

        dtype: of the stored weights; by default as they are
        """
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(f"{folder} is a file; name a folder")
        there = {path.name for path in folder.iterdir()} if folder.exists() else set()
        if others := sorted(there - {"model_index.json", *STAGES}):
            raise FileExistsError(f"{folder} holds more than a pipeline ({', '.join(others[:3])}), which would "
                                  "be lost; choose another folder")
        index: dict[str, Any] = {"format": FORMAT, "sharpness": self.sharpness, "stages": {}}
        with replaced_folder(folder) as fresh:
            for name, stage in self.stages.items():
                stage.save_pretrained(fresh / name, dtype=dtype)
                digest = sha256_of(fresh / name / "model.safetensors")
                index["stages"][name] = {"kind": stage.kind, "sha256": digest}
            (fresh / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of the weights in use and of their settings, per stage (names, shapes and values, not files), and
        the sharpness.
        """
        prints = {"sharpness": str(self.sharpness)}
        for name, stage in {**self.stages, **({} if self.judge is None else {"judge": self.judge})}.items():
            digest = hashlib.sha256(f"{stage.kind} {json.dumps(asdict(stage.config), sort_keys=True)}\n".encode())
            for key, value in sorted(stage.state_dict().items()):
                digest.update(f"{key} {tuple(value.shape)} {value.dtype}\n".encode())
                digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
            prints[name] = digest.hexdigest()
        return prints

    # ------------------------------------------------------------------ where and how it runs

    def to(self, device: str | torch.device | torch.dtype | None = None, dtype: torch.dtype | None = None):
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
        for stage in (*self.stages.values(), *([] if self.judge is None else [self.judge])):
            stage.to(new_device)
        self.device, self.dtype = new_device, new_dtype
        # Photos per call of the networks. On a CPU one at a time is as fast as several.
        self.batch_size = 8 if new_device.type == "cuda" else 1
        return self

    def rank_with(self, judge: nn.Module | str | Path | None):
        """Put candidates in order by their likelihood from now on, the likeliest first; returns the pipeline.

        judge: a stage 1 that has `likelihood` (kinds `coltran` and `pic`), or the folder or hub id of one; None: as
            stage 1 itself orders them
        A preview is not ranked, and of a single candidate a note says that there was nothing to rank. Likely pictures
        are often pale ones: gray is what a model of likelihood errs least with.
        """
        judge = load_stage(judge) if isinstance(judge, str | Path) else judge
        if judge is not None:
            if not hasattr(judge, "likelihood"):
                kind = f"stage {getattr(judge, 'stage', '?')} of kind {getattr(judge, 'kind', '?')!r}"
                raise ValueError(f"to rank candidates, a stage 1 must know likelihoods (coltran, pic); got a {kind}")
            judge.eval().requires_grad_(False).to(self.device)
        self.judge = judge
        return self

    def _autocast(self) -> AbstractContextManager:
        enabled = self.dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self.dtype if enabled else None, enabled=enabled)

    # ------------------------------------------------------------------ coloring

    def __call__(
        self,
        gray: Source | Sequence[Source],
        num_samples: int = 1,
        num_inference_steps: int | tuple[int | None, int | None] | None = None,
        generator: Seed | Sequence[Seed] = None,
        preview: bool = False,
        pool: int | None = None,
        output_type: Literal["pil", "np", "pt"] = "pil",
        callback_on_step_end: StepCallback | None = None,
        doubt: bool = False,
        temperature: float | None = None,
    ) -> ColorPipelineOutput:
        """Color one photo or several.

        gray: PIL image, path, array or tensor, or a list of these, mixed as you like. Arrays are (H, W),
            (H, W, 1 to 4); tensors (H, W), (1 or 3, H, W), or (B, 1 or 3, H, W) for B photos; uint8, uint16,
            or floats in [0, 1], which count as 16 bits. Of a color picture only the luma is used.
        num_samples: pictures per photo: first the one that is given where one is asked for, then, chosen among three
            times as many draws, those that best stand for what else there is; or likeliest first (`rank_with`)
        num_inference_steps: steps of stage 1, or a pair for stages 1 and 3; None: each stage's own
        generator: None (fresh; the seed is in the output's info), an int, a torch.Generator (one seed is drawn
            from it), each for all photos of the call, or a list with one of them per photo
        preview: one pass of stage 1 instead of the cascade: fast, averaged colors, nothing random
        pool: draws of which the first picture is the most central; None: stage 1's own number. 1: no choosing, the
            pictures are the first draws
        output_type: "pil" 8-bit RGB images; "np" arrays (H, W, 3), uint16 where the input had 16 bits, else
            uint8; "pt" float32 tensors (3, H, W) in [0, 1], not rounded
        callback_on_step_end: called as f(pipe, step, sigma, {"stage": name, "x": …, "x0": …}) after each step
        doubt: also a map per photo of how uncertain the colors of its first picture are, from 32 draws more, see
            `ColorPipelineOutput`
        temperature: of stage 1's draws: less is surer and less varied, 1 as the model has learned them (but for the
            vividness of stage 1, which stays), 0 all draws alike; None: stage 1's own. A preview has none
        """
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f'output_type must be "pil", "np" or "pt"; got {output_type!r}')
        sources = _listed(gray)
        seeds = _seeds(generator, len(sources))
        settings: dict[str, Any] = {
            "num_samples": num_samples, "num_inference_steps": num_inference_steps, "preview": preview,
            "pool": pool, "callback_on_step_end": callback_on_step_end, "temperature": temperature,
        }
        images: list[Any] = []
        infos: list[ImageInfo] = []
        maps: list[Any] = []
        steps = num_inference_steps[0] if isinstance(num_inference_steps, tuple) else num_inference_steps
        for start in range(0, len(sources), self.batch_size):
            group = slice(start, start + self.batch_size)
            photos = [photo_from(source) for source in sources[group]]
            small = self.small_pictures(photos, seeds[group], **settings)
            first = [pictures[0].rgb[None] for pictures in small]
            found = self.doubt_maps(photos, seeds[group], first, steps) if doubt else []
            for photo, one in zip(photos, found, strict=False):
                whole = full_size_doubt(one[0], photo.gray.shape, levels=output_type == "pil")
                as_asked: dict[str, Callable] = {"pil": Image.fromarray, "np": np.asarray, "pt": torch.from_numpy}
                maps.append(as_asked[output_type](whole))
            for place, pictures in enumerate(small):
                photo = photos[place]
                for picture in pictures:
                    depth = {"pil": 8, "np": photo.depth, "pt": None}[output_type]
                    full, notes = self.full_size(photo, picture, depth)
                    image = Image.fromarray(full.rgb) if output_type == "pil" else full.rgb
                    images.append(image)
                    info = picture.info
                    seed = seeds[start + place] if doubt else info.seed
                    infos.append(ImageInfo(start + place, info.candidate, seed, notes, info.bits))
        for note in dict.fromkeys(note for info in infos for note in info.notes):
            warnings.warn(note, RuntimeWarning, stacklevel=2)
        return ColorPipelineOutput(images, infos, maps if doubt else None)

    @torch.no_grad()
    def small_pictures(
        self,
        photos: Sequence[Photo],
        seeds: Sequence[int],
        *,
        num_samples: int = 1,
        num_inference_steps: int | tuple[int | None, int | None] | None = None,
        preview: bool = False,
        pool: int | None = None,
        callback_on_step_end: StepCallback | None = None,
        temperature: float | None = None,
    ) -> list[list[SmallPicture]]:
        """The networks' part: for each photo its `num_samples` small pictures. Arguments as in `__call__`."""
        if num_samples < 1 or (pool is not None and pool < 1):
            raise ValueError(f"num_samples and pool must be at least 1; got {num_samples} and {pool}")
        if temperature is not None:
            checked_temperature(temperature)
        if preview and num_samples > 1:
            raise ValueError(f"a preview is one picture per photo; got num_samples={num_samples}")
        steps = num_inference_steps
        steps = steps if isinstance(steps, tuple) else (steps, None)
        if any(count is not None and count < 1 for count in steps):
            raise ValueError(f"num_inference_steps must be at least 1; got {num_inference_steps}")
        ordered = pool != 1
        if pool is None:
            pool = getattr(self.stages["stage1"], "pool", 1)
            ordered = pool > 1 or self.judge is not None
        unranked: tuple[str, ...] = ()
        if self.judge is not None and max(pool, num_samples) == 1 and not preview:
            unranked = ("one candidate was drawn, so there was nothing to rank: ask for a pool or several pictures",)

        pictures: list[list[SmallPicture]] = []
        size = self.batch_size
        notes = unranked
        found: list[Rows] | None
        while len(pictures) < len(photos):
            done = len(pictures)
            batch, batch_seeds = photos[done : done + size], seeds[done : done + size]
            try:
                with self._autocast():
                    if preview:
                        found = self._preview(batch, size)
                    else:
                        found = self._cascade(
                            batch, batch_seeds, size, num_samples, steps, pool, ordered, callback_on_step_end,
                            temperature,
                        )
            except (RuntimeError, MemoryError) as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
                size //= 2
                notes = (*unranked, f"memory ran out: the networks saw {size} photos at a time instead of "
                         f"{self.batch_size}; colors may differ in the last digit from another run")
                found = None
            if found is None:  # outside the except block, whose traceback holds the tensors
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            for place, rows in enumerate(found):
                seed = None if preview else seeds[done + place]
                pictures.append([
                    SmallPicture(rgb, ImageInfo(done + place, candidate, seed, notes, bits))
                    for candidate, rgb, bits in rows
                ])
        return pictures

    @torch.no_grad()
    def doubt_maps(
        self, photos: Sequence[Photo], seeds: Sequence[int], pictures: Sequence[Tensor], steps: int | None = None
    ) -> list[Tensor]:
        """For each photo the maps of doubt of its pictures, see `ColorPipelineOutput`, (K, 256, 256) float32 on the
        CPU, not yet at the photo's size.

        pictures: for each photo (K, 3, h, w) in [0, 1], of any size; steps: of stage 1; None: its own
        """
        found: list[Tensor] = []
        for photo, seed, judged in zip(photos, seeds, pictures, strict=True):
            with self._autocast():
                draws = self._doubt_draws(photo, seed, steps)
            gray = _grays([photo], DOUBT_SIDE)[0].to(self.device)
            found.append(expected_error(gray, draws, chroma_from_rgb(judged.to(self.device))).cpu())
        return found

    def _doubt_draws(self, photo: Photo, seed: int, steps: int | None) -> Tensor:
        """Chroma of DOUBT_DRAWS draws, (N, 2, 64, 64), as finely as stage 1 knows it."""
        stage1 = self.stages["stage1"]
        gray64 = _grays([photo], 64).to(self.device)
        seen = self._seen(gray64, [photo], 1)
        drawn: list[Tensor] = []
        for first in range(0, DOUBT_DRAWS, CANDIDATES):
            settings: dict[str, Any] = {
                "generator": [candidate_generator(seed, k, "doubt") for k in range(first, first + CANDIDATES)],
                "num_inference_steps": steps, "temperature": 1.0, **seen,
            }  # fmt: skip
            if hasattr(stage1, "sample_chroma"):
                drawn.append(_checked(stage1.sample_chroma(gray64, CANDIDATES, **settings), "stage1")[0])
            else:
                coarse = stage1.sample(gray64, CANDIDATES, **settings)[0]
                drawn.append(chroma_from_rgb(rgb_from_coarse(coarse)))
        return torch.cat(drawn)

    def full_size(
        self, photo: Photo, picture: SmallPicture, depth: int | None
    ) -> tuple[FullSize, tuple[str, ...]]:
        """The small picture's colors on the photo (see `fullres.full_size_rgb`), and the notes on both."""
        full = full_size_rgb(photo.gray, picture.rgb, depth, device=self.device)
        notes = picture.info.notes
        if full.halvings:
            notes += (f"memory ran out at full resolution: strips of {full.strip_rows} rows were used "
                      "(the picture is the same)",)
        return full, notes

    def _preview(self, photos: Sequence[Photo], size: int) -> list[Rows]:
        gray64 = _padded(_grays(photos, 64), size).to(self.device)
        rgb64 = self.stages["stage1"].preview(gray64, **self._sharp(photos, size))
        return [[(None, rgb, None)] for rgb in _checked(rgb64, "stage1")[: len(photos)]]

    def _cascade(
        self,
        photos: Sequence[Photo],
        seeds: Sequence[int],
        size: int,
        num_samples: int,
        steps: tuple[int | None, int | None],
        pool: int,
        ordered: bool,
        callback: StepCallback | None,
        temperature: float | None,
    ) -> list[Rows]:
        """(candidate number, rgb256, bits) of each photo; network calls have `size` or size * CANDIDATES rows."""
        stage1, stage2, stage3 = self.stages.values()
        gray64 = _padded(_grays(photos, 64), size).to(self.device)
        gray256 = _padded(_grays(photos, 256), size).to(self.device)
        seen = self._seen(gray64, photos, size)
        padded_seeds = [*seeds, *[seeds[-1]] * (size - len(seeds))]

        several = ordered and self.judge is None and num_samples > 1
        drawn = max(DRAWS * num_samples if several else num_samples, pool)
        chunks = []
        for first in range(0, drawn, CANDIDATES):
            generators = [
                candidate_generator(seed, k)
                for seed in padded_seeds
                for k in range(first, first + CANDIDATES)
            ]
            chunks.append(stage1.sample(
                gray64, num_samples=CANDIDATES, generator=generators, num_inference_steps=steps[0],
                callback=self._stage_callback(callback, "stage1"), temperature=temperature, **seen,
            ))
        coarse = torch.cat(chunks, dim=1)[:, :drawn]
        bits: Tensor | None = None
        order = torch.arange(drawn).expand(size, -1)
        if self.judge is not None:
            bits = torch.stack([self.judge.likelihood(gray64, one).float() for one in coarse.unbind(1)], dim=1).cpu()
            if not bool(bits.isfinite().all()):
                raise RuntimeError("the model that ranks gave likelihoods that are not finite; if this is float16, "
                                   "use float32")
        if ordered:
            order = stage1.order(gray64, coarse, pool) if bits is None else bits.argsort(dim=1, stable=True)

        # One row for each picture asked for; full calls of `size` rows, the last one padded.
        rows = [(b, int(k)) for b in range(len(photos)) for k in order[b, :num_samples]]
        small: list[Rows] = [[] for _ in photos]
        for first in range(0, len(rows), size):
            wanted = rows[first : first + size]
            padded = [*wanted, *[wanted[-1]] * (size - len(wanted))]
            b = torch.tensor([row[0] for row in padded], device=self.device)
            k = torch.tensor([row[1] for row in padded], device=self.device)
            own2, own3 = (
                [candidate_generator(padded_seeds[row[0]], row[1], stage) for row in padded]
                for stage in ("stage2", "stage3")
            )
            rgb64 = stage2.sample(gray64[b], coarse[b, k], generator=own2)
            rgb256 = stage3.sample(
                gray256[b], _checked(rgb64, "stage2"), generator=own3, num_inference_steps=steps[1],
                callback=self._stage_callback(callback, "stage3"),
            )
            rgb256 = sharpened(gray256[b], _checked(rgb256, "stage3"), self.sharpness)
            for (photo, candidate), rgb in zip(wanted, rgb256, strict=False):
                small[photo].append((candidate, rgb.cpu(), None if bits is None else bits[photo, candidate].item()))
        return small

    def _sharp(self, photos: Sequence[Photo], size: int) -> dict[str, Tensor]:
        """The photos in as many pixels as stage 1 can make use of, where that is more than 64x64."""
        side = getattr(self.stages["stage1"], "gray_side", 64)
        if side == 64:
            return {}
        planes = [sharp_gray(torch.from_numpy(photo.gray)[None, None], side) for photo in photos]
        return {"sharp": _padded(torch.cat(planes), size).to(self.device)}

    def _seen(self, gray64: Tensor, photos: Sequence[Photo], size: int) -> dict[str, Any]:
        """What stage 1 is told beside gray64: encoded once for all draws, where it can do that."""
        sharp = self._sharp(photos, size)
        stage1 = self.stages["stage1"]
        return {"encoded": stage1.encode(gray64, **sharp)} if hasattr(stage1, "encode") else sharp

    def _stage_callback(self, callback: StepCallback | None, stage: str) -> Callable | None:
        if callback is None:
            return None

        def step_end(step: int, sigma: float, x: Tensor, x0: Tensor) -> None:
            callback(self, step, float(sigma), {"stage": stage, "x": x, "x0": x0})

        return step_end


def _grays(photos: Sequence[Photo], side: int) -> Tensor:
    """(B, 1, side, side) on the CPU: each photo resized whatever its aspect."""
    planes = [torch.from_numpy(photo.gray)[None, None] for photo in photos]
    return torch.cat([resize(plane, (side, side)) for plane in planes])


def _padded(x: Tensor, size: int) -> Tensor:
    """x with its last row repeated up to `size` rows."""
    return torch.cat([x, x[-1:].expand(size - len(x), *x.shape[1:])]) if len(x) < size else x


def _checked(rgb: Tensor, stage: str) -> Tensor:
    """float32, and finite: a network that overflowed must not pass for a gray or black picture."""
    if not bool(rgb.isfinite().all()):
        raise RuntimeError(f"{stage} gave colors that are not finite; if this is float16, use float32")
    return rgb.float()
