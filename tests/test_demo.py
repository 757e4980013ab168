"""The demonstration on stand-in stages: what it writes is what the pipeline gave."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipeline import ColorPipeline, demo
from pipeline.images.read import load_photo
from tests.standins import standin_pipeline


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    monkeypatch.setattr(ColorPipeline, "from_pretrained", lambda *_: standin_pipeline())


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)


def test_sixteen_bits_stay_sixteen(tmp_path):
    fine = picture(40, 60).astype(np.uint16) * 257
    Image.fromarray(fine).save(tmp_path / "fine.png")
    assert demo.main([str(tmp_path / "fine.png"), "--out", str(tmp_path / "out")]) == 0
    before, after = load_photo(tmp_path / "fine.png"), load_photo(tmp_path / "out" / "fine.png")
    assert after.depth == 16 and np.abs(after.gray - before.gray).max() * 65535 <= 0.51


def test_the_sheet_shows_a_turned_photograph_upright(tmp_path):
    rgb = np.stack([picture(40, 60), picture(40, 60)[::-1], np.zeros((40, 60), np.uint8)], 2)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(rgb).save(tmp_path / "turned.png", exif=exif)
    assert demo.main([str(tmp_path / "turned.png"), "--out", str(tmp_path / "out")]) == 0
    with Image.open(tmp_path / "out" / "turned.png") as colored, Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert colored.size == (40, 60)
        assert sheet.size == (4 * round(40 * 256 / 60), 256)  # gray, preview, colored, original


def test_an_input_is_not_overwritten_and_the_rest_goes_on(tmp_path, capsys):
    for name in ("mine.png", "sheet.png", "good.jpg"):
        Image.fromarray(picture(30, 30)).save(tmp_path / name)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    before = {name: (tmp_path / name).read_bytes() for name in ("mine.png", "sheet.png", "bad.png")}
    names = [str(tmp_path / name) for name in ("mine.png", "sheet.png", "bad.png", "good.jpg")]
    assert demo.main([*names[:3], "--out", str(tmp_path)]) == 1
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert capsys.readouterr().err.count("error:") == 3
    assert demo.main([names[3], names[2], "--out", str(tmp_path / "out")]) == 1
    assert (tmp_path / "out" / "good.png").is_file() and (tmp_path / "out" / "sheet.png").is_file()
