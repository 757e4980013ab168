"""Photographs on disk: where they are, and one of them as a square of pixels."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps

from stages.color.resample import doubled
from stages.color.spaces import lab_from_rgb

TINT_RESIDUAL = 1.6  # spread of a*, b* around their fit on lightness below which a picture has one tint at most
NEAR_GRAY_CHROMA = 2.0  # mean a*b* radius below which a picture is as good as gray
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
            "pictures (or of Parquet sets, see docs/training.md) to ./data"
        )
    return folder


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
    large = doubled(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float())
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
