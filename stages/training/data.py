"""Photographs for training: found, read through `datasets`, sifted, kept as they are, and cut to squares when used.

A data folder holds sets (`photos64`, `photos256`) of Parquet files named train-* and validation-* with an `image`
column and, optionally, a `label` column. Any other folder of pictures works too, subfolders
included. Batches are a pure function of (seed, step, rank): nothing has to be saved to continue a run exactly.
Sets, their mixture and their cuts share what a picture is here; apart they would import each other.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from stages.checkpoint import CheckpointError
from stages.color.resample import crop_resize, resize, upsample2x
from stages.photographs import PICTURE_SUFFIXES, DataError, is_one_tint, is_picture, read_picture, sets_in
from stages.seeds import seed_of
from stages.training.augmentation import MAX_ASPECT, random_boxes
from stages.training.config import DataConfig

MAX_DROPPED = 0.5  # share of unusable pictures above which the folder is taken for a mistake
TURN = 1000  # pictures in which each set comes exactly by its share, but for rounding


@dataclass(frozen=True)
class Pictures:
    """Color photographs of one set, to be seen at side x side.

    images: (3, H, W) uint8 each, of a short side from `side` to twice that, or of half of it: these are enlarged
    labels: (N,) int64, -1 unknown
    digest: SHA-256 over the files' bytes, in order: the identity of this list
    dropped, noted: how many pictures were left out, and what there is to know of those that were kept
    """

    images: Sequence[Tensor]
    labels: Tensor
    side: int
    digest: str
    dropped: dict[str, int]
    noted: dict[str, int]

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Pictures:
        return replace(self, images=[image.to(device) for image in self.images], labels=self.labels.to(device))

    def squares(self, which: slice | Sequence[int] = slice(None)) -> Tensor:
        """The central squares of pictures: (B, 3, S, S) float32 in [0, 1]."""
        images = self.images[which] if isinstance(which, slice) else [self.images[index] for index in which]
        return torch.stack([self._square(image) for image in images])

    def _square(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        short = min(height, width)
        top, left = (height - short) // 2, (width - short) // 2
        return resize(self._rgb(image[:, top : top + short, left : left + short])[None], (self.side, self.side))[0]

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of a picture, as it is cut from."""
        height, width = self.images[index].shape[-2:]
        return (height, width) if min(height, width) >= self.side else (2 * height, 2 * width)

    def cut(self, index: int, box: tuple[float, float, float, float], mirrored: bool) -> Tensor:
        """A part of a picture, box (top, left, height, width) in pixels of `size`, squeezed to (3, S, S) float32."""
        part = crop_resize(self._rgb(self.images[index]), box, (self.side, self.side))
        return part.flip(2) if mirrored else part

    def _rgb(self, image: Tensor) -> Tensor:
        """Float in [0, 1], large enough for the side."""
        rgb = image.float() / 255
        return rgb if min(image.shape[-2:]) >= self.side else upsample2x(rgb[None])[0].clamp(0, 1)

    def split(self, holdout: int) -> tuple[Pictures, Pictures]:
        """(all but the last `holdout`, the last `holdout`)."""
        if not 0 <= holdout < len(self):
            raise DataError(f"holdout must be less than the {len(self)} usable pictures; got {holdout}")
        cut = len(self) - holdout
        return (
            replace(self, images=self.images[:cut], labels=self.labels[:cut]),
            replace(self, images=self.images[cut:], labels=self.labels[cut:], dropped={}, noted={}),
        )


Pick = tuple[int, int]
"""(number of the set, number of the picture in it)"""


