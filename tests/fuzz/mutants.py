"""Damaged picture files, each from a seed number: a small corpus of good files, and what happens to files in the world.

Bits flip, blocks are zeroed or lost, files end early or grow, lengths and header fields take extreme values, and the
head of one file meets the body of another.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import numpy as np
import pyvips
from PIL import Image, ImageCms

Rng = np.random.Generator
HEIGHT, WIDTH = 90, 120
SUFFIX = {"jpeg": ".jpg", "png": ".png", "tiff": ".tif", "webp": ".webp"}
_EXTREMES = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)


def scene() -> np.ndarray:
    """A smooth picture with some grain, (H, W, 3) uint8."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] / [[[HEIGHT]], [[WIDTH]]]
    waves = np.stack([0.5 + 0.4 * np.sin(5 * x + k) * np.cos(4 * y - k) for k in range(3)], -1)
    grain = np.random.default_rng(0).normal(0, 0.02, waves.shape)
    return np.rint(np.clip(waves + grain, 0, 1) * 255).astype(np.uint8)


def corpus() -> dict[str, tuple[str, bytes]]:
    """name -> (format, good file)."""
    rgb = scene()
    gray, alpha = rgb[..., 0], np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
    color, plain = Image.fromarray(rgb), Image.fromarray(gray)
    clear, deep = Image.fromarray(np.dstack([rgb, alpha])), Image.fromarray(gray.astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Graflex", 6
    exif.get_ifd(0x8769).update({0x829A: 0.008, 0x927C: b"private" * 5, 0x9286: b"ASCII\0\0\0a comment"})
    about = {"exif": exif.tobytes(), "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}
    files: dict[str, tuple[str, bytes]] = {}

    def pil(name: str, kind: str, image: Image.Image, **options: object) -> None:
        file = io.BytesIO()
        image.copy().save(file, kind.upper(), **options)  # a save leaves its options on the image
        files[name] = kind, file.getvalue()

    def vips(name: str, kind: str, pixels: np.ndarray, save: str, **options: object) -> None:
        wide = pixels.dtype == np.uint16
        image = pyvips.Image.new_from_array(pixels).copy(interpretation="rgb16" if wide else "srgb")
        files[name] = kind, getattr(image, save)(**options)

    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/' tiff:Orientation='6'/>"
    pil("jpeg", "jpeg", color, quality=90)
    pil("jpeg gray", "jpeg", plain, quality=90, **about, xmp=xmp)
    pil("jpeg progressive", "jpeg", color, progressive=True, **about)
    pil("jpeg restart", "jpeg", color, restart_marker_rows=1)
    pil("jpeg cmyk", "jpeg", color.convert("CMYK"))
    pil("png", "png", color, **about)
    pil("png gray", "png", plain)
    pil("png palette", "png", color.quantize(16), transparency=3)
    pil("png alpha", "png", clear)
    pil("png deep", "png", deep)
    pil("png bilevel", "png", plain.convert("1"))
    vips("png interlaced", "png", rgb, "pngsave_buffer", interlace=True)
    pil("tiff", "tiff", color, **about)
    pil("tiff lzw", "tiff", color, compression="tiff_lzw")
    pil("tiff deflate deep", "tiff", deep, compression="tiff_adobe_deflate")
    pil("tiff jpeg", "tiff", color, compression="jpeg")
    pil("tiff fax", "tiff", plain.convert("1"), compression="group4")
    pil("tiff ycbcr", "tiff", color.convert("YCbCr"), compression="tiff_lzw")
    pil("tiff alpha", "tiff", clear, compression="packbits")
    pil("tiff pages", "tiff", color, save_all=True, append_images=[plain])
    vips("tiff tiles", "tiff", rgb, "tiffsave_buffer", tile=True, tile_width=32, tile_height=32, compression="deflate")
    vips("tiff big", "tiff", rgb.astype(np.uint16) * 257, "tiffsave_buffer", bigtiff=True, compression="lzw")
    pil("webp", "webp", color, quality=90, **about)
    pil("webp lossless", "webp", color, lossless=True)
    pil("webp alpha", "webp", clear, quality=90)
    pil("webp frames", "webp", color, save_all=True, append_images=[plain.convert("RGB")])
    return files


CORPUS = corpus()


def mutant(seed: int, number: int) -> tuple[str, bytes]:
    """(name in the corpus, damaged file): the same for the same two numbers."""
    rng = np.random.default_rng((seed, number))
    name = list(CORPUS)[number % len(CORPUS)]  # all in turn
    data = bytearray(CORPUS[name][1])
    for _ in range(1 + rng.geometric(0.6)):
        change: Callable[[Rng, bytearray], None] = CHANGES[rng.integers(len(CHANGES))]
        if len(data) > 16:
            change(rng, data)
    return name, bytes(data)


def _place(rng: Rng, data: bytearray) -> int:
    """Half of the time in the first 400 bytes: headers are small, and what breaks is in them."""
    return int(rng.integers(4, min(len(data), 400) if rng.random() < 0.5 else len(data)))


def flip_bits(rng: Rng, data: bytearray) -> None:
    for _ in range(int(rng.integers(1, 12))):
        data[_place(rng, data)] ^= 1 << int(rng.integers(8))


def set_byte(rng: Rng, data: bytearray) -> None:
    data[_place(rng, data)] = int(rng.integers(256))


def zero_block(rng: Rng, data: bytearray) -> None:
    start = _place(rng, data)
    stop = min(len(data), start + int(rng.integers(1, 512)))
    data[start:stop] = bytes(stop - start)


def lose_block(rng: Rng, data: bytearray) -> None:
    start = _place(rng, data)
    del data[start : start + int(rng.integers(1, 512))]


def cut(rng: Rng, data: bytearray) -> None:
    del data[int(rng.integers(8, len(data))) :]


def cut_with_end(rng: Rng, data: bytearray) -> None:
    """Cut, with the mark of a proper end."""
    end = b"\xff\xd9" if data.startswith(b"\xff\xd8") else bytes(data[-12:])
    cut(rng, data)
    data += end


def append(rng: Rng, data: bytearray) -> None:
    data += rng.bytes(int(rng.integers(1, 300)))


def insert(rng: Rng, data: bytearray) -> None:
    at = _place(rng, data)
    data[at:at] = rng.bytes(int(rng.integers(1, 60)))


def extreme_number(rng: Rng, data: bytearray) -> None:
    """A length, an offset, a count or a size: 16 or 32 bits in either order."""
    code = ("<H", ">H", "<I", ">I")[rng.integers(4)]
    value = _EXTREMES[rng.integers(len(_EXTREMES))] & (2 ** (8 * struct.calcsize(code)) - 1)
    at = min(_place(rng, data), len(data) - 4)
    struct.pack_into(code, data, at, value)


def tiff_entry(rng: Rng, data: bytearray) -> None:
    """A field of an entry of the first directory; another number in other formats."""
    if data[:4] != b"II*\0" or len(data) < 30:
        return extreme_number(rng, data)
    at = struct.unpack_from("<I", data, 4)[0]
    if at + 2 > len(data):
        return
    count = struct.unpack_from("<H", data, at)[0]
    entry = at + 2 + 12 * int(rng.integers(max(1, count)))
    if entry + 12 > len(data):
        return
    match rng.integers(3):
        case 0:
            struct.pack_into("<H", data, entry + 2, int(rng.integers(0, 20)))  # type
        case 1:
            struct.pack_into("<I", data, entry + 4, _EXTREMES[rng.integers(len(_EXTREMES))])  # count
        case _:
            small = int(rng.integers(0, 12))
            value = small if rng.random() < 0.5 else _EXTREMES[rng.integers(len(_EXTREMES))]
            struct.pack_into("<I", data, entry + 8, value)


def splice(rng: Rng, data: bytearray) -> None:
    """The head of this file, the body of another."""
    other = list(CORPUS.values())[rng.integers(len(CORPUS))][1]
    at = _place(rng, data)
    data[at:] = other[at:]


CHANGES = [
    flip_bits, set_byte, zero_block, lose_block, cut, cut_with_end, append, insert, extreme_number, tiff_entry, splice,
]  # fmt: skip
