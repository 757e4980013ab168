"""EXIF, XMP and IPTC pass through as bytes; what a format can not carry is a note."""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
import pytest
import pyvips
from PIL import Image

from pipeline.images.containers import blocks_of
from pipeline.images.photo import Photo
from pipeline.images.read import load_photo
from pipeline.images.tiff import EXIF_IFD, TiffFile, Value, append_directory, encoded
from pipeline.images.write import save_photo

SUFFIXES = (".jpg", ".png", ".webp", ".tif")
MAKER, COMMENT = bytes(range(256)) + b"\0maker", b"UNICODE\0" + "日本".encode("utf-16-be")
XMP = b"<?xpacket begin=''?><x:xmpmeta xmlns:x='adobe:ns:meta/' a='\xc3\xa9'>  kept  </x:xmpmeta><?xpacket end='w'?>"
IPTC = b"\x1c\x01\x5a\x00\x03\x1b%G" + b"\x1c\x02\x78\x00\x07caption" + b"\x1c\x02\x05\x00\x05title"
RESOURCES = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC + bytes(len(IPTC) % 2)
RESOURCES += b"8BIM\x04\x25\0\0" + struct.pack(">I", 16) + bytes(range(16))


def pixels():
    y, x = np.mgrid[0:40, 0:56] / 50
    return np.rint(np.stack([128 + 100 * np.sin(3 * x + k) * np.cos(2 * y - k) for k in range(3)], -1)).astype(np.uint8)


def exif(order=">"):
    """A block with maker notes, a comment with its code, and tags that libraries do not know, in either order."""

    def value(kind, count, data):
        return Value(kind, count, data, order)

    inner = {
        0x829A: value(5, 1, struct.pack(order + "II", 1, 125)), 0x9211: value(4, 1, struct.pack(order + "I", 7)),
        0x927C: value(7, len(MAKER), MAKER), 0x9286: value(7, len(COMMENT), COMMENT),
        0xFDE8: value(2, 9, b"my camera"),
    }  # fmt: skip
    first = {
        0x010F: value(2, 8, b"Graflex\0"), 0x0112: value(3, 1, struct.pack(order + "H", 6)),
        0x9211: value(3, 2, struct.pack(order + "HH", 300, 2)), EXIF_IFD: inner,
        0x8825: {1: value(2, 2, b"N\0"), 2: value(5, 3, struct.pack(order + "6I", 35, 1, 2, 1, 26, 1))},
    }  # fmt: skip
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, 8)
    return b"Exif\0\0" + head + encoded(first, order, 8)


def photo(**fields):
    return Photo(gray=np.zeros((40, 56), np.float32), depth=8, **fields)


def directory_of(block):
    tiff = TiffFile(io.BytesIO(block.removeprefix(b"Exif\0\0")))
    return tiff.directory(tiff.first)


def meaning(directory):
    """Values in one byte order, whatever theirs is."""
    return {
        tag: meaning(value) if isinstance(value, dict) else (value.type, value.count, value.ordered("<"))
        for tag, value in directory.items()
    }


def neutral(block, order):
    """The block as it must come out: only the orientation is another."""
    turned, upright = (struct.pack(order + "HHIHH", 0x0112, 3, 1, value, 0) for value in (6, 1))
    return block.replace(turned, upright)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_exif_is_the_same_bytes_but_for_the_orientation(tmp_path, suffix, order):
    Image.fromarray(pixels()).save(tmp_path / "in.jpg", exif=exif(order))
    read = load_photo(tmp_path / "in.jpg")
    assert read.exif == neutral(exif(order), order) != exif(order) and read.gray.shape == (56, 40)
    read.dpi = None
    save_photo(tmp_path / f"out{suffix}", pixels().swapaxes(0, 1), read)
    with open(tmp_path / f"out{suffix}", "rb") as file:
        kind = {".jpg": "jpeg", ".png": "png", ".webp": "webp"}[suffix]
        assert blocks_of(file, kind).exif == neutral(exif(order), order)
    with Image.open(tmp_path / f"out{suffix}") as image:  # and others find it there
        details = image.getexif().get_ifd(EXIF_IFD)
        assert details[0x927C] == MAKER and details[0x9286] == COMMENT and details[0x9211] == 7
    assert load_photo(tmp_path / f"out{suffix}").exif == read.exif


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_goes_through_tiff_value_by_value(tmp_path, order):
    """Offsets are others there: values are the same, in either byte order, and back again."""
    save_photo(tmp_path / "a.tif", pixels(), photo(exif=neutral(exif(order), order)))
    save_photo(tmp_path / "b.jpg", pixels(), load_photo(tmp_path / "a.tif"))
    expected = meaning(directory_of(exif(order)))
    del expected[0x0112]
    for path in ("a.tif", "b.jpg"):
        assert meaning(directory_of(load_photo(tmp_path / path).exif)) == expected
    with Image.open(tmp_path / "a.tif") as image:
        details = image.getexif().get_ifd(EXIF_IFD)
        assert details[0x927C] == MAKER and details[0x9286] == COMMENT
        assert image.getexif().get_ifd(0x8825)[2] == (35.0, 2.0, 26.0)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_xmp_is_the_same_bytes(tmp_path, suffix):
    save_photo(tmp_path / f"a{suffix}", pixels(), photo(xmp=XMP))
    assert load_photo(tmp_path / f"a{suffix}").xmp == XMP
    with Image.open(tmp_path / f"a{suffix}") as image:
        found = image.info.get("xmp")
        assert found in (XMP, XMP.decode())


