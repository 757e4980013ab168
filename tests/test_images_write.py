"""Photographs into files: exact luma, what survives the way, nothing half-written."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
import torch
from PIL import Image, ImageCms, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from scenes import HEIGHT, LUMA, SUFFIXES, WIDTH, assert_camera_exif, camera_exif, photo_of, scene, vips_pixels

from pipeline.images import write
from pipeline.images.exif import _neutral_exif
from pipeline.images.icc import srgb_profile
from pipeline.images.photo import ImageError
from pipeline.images.read import load_photo
from pipeline.images.write import quantize, save_photo
from stages.color.spaces import merge

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


def test_quantize_bounds_the_luma_error_where_rounding_conspires():
    for depth, peak in ((8, 255), (16, 65535)):
        worst = np.array([[[10, 20, 30]], [[10, 20, 30]], [[100, 20, 60]]])
        worst = worst + [[[0.4999]], [[0.5001]], [[0.499]]]
        rgb = (worst / peak).astype(np.float32)
        result = quantize(rgb, depth)
        assert np.abs(result @ LUMA - worst @ LUMA).max() < 0.11
        assert np.abs(result - worst).max() < 1
        neutral = np.repeat(np.array([[[10.499]], [[20.501]]], np.float32) / np.float32(peak), 3, axis=2)
        assert np.array_equal(quantize(neutral, depth), [[[10] * 3], [[21] * 3]])
    assert np.array_equal(quantize(np.array([[[-0.2, 0.5, 1.3]]], np.float32), 8)[0, 0, [0, 2]], [0, 255])
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
            assert isinstance(image, JpegImageFile) and [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # 4:4:4
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
    assert again.depth == 16 and again.alpha is not None and np.array_equal(again.alpha, alpha)


def alpha_of(path: Path) -> np.ndarray:
    alpha = load_photo(path).alpha
    assert alpha is not None
    return alpha


def exif_of(path: Path) -> bytes:
    exif = load_photo(path).exif
    assert exif is not None
    return exif


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_alpha_of_eight_bits_is_exact(tmp_path, rng, suffix):
    mask = rng.integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8)
    source = tmp_path / f"in{suffix}"
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    Image.fromarray(np.dstack([scene(), mask])).save(source, **options)
    photo = load_photo(source)
    assert photo.alpha is not None and np.array_equal(photo.alpha, mask)
    target = tmp_path / f"out{suffix}"
    save_photo(target, scene(), photo)
    assert np.array_equal(alpha_of(target), mask)
    save_photo(tmp_path / "deep.png", scene(dtype=np.uint16), photo)  # the pixels decide the depth
    assert np.array_equal(alpha_of(tmp_path / "deep.png"), mask * np.uint16(257))


def test_sixteen_bits_into_eight(tmp_path, rng):
    rgb = scene(dtype=np.uint16)
    alpha = np.full(rgb.shape[:2], 40000, np.uint16)
    expected = np.rint(rgb / 257)
    for suffix in (".jpg", ".webp"):
        save_photo(tmp_path / f"out{suffix}", rgb, photo_of(rgb, alpha=None if suffix == ".jpg" else alpha))
        with Image.open(tmp_path / f"out{suffix}") as image:
            assert np.abs(np.asarray(image)[..., :3] - expected).mean() < 2
    assert (alpha_of(tmp_path / "out.webp") == round(40000 / 257)).all()


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
    saving: dict[str, dict[str, Any]] = {".jpg": {"quality": 95, "subsampling": 0}, ".webp": {"lossless": True}}
    source = tmp_path / f"in{suffix}"
    stored.save(source, exif=exif, dpi=(300, 150), **saving.get(suffix, {}))
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
    assert photo.alpha is not None and np.array_equal(photo.alpha, np.rot90(pixels[..., 1], -1))
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
    exif.load(exif_of(tmp_path / "deep.tif"))
    assert exif[0x010F] == "Graflex" and exif.get_ifd(0x8769)[0x927C] == b"private"


def test_exif_block_changes_only_where_it_must():
    block = camera_exif(orientation=8)
    neutral = _neutral_exif(block)
    assert neutral is not None
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
    assert photo.exif is not None and photo.exif[6 + 22 : 6 + 26] == bytes(4)  # no second directory after the first
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
            assert (again.alpha is None) == (photo.alpha is None)
            assert photo.alpha is None or again.alpha is None or np.array_equal(again.alpha, photo.alpha)
