"""Pictures from pictures in one call: color, holes filled, borders continued, JPEG restored, drawings colored.

One network, of the family image_to_image, and what fits pictures of any size to it (`translations`). No weights ship
for it: train some with train_scripts/image_to_image.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.full_resolution import full_size_rgb
from pipeline.images import Photo, quantize, save_photo
from pipeline.images.read import load_photo
from pipeline.images.write import written_as
from pipeline.output import ColorPipelineOutput, ImageInfo
from pipeline.placement import why_not
from pipeline.request import OutputType
from pipeline.sources import Seed, Source, noise_sources, seeds_from
from pipeline.translations import Canvas, drawing, extended, filled, restored, small_canvas, square, surrounded
from stages.checkpoint import CheckpointError
from stages.color.resample import resize
from stages.corruptions.masks import SIDES
from stages.faces import StepCallback
from stages.image_to_image.face import Condition, ImageToImage, Task, TranslateOptions
from stages.options import OptionError
from stages.registry import load_stage

__all__ = ["ImageToImagePipeline", "save_result"]


class ImageToImagePipeline:
    """One network of the family image_to_image. Make one with `from_pretrained`."""

    def __init__(self, stage: ImageToImage) -> None:
        self.stage = stage.eval().requires_grad_(False)
        self.device, self.dtype = torch.device("cpu"), torch.float32

    @classmethod
    def from_pretrained(cls, source: str | Path) -> Self:
        """From a folder with config.json and model.safetensors (the `final` of a run), or a hub id.

        Raises CheckpointError where it holds a stage of another family, or none.
        """
        stage = load_stage(source)
        if not isinstance(stage, ImageToImage):
            raise CheckpointError(
                f"{source} holds kind {stage.kind!r} of the family {stage.family}; expected the family image_to_image, "
                "as train_scripts/image_to_image.py trains it"
            )
        return cls(stage)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the network; `dtype` is of its insides. Raises ValueError where they can not run there."""
        place, kept = torch.device(device or self.device), dtype or self.dtype
        if reason := why_not(place, kept):
            raise ValueError(f"can not run on {place} in {kept}: {reason}")
        self.stage.to(place)
        self.device, self.dtype = place, kept
        return self

    def __call__(
        self,
        image: Source,
        task: Task | None = None,
        *,
        mask: Source | None = None,
        side: str | None = None,
        num_samples: int = 1,
        generator: Seed = None,
        keep_luma: bool = True,
        draw: bool = False,
        colors: Source | None = None,
        options: TranslateOptions = TranslateOptions(),  # noqa: B008  (frozen)
        output_type: OutputType = "pil",
        callback: StepCallback | None = None,
    ) -> ColorPipelineOutput:
        """`num_samples` pictures made of one.

        image: path, PIL image, array or tensor, as `ColorPipeline` takes it
        task: "colorize", "inpaint", "uncrop", "jpeg", "line_art" or "variation"; None: the only one that the weights
            have learned
        mask: for inpaint, and for line_art with `draw`: 8 bits, of the size of the picture, white is filled
        side: for uncrop: "left", "right", "top", "bottom" or "all"
        generator: a seed, a torch.Generator to draw one from, or None for a fresh one, which the output's info gives
        keep_luma: of colorize: the result has exactly the luma of the picture, at all its pixels. Else it is what the
            network drew, enlarged
        draw: of line_art: the image is a picture, of which line art is made first; else it is taken for a drawing
        colors: a picture toward whose colors draws lean (kinds unconditional and gpic)
        options: steps, sampler and what else the kind knows of
        output_type: "pil" 8-bit RGB; "np" (H, W, 3), uint16 where the input had 16 bits; "pt" float32 (3, H, W)
        callback: (step, level, x, clean estimate), after each step of sampling
        Raises OptionError for what does not fit together, ImageError for pictures that can not be read.
        """
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f'output_type must be "pil", "np" or "pt"; got {output_type!r}')
        photo, results, info = self.translate(
            image, task, mask=mask, side=side, num_samples=num_samples, generator=generator, keep_luma=keep_luma,
            draw=draw, colors=colors, options=options, callback=callback,
        )  # fmt: skip
        photo = replace(photo, rgb=None)  # saving needs no colors but those of the result
        savers: list[Callable[[Path, int, bool | None], None]] = [partial(_save, photo, one) for one in results]
        if output_type == "pt":
            return ColorPipelineOutput(list(results.clone()), info, savers=savers)
        depth = 8 if output_type == "pil" else photo.depth
        levels = [quantize(one.permute(1, 2, 0).numpy(), depth) for one in results]
        images = [Image.fromarray(one) for one in levels] if output_type == "pil" else levels
        return ColorPipelineOutput(images, info, savers=savers)

    @torch.no_grad()
    def translate(
        self, image: Source, task: Task | None, *, mask: Source | None, side: str | None, num_samples: int,
        generator: Seed, keep_luma: bool, draw: bool, colors: Source | None, options: TranslateOptions,
        callback: StepCallback | None = None,
    ) -> tuple[Photo, Tensor, list[ImageInfo]]:  # fmt: skip
        """The photo as read, pictures (N, 3, H, W) float32 in [0, 1] on the CPU, and how each came about."""
        task = self._task(task)
        _check_arguments(task, mask is not None, side, num_samples, draw, keep_luma)
        photo = _read(image)
        rgb, own = _planes(photo), self.stage.side
        (source,) = noise_sources([photo], seeds_from(generator, 1), [None])
        leaning = None if colors is None else square(_planes(_read(colors)), own)

        def drawn(condition: Condition, part: str = "") -> Tensor:
            if leaning is not None:
                condition = replace(condition, colors=leaning)
            rows = [source.generator(k, f"image_to_image {part}".strip()) for k in range(num_samples)]
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                result = self.stage.sample(condition.to(self.device), task, num_samples, options, rows, callback)
            return result[0].float().cpu()

        result = self._result(task, photo, rgb, mask, side, keep_luma, draw, drawn)
        info = [ImageInfo(0, k, source.seed, source.key) for k in range(num_samples)]
        return photo, result, info

    def _result(
        self, task: Task, photo: Photo, rgb: Tensor, mask: Source | None, side: str | None, keep_luma: bool, draw: bool,
        drawn: Callable[..., Tensor],
    ) -> Tensor:  # fmt: skip
        own, size = self.stage.side, (rgb.shape[-2], rgb.shape[-1])
        if task == "jpeg":
            return restored(rgb, own, drawn)
        if task == "uncrop" and side != "all":
            return extended(rgb, str(side), own, drawn)
        if task in ("inpaint", "uncrop"):
            canvas = surrounded(rgb) if task == "uncrop" else Canvas(rgb, _hole(mask, size))
            small = small_canvas(canvas, own)
            return filled(canvas, drawn(Condition(small.rgb, small.hole)))
        gray = torch.from_numpy(photo.gray)[None, None].expand(-1, 3, -1, -1)
        if task == "colorize":
            draws = drawn(Condition(square(gray, own)))
            if not keep_luma:
                return resize(draws, size)
            return torch.stack([full_size_rgb(photo.gray, one, None, device=self.device).rgb for one in draws])
        if task == "variation":
            return resize(drawn(Condition(square(rgb, own))), size)
        if photo.is_color and not draw:
            warnings.warn("a picture in color is taken for a drawing by its luma; draw makes line art of it first",
                          RuntimeWarning, stacklevel=4)  # fmt: skip
        lines = drawing(rgb, own) if draw else square(gray, own)
        if mask is None:
            return resize(drawn(Condition(lines)), size)
        canvas = Canvas(rgb, _hole(mask, size))
        small = small_canvas(canvas, own)
        return filled(canvas, drawn(Condition(lines, small.hole, small.rgb)))

    def _task(self, task: Task | None) -> Task:
        learned = self.stage.tasks
        if task is None and len(learned) == 1:
            return learned[0]
        if task not in learned:
            raise OptionError(
                f"task must be one of those that these weights, kind {self.stage.kind!r}, have learned: "
                f"{', '.join(learned)}; got {task!r}"
            )
        return task


