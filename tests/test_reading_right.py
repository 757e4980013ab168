"""Pictures that libvips takes for others: YCbCr, extra channels, odd numbers, broken profiles, pages."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from pipeline.images.photo import ImageError
from pipeline.images.read import load_photo, page_count

LUMA = np.array([0.299, 0.587, 0.114])
HEIGHT, WIDTH = 64, 96


def scene():
    small = Image.fromarray(np.random.default_rng(0).integers(40, 216, (8, 12, 3), dtype=np.uint8))
    return np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def tiff(path, pixels, **options):
    tifffile.imwrite(path, pixels, **options)
    return path


# ------------------------------------------------------------------------------------------- YCbCr


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_ycbcr_is_not_taken_for_rgb(tmp_path, compression):
    options = {"compression": compression} if compression else {}
    Image.fromarray(scene()).convert("YCbCr").save(tmp_path / "a.tif", **options)
    photo = load_photo(tmp_path / "a.tif")
    assert np.abs(photo.gray - scene() @ LUMA / 255).max() < (0.1 if compression == "jpeg" else 0.008)
    assert photo.is_color


@pytest.mark.parametrize("compression", [1, 8])
def test_ycbcr_with_shared_chroma(tmp_path, compression):
    """Units of four Y, one Cb, one Cr. Source: TIFF 6.0, section 21."""
    ycbcr = np.asarray(Image.fromarray(scene()).convert("YCbCr")).astype(float)
    fours = ycbcr[..., 0].reshape(HEIGHT // 2, 2, WIDTH // 2, 2).transpose(0, 2, 1, 3)
    luma = fours.reshape(HEIGHT // 2, WIDTH // 2, 4)
    chroma = ycbcr[..., 1:].reshape(HEIGHT // 2, 2, WIDTH // 2, 2, 2).mean((1, 3))
    data = np.rint(np.concatenate([luma, chroma], axis=2)).astype(np.uint8).tobytes()
    data = zlib.compress(data) if compression == 8 else data
    entries = [
        (256, 4, 1, WIDTH), (257, 4, 1, HEIGHT), (258, 3, 3, None), (259, 3, 1, compression), (262, 3, 1, 6),
        (273, 4, 1, None), (277, 3, 1, 3), (278, 4, 1, HEIGHT), (279, 4, 1, len(data)), (284, 3, 1, 1),
        (530, 3, 2, 2 | 2 << 16),
    ]  # fmt: skip
    after = 8 + 2 + 12 * len(entries) + 4
    places = {258: after, 273: after + 6}
    table = b"".join(struct.pack("<HHII", tag, *rest, places.get(tag, value)) for tag, *rest, value in entries)
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    (tmp_path / "a.tif").write_bytes(head + table + bytes(4) + struct.pack("<HHH", 8, 8, 8) + data)
    photo = load_photo(tmp_path / "a.tif")
    assert photo.alpha is None and np.abs(photo.gray - scene() @ LUMA / 255).mean() < 0.004


# ---------------------------------------------------------------------------------- extra channels


@pytest.mark.parametrize(("kinds", "alpha"), [
    (["unspecified"], None), (["unassalpha"], 3), (["unspecified", "unassalpha"], 4),
    (["unassalpha", "unspecified"], 3), ([], None),
])  # fmt: skip
def test_only_what_is_called_transparency_is(tmp_path, kinds, alpha):
    planes = [scene()] + [np.full((HEIGHT, WIDTH, 1), 50 + 60 * k, np.uint8) for k in range(max(1, len(kinds)))]
    pixels = np.concatenate(planes, axis=2)
    path = tiff(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=kinds or ["unspecified"])
    if not kinds:  # a file that does not say what its fourth channel is
        data = bytearray(path.read_bytes())
        at = struct.unpack_from("<I", data, 4)[0]
        for entry in range(at + 2, at + 2 + 12 * struct.unpack_from("<H", data, at)[0], 12):
            if struct.unpack_from("<H", data, entry)[0] == 338:
                struct.pack_into("<H", data, entry, 65000)
        path.write_bytes(data)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        photo = load_photo(path)
    assert np.abs(photo.gray - scene() @ LUMA / 255).max() < 1e-6
    assert (photo.alpha is None) == (alpha is None)
    assert photo.alpha is None or np.array_equal(photo.alpha, pixels[..., alpha])
    left_out = len(pixels[0, 0]) - 3 - (alpha is not None)
    assert len(caught) == len(photo.notes) == bool(left_out) + (not kinds)


def test_gray_with_an_unspecified_channel(tmp_path):
    pixels = scene()[..., :2].copy()
    path = tmp_path / "a.tif"
    tiff(path, pixels, photometric="minisblack", planarconfig="contig", extrasamples=["unspecified"])
    with pytest.warns(UserWarning, match="an extra channel that is not transparency: left out"):
        photo = load_photo(path)
    assert photo.alpha is None and np.array_equal(photo.gray, (pixels[..., 0] / 255).astype(np.float32))


# ----------------------------------------------------------------------------- refused by right names


@pytest.mark.parametrize(("pixels", "options", "words"), [
    (scene() / 255.0, {"photometric": "rgb"}, "pixels of type float, 64 bits"),
    ((scene() / 255).astype(np.float32), {"photometric": "rgb"}, "pixels of type float, 32 bits"),
    (scene()[..., 0] / 255.0, {"photometric": "minisblack"}, "pixels of type float, 64 bits"),
    (scene().astype(np.uint32), {"photometric": "rgb"}, "pixels of type unsigned, 32 bits"),
    ((scene() // 2).astype(np.int16), {"photometric": "rgb"}, "pixels of type signed, 16 bits"),
    (scene(), {"photometric": "cielab"}, "color space CIELAB"),
    (scene().astype(np.uint16), {"photometric": "cielab"}, "color space CIELAB"),
    (scene(), {"photometric": "icclab"}, "color space ICCLAB"),
    (scene().transpose(2, 0, 1).copy(), {"photometric": "rgb", "planarconfig": "separate", "tile": (32, 32)},
     "separate planes of tiles"),
])  # fmt: skip
def test_refused_by_its_right_name(tmp_path, pixels, options, words):
    with pytest.raises(ImageError, match=words) as caught:
        load_photo(tiff(tmp_path / "a.tif", pixels, **options))
    assert "damaged" not in str(caught.value)


def test_planes_of_strips_and_tiles_of_pixels_are_read(tmp_path):
    expected = load_photo(scene()).gray
    planes = scene().transpose(2, 0, 1).copy()
    for pixels, options in ((planes, {"planarconfig": "separate"}), (scene(), {"tile": (32, 32)})):
        assert np.array_equal(load_photo(tiff(tmp_path / "a.tif", pixels, photometric="rgb", **options)).gray, expected)


# ------------------------------------------------------------------------------------------ profiles


def broken_profiles():
    good = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    yield b"garbage"
    yield bytes(200)
    yield good[:300]  # ends early
    yield good[:16] + b"\xff\xfe\x80\x81" + good[20:]  # a color space that is no ASCII
    yield good[:16] + b"RGB\xff" + good[20:]
    yield good[:128] + b"\xff" * (len(good) - 128)
    tags = bytearray(good)
    count = struct.unpack_from(">I", tags, 128)[0]
    for entry in range(132, 132 + 12 * count, 12):  # every tag points out of the profile
        struct.pack_into(">I", tags, entry + 4, 2**31)
    yield bytes(tags)
    for start in range(132, 132 + 12 * count, 12):  # each tag in turn is missing
        yield good[:start] + b"none" + good[start + 4 :]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_broken_profiles_are_ignored(tmp_path, kind):
    Image.fromarray(scene()).save(tmp_path / "plain", kind, **({"lossless": True} if kind == "WEBP" else {}))
    expected = load_photo(tmp_path / "plain").gray
    noted = 0
    for profile in broken_profiles():
        Image.fromarray(scene()).save(
            tmp_path / "photo", kind, icc_profile=profile, **({"lossless": True} if kind == "WEBP" else {})
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            photo = load_photo(tmp_path / "photo")
        if photo.notes:
            noted += 1
            assert "the embedded ICC profile is" in photo.notes[0] and photo.notes[0].endswith(": ignored")
            assert np.array_equal(photo.gray, expected)
        assert np.abs(photo.gray - expected).max() < 0.02  # where a missing tag is no matter
    assert noted >= 5


def test_a_gray_png_under_an_rgb_profile_is_silent(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(scene()[..., 0]).save(tmp_path / "a.png", icc_profile=profile)
    assert load_photo(tmp_path / "a.png").notes == ()


# --------------------------------------------------------------------------------------------- pages


@pytest.mark.parametrize(("kind", "options"), [("TIFF", {}), ("WEBP", {"lossless": True})])
def test_pages(tmp_path, kind, options):
    pages = [scene(), 255 - scene(), scene()[::-1].copy()]
    images = [Image.fromarray(page) for page in pages]
    path = tmp_path / "many"
    images[0].save(path, kind, save_all=True, append_images=images[1:], **options)
    assert page_count(path) == 3
    with pytest.raises(ImageError, match="holds 3 pages or frames; .*--page"):
        load_photo(path)
    for number, page in enumerate(pages, 1):
        assert np.abs(load_photo(path, page=number).gray - page @ LUMA / 255).max() < 1e-6
    with pytest.raises(ImageError, match="there is no page 4: it holds 3"):
        load_photo(path, page=4)
    for wrong in (0, 1.0, True, "1"):
        with pytest.raises(ValueError, match="page must be a whole number from 1"):
            load_photo(path, page=wrong)  # type: ignore[arg-type]


def test_pages_have_their_own_metadata(tmp_path):
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for name in ("first", "second"):
            writer.write(scene(), photometric="rgb", description=name, metadata=None, software=False)
    (tmp_path / "a.tif").write_bytes(file.getvalue())
    for number, name in enumerate(("first", "second"), 1):
        exif = Image.Exif()
        exif.load(load_photo(tmp_path / "a.tif", page=number).exif or b"")
        assert exif[0x010E] == name
