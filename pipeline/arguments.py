"""Options that several subcommands share: their kinds of values, and what they ask for."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from stages.options import SampleOptions

# torch takes more than a second to import: nothing up here may load it.

__all__ = [
    "add_format", "add_max_megapixels", "add_networks", "add_sampling", "from_one", "from_zero", "max_pixels", "number",
    "placement", "sample_options", "whole",
]  # fmt: skip


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Adds the seed and what `sample_options` reads."""
    add = parser.add_argument
    add("--seed", type=int, default=0, metavar="N", help="another seed, other colors (default 0)")
    add("--steps", type=from_one, metavar="N", help="sampling steps of stage 1 (default: its own)")
    add("--pool", type=from_one, metavar="N",
        help="draws of which the first picture is the most central (default: stage 1's number; 1: no choosing)")
    add("--superres-steps", type=from_one, metavar="N", help="steps of stage 3 (default: its own)")
    add("--temperature", type=number, metavar="T",
        help="of stage 1's draws: less is surer and less varied, 1 as it has learned them (default: its own)")
    add("--chroma-gain", type=number, metavar="G", help="factor on the chroma of stage 1's draws (default: its own)")
    add("--sharpness", type=number, metavar="S", help="of the edges of color, 0 to 2 (default: the pipeline's own)")


def sample_options(options: argparse.Namespace) -> SampleOptions:
    """Raises OptionError for values out of range."""
    from stages.options import SampleOptions

    return SampleOptions(
        steps=options.steps, superres_steps=options.superres_steps, temperature=options.temperature,
        chroma_gain=options.chroma_gain, pool=options.pool, sharpness=options.sharpness,
    )  # fmt: skip


def add_networks(parser: argparse.ArgumentParser, weights: str | None = None) -> None:
    """Adds the weights, and where and in what precision they run; `placement` reads the latter. weights: what they are,
    if no pipeline.
    """
    add = parser.add_argument
    add("--weights", metavar="FOLDER",
        help=weights or "pipeline folder or hub id (default: the weights in the package)")
    add("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="default: the best there is")
    add("--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto",
        help="precision of the networks (auto: bfloat16 on cards that have it, else float32)")


def placement(device: str, dtype: str) -> tuple[torch.device, torch.dtype]:
    """What the words of --device and --dtype name."""
    import torch

    from pipeline.placement import why_not

    if device == "auto":
        device = "mps" if torch.backends.mps.is_available() else "cpu"
        device = "cuda" if torch.cuda.is_available() else device
    place = torch.device(device)
    if dtype == "auto":
        # On a CPU bfloat16 is offered, not chosen: float32 gives one picture on all of them.
        fast = place.type == "cuda" and why_not(place, torch.bfloat16) is None
        return place, torch.bfloat16 if fast else torch.float32
    return place, getattr(torch, dtype)


def add_max_megapixels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-megapixels", type=from_one, metavar="N",
        help="read pictures of up to N million pixels, however small their file (default 300, and 1000 to a byte)")


def max_pixels(options: argparse.Namespace) -> int | None:
    return None if options.max_megapixels is None else options.max_megapixels * 1_000_000


def add_format(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--format", choices=["keep", "png", "jpeg", "tiff", "webp"], default="keep",
        help="format of the outputs (default: that of each input's name)")
    add("--quality", type=_quality, default=95, metavar="Q", help="of JPEG and WebP, 1 to 100 (default 95)")


def whole(text: str, accept: Callable[[int], bool], what: str) -> int:
    """Raises argparse.ArgumentTypeError with `what` was expected."""
    if not text.isascii() or not text.isdigit() or not accept(int(text)):
        raise argparse.ArgumentTypeError(f"expected {what}, got {text!r}")
    return int(text)


def from_one(text: str) -> int:
    return whole(text, lambda value: value >= 1, "a whole number from 1")


def from_zero(text: str) -> int:
    return whole(text, lambda value: True, "a whole number from 0")


def number(text: str, most: float = math.inf) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= most or value == math.inf:
        said = "a number from 0" if most == math.inf else f"a number from 0 to {most:g}"
        raise argparse.ArgumentTypeError(f"expected {said}, got {text!r}")
    return value


def _quality(text: str) -> int:
    return whole(text, lambda value: 1 <= value <= 100, "a whole number from 1 to 100")