def _save(photo: Photo, rgb: Tensor, path: Path, quality: int, provenance: bool | None) -> None:
    if provenance:
        raise OptionError("pictures from pictures carry no record of how they were made; leave out provenance")
    save_result(photo, rgb, path, quality)


def save_result(photo: Photo, rgb: Tensor, path: Path, quality: int) -> None:
    """Write a picture (3, H, W) in [0, 1] with the depth, alpha, resolution and metadata of the photo it was made of.

    path: its suffix chooses the format; an existing file is replaced
    What the format can not carry is a warning. Raises ImageError.
    """
    pixels = rgb.permute(1, 2, 0).numpy()
    if pixels.shape[:2] != photo.gray.shape:  # uncropped: the new part has no transparency of its own
        photo = replace(photo, gray=pixels[..., 1], alpha=None)
    photo = written_as(path, photo)
    save_photo(path, quantize(pixels, photo.depth), photo, quality=quality)


def _check_arguments(
    task: str, masked: bool, side: str | None, num_samples: int, draw: bool, keep_luma: bool
) -> None:
    """Raises OptionError for what is missing or does not belong to the task."""
    if type(num_samples) is not int or num_samples < 1:
        raise OptionError(f"num_samples must be a whole number from 1; got {num_samples!r}")
    if task == "inpaint" and not masked:
        raise OptionError("inpaint needs a mask of the size of the picture: white is filled")
    if masked and task != "inpaint" and not (task == "line_art" and draw):
        raise OptionError(f"a mask belongs to inpaint, or to line_art with draw; the task is {task}")
    if (side is None) == (task == "uncrop") or (side is not None and side not in SIDES):
        raise OptionError(f"side, one of {', '.join(SIDES)}, belongs to uncrop; got {side!r} for {task}")
    if draw and task != "line_art":
        raise OptionError(f"draw belongs to line_art; the task is {task}")
    if not keep_luma and task != "colorize":
        raise OptionError(f"keep_luma=False, in the command --free-luma, belongs to colorize; the task is {task}")


