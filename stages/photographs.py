"""Photographs on disk: where they are, and the pixels of one of them."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from stages.color.spaces import lab_from_rgb
from stages.color.tint import has_one_tint

NEAR_GRAY_CHROMA = 2.0  # mean a*b* radius below which a picture is as good as gray, even where a spot has color
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")


class DataError(ValueError):
    """The photographs are not where they should be, or not usable."""


def data_folder(given: str | Path | None = None) -> Path:
    """The data folder: `given`, else $TRICHROME_DATA, else ./data. Raises DataError saying what to do where there
    is none.
    """
    folder = Path(given or os.environ.get("TRICHROME_DATA") or "data")
    if not folder.is_dir():
        raise DataError(
            f"no photographs: {folder} is not a folder. Pass --data FOLDER, set TRICHROME_DATA, or link a folder of "
            "pictures (or of Parquet sets, see docs/research/training.md) to ./data"
        )
    return folder


def sets_in(folder: str | Path) -> list[str]:
    """Names of the Parquet sets in a data folder; none in a folder of pictures."""
    return sorted({path.parent.name for path in Path(folder).glob("*/train-*.parquet")})


def is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def read_picture(data: bytes, smallest: int) -> tuple[Tensor, bool] | None:
    """An encoded picture, upright and in sRGB, (3, H, W) uint8, and whether the profile it carries had to be ignored.

    None where the short side is less than `smallest`. Decoders raise all kinds of errors on damaged files.
    """
    with Image.open(io.BytesIO(data)) as file:
        if min(file.size) < smallest:
            return None
        picture, ignored = srgb(ImageOps.exif_transpose(file))
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous(), ignored


def srgb(picture: Image.Image) -> tuple[Image.Image, bool]:
    """The picture in mode RGB, converted from the profile it carries; whether that was unusable and counts as none."""
    profile = picture.info.get("icc_profile")
    if not profile:
        return picture.convert("RGB"), False
    colors = picture if picture.mode == "CMYK" else picture.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(colors, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (OSError, ImageCms.PyCMSError):
        converted = None
    return (picture.convert("RGB"), True) if converted is None else (converted, False)


def is_one_tint(picture: Tensor) -> bool:
    """Whether an RGB picture (3, H, W) uint8 is gray, nearly gray or has a single tint: it cannot teach color."""
    rgb = picture.float() / 255
    chroma = torch.linalg.vector_norm(lab_from_rgb(rgb)[1:], dim=0).mean()
    return bool(chroma < NEAR_GRAY_CHROMA) or has_one_tint(rgb)
