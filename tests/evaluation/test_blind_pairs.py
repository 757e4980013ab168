"""train_scripts/blind_pairs.py: who is where on the sheets, and how answers are counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from standin_stages import StandInColorizer, StandInConfig, StandInSuperResolver, StandInUpsampler
from torch import Tensor

from pipeline import ColorPipeline
from stages.evaluation.photos import load_photos
from stages.evaluation.statistics import wilson_interval
from train_scripts import blind_pairs
from train_scripts.blind_pairs import CELL, GAP, KEY, MARGIN

PER_SHEET = 3


def test_wilson_interval_of_published_examples():
    """Newcombe 1998, table I, method 3: 81 of 263, 15 of 148, 0 of 20."""
    assert wilson_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0.0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def on_sheet(folder: Path, place: int, column: int) -> Tensor:
    """What a sheet shows of a photograph of 256x256, (3, H, W) uint8; column 0: gray."""
    sheet, row = divmod(place, PER_SHEET)
    with Image.open(folder / f"pairs-{sheet + 1:02d}.png") as picture:
        pixels = np.asarray(picture)
    top, left = row * (CELL + GAP), MARGIN + column * (CELL + GAP)
    return torch.from_numpy(pixels[top : top + CELL, left : left + CELL].copy()).permute(2, 0, 1)


def test_sheets_show_both_and_the_key_says_where(
    data: Path, weights: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(blind_pairs, "PER_SHEET", PER_SHEET)
    plainer, out = tmp_path / "plainer", tmp_path / "out"
    coarse = StandInColorizer(StandInConfig(pool=1))
    ColorPipeline(coarse, StandInUpsampler(), StandInSuperResolver(), 0.25).save_pretrained(plainer)
    asked = ["--data", str(data), "--out", str(out), "--seed", "3"]
    assert blind_pairs.main([*asked, "--against", str(plainer)]) == 0
    assert len(list(out.glob("pairs-*.png"))) == 2
    key = json.loads((out / KEY).read_text())
    sides = key["weights_on"]
    assert list(sides) == [str(number) for number in range(1, 5)] and set(sides.values()) == {"left", "right"}
    assert set(key["weights"]) == {"stage1", "stage2", "stage3"} and key["against"] and key["photos"]["count"] == 4
    photos = load_photos(data, "photos256", "validation")
    different = 0
    for place, gray in enumerate(photos.gray()):
        assert torch.equal(on_sheet(out, place, 0), gray.expand(3, -1, -1))
        mine, theirs = (
            torch.from_numpy(np.array(ColorPipeline.from_pretrained(folder)(
                gray[0].numpy(), generator=3, output_type="np").images[0])).permute(2, 0, 1)
            for folder in (weights, plainer)
        )  # fmt: skip
        left, right = (mine, theirs) if sides[str(place + 1)] == "left" else (theirs, mine)
        assert torch.equal(on_sheet(out, place, 1), left) and torch.equal(on_sheet(out, place, 2), right)
        different += not torch.equal(mine, theirs)
    assert different
    assert blind_pairs.main([*asked, "--against", str(plainer)]) == 2
    assert "holds sheets already" in capsys.readouterr().err
    asked[3] = str(tmp_path / "other")
    assert blind_pairs.main([*asked, "--against", str(weights)]) == 0
    assert json.loads((tmp_path / "other" / KEY).read_text())["weights_on"] != sides  # other weights, other sides


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    """A key of four photographs."""
    sides = {"1": "left", "2": "right", "3": "right", "4": "left"}
    (tmp_path / KEY).write_text(json.dumps({"commit": "c", "weights_on": sides}))
    return tmp_path


def counted(folder: Path, answers: object) -> int:
    (folder / "answers.json").write_text(json.dumps(answers))
    return blind_pairs.main(["--answers", str(folder / "answers.json"), "--out", str(folder)])


def test_answers_are_counted_by_whose_side_they_name(judged: Path, capsys) -> None:
    assert counted(judged, {"1": "left", "2": "left", "3": "same", "4": "left"}) == 0
    results = json.loads((judged / "results.json").read_text())
    (row,) = results["rows"]
    assert (row["preferred"], row["same"], row["others_preferred"], row["photos"]) == (2, 1, 1, 4)
    assert row["share"] == 0.625 and row["interval_95"] == list(wilson_interval(0.625, 4))
    assert results["commit"] == "c" and results["answers"]["3"] == "same"
    assert "preferred on 2 of 4, 1 the same: 0.62" in capsys.readouterr().out


@pytest.mark.parametrize("answers, message", [
    ({"1": "left"}, "must answer for each of the numbers 1 to 4"),
    ({"1": "left", "2": "left", "3": "both", "4": "left"}, "an answer is left, right or same; got ['both']"),
    ({"1": "left", "2": "left", "3": ["left"], "4": "left"}, "an answer is left, right or same; got [['left']]"),
    (["left"] * 4, "must answer for each of the numbers"),
])  # fmt: skip
def test_answers_that_can_not_be_counted(judged: Path, answers: object, message: str, capsys) -> None:
    assert counted(judged, answers) == 2
    assert message in capsys.readouterr().err
    assert not (judged / "results.json").exists()


def test_one_of_the_two_is_asked_for(tmp_path: Path, capsys) -> None:
    for asked in ([], ["--answers", "a.json", "--against", "b"]):
        assert blind_pairs.main([*asked, "--out", str(tmp_path / "none")]) == 2
        assert "name --against, to make sheets, or --answers" in capsys.readouterr().err
    assert blind_pairs.main(["--answers", "a.json", "--out", str(tmp_path / "none")]) == 2
    assert "expected answers in JSON, and" in capsys.readouterr().err
