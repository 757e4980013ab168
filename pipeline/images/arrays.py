"""From a Pillow picture or a numpy array to a `Photo`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.images.exif import _ORIENTATION, _neutral_exif, _photographic_of_pil, said_by_exif
from pipeline.images.luma import check_size, photo_of
from pipeline.images.metadata import Metadata, _neutral_xmp
from pipeline.images.photo import ImageError, Photo


def load_pil(image: Image.Image, max_pixels: int | None, keep_rgb: bool = False) -> Photo:
    check_size(*image.size, max_pixels)
    try:
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"PIL image: damaged or truncated: {error}") from error
    exif = image.getexif()
    orientation = exif.get(_ORIENTATION, 1)
    if image.format == "TIFF":  # Pillow mixes the tags that describe the file with those of the photograph
        exif = _photographic_of_pil(exif)

    space, transparent = "gray", "transparency" in image.info
    match image.mode:
        case "1" | "L":
            plain = image.convert("LA") if transparent else image.convert("L")
        case "LA" | "La":
            plain = image.convert("LA")
        case "RGB" | "RGBA" | "P" | "PA" | "RGBX" | "RGBa" | "YCbCr" | "HSV":
            with_alpha = transparent or image.mode in ("RGBA", "PA", "RGBa")
            space, plain = "rgb", image.convert("RGBA" if with_alpha else "RGB")
        case "CMYK":
            space, plain = "cmyk", image
        case "I;16" | "I;16L" | "I;16B" | "I;16N" | "I":
            plain = image
        case _:
            raise ImageError(
                f"PIL image of mode {image.mode}; 1, L, LA, P, RGB, RGBA, CMYK and I;16 are read "
                "(float pictures as numpy arrays in [0, 1])"
            )
    pixels = np.asarray(plain)
    if image.mode.startswith("I"):
        if pixels.min() < 0 or pixels.max() > 65535:
            levels = f"{pixels.min()}..{pixels.max()}"
            raise ImageError(f"PIL image of mode I with levels {levels}; 0..65535 is read")
        pixels = pixels.astype(np.uint16)[..., None]
        if isinstance(clear := image.info.get("transparency"), int):
            alpha = np.where(pixels == clear, 0, 65535).astype(np.uint16)
            pixels = np.concatenate([pixels, alpha], axis=2)
    dpi = image.info.get("dpi")
    block = exif.tobytes() if len(exif) else None
    stated = (float(dpi[0]), float(dpi[1])) if dpi else said_by_exif(block)[1]
    metadata = Metadata(_neutral_exif(block), _neutral_xmp(_xmp_of(image)), None, orientation, stated)
    pixels = pixels.reshape(image.height, image.width, -1)
    return photo_of(pixels, space, metadata, image.info.get("icc_profile"), keep_rgb)


def load_array(pixels: NDArray[Any], max_pixels: int | None, keep_rgb: bool = False) -> Photo:
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 2, 3, 4):
        raise ImageError(f"an array must be (H, W) or (H, W, 1 | 2 | 3 | 4), channels last; got {pixels.shape}")
    check_size(pixels.shape[1], pixels.shape[0], max_pixels)
    if pixels.dtype.kind == "f":
        if not np.isfinite(pixels).all():
            raise ImageError("a float array must be in [0, 1]; got NaN or infinity. numpy.nan_to_num replaces them")
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            got = f"[{pixels.min():.3g}, {pixels.max():.3g}]"
            raise ImageError(f"a float array must be in [0, 1]; got {got}. Divide 8-bit levels by 255.")
    elif pixels.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"an array must be uint8, uint16 or float; got {pixels.dtype}")
    return photo_of(pixels, "gray" if pixels.shape[2] < 3 else "rgb", Metadata(), None, keep_rgb)


def _xmp_of(image: Image.Image) -> bytes | None:
    packet = image.info.get("xmp")
    return packet if isinstance(packet, bytes) else None
