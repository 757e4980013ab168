"""evaluate_reference.py, and the places of evaluate_hints.py: what is scored is what the call gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import scores

from pipeline import ColorPipeline
from stages.color.resample import resize
from stages.evaluation.photos import load_photos
from stages.evaluation.pixel import ciede2000, picture_from_rgb
from stages.evaluation.statistics import paired_difference
from train_scripts import evaluate_hints, evaluate_reference, hint_places


def small(picture: torch.Tensor) -> torch.Tensor:
    return picture_from_rgb(resize(picture[None], (64, 64)))


def test_references_need_a_stage_with_features(
    data: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate_reference.main(["--data", str(data), "--out", str(tmp_path), "--photos", "2"]) == 2
    assert "reference can not be honored by kind 'stand-in'" in capsys.readouterr().err


def test_references_are_scored_beside_a_low_pass(data: Path, tmp_path: Path) -> None:
    results = scores(evaluate_reference, data, tmp_path / "out", "--photos", "3")
    rows = {(row["reference"], row["name"]): row for row in results["rows"]}
    names = ["no reference", "matched", *(f"low pass of {n}x{n}" for n in evaluate_reference.LOW_PASSES)]
    assert list(rows) == [(kind, name) for kind in ("copy", "neighbor", "other") for name in names]
    assert all(row["pairs"] == 3 for row in rows.values())
    photos, pipe = load_photos(data, "photos256", "validation", 3), ColorPipeline.from_pretrained()
    differences = []
    for i, gray in enumerate(photos.gray()):
        other = photos.pictures[(i + 1) % 3].permute(1, 2, 0).numpy()
        (picture,) = pipe(gray[0].numpy(), preview=True, reference=other, output_type="pt").images
        differences.append(ciede2000(small(picture), photos.reduced(64).pictures[i : i + 1]))
    matched, without = rows["other", "matched"], rows["other", "no reference"]
    assert matched["ciede2000"] == pytest.approx(float(torch.cat(differences).mean()), abs=1e-6)
    apart = matched["ciede2000"] - without["ciede2000"]
    assert matched["minus_no_reference"]["value"] == pytest.approx(apart, abs=1e-6)


def test_places_are_given_their_true_colors(data: Path, weights: Path, tmp_path: Path) -> None:
    options = "--places", *hint_places.PLACES, "--photos", "2"
    results = scores(evaluate_hints, data, tmp_path / "out", *options)
    rows = {(row["name"], row["hints"]): row for row in results["rows"]}
    kinds = [(name, count) for name in hint_places.PLACES for count in hint_places.COUNTS]
    assert list(rows) == [("none", 0), *kinds]
    assert [key for key, row in rows.items() if "minus_random" in row] == [key for key in kinds if key[0] != "random"]
    photos, pipe = load_photos(data, "photos256", "validation", 2), ColorPipeline.from_pretrained(weights)
    differences = []
    for i, gray in enumerate(photos.gray()):
        levels, rgb = gray[0].numpy(), photos.rgb(slice(i, i + 1))[0]
        plain = pipe(levels, preview=True, uncertainty=True, generator=0)
        assert plain.suggestions is not None
        first = plain.suggestions[0][0]
        y, x = ((torch.arange(256) + 0.5 - at).square() for at in (first.y, first.x))
        color = rgb[:, (y[:, None] + x).sqrt() <= first.radius].mean(1).mul(255).round().int().tolist()
        hints = [(first.x, first.y, color, first.radius)]
        (picture,) = pipe(levels, preview=True, hints=hints, output_type="pt").images
        differences.append(ciede2000(small(picture), photos.reduced(64).pictures[i : i + 1]))
    assert rows["suggested", 1]["ciede2000"] == pytest.approx(float(torch.cat(differences).mean()), abs=1e-3)


def test_a_paired_difference_and_its_interval() -> None:
    values, others = torch.tensor([3.0, 5.0, 7.0]), torch.tensor([1.0, 3.0, 5.0])
    assert paired_difference(values, others) == {"value": 2.0, "interval_95": [2.0, 2.0]}
    spread = paired_difference(torch.randn(400, generator=torch.Generator().manual_seed(0)), torch.zeros(400))
    low, high = spread["interval_95"]
    assert low < 0 < high and high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)
