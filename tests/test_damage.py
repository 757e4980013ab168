"""Damaged pictures are refused, odd but whole ones are read with a note; no file is blamed for another's damage."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image

from pipeline.images.photo import ImageError
from pipeline.images.read import load_photo
from pipeline.images.write import save_photo

HEIGHT, WIDTH = 300, 400


def scene(size=(HEIGHT, WIDTH)):
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    return np.asarray(small.resize(size[::-1], Image.Resampling.BICUBIC))


def encoded(kind, pixels=None, **options):
    file = io.BytesIO()
    Image.fromarray(scene() if pixels is None else pixels).save(file, kind, **options)
    return file.getvalue()


def saved(tmp_path, data, name="photo"):
    (tmp_path / name).write_bytes(data)
    return tmp_path / name


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_a_jpeg_cut_short_is_refused_although_it_ends_properly(tmp_path, options, share):
    whole = encoded("JPEG", quality=92, **options)
    for end in (b"", b"\xff\xd9"):
        path = saved(tmp_path, whole[: int(share * len(whole))] + end)
        with pytest.raises(ImageError, match="damaged or truncated: .*(premature|truncated)"):
            load_photo(path)


def test_a_tiff_with_zeros_inside_is_refused(tmp_path):
    data = bytearray(encoded("TIFF", compression="tiff_lzw"))
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    with pytest.raises(ImageError, match="damaged or truncated"):
        load_photo(saved(tmp_path, data))


@pytest.mark.parametrize("compression", ["group3", "group4", "jpeg", "packbits"])
def test_what_libtiff_only_warns_of_is_refused(tmp_path, compression):
    image = Image.fromarray(scene())
    image = image.convert("1") if compression.startswith("group") else image
    image.save(tmp_path / "whole.tif", compression=compression)
    data = bytearray((tmp_path / "whole.tif").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 90] = bytes(90)
    with pytest.raises(ImageError, match="damaged or truncated: (Premature|Bad code|Corrupt JPEG|Discarding)"):
        load_photo(saved(tmp_path, data))


def test_odd_tags_of_a_tiff_are_notes(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", scene(), photometric="rgb", extratags=[(306, 3, 1, 5, True)])
    with pytest.warns(UserWarning, match='the pixels are whole: ASCII value for tag "DateTime"'):
        photo = load_photo(tmp_path / "a.tif")
    assert np.array_equal(photo.gray, load_photo(scene()).gray)
    whole = encoded("TIFF", compression="packbits", description="a text")
    data = bytearray(whole.replace(b"a text\0", b"a text!"))
    with pytest.warns(UserWarning, match="ImageDescription"):
        load_photo(saved(tmp_path, data))
    data[len(data) // 2 : len(data) // 2 + 90] = bytes(90)
    with pytest.raises(ImageError, match="damaged"):
        load_photo(saved(tmp_path, data))


def test_a_lost_restart_interval_is_refused(tmp_path):
    data = encoded("JPEG", restart_marker_rows=1)
    marks = [at for at in range(len(data) - 1) if data[at] == 0xFF and 0xD0 <= data[at + 1] <= 0xD7]
    with pytest.raises(ImageError, match="damaged"):
        load_photo(saved(tmp_path, data[: marks[5]] + data[marks[6] :]))


def oddities(whole):
    """(what the note says, a JPEG of the same pixels that libjpeg warns of)."""
    tables, scan = whole.index(b"\xff\xdb"), whole.index(b"\xff\xda")
    baseline = bytearray(whole)
    baseline[scan + 2 + 2 + 1 + 6 + 1] = 13  # the end of a spectral selection, of progressive files only
    yield "3 bytes between its segments", whole[:tables] + b"abc" + whole[tables:]
    yield "JFIF revision 3", whole.replace(b"JFIF\0\1", b"JFIF\0\3")
    yield "scan parameters of a progressive file", bytes(baseline)


def test_harmless_oddities_are_notes(tmp_path):
    whole = encoded("JPEG", quality=92)
    expected = load_photo(saved(tmp_path, whole)).gray
    for words, data in oddities(whole):
        with pytest.warns(UserWarning, match=words):
            photo = load_photo(saved(tmp_path, data))
        assert np.array_equal(photo.gray, expected)
        assert len(photo.notes) == 1 and words in photo.notes[0] and "the pixels are whole" in photo.notes[0]


def test_damage_does_not_hide_behind_a_harmless_oddity(tmp_path):
    """libjpeg speaks of the first only."""
    whole = encoded("JPEG", quality=92)
    for _, data in oddities(whole):
        with pytest.raises(ImageError, match="damaged or truncated"):
            load_photo(saved(tmp_path, data[: len(data) // 2] + b"\xff\xd9"))


def test_good_files_have_no_notes(tmp_path):
    for kind, options in (("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("TIFF", {}), ("WEBP", {})):
        assert load_photo(saved(tmp_path, encoded(kind, **options))).notes == ()


def test_no_file_is_blamed_for_the_one_before(tmp_path):
    whole = encoded("JPEG")
    bad = saved(tmp_path, whole[: len(whole) // 2] + b"\xff\xd9", "bad.jpg")
    worse = saved(tmp_path, b"\x89PNG\r\n\x1a\n" + bytes(50), "worse.png")
    lzw = bytearray(encoded("TIFF", compression="tiff_lzw"))
    lzw[len(lzw) // 2 : len(lzw) // 2 + 64] = bytes(64)
    tiff = saved(tmp_path, lzw, "tiff.tif")
    alone: dict[Path, str] = {}
    for path in (bad, worse, tiff, bad, tiff, worse):
        source = pyvips.Source.new_from_memory(bad.read_bytes())
        pyvips.Image.jpegload_source(source, fail_on="none").avg()  # reads on, and leaves its words behind
        with pytest.raises(ImageError) as caught:
            load_photo(path)
        assert alone.setdefault(path, str(caught.value)) == str(caught.value)
    assert "premature" in alone[bad] and "premature" not in alone[tiff] + alone[worse]


def test_threads_are_told_of_their_own_files(tmp_path):
    whole = encoded("JPEG")
    bad = saved(tmp_path, whole[: len(whole) // 2] + b"\xff\xd9", "bad.jpg")
    good = saved(tmp_path, whole, "good.jpg")
    wrong = []

    def read(path, fails):
        for _ in range(20):
            try:
                load_photo(path)
                if fails:
                    wrong.append(path)
            except ImageError as error:
                if not fails or "premature" not in str(error):
                    wrong.append(str(error))

    threads = [threading.Thread(target=read, args=pair) for pair in 2 * [(bad, True), (good, False)]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def header_of(width, height, size):
    """A gray PNG of `size` bytes that promises width x height pixels."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    data = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    data += chunk(b"IDAT", b"\x78\x9c" + bytes(100))
    end = chunk(b"IEND", b"")
    data = b"\x89PNG\r\n\x1a\n" + data
    return data + chunk(b"tEXt", b"a\0" + b"b" * (size - len(data) - len(end) - 14)) + end


