"""Photographs for training and evaluation: found, read through `datasets`, sifted, and kept as one uint8 tensor.

A data folder holds sets (`photos64`, `photos256`) of Parquet files named train-* and validation-* with an `image`
column and, optionally, a `label` column. Any other folder of pictures works too, subfolders
included. Batches are a pure function of (seed, step, rank): nothing has to be saved to continue a run exactly.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from stages.color.resample import resize
from stages.photographs import (
    PICTURE_SUFFIXES,
    DataError,
    _doubled,
    _is_picture,
    _square,
    is_one_tint,
    sets_in,
)
from stages.seeds import seed_of

MAX_DROPPED = 0.5  # share of unusable pictures above which the folder is taken for a mistake


@dataclass(frozen=True)
class Pictures:
    """Square color photographs: images (N, S, S, 3) uint8, labels (N,) int64 (-1 unknown), and what was dropped,
    counted.

    rows: which image each of N pictures is, where some come more than once; None: each one once
    """

    images: Tensor
    labels: Tensor
    digest: str  # SHA-256 over the files' bytes, in order: the identity of this list
    dropped: dict[str, int]
    rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def rgb(self, index: Tensor | slice) -> Tensor:
        """Pictures as (B, 3, S, S) float32 in [0, 1]."""
        rows = index if self.rows is None else self.rows[index]
        return self.images[rows].permute(0, 3, 1, 2).float() / 255

    def with_also(self, other: Pictures, copies: int) -> Pictures:
        """`copies` times another list, then these: the pictures held out stay the last of these."""
        rows = [torch.arange(len(other))] * copies + [len(other) + torch.arange(len(self))]
        labels = torch.cat([other.labels] * copies + [self.labels])
        digest = hashlib.sha256(f"{other.digest} {len(other)} {copies} {self.digest}".encode()).hexdigest()
        dropped = {what: count + other.dropped.get(what, 0) for what, count in self.dropped.items()}
        return Pictures(torch.cat([other.images, self.images]), labels, digest, dropped, torch.cat(rows))

    def halved(self, crops: int) -> Pictures:
        """Each picture at half its side, and `crops` squares cut from it, half to nearly all of its side, reduced to
        the same: what a large picture shows in its parts. Which squares depends on the picture's place alone.
        """
        count, side = len(self), self.images.shape[1]
        made = torch.empty(count * (crops + 1), side // 2, side // 2, 3, dtype=torch.uint8)
        for place in range(count):
            picture = self.images[place].permute(2, 0, 1)[None].float()
            generator = Generator().manual_seed(seed_of("crops", place))
            for number in range(crops + 1):
                part = picture
                if number:
                    cut = int(torch.randint(side // 2, side, (1,), generator=generator))
                    top, left = torch.randint(side - cut + 1, (2,), generator=generator).tolist()
                    part = picture[..., top : top + cut, left : left + cut]
                small = resize(part, (side // 2, side // 2))[0].round().byte()
                made[place * (crops + 1) + number] = small.permute(1, 2, 0)
        digest = hashlib.sha256(f"{self.digest} halved {crops}".encode()).hexdigest()
        return Pictures(made, self.labels.repeat_interleave(crops + 1), digest, self.dropped)

    def split(self, holdout: int) -> tuple[Pictures, Pictures]:
        """(all but the last `holdout`, the last `holdout`)."""
        if not 0 < holdout < len(self):
            raise DataError(f"holdout must be at least 1 and less than the {len(self)} usable pictures; got {holdout}")
        cut = len(self) - holdout
        return self._part(slice(cut), self.dropped), self._part(slice(cut, None), {})

    def _part(self, which: slice, dropped: dict[str, int]) -> Pictures:
        if self.rows is None:
            return Pictures(self.images[which], self.labels[which], self.digest, dropped)
        return Pictures(self.images, self.labels[which], self.digest, dropped, self.rows[which])


def load_pictures(
    folder: str | Path, name: str, split: str, side: int, limit: int | None = None, *, doubled: bool = False
) -> Pictures:
    """The pictures of a set, cropped to the central square and resized to `side`.

    folder: with Parquet files under <name>/<split>-*.parquet, or simply a folder of pictures, subfolders included, all
        taken for `train`, in an order shuffled once and for all by their names
    limit: look at the first pictures only
    doubled: take those of half the size too, enlarged (`stages.resize.doubled`)
    Broken, gray, one-tint and too small pictures are dropped and counted; more than half of them raises DataError.
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
        raise DataError(f"{folder} holds no set {name!r}, but {', '.join(sets)}: set `name` in [data] of the config")
    else:
        # Not load_dataset("imagefolder"): it guesses splits from names like beach_test.jpg and leaves out the others.
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if _is_picture(path)]
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

    images = np.empty((len(table), side, side, 3), np.uint8)  # filled in place: gigabytes should not be there twice
    kept: list[int] = []
    digest = hashlib.sha256()
    dropped = {"broken": 0, "too small": 0, "gray or one tint": 0}
    for index, row in enumerate(table):
        entry = row["image"]
        try:
            data = entry["bytes"] if entry["bytes"] is not None else Path(entry["path"]).read_bytes()
            digest.update(hashlib.sha256(data).digest())
            picture = _square(data, side)
            if picture is None and doubled and (half := _square(data, side // 2)) is not None:
                picture = _doubled(half)
        except Exception:  # decoders raise all kinds of errors on damaged files
            dropped["broken"] += 1
            continue
        if picture is None:
            dropped["too small"] += 1
        elif not shards and is_one_tint(picture):  # the Parquet sets were sifted when they were made
            dropped["gray or one tint"] += 1
        else:
            images[len(kept)] = picture
            kept.append(index)
    lost = sum(dropped.values())
    if not kept or lost > MAX_DROPPED * len(table):
        raise DataError(
            f"{folder}: {lost} of {len(table)} pictures are unusable ({dropped}); is this the right folder?"
        )
    return Pictures(
        torch.from_numpy(images[: len(kept)]),
        torch.tensor([labels[i] for i in kept]) if labels is not None else torch.full((len(kept),), -1),
        digest.hexdigest(),
        dropped,
    )


def batch_indices(count: int, batch_size: int, seed: int, step: int) -> Tensor:
    """Indices of global batch `step`: each epoch visits every picture once, in an order of its own (the rest is
    dropped).
    """
    per_epoch = max(count // batch_size, 1)
    epoch, position = divmod(step, per_epoch)
    order = torch.randperm(count, generator=Generator().manual_seed(seed_of(seed, "epoch", epoch)))
    return order[torch.arange(position * batch_size, (position + 1) * batch_size) % count]
