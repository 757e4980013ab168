"""ICC profiles: which can be used, and pixels to sRGB by LittleCMS."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyvips  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import ImageCms

from pipeline.images.alone import together
from pipeline.images.notes import note
from pipeline.images.vips import _vips

_TRIAL = {"gray": 1, "rgb": 3, "cmyk": 4}  # channels of the color spaces that are read


def srgb_profile() -> bytes:
    """The sRGB ICC profile that outputs carry (480 bytes, bundled with libvips)."""
    return bytes(pyvips.Operation.call("profile_load", "srgb"))


def _color_space(profile: bytes) -> str:
    space = ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space.strip()
    return {"GRAY": "gray", "RGB": "rgb", "CMYK": "cmyk"}.get(space, repr(space))


def _usable_profile(profile: bytes | None, space: str) -> bytes | None:
    """The profile, or None with a note where it is broken, belongs to other channels, or can not be computed with."""
    if not profile:
        return None
    try:
        named = _color_space(profile)
        if named in _TRIAL and (named == space or (named, space) == ("rgb", "gray")):  # then it means R = G = B
            _srgb_from(np.zeros((1, 1, _TRIAL[named]), np.uint8), profile, named)
            return profile
    except (OSError, ImageCms.PyCMSError, pyvips.Error, UnicodeDecodeError):
        named = "broken"
    if named == "broken" or named == space:
        note("the embedded ICC profile is broken: ignored")
    else:
        note(f"the embedded ICC profile is for {named}, the pixels are {space}: ignored")
    return None


def _is_srgb(profile: bytes) -> bool:
    """Whether an RGB profile says the same as sRGB (it comes in many wordings), tried on a grid of colors."""
    steps = np.linspace(0, 65535, 9).astype(np.uint16)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    return bool(np.abs(_srgb_from(grid, profile, "rgb").astype(int) - grid).max() <= 1.5 * 257)


def _srgb_from(pixels: NDArray[Any], profile: bytes | str, space: str) -> NDArray[np.uint16]:
    """Pixels (H, W, bands) of a profile to sRGB (H, W, 3) in 16 bits, relative colorimetric (LittleCMS).

    profile: an ICC profile, or the name of one that libvips brings along
    """
    with together():
        wide = pixels.dtype != np.uint8
        spaces = {"gray": "grey16" if wide else "b-w", "rgb": "rgb16" if wide else "srgb", "cmyk": "cmyk"}
        image = _vips(pixels).copy(interpretation=spaces[space])
        named = {"input_profile": profile} if isinstance(profile, str) else {"embedded": True}
        if isinstance(profile, bytes):
            image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
        result = image.icc_transform("srgb", intent="relative", black_point_compensation=True, depth=16, **named)
        return result.numpy()
