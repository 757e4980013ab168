"""Photographs for training and evaluation: found, read through `datasets`, sifted, and kept as one uint8 tensor.

A data folder holds sets (`photos64`, `photos256`) of Parquet files named train-* and validation-* with an `image`
column and, optionally, a `label` column. Any other folder of pictures works too, subfolders
included. Batches are a pure function of (seed, step, rank): nothing has to be saved to continue a run exactly.
"""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageCms, ImageOps
from torch import Generator, Tensor

from stages import resize as resizing
from stages.color import lab_from_rgb

TINT_RESIDUAL = 1.6  # spread of a*, b* around their fit on lightness below which a picture has one tint at most
NEAR_GRAY_CHROMA = 2.0  # mean a*b* radius below which a picture is as good as gray
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")
MAX_DROPPED = 0.5  # share of unusable pictures above which the folder is taken for a mistake


class DataError(ValueError):
    """The photographs are not where they should be, or not usable."""


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
                small = resizing.resize(part, (side // 2, side // 2))[0].round().byte()
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


def data_folder(given: str | Path | None = None) -> Path:
    """The data folder: `given`, else $TRICHROME_DATA, else ./data. Raises DataError saying what to do where there
    is none.
    """
    folder = Path(given or os.environ.get("TRICHROME_DATA") or "data")
    if not folder.is_dir():
        raise DataError(
            f"no photographs: {folder} is not a folder. Pass --data FOLDER, set TRICHROME_DATA, or link a folder of "
            "pictures (or of Parquet sets, see docs/training.md) to ./data"
        )
    return folder


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


def sets_in(folder: str | Path) -> list[str]:
    """Names of the Parquet sets in a data folder; none in a folder of pictures."""
    return sorted({path.parent.name for path in Path(folder).glob("*/train-*.parquet")})


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _square(data: bytes, side: int) -> np.ndarray | None:
    """The central square of an encoded picture, upright and in sRGB, as (side, side, 3) uint8; None where it would
    have to be enlarged.
    """
    with Image.open(io.BytesIO(data)) as file:
        width, height = file.size
        short = min(width, height)
        if short < side:
            return None
        picture = _srgb(ImageOps.exif_transpose(file))
        width, height = picture.size
        if (width, height) != (side, side):
            left, top = (width - short) // 2, (height - short) // 2
            picture = picture.resize((side, side), Image.Resampling.BOX, (left, top, left + short, top + short))
        return np.asarray(picture)


def _doubled(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (2 H, 2 W, 3) uint8."""
    large = resizing.doubled(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float())
    return large[0].round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def _srgb(picture: Image.Image) -> Image.Image:
    """The picture in mode RGB, converted from the profile it carries; an unusable profile counts as none."""
    profile = picture.info.get("icc_profile")
    if profile and picture.mode in ("RGB", "CMYK"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:
                return converted
        except (OSError, ImageCms.PyCMSError):
            pass
    return picture.convert("RGB")


def is_one_tint(picture: np.ndarray) -> bool:
    """Whether an RGB picture (H, W, 3) uint8 is gray or has a single tint (sepia): it cannot teach color."""
    lab = lab_from_rgb(torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255)
    light, ab = lab[0].flatten(), lab[1:].flatten(1)
    if ab.square().sum(0).sqrt().mean() < NEAR_GRAY_CHROMA:
        return True
    light = light - light.mean()
    ab = ab - ab.mean(1, keepdim=True)
    slope = (ab * light).mean(1, keepdim=True) / light.square().mean().clamp_min(1e-6)
    return bool((ab - slope * light).square().sum(0).mean().sqrt() < TINT_RESIDUAL)


def batch_indices(count: int, batch_size: int, seed: int, step: int) -> Tensor:
    """Indices of global batch `step`: each epoch visits every picture once, in an order of its own (the rest is
    dropped).
    """
    per_epoch = max(count // batch_size, 1)
    epoch, position = divmod(step, per_epoch)
    order = torch.randperm(count, generator=Generator().manual_seed(seed_of(seed, "epoch", epoch)))
    return order[torch.arange(position * batch_size, (position + 1) * batch_size) % count]


def augmented(rgb: Tensor, generator: Generator, crop_share: float = 0.5, smallest: float = 0.6) -> Tensor:
    """Mirrored at random, and a share of the pictures cropped to another aspect and squeezed back to the square.

    Photographs that are not square are squeezed to one when they are colored, so crops have aspects up to 3:2
    either way.
    rgb: (B, 3, S, S); smallest: of a crop's area -> (B, 3, S, S)
    """
    batch = len(rgb)
    mirror, chosen, area, aspect, x, y = torch.rand(6, batch, generator=generator).to(rgb.device)
    area = smallest + (1 - smallest) * area
    stretch = 1.5 ** (aspect - 0.5)  # square root of an aspect from 2:3 to 3:2
    width, height = (area.sqrt() * stretch).clamp(max=1), (area.sqrt() / stretch).clamp(max=1)
    whole = chosen >= crop_share
    width, height = torch.where(whole, 1.0, width), torch.where(whole, 1.0, height)
    theta = rgb.new_zeros(batch, 2, 3)
    theta[:, 0, 0] = torch.where(mirror < 0.5, -width, width)
    theta[:, 1, 1] = height
    theta[:, 0, 2] = (2 * x - 1) * (1 - width)
    theta[:, 1, 2] = (2 * y - 1) * (1 - height)
    grid = F.affine_grid(theta, list(rgb.shape), align_corners=False)
    return F.grid_sample(rgb, grid, mode="bilinear", padding_mode="border", align_corners=False).clamp(0, 1)


def seed_of(*parts: object) -> int:
    """A 63-bit seed from anything printable: the same parts, the same seed, on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1