@dataclass(frozen=True)
class Mixture:
    """Sets of pictures, of which each is seen by its share.

    holdouts: how many of the last pictures of each set are not for training
    """

    names: tuple[str, ...]
    sets: tuple[Pictures, ...]
    shares: tuple[float, ...]
    holdouts: tuple[int, ...]

    def __len__(self) -> int:
        return sum(map(len, self.sets))

    @property
    def digest(self) -> str:
        """SHA-256 of names and digests: the identity of all pictures."""
        parts = [(name, pictures.digest) for name, pictures in zip(self.names, self.sets, strict=True)]
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def split(self) -> tuple[Mixture, Pictures]:
        """What is learned from, and the pictures of the first set that are held out."""
        if not self.holdouts or self.holdouts[0] < 1:
            raise DataError("the first set must hold out a picture at least: the log is made from these")
        parts = [pictures.split(holdout) for pictures, holdout in zip(self.sets, self.holdouts, strict=True)]
        nothing = (0,) * len(parts)
        return replace(self, sets=tuple(first for first, _ in parts), holdouts=nothing), parts[0][1]

    def to(self, device: torch.device) -> Mixture:
        return replace(self, sets=tuple(pictures.to(device) for pictures in self.sets))

    def account(self) -> list[dict[str, Any]]:
        """What the sets hold, for the log."""
        return [
            {"name": name, "share": share, "pictures": len(pictures), "dropped": pictures.dropped,
             "noted": pictures.noted, "sha256": pictures.digest}
            for name, share, pictures in zip(self.names, self.shares, self.sets, strict=True)
        ]  # fmt: skip

    def batch(self, batch_size: int, seed: int, step: int) -> list[Pick]:
        """The pictures of global batch `step`. Every `TURN` pictures hold each set by its share, spread evenly; each
        epoch of a set visits each of its pictures once, in an order of its own.
        """
        picks = []
        for place in range(step * batch_size, (step + 1) * batch_size):
            turn, within = divmod(place, TURN)
            number, before = _turn(self.shares, seed, turn)[within]
            epoch, position = divmod(turn * _counts(self.shares)[number] + before, len(self.sets[number]))
            picks.append((number, int(_order(len(self.sets[number]), seed, self.names[number], epoch)[position])))
        return picks

    def squares(self, picks: Sequence[Pick]) -> Tensor:
        """Central squares (B, 3, S, S) in [0, 1]."""
        return torch.cat([self.sets[number].squares([index]) for number, index in picks])

    def labels(self, picks: Sequence[Pick]) -> Tensor:
        return torch.stack([self.sets[number].labels[index] for number, index in picks])

    def cuts(self, picks: Sequence[Pick], generator: Generator) -> Tensor:
        """Parts of the pictures at random, squeezed and mirrored (`random_boxes`): (B, 3, S, S) in [0, 1]."""
        sizes = torch.tensor([self.sets[number].size(index) for number, index in picks])
        sides = torch.tensor([self.sets[number].side for number, _ in picks])
        boxes, mirrored = random_boxes(sizes, (sizes != sides[:, None]).any(1), generator)
        return torch.stack([
            self.sets[number].cut(index, tuple(box), mirror)
            for (number, index), box, mirror in zip(picks, boxes.tolist(), mirrored.tolist(), strict=True)
        ])  # fmt: skip


@functools.lru_cache(maxsize=8)
def _counts(shares: tuple[float, ...]) -> list[int]:
    """How many of `TURN` pictures are of each set: the largest remainders are rounded up."""
    exact = [TURN * share / sum(shares) for share in shares]
    counts = [int(one) for one in exact]
    remainders = sorted(range(len(shares)), key=lambda number: counts[number] - exact[number])
    for number in remainders[: TURN - sum(counts)]:
        counts[number] += 1
    return counts


@functools.lru_cache(maxsize=8)
def _turn(shares: tuple[float, ...], seed: int, turn: int) -> list[Pick]:
    """The set of each of `TURN` pictures, and how many of that set came before in this turn.

    The pictures of a set come at even distances but for jitter: batches are as mixed as the whole, and processes alike.
    """
    generator = Generator().manual_seed(seed_of(seed, "turn", turn))
    times, numbers = [], []
    for number, count in enumerate(_counts(shares)):
        times.append((torch.arange(count) + torch.rand(count, generator=generator)) / count)
        numbers += [number] * count
    seen, places = [0] * len(shares), []
    for place in torch.cat(times).argsort(stable=True).tolist():
        number = numbers[place]
        places.append((number, seen[number]))
        seen[number] += 1
    return places


@functools.lru_cache(maxsize=16)
def _order(count: int, seed: int, name: str, epoch: int) -> Tensor:
    return torch.randperm(count, generator=Generator().manual_seed(seed_of(seed, "epoch", name, epoch)))


def load_mixture(folder: str | Path, data: DataConfig) -> Mixture:
    """The sets of a config; a folder of pictures is taken for the first one. Raises CheckpointError and DataError."""
    if not data.sets:
        raise CheckpointError("[data] needs a [[data.sets]] at least")
    for one in data.sets:
        if not one.share > 0:
            raise CheckpointError(f"the share of {one.name} must be greater than 0; got {one.share}")
        if one.holdout < 0:
            raise CheckpointError(f"the holdout of {one.name} must not be negative; got {one.holdout}")
    names = [one.name for one in data.sets]
    if len(set(names)) < len(names):
        raise CheckpointError(f"each of [[data.sets]] must have a name of its own; got {', '.join(names)}")
    sets = data.sets
    if not sets_in(folder):
        sets = (replace(sets[0], upsample2x=any(one.upsample2x for one in sets)),)
    if 0 in _counts(tuple(one.share for one in sets)):
        raise CheckpointError(f"a share of the smallest set is less than one in {TURN}")
    loaded = [
        load_pictures(folder, one.name, "train", data.side, data.limit or None, upsample=one.upsample2x) for one in sets
    ]
    return Mixture(
        tuple(one.name for one in sets), tuple(loaded),
        tuple(one.share for one in sets), tuple(one.holdout for one in sets),
    )  # fmt: skip