def test_orientation_of_xmp():
    from pipeline.images.metadata import _neutral_xmp

    for before, after in (
        (b"<a tiff:Orientation='6' b='6'/>", b"<a tiff:Orientation='1' b='6'/>"),
        (b"<tiff:Orientation>8</tiff:Orientation>", b"<tiff:Orientation>1</tiff:Orientation>"),
        (b"tiff:Orientations='6'", b"tiff:Orientations='6'"),
    ):
        assert _neutral_xmp(before) == after


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_iptc_is_the_same_bytes(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    save_photo(path, pixels(), photo(iptc=RESOURCES))
    assert load_photo(path).iptc == RESOURCES
    image = pyvips.Image.new_from_file(str(path))
    assert IPTC in image.get("iptc-data" if suffix == ".tif" else "iptc-data")


def test_iptc_of_a_tiff_without_resources(tmp_path):
    Image.fromarray(pixels()).save(tmp_path / "a.tif")
    with open(tmp_path / "a.tif", "r+b") as file:
        append_directory(file, {0x83BB: Value(7, len(IPTC), IPTC, "<")})
    read = load_photo(tmp_path / "a.tif")
    assert read.iptc is not None and read.iptc[:4] == b"8BIM" and IPTC in read.iptc
    save_photo(tmp_path / "b.jpg", pixels(), read)
    assert load_photo(tmp_path / "b.jpg").iptc == read.iptc


def test_what_can_not_be_carried_is_a_note(tmp_path):
    long = b"<x/>" * 20_000
    for suffix, fields, words in (
        (".png", {"iptc": RESOURCES}, "IPTC has no place in PNG"), (".webp", {"iptc": RESOURCES}, "no place in WebP"),
        (".jpg", {"xmp": long}, "its XMP is too long for JPEG"),
        (".jpg", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + bytes(70_000)}, "its EXIF is too long"),
    ):  # fmt: skip
        with pytest.warns(UserWarning, match=words):
            save_photo(tmp_path / f"a{suffix}", pixels(), photo(**fields))
        assert load_photo(tmp_path / f"a{suffix}").gray.shape == (40, 56)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_photo(tmp_path / "a.png", pixels(), photo(xmp=long))
        assert load_photo(tmp_path / "a.png").xmp == long


def test_exif_after_the_pixels_of_a_png_is_seen(tmp_path):
    """libpng gives libvips only what stands before them."""
    import zlib

    Image.fromarray(pixels()).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    body = b"eXIf" + exif("<")[6:]
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    (tmp_path / "a.png").write_bytes(data[:-12] + chunk + data[-12:])
    read = load_photo(tmp_path / "a.png")
    assert read.exif == neutral(exif("<"), "<") and read.gray.shape == (56, 40)


def test_broken_exif_is_dropped_with_a_note(tmp_path):
    Image.fromarray(pixels()).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\xff\xff" + bytes(20))
    with pytest.warns(UserWarning, match="EXIF block is broken"):
        read = load_photo(tmp_path / "a.jpg")
    assert read.exif is None and read.notes == ("the EXIF block is broken: dropped",)


def test_webp_states_the_resolution_and_keeps_the_maker_notes_in_place(tmp_path):
    block = neutral(exif(">"), ">")
    save_photo(tmp_path / "a.webp", pixels(), photo(exif=block, dpi=(240.0, 240.0)))
    read = load_photo(tmp_path / "a.webp")
    assert read.dpi == pytest.approx((240, 240)) and read.exif is not None
    assert read.exif.index(MAKER) == block.index(MAKER)


@pytest.mark.parametrize("nearly", [0, 1, 128])
def test_webp_with_alpha_keeps_the_luma(tmp_path, nearly):
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)
    alpha = np.full((40, 56), 255, np.uint8)
    alpha[:20] = nearly
    with pytest.warns(UserWarning, match="without loss"):
        save_photo(tmp_path / "a.webp", rgb, photo(alpha=alpha))
    again = pyvips.Image.new_from_file(str(tmp_path / "a.webp")).numpy()
    assert np.array_equal(again, np.dstack([rgb, alpha]))


def test_circles_and_made_up_counts_end(tmp_path):
    block = bytearray(exif("<")[6:])
    at = struct.unpack_from("<I", block, 4)[0]
    struct.pack_into("<I", block, at + 2 + 8, 0)
    loop = encoded({EXIF_IFD: Value(4, 1, struct.pack("<I", 8), "<")}, "<", 8)
    tiff = TiffFile(io.BytesIO(b"II*\0" + struct.pack("<I", 8) + loop))
    assert tiff.directory(8) == {EXIF_IFD: {EXIF_IFD: {}}}
    huge = encoded({0x010F: Value(2, 2**31, b"abcdefgh", "<")}, "<", 8)
    tiff = TiffFile(io.BytesIO(b"II*\0" + struct.pack("<I", 8) + huge))
    assert tiff.directory(8) == {} and tiff.lost == 1