def test_a_header_that_promises_too_much_for_its_file_is_refused(tmp_path):
    path = saved(tmp_path, header_of(17_000, 17_000, 77_000))
    assert path.stat().st_size == 77_000
    with pytest.raises(ImageError, match="3753 pixels to a byte, more than the limit of 1000; .*--max-megapixels"):
        load_photo(path)
    with pytest.raises(ImageError, match="damaged"):  # who raises the limit answers for it
        load_photo(path, max_pixels=300_000_000)
    with pytest.raises(ImageError, match="damaged"):  # 289 to a byte
        load_photo(saved(tmp_path, header_of(17_000, 17_000, 1_000_000)))


def test_a_blank_page_is_no_bomb(tmp_path):
    Image.new("L", (6000, 6000), 255).save(tmp_path / "blank.png")
    assert 36_000_000 / (tmp_path / "blank.png").stat().st_size > 600
    assert load_photo(tmp_path / "blank.png").gray.shape == (6000, 6000)


def test_files_that_are_read_and_written_side_by_side_are_told_their_own(tmp_path):
    """Eight threads at once: every broken file has the words it has alone, and every good one none."""
    rng = np.random.default_rng(0)
    good = Image.fromarray(rng.integers(0, 256, (300, 300), dtype=np.uint8))
    paths = [tmp_path / f"{number}.{suffix}" for number in range(12) for suffix in ("png", "jpg", "tif")]
    for number, path in enumerate(paths):
        good.save(path)
        if number % 2:
            data = path.read_bytes()
            path.write_bytes(data[: len(data) // 2 + 100 * number])

    def said(path: Path) -> str | tuple[str, ...]:
        try:
            photo = load_photo(path)
            save_photo(path.with_name(f"{path.name}.out.png"), np.zeros((300, 300, 3), np.uint8), photo)
            return photo.notes
        except ImageError as error:
            return str(error)

    alone = [said(path) for path in paths]
    assert sum(isinstance(one, str) for one in alone) == len(paths) // 2
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert list(pool.map(said, paths)) == alone
