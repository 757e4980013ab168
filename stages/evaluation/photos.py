"""The photographs of an evaluation, in a fixed order, with their hash."""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile
from torch import Tensor

from stages.color.resample import resize
from stages.color.spaces import gray_from_rgb
from stages.evaluation.pixel import PictureList, picture_from_rgb
from stages.photographs import PICTURE_SUFFIXES, DataError, data_folder, srgb
from stages.seeds import NoiseSource, noise_key

HELD_OUT = "held-out"


@dataclass(frozen=True)
class PhotoSet:
    """side: photographs are squares of this side, or squares are made of them
    held_out: the last photographs of `train` that training leaves out, the `holdout` of the configs in configs/
    """

    side: int
    held_out: int


SETS = {
    "photos64": PhotoSet(64, 1000), "photos128": PhotoSet(128, 500), "photos256": PhotoSet(256, 133),
    "lineart": PhotoSet(64, 100),
}  # fmt: skip
PHOTOGRAPHS = tuple(name for name in SETS if name.startswith("photos"))


class EvaluationError(ValueError):
    """What the user asked for cannot be evaluated; the message says what to change."""


@dataclass(frozen=True)
class Photos:
    """The originals of one evaluation, in a fixed order.

    pictures: uint8 (N, 3, H, W), or a list of uint8 (3, H, W) where sizes differ
    digests: SHA-256 of each encoded image file, 32 bytes
    stems: file names without suffix, where the photographs are files
    labels: names of their classes, "" where one is not known; none at all where the set has no classes
    """

    name: str
    pictures: PictureList
    digests: list[bytes]
    stems: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def sha256(self) -> str:
        """Hash of the list: SHA-256 over the digests of its files, in order."""
        return hashlib.sha256(b"".join(self.digests)).hexdigest()

    def reduced(self, side: int) -> Photos:
        """The same photographs at side x side, from one size only; themselves where that is theirs."""
        assert isinstance(self.pictures, Tensor)
        if self.pictures.shape[-2:] == (side, side):
            return self
        return replace(self, pictures=torch.stack([_reduced(picture, side) for picture in self.pictures]))

    def first(self, count: int) -> Photos:
        if count > len(self):
            raise EvaluationError(f"{self.name} has {len(self)} photographs, {count} were asked for")
        return self.part(0, count)

    def part(self, start: int, stop: int) -> Photos:
        """The photographs from `start` to before `stop`."""
        some = slice(start, stop)
        return Photos(self.name, self.pictures[some], self.digests[some], self.stems[some], self.labels[some])

    def rgb(self, part: range | slice = slice(None)) -> Tensor:
        """float32 (n, 3, H, W) in [0, 1]; photographs of one size only."""
        assert isinstance(self.pictures, Tensor)
        return self.pictures[part.start : part.stop].float() / 255

    def gray(self) -> list[Tensor]:
        """8-bit luma, each (1, H, W) uint8: what a colorizer is given."""
        return [picture_from_rgb(gray_from_rgb(picture.float() / 255)) for picture in self.pictures]

    def noise(self, seed: int) -> list[NoiseSource]:
        """Where the draws of each photograph come from when the pipeline is given its `gray` and this seed."""
        return [NoiseSource(seed, noise_key((gray[0].float() / 255).numpy(), 8)) for gray in self.gray()]

    def plain_gray(self) -> list[Tensor]:
        """The 8-bit luma as a picture, each (3, H, W) uint8."""
        return [gray.expand(3, -1, -1) for gray in self.gray()]


def features_file(args: argparse.Namespace) -> Path | None:
    """The feature network: --features, else features/squeezenet1_1.safetensors in the data folder; None where that is
    not there.
    """
    if args.features:
        return args.features
    try:
        file = data_folder(args.data) / "features" / "squeezenet1_1.safetensors"
    except DataError:
        return None
    return file if file.is_file() else None