def _read(image: Source) -> Photo:
    if isinstance(image, Photo):
        if image.rgb is None:
            raise ValueError("a Photo must have been loaded with keep_rgb=True")
        return image
    if isinstance(image, Tensor):
        if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[0] not in (1, 3)):
            raise ValueError(f"a tensor must be (H, W), (1, H, W) or (3, H, W); got {tuple(image.shape)}")
        planes = (image if image.ndim == 3 else image[None]).detach().cpu()
        return load_photo(planes.permute(1, 2, 0).numpy(), keep_rgb=True)
    return load_photo(image, keep_rgb=True)


def _planes(photo: Photo) -> Tensor:
    """(1, 3, H, W)."""
    assert photo.rgb is not None
    return torch.from_numpy(np.ascontiguousarray(photo.rgb.transpose(2, 0, 1)))[None]


def _hole(mask: Source | None, size: tuple[int, int]) -> Tensor:
    """A mask as a hole (1, 1, H, W). Raises OptionError for another size, and for one that is all black."""
    assert mask is not None
    levels = _read(mask).gray
    if levels.shape != size:
        raise OptionError(
            f"the mask must have the size of the picture, {size[1]}x{size[0]}; got {levels.shape[1]}x{levels.shape[0]}"
        )
    hole = torch.from_numpy(levels)[None, None] >= 0.5
    if not bool(hole.any()):
        raise OptionError("the mask is black everywhere; what is to be filled must be white")
    return hole
