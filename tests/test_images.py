"""Photographs in and out of files: every format and mode, what survives, what is refused."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch
from PIL import Image, ImageCms, ImageOps

from pipeline.images import write
from pipeline.images.exif import _neutral_exif
from pipeline.images.icc import srgb_profile
from pipeline.images.photo import ImageError, Photo
from pipeline.images.read import load_photo
from pipeline.images.vips import _vips
from pipeline.images.write import quantize, save_photo
from stages.color.spaces import LUMA_BLUE, LUMA_GREEN, LUMA_RED, merge

LUMA = np.array([LUMA_RED, LUMA_GREEN, LUMA_BLUE])
SUFFIXES = [".jpg", ".png", ".tif", ".webp"]
HEIGHT, WIDTH = 40, 56


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def scene(channels=3, dtype=np.uint8):
    """A smooth picture (H, W, channels) that lossy formats keep well."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] / [[[HEIGHT]], [[WIDTH]]]
    waves = [0.5 + 0.4 * np.sin(3 * x + k) * np.cos(2 * y - k) for k in range(channels)]
    return np.rint(np.stack(waves, -1) * np.iinfo(dtype).max).astype(dtype)


def photo_of(rgb, **fields):
    return Photo(gray=np.zeros(rgb.shape[:2], np.float32), depth=8 * rgb.itemsize, **fields)


def vips(pixels, interpretation):
    return _vips(pixels).copy(interpretation=interpretation)


