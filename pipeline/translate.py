"""The command `trichrome translate`: pictures from pictures, with weights of the user's own."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.arguments import add_format, add_max_megapixels, add_networks, from_one, max_pixels, placement
from pipeline.files.report import misuse, shown

if TYPE_CHECKING:
    from pipeline.image_to_image import ImageToImagePipeline
    from pipeline.images.photo import Photo
    from stages.image_to_image.face import TranslateOptions

# torch takes more than a second to import: nothing up here may load it.

__all__ = ["add_command"]

_misuse = partial(misuse, "translate")

TASKS = ("colorize", "inpaint", "uncrop", "jpeg", "line_art", "variation")  # stages.image_to_image.face, a test sees
SIDES = ("left", "right", "top", "bottom", "all")
NO_WEIGHTS = (
    "translate needs --weights FOLDER: no weights ship for it. Train some, from a clone of the repository: accelerate "
    "launch train_scripts/image_to_image.py leaves them in runs/palette/final, see docs/research/image-to-image.md"
)


def add_command(commands: Any) -> None:  # Any: argparse does not name its type
    """Adds `translate` to the subcommands of `trichrome`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "translate", help="color, fill, continue or restore pictures with weights of your own",
        description="Make pictures from pictures: color them, fill holes, continue them beyond a border, restore JPEG "
                    "files, color drawings. No weights ship for this; train some first.",
    )  # fmt: skip
    add = parser.add_argument
    add("paths", nargs="+", type=Path, metavar="PATH", help="picture")
    add("-o", "--output", required=True, type=Path, metavar="OUT", help="folder for the results")
    add("--task", choices=TASKS, help="default: the only one that the weights have learned")
    add("--mask", type=Path, metavar="FILE", help="of inpaint: as large as the picture, white is filled")
    add("--side", choices=SIDES, help="of uncrop: where the picture is continued")
    add("--draw", action="store_true", help="of line_art: PATH is a picture, of which line art is made first")
    add("--colors", type=Path, metavar="FILE", help="picture toward whose colors draws lean, where the weights can")
    add("--factor", type=int, metavar="N", help="of variation: details smaller than N of the network's pixels are new")
    add("--free-luma", action="store_true", help="of colorize: leave the luma to the network (default: kept exactly)")
    add("--samples", type=from_one, default=1, metavar="K", help="results per picture (default 1)")
    add("--seed", type=int, default=0, metavar="N", help="another seed, other results (default 0)")
    add("--steps", type=from_one, metavar="N", help="of the sampler (default: the weights' own)")
    add("--sampler", metavar="NAME", help="algorithm2, posterior, ddim, heun or dpmpp_2m (default: the weights' own)")
    add("--page", type=from_one, metavar="N", help="of PATH, where it is a TIFF or WebP file of several pictures")
    add_max_megapixels(parser)
    add_networks(parser, "config.json and model.safetensors of the family image_to_image, or hub id")
    add_format(parser)
    add("--overwrite", action="store_true", help="replace files in the way (an input is never replaced)")
    parser.set_defaults(run=_translate)


def _translate(options: argparse.Namespace) -> int:
    if options.weights is None:
        return _misuse(NO_WEIGHTS)
    if os.path.exists(options.output) and not os.path.isdir(options.output):  # pathlib's raise for names too long
        return _misuse(f"{options.output} is a file; -o names a folder")
    if options.mask is not None and len(options.paths) > 1:
        return _misuse("a mask is of one picture; give one PATH with it")

    from pipeline.files.outputs import reason_of
    from pipeline.image_to_image import ImageToImagePipeline
    from stages.image_to_image.face import Refinement, TranslateOptions
    from stages.options import OptionError

    outputs = {path: _outputs(path, options) for path in options.paths}
    if problem := _in_the_way(outputs, options):
        return _misuse(problem)
    try:
        refinement = None if options.factor is None else Refinement(options.factor)
        asked = TranslateOptions(steps=options.steps, sampler=options.sampler, refinement=refinement)
        pipe = ImageToImagePipeline.from_pretrained(options.weights).to(*placement(options.device, options.dtype))
    except (ValueError, OSError) as error:
        return _misuse(str(error))
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _say(f"the output folder {options.output} can not be made: {error.strerror or error}")
        return 1
    failed = 0
    for path, names in outputs.items():
        try:
            notes = _translate_one(pipe, path, names, options, asked)
        except OptionError as error:  # what does not fit together is the same for every picture but for its mask
            return _misuse(str(error))
        except Exception as error:  # a picture that fails must not take the others with it
            _say(f"{path}: {reason_of(error, path)}")
            failed += 1
        else:
            for note in notes:
                _say(f"{path}: note: {note}")
    print(f"{len(outputs) - failed} translated, {failed} failed")
    return 1 if failed else 0


def _translate_one(
    pipe: ImageToImagePipeline, path: Path, names: list[Path], options: argparse.Namespace, asked: TranslateOptions
) -> list[str]:
    """Reads the picture and writes its results; returns the notes on them, each once."""
    from pipeline.image_to_image import save_result
    from pipeline.images import load_photo
    from pipeline.images.read import page_count
    from stages.options import OptionError

    def beside(file: Path | None) -> Photo | None:
        if file is None:
            return None
        if page_count(file) > 1:  # --page is of the picture alone
            raise OptionError(f"{file} holds several pictures; a mask, or colors, must be a file of one")
        return load_photo(file, max_pixels=max_pixels(options), keep_rgb=True)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        photo, results, _ = pipe.translate(
            load_photo(path, max_pixels=max_pixels(options), page=options.page, keep_rgb=True), options.task,
            mask=beside(options.mask), side=options.side, num_samples=options.samples, generator=options.seed,
            keep_luma=not options.free_luma, draw=options.draw, colors=beside(options.colors), options=asked,
        )  # fmt: skip
        for name, result in zip(names, results, strict=True):
            save_result(photo, result, name, options.quality)
    return list(dict.fromkeys(" ".join(str(warning.message).split()) for warning in caught))


def _outputs(path: Path, options: argparse.Namespace) -> list[Path]:
    from pipeline.images import FORMATS

    suffix = path.suffix if path.suffix.lower() in FORMATS else ".png"
    if options.format not in ("keep", FORMATS[suffix.lower()]):
        suffix = next(one for one, kind in FORMATS.items() if kind == options.format)
    numbers = [""] if options.samples == 1 else [f"-{k + 1}" for k in range(options.samples)]
    return [options.output / f"{path.stem}{number}{suffix}" for number in numbers]


def _in_the_way(outputs: dict[Path, list[Path]], options: argparse.Namespace) -> str | None:
    """Why the outputs can not be written; None where they can."""
    inputs = {path.resolve() for path in (*outputs, options.mask, options.colors) if path is not None}
    names = [name for several in outputs.values() for name in several]
    for name, count in Counter(names).items():
        if count > 1:
            return f"two of the pictures would be written to {name}; translate them one by one"
        if name.resolve() in inputs:
            return f"{name} is one of the inputs; choose another folder"
        if os.path.exists(name) and not options.overwrite:
            return f"{name} is there already; --overwrite replaces it"
    return None


def _say(line: str) -> None:
    print(shown(line), file=sys.stderr)