def load_pictures(
    folder: str | Path, name: str, split: str, side: int, limit: int | None = None, *, upsample: bool = False
) -> Pictures:
    """The pictures of a set, at the center at most 3:2, reduced to a short side of at most twice `side`.

    folder: with Parquet files under <name>/<split>-*.parquet, or simply a folder of pictures, subfolders included, all
        taken for `train`, in an order shuffled once and for all by their names
    limit: look at the first pictures only
    upsample: take those from half of `side` too: they are reduced to that and enlarged (`upsample2x`) when used
    Broken, gray, one-tint and too small pictures are dropped and counted; more than half of them raises DataError.
    Those whose color profile is unusable, and taken for sRGB, are counted too.
    """
    from datasets import Dataset, Features, load_dataset
    from datasets import Image as ImageFeature

    folder = Path(folder)
    shards = sorted(str(path) for path in (folder / name).glob(f"{split}-*.parquet"))
    if shards:
        table = load_dataset("parquet", data_files=shards, split="train")
    elif split != "train":
        raise DataError(f"{folder / name} has no {split}-*.parquet")
    elif sets := sets_in(folder):
        raise DataError(f"{folder} holds no set {name!r}, but {', '.join(sets)}: set `name` in [[data.sets]]")
    else:
        # Not load_dataset("imagefolder"): it guesses splits from names like beach_test.jpg and leaves out the others.
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if is_picture(path)]
        if not names:
            known = ", ".join(PICTURE_SUFFIXES)
            raise DataError(f"{folder} holds neither {name}/train-*.parquet nor any picture ({known})")
        names.sort(key=seed_of)  # the last ones are held out: they should not all come from the last subfolder
        paths = [str(folder / name) for name in names]
        table = Dataset.from_dict({"image": paths}, features=Features({"image": ImageFeature(decode=False)}))
    if limit is not None:
        table = table.select(range(min(limit, len(table))))
    labels = [-1 if label is None else label for label in table["label"]] if "label" in table.column_names else None
    for label in labels or ():
        if type(label) is not int:
            raise DataError(f"{folder}: labels must be class numbers; got {label!r}")
    table = table.select_columns(["image"]).cast_column("image", ImageFeature(decode=False))

    images: list[Tensor] = []
    kept: list[int] = []
    digest = hashlib.sha256()
    dropped, noted = {"broken": 0, "too small": 0, "gray or one tint": 0}, {"profile ignored": 0}
    for index, row in enumerate(table):
        entry = row["image"]
        try:
            data = entry["bytes"] if entry["bytes"] is not None else Path(entry["path"]).read_bytes()
            digest.update(hashlib.sha256(data).digest())
            read = read_picture(data, side // 2 if upsample else side)
        except Exception:  # decoders raise all kinds of errors on damaged files
            dropped["broken"] += 1
            continue
        if read is None:
            dropped["too small"] += 1
            continue
        picture, ignored = fitted(read[0], side), read[1]
        if not shards and is_one_tint(picture):  # the Parquet sets were sifted when they were made
            dropped["gray or one tint"] += 1
            continue
        noted["profile ignored"] += ignored
        images.append(picture)
        kept.append(index)
    lost = sum(dropped.values())
    if not kept or lost > MAX_DROPPED * len(table):
        raise DataError(
            f"{folder}: {lost} of {len(table)} pictures are unusable ({dropped}); is this the right folder?"
        )
    labeled = torch.tensor([labels[i] for i in kept]) if labels is not None else torch.full((len(kept),), -1)
    return Pictures(images, labeled, side, digest.hexdigest(), dropped, noted)


def fitted(picture: Tensor, side: int) -> Tensor:
    """The center of a picture (3, H, W) uint8, at most 3:2, its short side at most twice `side`; where it is less than
    `side`, half of it.
    """
    height, width = picture.shape[-2:]
    short = min(height, width)
    longest = int(MAX_ASPECT * short)
    top, left = max(height - longest, 0) // 2, max(width - longest, 0) // 2
    picture = picture[:, top : top + longest, left : left + longest]
    smaller = side // 2 if short < side else min(short, 2 * side)
    if smaller == short:
        return picture.contiguous()
    size = tuple(round(length * smaller / short) for length in picture.shape[-2:])
    return resize(picture[None].float(), (size[0], size[1]))[0].round().byte()