def camera_exif(orientation=1):
    """EXIF with a text, an exposure, a maker note, a position and a thumbnail."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x0132] = "Graflex", orientation, "1936:03:01 12:00:00"
    exif.get_ifd(0x8769).update({0x829A: 0.008, 0x8827: 400, 0x927C: b"private"})
    exif.get_ifd(0x8769)[0x9003] = "1936:03:01 12:00:00"
    exif.get_ifd(0x8825).update({1: "N", 2: (35.0, 2.0, 26.0)})
    return exif.tobytes()


def assert_camera_exif(path, orientation=1):
    with Image.open(path) as image:
        exif = image.getexif()
        assert exif[0x010F] == "Graflex" and exif[0x0132] == "1936:03:01 12:00:00"
        assert exif.get(0x0112, 1) == orientation
        details = exif.get_ifd(0x8769)
        assert details[0x829A] == pytest.approx(0.008) and details[0x8827] == 400
        assert details[0x9003] == "1936:03:01 12:00:00"
        assert exif.get_ifd(0x8825)[2] == (35.0, 2.0, 26.0)


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
                assert np.array_equal(photo.alpha, np.asarray(alpha))
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
                assert photo.alpha.dtype == dtype
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
            assert np.array_equal(photo.alpha, levels[..., -1])
            assert np.array_equal(same.alpha, levels[..., -1])
    for bad in (
        np.zeros((4, 4, 5), np.uint8), np.zeros(4, np.uint8), np.zeros((0, 4), np.uint8),
        np.zeros((4, 4), int), np.full((4, 4), 255.0), np.full((4, 4), np.nan),
    ):  # fmt: skip
        with pytest.raises(ImageError):
            load_photo(bad)
    with pytest.raises(TypeError, match="list"):
        load_photo([1, 2])


# -------------------------------------------------------------------------------------------- contract


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("spread", [0.05, 0.5])  # 0.5: most colors out of gamut
def test_luma_survives_the_file(tmp_path, rng, suffix, depth, spread):
    peak = 255 if depth == 8 else 65535
    levels = rng.integers(0, peak + 1, (300, 200)).astype(np.uint8 if depth == 8 else np.uint16)
    levels[0], levels[1] = 0, peak
    photo = load_photo(levels)
    chroma = torch.from_numpy(rng.uniform(-spread, spread, (2, *levels.shape)).astype(np.float32))
    rgb = merge(torch.from_numpy(photo.gray)[None], chroma).permute(1, 2, 0).numpy()
    path = tmp_path / f"out{suffix}"
    save_photo(path, quantize(rgb, depth), photo)
    written = vips_pixels(path)
    assert written.dtype == levels.dtype
    error = np.abs(written @ LUMA - levels)
    assert error.max() <= 0.5 and error.mean() <= 0.3
    assert np.abs(written - rgb * peak).max() < 1.5  # colors move by rounding only


def vips_pixels(path):
    source = pyvips.Image.new_from_buffer(Path(path).read_bytes(), "")  # not by name: libvips caches those
    return source.numpy()


def test_quantize_bounds_the_luma_error_where_rounding_conspires():
    for depth, peak in ((8, 255), (16, 65535)):
        worst = np.array([[[10, 20, 30]], [[10, 20, 30]], [[100, 20, 60]]])
        worst = worst + [[[0.4999]], [[0.5001]], [[0.499]]]
        rgb = (worst / peak).astype(np.float32)
        result = quantize(rgb, depth)
        assert np.abs(result @ LUMA - worst @ LUMA).max() < 0.11
        assert np.abs(result - worst).max() < 1
        neutral = np.repeat(np.float32([[[10.499]], [[20.501]]]) / np.float32(peak), 3, axis=2)
        assert np.array_equal(quantize(neutral, depth), [[[10] * 3], [[21] * 3]])
    assert np.array_equal(quantize(np.float32([[[-0.2, 0.5, 1.3]]]), 8)[0, 0, [0, 2]], [0, 255])
    with pytest.raises(ValueError, match="NaN"):
        quantize(np.full((2, 2, 3), np.nan, np.float32), 8)
    with pytest.raises(ValueError, match="depth"):
        quantize(np.zeros((2, 2, 3), np.float32), 12)


# ------------------------------------------------------------------------------- what survives the way


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_pixels_and_profile_of_outputs(tmp_path, suffix):
    rgb = scene()
    path = tmp_path / f"out{suffix}"
    save_photo(path, rgb, photo_of(rgb))
    with Image.open(path) as image:
        assert image.mode == "RGB"
        assert image.info["icc_profile"] == srgb_profile()
        ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        difference = np.abs(np.asarray(image).astype(int) - rgb)
        assert difference.max() == 0 if suffix in (".png", ".tif") else difference.mean() < 2
        if suffix == ".jpg":
            assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # 4:4:4
    photo = load_photo(path)
    assert photo.format == {".jpg": "jpeg", ".tif": "tiff"}.get(suffix, suffix[1:])
    assert np.abs(photo.gray - rgb @ LUMA / 255).mean() < 0.01


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_and_alpha_are_exact(tmp_path, rng, suffix):
    rgb = rng.integers(0, 65536, (HEIGHT, WIDTH, 3)).astype(np.uint16)
    alpha = rng.integers(0, 65536, (HEIGHT, WIDTH)).astype(np.uint16)
    alpha[0] = 0  # colors under full transparency are kept too
    path = tmp_path / f"deep{suffix}"
    save_photo(path, rgb, photo_of(rgb, alpha=alpha))
    assert np.array_equal(vips_pixels(path), np.dstack([rgb, alpha]))
    again = load_photo(path)
    assert again.depth == 16 and np.array_equal(again.alpha, alpha)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_alpha_of_eight_bits_is_exact(tmp_path, rng, suffix):
    mask = rng.integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8)
    source = tmp_path / f"in{suffix}"
    options = {"lossless": True} if suffix == ".webp" else {}
    Image.fromarray(np.dstack([scene(), mask])).save(source, **options)
    photo = load_photo(source)
    assert np.array_equal(photo.alpha, mask)
    target = tmp_path / f"out{suffix}"
    save_photo(target, scene(), photo)
    assert np.array_equal(load_photo(target).alpha, mask)
    save_photo(tmp_path / "deep.png", scene(dtype=np.uint16), photo)  # the pixels decide the depth
    assert np.array_equal(load_photo(tmp_path / "deep.png").alpha, mask * np.uint16(257))


def test_sixteen_bits_into_eight(tmp_path, rng):
    rgb = scene(dtype=np.uint16)
    alpha = np.full(rgb.shape[:2], 40000, np.uint16)
    expected = np.rint(rgb / 257)
    for suffix in (".jpg", ".webp"):
        save_photo(tmp_path / f"out{suffix}", rgb, photo_of(rgb, alpha=None if suffix == ".jpg" else alpha))
        with Image.open(tmp_path / f"out{suffix}") as image:
            assert np.abs(np.asarray(image)[..., :3] - expected).mean() < 2
    assert (load_photo(tmp_path / "out.webp").alpha == round(40000 / 257)).all()


def test_jpeg_refuses_transparency_only(tmp_path):
    rgb = scene()
    opaque = np.full(rgb.shape[:2], 255, np.uint8)
    save_photo(tmp_path / "opaque.jpg", rgb, photo_of(rgb, alpha=opaque))
    opaque[3, 3] = 254
    with pytest.raises(ImageError, match="JPEG holds no transparency"):
        save_photo(tmp_path / "clear.jpg", rgb, photo_of(rgb, alpha=opaque))
    assert os.listdir(tmp_path) == ["opaque.jpg"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(tmp_path, suffix, orientation):
    stored = Image.fromarray(scene())
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {".jpg": {"quality": 95, "subsampling": 0}, ".webp": {"lossless": True}}.get(suffix, {})
    source = tmp_path / f"in{suffix}"
    stored.save(source, exif=exif, dpi=(300, 150), **lossless)
    with Image.open(source) as opened:
        upright = ImageOps.exif_transpose(opened).convert("RGB")
        expected = np.asarray(upright) @ LUMA / 255
        for picture in (source, opened):
            photo = load_photo(picture)
            assert photo.gray.shape == expected.shape and photo.gray.flags.c_contiguous
            assert np.abs(photo.gray - expected).max() < 0.02
            # Of PIL images only PNG tells both figures as stored; WebP has none outside EXIF.
            if suffix != ".webp" and (suffix == ".png" or picture is source):
                assert photo.dpi == pytest.approx((150, 300) if orientation > 4 else (300, 150), rel=1e-3)
    target = tmp_path / f"out{suffix}"
    save_photo(target, np.asarray(upright), photo)
    with Image.open(target) as written:
        assert written.getexif().get(0x0112, 1) == 1 and written.size == upright.size
    again = load_photo(target)
    assert np.abs(again.gray - expected).max() < 0.03


def test_alpha_turns_with_the_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = scene(2)
    Image.fromarray(pixels, "LA").save(tmp_path / "turned.png", exif=exif)
    photo = load_photo(tmp_path / "turned.png")
    assert np.array_equal(photo.alpha, np.rot90(pixels[..., 1], -1))
    assert np.array_equal(photo.gray, (np.rot90(pixels[..., 0], -1) / 255).astype(np.float32))


@pytest.mark.parametrize("target", SUFFIXES)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_exif_and_resolution_are_kept(tmp_path, suffix, target):
    source = tmp_path / f"in{suffix}"
    tags = Image.Exif()
    tags.load(camera_exif(orientation=3))
    tags[0x011A], tags[0x011B], tags[0x0128] = 300.0, 300.0, 2  # WebP states its resolution nowhere else
    Image.fromarray(scene()).save(source, exif=tags.tobytes(), dpi=(300, 300))
    photo = load_photo(source)
    path = tmp_path / f"out{target}"
    save_photo(path, scene(), photo)
    assert_camera_exif(path)
    again = load_photo(path)
    assert photo.dpi == pytest.approx((300, 300), rel=1e-4)
    assert again.dpi == pytest.approx((300, 300), rel=1e-4)
    assert np.array_equal(vips_pixels(path), scene()) or target in (".jpg", ".webp")


def test_exif_of_deep_tiff_with_alpha(tmp_path, rng):
    rgb = rng.integers(0, 65536, (500, 300, 3)).astype(np.uint16)  # several strips
    alpha = rng.integers(0, 65536, (500, 300)).astype(np.uint16)
    save_photo(tmp_path / "deep.tif", rgb, photo_of(rgb, alpha=alpha, exif=camera_exif()))
    assert np.array_equal(vips_pixels(tmp_path / "deep.tif"), np.dstack([rgb, alpha]))
    exif = Image.Exif()
    exif.load(load_photo(tmp_path / "deep.tif").exif)
    assert exif[0x010F] == "Graflex" and exif.get_ifd(0x8769)[0x927C] == b"private"


def test_exif_block_changes_only_where_it_must():
    block = camera_exif(orientation=8)
    neutral = _neutral_exif(block)
    changed = [i for i, (a, b) in enumerate(zip(block, neutral, strict=True)) if a != b]
    assert len(changed) == 1 and (block[changed[0]], neutral[changed[0]]) == (8, 1)
    with pytest.warns(UserWarning, match="EXIF block is broken"):
        assert _neutral_exif(b"Exif\0\0MM\0*\0\0\xff\xff") is None


def test_thumbnail_of_the_gray_picture_is_dropped(tmp_path):
    inner = io.BytesIO()
    Image.new("L", (8, 8)).save(inner, "JPEG")
    thumbnail = inner.getvalue()
    head = struct.pack(">2sHI", b"MM", 42, 8)
    first = struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 26)
    second = struct.pack(">HHHIIHHIII", 2, 0x0201, 4, 1, 56, 0x0202, 4, 1, len(thumbnail), 0)
    block = b"Exif\0\0" + head + first + second + thumbnail
    Image.fromarray(scene()).save(tmp_path / "in.jpg", exif=block)
    assert thumbnail in (tmp_path / "in.jpg").read_bytes()
    photo = load_photo(tmp_path / "in.jpg")
    assert photo.exif[6 + 22 : 6 + 26] == bytes(4)  # no second directory after the first
    for suffix in SUFFIXES:
        save_photo(tmp_path / f"out{suffix}", scene().swapaxes(0, 1), photo)
        assert thumbnail not in (tmp_path / f"out{suffix}").read_bytes()


def test_unknown_resolution(tmp_path):
    for suffix in SUFFIXES:
        Image.fromarray(scene()).save(tmp_path / f"in{suffix}")
        photo = load_photo(tmp_path / f"in{suffix}")
        assert photo.dpi is None and photo.exif is None
        save_photo(tmp_path / f"out{suffix}", scene(), photo)
    with Image.open(tmp_path / "out.png") as image:
        assert image.info["dpi"] == pytest.approx((72, 72), rel=1e-3)


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
        options = {".jpg": {"Q": 100, "subsample_mode": "off"}, ".webp": {"lossless": True}}.get(suffix, {})
        image.write_to_file(str(path), profile="p3", **options)
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
        ("nul.png", bytes(100), "not an image"), ("page.pdf", b"%PDF-1.7", "a PDF file; JPEG, PNG, TIFF and"),
        ("drawing.svg", b"<svg xmlns='x'/>", "SVG"), ("photo.heic", b"\0\0\0\x18ftypheic", "HEIF"),
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


# --------------------------------------------------------------------------------------- atomic writes


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("step", ["_write", "replace", "fsync"])
def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch, suffix, step):
    path = tmp_path / f"out{suffix}"
    path.write_bytes(b"precious")
    seen = []

    def broken(*args):
        seen.extend(os.listdir(tmp_path))
        if step == "_write":
            args[1].write(b"half a picture")
            raise pyvips.Error("unable to write", "disk full\nand more words")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((write, "_write") if step == "_write" else (os, step)), broken)
    for target in (path, tmp_path / f"new{suffix}"):
        with pytest.raises(ImageError, match="could not be written: (disk full$|No space left)"):
            save_photo(target, scene(), photo_of(scene()))
    assert len(set(seen)) >= 2  # the half picture had another name
    assert os.listdir(tmp_path) == [path.name] and path.read_bytes() == b"precious"


def test_interruption_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(write, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_photo(tmp_path / "out.png", scene(), photo_of(scene()))
    assert not os.listdir(tmp_path)


def test_replacing_a_file_is_seen(tmp_path):
    path = tmp_path / "same.png"
    for rgb in (scene(), scene()[::-1].copy()):
        save_photo(path, rgb, photo_of(rgb))
        assert np.array_equal(load_photo(path).gray, load_photo(rgb).gray)
    assert path.stat().st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_refused_targets(tmp_path):
    rgb = scene()
    with pytest.raises(ImageError, match="suffix must be one of .jpg"):
        save_photo(tmp_path / "out.gif", rgb, photo_of(rgb))
    with pytest.raises(ImageError, match="No such file"):
        save_photo(tmp_path / "nowhere" / "out.png", rgb, photo_of(rgb))
    with pytest.raises(ValueError, match="one size"):
        save_photo(tmp_path / "out.png", rgb[1:], photo_of(rgb))
    with pytest.raises(ValueError, match="uint8 or uint16"):
        save_photo(tmp_path / "out.png", rgb / 255, photo_of(rgb))
    long = np.zeros((1, 16384, 3), np.uint8)
    with pytest.raises(ImageError, match="webp holds at most 16383"):
        save_photo(tmp_path / "out.webp", long, photo_of(long))
    assert not os.listdir(tmp_path)


def test_odd_names(tmp_path):
    for suffix in SUFFIXES:
        path = tmp_path / f"Ω [Q=1,strip] {'x' * 200}{suffix}"
        save_photo(path, scene(), photo_of(scene()))
        assert load_photo(path).gray.shape == (HEIGHT, WIDTH)


# --------------------------------------------------------------------------------------------- samples


def test_samples(data_folder, tmp_path, rng):
    files = sorted((data_folder / "samples").iterdir())
    assert len(files) >= 17
    for file in files:
        photo = load_photo(file)
        with Image.open(file) as image:
            assert photo.gray.shape == ImageOps.exif_transpose(image).size[::-1]
            assert photo.depth == (16 if image.mode.startswith("I") else 8)
            assert (photo.alpha is not None) == (image.mode in ("LA", "RGBA"))
            assert np.abs(load_photo(image).gray - photo.gray).max() < 0.01, file  # two JPEG decoders
        assert photo.is_color == file.name.startswith("color"), file

        peak = 255 if photo.depth == 8 else 65535
        chroma = torch.from_numpy(rng.uniform(-0.4, 0.4, (2, *photo.gray.shape)).astype(np.float32))
        rgb = merge(torch.from_numpy(photo.gray)[None], chroma).permute(1, 2, 0).numpy()
        for suffix in (".png", ".tif"):
            path = tmp_path / f"{file.stem}{suffix}"
            save_photo(path, quantize(rgb, photo.depth), photo)
            error = np.abs(vips_pixels(path)[..., :3] @ LUMA - photo.gray.astype(np.float64) * peak)
            assert error.max() <= 0.5, file
            again = load_photo(path)
            assert again.depth == photo.depth
            assert again.alpha is None if photo.alpha is None else np.array_equal(again.alpha, photo.alpha)
