"""evaluate_hints.py: what is scored is what the pipeline gives to the same call."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import scores
from standin_stages import StandInColorizer, StandInConfig, StandInSuperResolver, StandInUpsampler

from pipeline import ColorPipeline
from stages.evaluation.photos import load_photos
from stages.hints.hints import Hints
from train_scripts import evaluate_hints
from train_scripts.evaluate_hints import colored_by, random_cells, strokes_over


def test_the_pipeline_is_scored_beside_the_classic(
    data: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_hints, "COUNTS", (0, 20))
    options = "--system", "default", "--without-features", "--photos", "2"
    results = scores(evaluate_hints, data, tmp_path / "out", *options)
    assert set(results["weights"]) == {"stage1", "stage2", "stage3"} and results["photos"]["count"] == 2
    rows = {(row["side"], row["hints"], row["name"]): row for row in results["rows"]}
    names = ["classic", "preview", "default output", "preview, spread without features"]
    assert list(rows) == [(side, count, name) for count in (0, 20) for name in names for side in (64, 256)]
    for (_, count, name), row in rows.items():
        assert ("obedience" in row) == (count > 0) and row["ciede2000"] > 0
        assert name != "classic" or row["share_of_first"]["value"] == 1
    gray = rows[64, 0, "classic"]
    assert gray["share_of_gray"]["value"] == pytest.approx(1)
    for name in names:  # known colors are put back, whatever a system makes of the rest
        assert rows[256, 20, name]["obedience"] < 4 and rows[64, 20, name]["obedience"] < 4


def test_what_is_scored_is_what_the_call_gives(data: Path, weights: Path) -> None:
    photos, pipe = load_photos(data, "photos256", "validation", 2), ColorPipeline.from_pretrained(weights)
    gray = torch.stack(photos.gray())
    hints = [strokes_over(random_cells(20, i), torch.full((3, 32, 32), 0.6)) for i in range(2)]
    for preview in (False, True):
        colored = colored_by(pipe, 3, preview=preview)(gray.float() / 255, hints)
        levels = [one[0].numpy() for one in gray]
        given = pipe(levels, generator=3, preview=preview, hints=hints, output_type="pt").images
        assert torch.equal(colored, torch.stack(given))
        without = colored_by(pipe, 3, preview=preview)(gray.float() / 255, [Hints((256, 256))] * 2)
        assert not torch.equal(colored, without)


def test_other_weights_are_asked_for_the_same_photographs(
    data: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(evaluate_hints, "COUNTS", (0, 20))
    plain = tmp_path / "plain"
    coarse = StandInColorizer(StandInConfig(pool=1))
    ColorPipeline(coarse, StandInUpsampler(), StandInSuperResolver(), 0.25).save_pretrained(plain)
    options = "--system", "default", "--photos", "2", "--seed", "4", "--against"
    for folder, level in ((weights, True), (plain, False)):
        results = scores(evaluate_hints, data, tmp_path / f"out-{folder.name}", *options, str(folder))
        rows = {(row["side"], row["hints"], row["name"]): row for row in results["rows"]}
        for count in (0, 20):
            mine, theirs = rows[64, count, "default output"], rows[64, count, "default output of the others"]
            assert mine["minus_the_others"]["value"] == pytest.approx(mine["ciede2000"] - theirs["ciede2000"], abs=1e-4)
            assert (mine["minus_the_others"]["value"] == 0) == level
            assert rows[64, count, "preview"]["minus_the_others"]["value"] == 0  # the previews are the same
        assert not any("minus_the_others" in row for row in results["rows"] if "others" in row["name"])
    for other in (["--regions"], ["--places", "suggested"]):
        assert evaluate_hints.main(["--data", str(data), "--out", str(tmp_path), *other, *options, str(weights)]) == 2
        assert "--against belongs to random cells" in capsys.readouterr().err
