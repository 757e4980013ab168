"""Photographs from files: every format, mode and profile, and what is refused."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from scenes import HEIGHT, LUMA, SUFFIXES, WIDTH, scene, vips

from pipeline.images.icc import srgb_profile
from pipeline.images.photo import ImageError
from pipeline.images.read import load_photo
from stages.color.spaces import LUMA_BLUE, LUMA_GREEN, LUMA_RED

# --------------------------------------------------------------------------------------- gray and luma


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_gray_levels_are_exact(tmp_path, suffix, dtype):
    peak = np.iinfo(dtype).max
    levels = np.arange(peak + 1, dtype=dtype).reshape(-1, 256 if dtype == np.uint16 else 16)
    path = tmp_path / f"ramp{suffix}"
    vips(levels[..., None], "b-w" if dtype == np.uint8 else "grey16").write_to_file(str(path))
    for source in (path, levels, levels[..., None], Image.open(path)):
        photo = load_photo(source)
        assert photo.gray.dtype == np.float32
        assert np.array_equal(photo.gray, (levels / peak).astype(np.float32))
        assert photo.depth == 8 * levels.itemsize and photo.alpha is None and not photo.is_color


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_luma_of_color(tmp_path, rng, suffix, dtype):
    peak = np.iinfo(dtype).max
    rgb = rng.integers(0, peak + 1, (HEIGHT, WIDTH, 3)).astype(dtype)
    rgb[:4] = rgb[:4, :, :1]  # equal channels: exactly their level
    path = tmp_path / f"color{suffix}"
    vips(rgb, "srgb" if dtype == np.uint8 else "rgb16").write_to_file(str(path))
    for source in (path, rgb):
        photo = load_photo(source)
        assert np.abs(photo.gray - rgb @ LUMA / peak).max() < 1e-7
        assert np.array_equal(photo.gray[:4], (rgb[:4, :, 0] / peak).astype(np.float32))
        assert photo.is_color and photo.depth == 8 * rgb.itemsize


def test_pil_modes(tmp_path):
    gray, rgb = Image.fromarray(scene(1)[..., 0]), Image.fromarray(scene())
    mask = Image.fromarray(scene(2)[..., 1])
    level, luma = np.asarray(gray) / 255, np.asarray(rgb) @ LUMA / 255
    black_white = gray.convert("1")
    palette = gray.convert("P")
    deep = Image.fromarray(scene(1, np.uint16)[..., 0])
    cases = [
        (gray, level, None), (black_white, np.asarray(black_white) * 1.0, None), (palette, level, None),
        (Image.merge("LA", (gray, mask)), level, mask), (rgb, luma, None),
        (Image.merge("RGBA", (*rgb.split(), mask)), luma, mask),
        (deep, np.asarray(deep) / 65535, None),
    ]  # fmt: skip
    for number, (image, expected, alpha) in enumerate(cases):
        path = tmp_path / f"{number}.png"
        image.save(path)
        for source in (image, path):
            photo = load_photo(source)
            assert np.abs(photo.gray - expected).max() < 1e-6, (image.mode, source)
            assert photo.depth == (16 if image.mode.startswith("I") else 8)
            if alpha is None:
                assert photo.alpha is None
            else:
                assert photo.alpha is not None and np.array_equal(photo.alpha, np.asarray(alpha))
    assert np.array_equal(load_photo(deep.convert("I")).gray, load_photo(deep).gray)
    assert load_photo(rgb).format == "" and load_photo(tmp_path / "0.png").format == "png"


def test_palette_with_transparency(tmp_path):
    palette = Image.fromarray(np.tile(np.arange(16, dtype=np.uint8), (8, 1)), "P")
    palette.putpalette([value for level in range(16) for value in (17 * level, 40, 90)])
    path = tmp_path / "palette.png"
    palette.save(path, transparency=3)
    with Image.open(path) as opened:
        for source in (path, opened):
            photo = load_photo(source)
            assert photo.alpha is not None
            assert np.array_equal(photo.alpha, np.tile(np.where(np.arange(16) == 3, 0, 255), (8, 1)))
            expected = (17 * np.arange(16) * LUMA_RED + 40 * LUMA_GREEN + 90 * LUMA_BLUE) / 255
            assert np.abs(photo.gray[0] - expected).max() < 1e-6


def test_transparent_level_of_gray(tmp_path):
    for dtype in (np.uint8, np.uint16):
        levels = scene(1, dtype)[..., 0]
        clear = int(levels[5, 5])
        path = tmp_path / f"clear{8 * levels.itemsize}.png"
        Image.fromarray(levels).save(path, transparency=clear)
        with Image.open(path) as opened:
            for source in (path, opened):
                photo = load_photo(source)
                assert photo.alpha is not None and photo.alpha.dtype == dtype
                assert np.array_equal(photo.alpha, np.where(levels == clear, 0, np.iinfo(dtype).max))


def test_cmyk(tmp_path):
    ink = np.zeros((3, 32, 4), np.uint8)
    ink[0, :, 3] = np.linspace(0, 255, 32)  # black only: white to black
    ink[1, :, 0] = ink[2, :, 2] = 255  # cyan, yellow
    image = Image.fromarray(ink, "CMYK")
    image.save(tmp_path / "cmyk.tif")
    image.save(tmp_path / "cmyk.jpg", quality=100, subsampling=0)
    grays = []
    for source in (image, tmp_path / "cmyk.tif", tmp_path / "cmyk.jpg"):
        photo = load_photo(source)
        assert photo.gray[0, 0] > 0.99 and photo.gray[0, -1] < 0.2 and (np.diff(photo.gray[0]) < 0).all()
        assert photo.gray[2, 5] > photo.gray[1, 5] + 0.2  # yellow ink is lighter than cyan
        assert photo.is_color and photo.depth == 8
        grays.append(photo.gray)
    assert np.array_equal(grays[0], grays[1])
    assert np.abs(grays[2] - grays[0]).max() < 0.05


def test_numpy_inputs(rng):
    for channels in (1, 2, 3, 4):
        levels = rng.integers(0, 65536, (5, 7, channels)).astype(np.uint16)
        photo, same = load_photo(levels), load_photo(levels / 65535)
        assert np.abs(photo.gray - same.gray).max() < 1e-7 and same.depth == photo.depth == 16
        assert (photo.alpha is None) == (channels in (1, 3))
        if photo.alpha is not None:
            assert np.array_equal(photo.alpha, levels[..., -1]) and same.alpha is not None
            assert np.array_equal(same.alpha, levels[..., -1])
    for bad in (
        np.zeros((4, 4, 5), np.uint8), np.zeros(4, np.uint8), np.zeros((0, 4), np.uint8),
        np.zeros((4, 4), int), np.full((4, 4), 255.0), np.full((4, 4), np.nan),
    ):  # fmt: skip
        with pytest.raises(ImageError):
            load_photo(bad)
    with pytest.raises(TypeError, match="list"):
        load_photo([1, 2])  # type: ignore[arg-type]


# -------------------------------------------------------------------------------------------- profiles


def gray_profile(gamma):
    """A gray ICC profile (version 2) with a power law, white D50. Source: ICC.1:2001-04."""
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    text = b"gray\0"
    about = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78)
    about += bytes(-len(about) % 4)
    tags, body, offset = [], b"", 128 + 4 + 12 * 3
    for name, data in ((b"desc", about), (b"wtpt", white), (b"kTRC", curve)):
        tags.append(name + struct.pack(">II", offset + len(body), len(data)))
        body += data
    size = offset + len(body)
    head = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x02400000, b"mntr", b"GRAY", b"XYZ ")
    head = (head + bytes(12) + b"acsp").ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", 3) + b"".join(tags) + body


def srgb_curve(linear):
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_linear_gray_profile_is_converted(tmp_path, suffix, dtype):
    levels = scene(1, dtype)[..., 0]
    path = tmp_path / f"linear{suffix}"
    Image.fromarray(levels).save(path, icc_profile=gray_profile(1.0))
    with Image.open(path) as opened:
        for source in (path, opened):
            photo = load_photo(source)
            assert np.abs(photo.gray - srgb_curve(levels / np.iinfo(dtype).max)).max() < 0.002
            assert photo.depth == 8 * levels.itemsize


def test_p3_is_converted(tmp_path):
    rgb = scene()
    for suffix in (".png", ".tif", ".jpg", ".webp"):
        path = tmp_path / f"p3{suffix}"
        image = vips(rgb, "srgb")
        saving: dict[str, dict[str, Any]] = {
            ".jpg": {"Q": 100, "subsample_mode": "off"}, ".webp": {"lossless": True}
        }  # fmt: skip
        image.write_to_file(str(path), profile="p3", **saving.get(suffix, {}))
        # Display P3 (D65, sRGB curve) to linear sRGB. Source: the primaries of SMPTE EG 432-1.
        p3_to_srgb = np.array([[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]])
        coded = rgb / 255
        linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
        expected = np.clip(srgb_curve(linear @ p3_to_srgb.T), 0, 1) @ LUMA
        photo = load_photo(path)
        assert np.abs(photo.gray - expected).max() < (0.02 if suffix == ".jpg" else 0.004)
        assert np.abs(photo.gray - rgb @ LUMA / 255).max() > 0.02  # and that is not the unconverted luma


def test_wordings_of_srgb_change_nothing(tmp_path):
    rgb = scene()
    littlecms = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (littlecms, srgb_profile()):
        Image.fromarray(rgb).save(tmp_path / "srgb.png", icc_profile=profile)
        assert np.array_equal(load_photo(tmp_path / "srgb.png").gray, load_photo(rgb).gray)
        gray = Image.fromarray(rgb[..., 0])
        gray.info["icc_profile"] = profile  # a gray picture under an RGB profile
        assert np.array_equal(load_photo(gray).gray, load_photo(rgb[..., 0]).gray)


def test_unusable_profile_is_ignored_loudly(tmp_path):
    for profile in (b"no profile at all", gray_profile(1.0)):
        Image.fromarray(scene()).save(tmp_path / "odd.jpg", icc_profile=profile)
        with pytest.warns(UserWarning, match="ICC profile"):
            photo = load_photo(tmp_path / "odd.jpg")
        assert photo.is_color


# ------------------------------------------------------------------------------------------------ tint


def test_tint_and_color(rng):
    gray = np.clip(scene(1)[..., 0] + rng.normal(0, 2, (HEIGHT, WIDTH)), 0, 255)
    sepia = gray[..., None] / 255 * [1.0, 0.89, 0.70] + [0.0, 0.02, 0.05]
    cyanotype = (gray[..., None] / 255) ** [1.5, 1.0, 0.7]
    for tinted in (sepia, cyanotype, gray[..., None].repeat(3, axis=2) / 255):
        photo = load_photo(np.rint(tinted * 255).clip(0, 255).astype(np.uint8))
        assert not photo.is_color
        assert np.abs(photo.gray - tinted.clip(0, 1) @ LUMA).max() < 0.003
    spot = sepia.copy()
    spot[10:20, 10:20] = [0.8, 0.1, 0.1]  # one red thing
    assert load_photo(spot).is_color and load_photo(scene()).is_color
    assert not load_photo(np.full((1, 1, 3), 0.3)).is_color
    assert not load_photo(np.full((2, 3000, 3), 90, np.uint8)).is_color


# ---------------------------------------------------------------------------------------------- errors


def encoded(suffix):
    data = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    Image.fromarray(noise).save(data, {".jpg": "JPEG", ".tif": "TIFF"}.get(suffix, suffix[1:]))
    return data.getvalue()


def refused(path, words):
    with pytest.raises(ImageError, match=words) as caught:
        load_photo(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.001, 0.05, 0.5, 0.95])
def test_truncated(tmp_path, suffix, share):
    data = encoded(suffix)
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: max(20, int(len(data) * share))])
    refused(path, "damaged or truncated")
    try:
        opened = Image.open(path)
    except OSError:
        return
    if suffix != ".webp":  # Pillow decodes the whole WebP rows it has
        with opened, pytest.raises(ImageError, match="damaged or truncated"):
            load_photo(opened)


def test_not_readable(tmp_path):
    refused(tmp_path / "none.png", "No such file")
    refused(tmp_path, "directory")
    for name, data, words in [
        ("empty.jpg", b"", "empty"), ("text.jpg", b"dear diary", "not an image"),
        ("nul.png", bytes(100), "not an image"), ("page.pdf", b"%PDF-1.7", "a PDF file; JPEG, PNG, TIFF, WebP"),
        ("drawing.svg", b"<svg xmlns='x'/>", "SVG"),
    ]:  # fmt: skip
        path = tmp_path / name
        path.write_bytes(data)
        refused(path, words)
    for kind in ("GIF", "BMP"):
        Image.fromarray(scene()).save(tmp_path / "disguised.png", kind)
        refused(tmp_path / "disguised.png", f"a {kind} file")


def test_content_decides_not_the_suffix(tmp_path):
    Image.fromarray(scene()).save(tmp_path / "really.jpg", "PNG")
    assert load_photo(tmp_path / "really.jpg").format == "png"


def png_header(width, height):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def test_decompression_bomb(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(60_000, 60_000))
    refused(path, "60000 x 60000 is 3600 megapixels, more than the limit of 300")
    Image.fromarray(scene()).save(tmp_path / "small.png")
    for source in (tmp_path / "small.png", scene(), Image.fromarray(scene())):
        with pytest.raises(ImageError, match="limit"):
            load_photo(source, max_pixels=HEIGHT * WIDTH - 1)
        load_photo(source, max_pixels=HEIGHT * WIDTH)
    path.write_bytes(png_header(0, 10))
    refused(path, "damaged or truncated")


def test_several_pages_and_strange_pixels(tmp_path):
    first, second = Image.fromarray(scene()), Image.fromarray(scene()[::-1].copy())
    for suffix in (".tif", ".webp"):
        path = tmp_path / f"many{suffix}"
        first.save(path, save_all=True, append_images=[second])
        refused(path, "holds 2 pages or frames")
    Image.fromarray(scene(1)[..., 0].astype(np.float32)).save(tmp_path / "float.tif")
    refused(tmp_path / "float.tif", "pixels of type float")
    with pytest.raises(ImageError, match="mode F"):
        load_photo(Image.fromarray(scene(1)[..., 0].astype(np.float32)))
    with pytest.raises(ImageError, match="mode I with levels"):
        load_photo(Image.fromarray(np.full((4, 4), 70000, np.int32)))
    first.save(tmp_path / "raw.tif", tiffinfo={0xC612: b"\1\4\0\0"})
    refused(tmp_path / "raw.tif", "camera raw")


def test_the_bytes_of_a_file_are_the_file(tmp_path):
    gray = np.random.default_rng(0).integers(0, 256, (9, 14), np.uint8)
    for suffix in (".png", ".tif", ".webp", ".jpg"):
        Image.fromarray(gray).save(tmp_path / f"a{suffix}")
        content = (tmp_path / f"a{suffix}").read_bytes()
        photo, file = load_photo(content), load_photo(tmp_path / f"a{suffix}")
        assert np.array_equal(photo.gray, file.gray) and (photo.format, photo.depth) == (file.format, file.depth)
        with pytest.raises(ImageError, match="the bytes given: "):
            load_photo(content[: len(content) // 3])
    with pytest.raises(ImageError, match="the bytes given: the file is empty"):
        load_photo(b"")
