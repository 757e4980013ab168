"""Wrong calls say what was expected, what came, and what to do; `save` writes what the command would."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import cli
from pipeline.color_pipeline import ColorPipeline
from pipeline.images.read import load_photo

sys.path.insert(0, str(Path(__file__).resolve().parent / "fuzz"))
from plain import Plain1, Plain2, Plain3, plain_pipeline  # noqa: E402

GRAY = np.random.default_rng(0).random((20, 30), np.float32)


@pytest.mark.parametrize(("call", "words"), [
    ({"num_samples": 1.5}, "num_samples must be a whole number from 1; got 1.5"),
    ({"num_samples": True}, "num_samples must be a whole number from 1; got True"),
    ({"num_inference_steps": (1,)}, r"a pair for stages 1 and 3, either of which may be None; got \(1,\)"),
    ({"num_inference_steps": (1, 2, 3)}, "a pair for stages 1 and 3"),
    ({"num_inference_steps": 1.5}, "steps must be a whole number from 1; got 1.5"),
    ({"temperature": "warm"}, "temperature must be a number from 0; got 'warm'"),
    ({"temperature": float("nan")}, "temperature must be a number from 0; got nan"),
    ({"gray": np.full((4, 4), np.nan)}, "got NaN or infinity. numpy.nan_to_num replaces them"),
    ({"gray": torch.full((4, 4), torch.inf)}, "got NaN or infinity"),
    ({"gray": 255 * GRAY}, r"must be in \[0, 1\]; got .* Divide 8-bit levels by 255"),
    ({"gray": np.zeros(5)}, r"an array must be \(H, W\) or \(H, W, 1 \| 2 \| 3 \| 4\), channels last; got \(5,\)"),
    ({"gray": np.zeros((1, 1, 1, 4, 4))}, r"got \(1, 1, 1, 4, 4\)"),
    ({"gray": torch.zeros(20, 30, 3)}, r"got \(20, 30, 3\); arrays have channels last, tensors first"),
    ({"gray": torch.zeros(5)}, r"a tensor must be .*; got \(5,\)"),
])  # fmt: skip
def test_wrong_calls(call, words):
    with pytest.raises(ValueError, match=words):
        plain_pipeline()(**{"gray": GRAY, **call})


def deep_photo(path: Path) -> Path:
    levels = np.random.default_rng(0).integers(0, 65536, (40, 30)).astype(np.uint16)
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Graflex", 6
    Image.fromarray(levels).save(path, exif=exif, dpi=(300, 300))
    return path


@pytest.mark.filterwarnings("ignore:16 bits became 8")
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
def test_save_writes_what_the_command_would(tmp_path, monkeypatch, suffix):
    pipe = plain_pipeline()
    monkeypatch.setattr(ColorPipeline, "from_pretrained", lambda source=None, **_: pipe)
    Image.new("LA", (30, 20), (90, 255)).save(tmp_path / "alpha.png")
    for number, photo in enumerate((deep_photo(tmp_path / "deep.png"), tmp_path / "alpha.png")):
        assert cli.main(["colorize", str(photo), "-o", str(tmp_path / f"{number}{suffix}"), "--samples", "2"]) == 0
        output = pipe(photo, 2, generator=0, output_type="pt")
        output.save(tmp_path / f"own{suffix}", picture=1, overwrite=True)
        assert (tmp_path / f"own{suffix}").read_bytes() == (tmp_path / f"{number}-2{suffix}").read_bytes()
    written = load_photo(tmp_path / f"0-1{suffix}")
    assert written.depth == (16 if suffix in (".png", ".tif") else 8) and written.gray.shape == (30, 40)
    assert written.exif is not None and b"Graflex" in written.exif
    assert written.dpi == pytest.approx((300, 300), rel=1e-3)


def test_save_refuses(tmp_path):
    output = plain_pipeline()(GRAY)
    output.save(tmp_path / "a.jpg", quality=50)
    with pytest.raises(FileExistsError, match="overwrite=True replaces it"):
        output.save(tmp_path / "a.jpg")
    small = (tmp_path / "a.jpg").stat().st_size
    output.save(tmp_path / "a.jpg", overwrite=True)
    assert (tmp_path / "a.jpg").stat().st_size > small
    for picture in (1, -1):
        with pytest.raises(IndexError, match="picture must be 0 to 0"):
            output.save(tmp_path / "b.jpg", picture=picture)
    for quality in (0, 101, 95.0):
        with pytest.raises(ValueError, match="quality must be a whole number from 1 to 100"):
            output.save(tmp_path / "b.jpg", quality=quality)
    with pytest.raises(ValueError, match="suffix must be one of"):
        output.save(tmp_path / "b.gif")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("broken", [Plain1, Plain2, Plain3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_no_picture_from_broken_numbers(monkeypatch, tmp_path, value, broken, dtype):
    """In any stage, as it comes from half precision too; a preview is stage 1's alone."""
    pipe = plain_pipeline()
    spoiled = next(stage for stage in pipe.stages.values() if isinstance(stage, broken))
    with torch.no_grad():
        spoiled.tint[0] = value
    pipe.dtype = dtype
    calls = [{}, {"num_samples": 2}] + ([{"preview": True}, {"uncertainty": True}] if broken is Plain1 else [])
    for call in calls:
        with pytest.raises(RuntimeError, match="not finite"):
            pipe(GRAY, **call)


def test_save_keeps_no_more_than_photos(tmp_path):
    output = plain_pipeline()(GRAY, 3)
    assert len(output.savers) == 3 and "savers" not in repr(output)
