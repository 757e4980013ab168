"""The command `trichrome translate`: pictures from pictures, with weights of the user's own."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.image_to_image import ImageToImagePipeline
    from pipeline.images.photo import Photo

# torch takes more than a second to import: nothing up here may load it.

__all__ = ["add_command"]

TASKS = ("colorize", "inpaint", "uncrop", "jpeg", "line_art", "variation")  # stages.image_to_image.face, a test sees
SIDES = ("left", "right", "top", "bottom", "all")
NO_WEIGHTS = (
    "translate needs --weights FOLDER: no weights ship for it. Train some, from a clone of the repository: accelerate "
    "launch train_scripts/image_to_image.py leaves them in runs/palette/final, see docs/research/image-to-image.md"
)
Placement = Callable[[str, str], tuple[Any, Any]]
"""Words of --device and --dtype -> torch.device and torch.dtype."""


def add_command(commands: Any, placement: Placement) -> None:  # Any: argparse does not name its type
    """Adds `translate` to the subcommands of `trichrome`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "translate", help="color, fill, continue or restore pictures with weights of your own",
        description="Make pictures from pictures: color them, fill holes, continue them beyond a border, restore JPEG "
                    "files, color drawings. No weights ship for this; train some first.",
    )  # fmt: skip
    add = parser.add_argument
    add("paths", nargs="+", type=Path, metavar="PATH", help="picture")
    add("-o", "--output", required=True, type=Path, metavar="OUT", help="folder for the results")
    add("--weights", metavar="FOLDER", help="config.json and model.safetensors of the family image_to_image, or hub id")
    add("--task", choices=TASKS, help="default: the only one that the weights have learned")
    add("--mask", type=Path, metavar="FILE", help="of inpaint: as large as the picture, white is filled")
    add("--side", choices=SIDES, help="of uncrop: where the picture is continued")
    add("--draw", action="store_true", help="of line_art: PATH is a picture, of which line art is made first")
    add("--colors", type=Path, metavar="FILE", help="picture toward whose colors draws lean, where the weights can")
    add("--factor", type=int, metavar="N", help="of variation: details smaller than N of the network's pixels are new")
    add("--free-luma", action="store_true", help="of colorize: leave the luma to the network (default: kept exactly)")
    add("--samples", type=int, default=1, metavar="K", help="results per picture (default 1)")
    add("--seed", type=int, default=0, metavar="N", help="another seed, other results (default 0)")
    add("--steps", type=int, metavar="N", help="of the sampler (default: the weights' own)")
    add("--sampler", metavar="NAME", help="algorithm2, posterior, ddim, heun or dpmpp_2m (default: the weights' own)")
    add("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="default: the best there is")
    add("--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto", help="of the network")
    add("--quality", type=int, choices=range(1, 101), default=95, metavar="Q", help="of JPEG and WebP (default 95)")
    add("--overwrite", action="store_true", help="replace files in the way (an input is never replaced)")
    parser.set_defaults(run=partial(_translate, placement=placement))


def _translate(options: argparse.Namespace, placement: Placement) -> int:
    if options.weights is None:
        return _misuse(NO_WEIGHTS)
    if options.output.exists() and not options.output.is_dir():
        return _misuse(f"{options.output} is a file; -o names a folder")
    if options.mask is not None and len(options.paths) > 1:
        return _misuse("a mask is of one picture; give one PATH with it")
    if options.samples < 1:
        return _misuse(f"--samples must be a whole number from 1; got {options.samples}")

    from pipeline.image_to_image import ImageToImagePipeline
    from pipeline.images import ImageError
    from stages.image_to_image.face import Refinement, TranslateOptions

    outputs = {path: _outputs(path, options.output, options.samples) for path in options.paths}
    if problem := _in_the_way(outputs, options):
        return _misuse(problem)
    try:
        refinement = None if options.factor is None else Refinement(options.factor)
        asked = TranslateOptions(steps=options.steps, sampler=options.sampler, refinement=refinement)
        pipe = ImageToImagePipeline.from_pretrained(options.weights).to(*placement(options.device, options.dtype))
    except (ValueError, OSError) as error:
        return _misuse(str(error))
    options.output.mkdir(parents=True, exist_ok=True)
    failed = 0
    for path, names in outputs.items():
        try:
            with warnings.catch_warnings(record=True) as notes:
                warnings.simplefilter("always", RuntimeWarning)
                photo, results = _results(pipe, path, options, asked)
            for note in notes:
                print(f"{path}: note: {note.message}", file=sys.stderr)
            for name, result in zip(names, results, strict=True):
                _write(name, result, photo, options.quality)
        except (ImageError, OSError) as error:
            print(error, file=sys.stderr)
            failed += 1
        except ValueError as error:  # what does not fit together is the same for every picture but for its mask
            return _misuse(str(error))
    print(f"{len(outputs) - failed} translated, {failed} failed")
    return 1 if failed else 0


def _results(
    pipe: ImageToImagePipeline, path: Path, options: argparse.Namespace, asked: Any
) -> tuple[Photo, Tensor]:
    photo, results, _ = pipe.translate(
        path, options.task, mask=options.mask, side=options.side, num_samples=options.samples, generator=options.seed,
        keep_luma=not options.free_luma, draw=options.draw, colors=options.colors, options=asked,
    )  # fmt: skip
    return photo, results


def _write(path: Path, rgb: Tensor, photo: Photo, quality: int) -> None:
    from pipeline.images.write import quantize, save_photo

    pixels = rgb.permute(1, 2, 0).numpy()
    if pixels.shape[:2] != photo.gray.shape:  # uncropped: the new part has no transparency of its own
        photo = replace(photo, gray=pixels[..., 1], alpha=None)
    save_photo(path, quantize(pixels, photo.depth), photo, quality=quality)


def _outputs(path: Path, folder: Path, count: int) -> list[Path]:
    from pipeline.images import FORMATS

    suffix = path.suffix if path.suffix.lower() in FORMATS else ".png"
    numbers = [""] if count == 1 else [f"-{k + 1}" for k in range(count)]
    return [folder / f"{path.stem}{number}{suffix}" for number in numbers]


def _in_the_way(outputs: dict[Path, list[Path]], options: argparse.Namespace) -> str | None:
    """Why the outputs can not be written; None where they can."""
    inputs = {path.resolve() for path in (*outputs, options.mask, options.colors) if path is not None}
    names = [name for several in outputs.values() for name in several]
    for name, count in Counter(names).items():
        if count > 1:
            return f"two of the pictures would be written to {name}; translate them one by one"
        if name.resolve() in inputs:
            return f"{name} is one of the inputs; choose another folder"
        if name.exists() and not options.overwrite:
            return f"{name} is there already; --overwrite replaces it"
    return None


def _misuse(message: str) -> int:
    print(f"trichrome translate: error: {message}", file=sys.stderr)
    return 2