def load_photos(folder: Path, name: str, split: str, count: int | None = None) -> Photos:
    """The first `count` photographs of one Parquet split, decoded once: the center square of each, at the set's side.

    name: of SETS; split: as the files are named, or "held-out" for the last photographs of `train`, which training
        leaves out
    folder/name/split-*.parquet with a column `image` of {bytes, path}; raises EvaluationError.
    """
    from datasets import Image as ImageColumn
    from datasets import load_dataset  # 1.4 s to import: only where it is used

    if name not in SETS:
        raise EvaluationError(f"a set must be one of {', '.join(SETS)}; got {name!r}")
    stored = "train" if split == HELD_OUT else split
    files = sorted(str(path) for path in (folder / name).glob(f"{stored}-*.parquet"))
    if not files:
        raise EvaluationError(f"no {stored}-*.parquet in {folder / name}: is --data the folder that holds {name}/?")
    rows = load_dataset("parquet", data_files=files, split="train").cast_column("image", ImageColumn(decode=False))
    if split == HELD_OUT:
        held_out = SETS[name].held_out
        if held_out >= len(rows):
            raise EvaluationError(f"of {name} the last {held_out} photographs are held out of training, and there are "
                                  f"{len(rows)} in all: is --data the complete folder?")  # fmt: skip
        rows = rows.select(range(len(rows) - held_out, len(rows)))
    if count is not None and count > len(rows):
        raise EvaluationError(f"{name}/{split} has {len(rows)} photographs, {count} were asked for")
    names = getattr(rows.features.get("label"), "names", None)
    labels: list[str] = []
    digests: list[bytes] = []
    pictures: list[Tensor] = []
    for row in rows.select(range(count or len(rows))):
        encoded = row["image"]["bytes"]
        digests.append(hashlib.sha256(encoded).digest())
        what = f"photograph {len(pictures)} of {name}/{split}"
        pictures.append(_square(_picture(BytesIO(encoded), what), SETS[name].side, what))
        if names:
            labels.append("" if row["label"] is None or row["label"] < 0 else names[row["label"]])
    return Photos(f"{name}/{split}", torch.stack(pictures), digests, labels=labels)


def _square(picture: Tensor, side: int, label: str) -> Tensor:
    """The center square of a picture, reduced to `side`: uint8 (3, H, W) -> uint8 (3, side, side)."""
    height, width = picture.shape[1:]
    short = min(height, width)
    if short < side:
        raise EvaluationError(f"{label} is {width}x{height}; both sides must be at least {side}")
    top, left = (height - short) // 2, (width - short) // 2
    return _reduced(picture[:, top : top + short, left : left + short], side)


def _reduced(picture: Tensor, side: int) -> Tensor:
    """uint8 (3, S, S) -> uint8 (3, side, side)."""
    return picture_from_rgb(resize(picture[None].float() / 255, (side, side))[0])


def load_folder(folder: Path) -> Photos:
    """Every picture of a folder, in the order of the file stems; sizes may differ; raises EvaluationError."""
    files = _by_stem(folder)
    digests = [hashlib.sha256(path.read_bytes()).digest() for path in files.values()]
    pictures = [_picture(path, str(path)) for path in files.values()]
    return Photos(str(folder), pictures, digests, list(files))


def load_outputs(folder: Path, photos: Photos) -> list[Tensor]:
    """A colorizer's pictures, matched to the originals by file stem: as many uint8 (3, H, W), in their order.

    Raises EvaluationError for a missing or an extra picture and for another size: all or nothing, since a
    score over the pictures that happen to be there would compare with no other.
    """
    files = _by_stem(folder)
    wanted = set(photos.stems)
    for what, stems in (("no output for", wanted - set(files)), ("no original for", set(files) - wanted)):
        if stems:
            some = ", ".join(sorted(stems)[:5]) + (", …" if len(stems) > 5 else "")
            raise EvaluationError(f"{folder}: {what} {len(stems)} file stem(s): {some}")
    outputs = []
    for stem, original in zip(photos.stems, photos.pictures, strict=True):
        output = _picture(files[stem], str(files[stem]))
        if output.shape != original.shape:
            raise EvaluationError(
                f"{files[stem]} is {output.shape[2]}x{output.shape[1]}, its original "
                f"{original.shape[2]}x{original.shape[1]}: score outputs at the size of the originals"
            )
        outputs.append(output)
    return outputs


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise EvaluationError(f"no folder {folder}")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda path: (path.stem, path.name)):
        if path.suffix.lower() not in PICTURE_SUFFIXES:
            continue
        if path.stem in files:
            raise EvaluationError(f"{files[path.stem]} and {path.name} have one stem: which one is meant?")
        files[path.stem] = path
    if not files:
        raise EvaluationError(f"no pictures ({' '.join(sorted(PICTURE_SUFFIXES))}) in {folder}")
    return files


def _picture(source: Path | BytesIO, name: str) -> Tensor:
    """8-bit sRGB pixels, upright, converted from the profile it carries: uint8 (3, H, W)."""
    try:
        with Image.open(source) as image:
            # Pillow reads 16-bit RGB as 8 bits and calls it RGB; only what it decodes from tells.
            deep = isinstance(image, ImageFile) and any(";16" in str(tile) for tile in image.tile)
            upright = ImageOps.exif_transpose(image)
            if deep or upright.mode.startswith(("I", "F")):
                raise EvaluationError(f"{name} has more than 8 bits per channel; only 8-bit pictures are scored")
            pixels = np.array(srgb(upright)[0])
    except OSError as error:
        raise EvaluationError(f"{name} is not a readable picture: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
