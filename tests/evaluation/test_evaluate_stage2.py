"""train_scripts/evaluate_stage2.py."""

from __future__ import annotations

import pytest
import torch
from helpers import by_name, check_complete, scores
from standin_stages import StandInColorizer

from stages.color.resample import sharp_gray
from stages.color.spaces import gray_from_rgb
from stages.evaluation.photos import load_photos
from stages.evaluation.tables import PREVIEW
from train_scripts import evaluate_stage1, evaluate_stage2
from train_scripts.evaluate_stage2 import disturbed


@pytest.mark.parametrize("name", ["photos64", "photos128"])
def test_rows(name, data, weights, tmp_path):
    results = scores(evaluate_stage2, data, tmp_path / "out", "--set", name)
    check_complete(results, name, {"stage1", "stage2"})
    rows = by_name(results)
    for coarse in ("true coarse", "disturbed coarse"):  # the stand-in is the bin centers
        assert rows[f"stage 2, {coarse}"]["ciede2000"] == rows[f"bin centers, {coarse}"]["ciede2000"]
    assert rows["stage 2, true coarse"]["ciede2000"] < rows["stage 2, disturbed coarse"]["ciede2000"]
    (view,) = StandInColorizer.views  # stage 1 sees more than the 64x64 pixels that are scored
    assert torch.equal(view.gray128, sharp_gray(gray_from_rgb(load_photos(data, name, "validation").rgb()), 128))


def test_the_disturbance_is_each_pictures_own_smooth_and_grained(monkeypatch):
    def generators(*seeds):
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    noise = disturbed(torch.zeros(2, 2, 64, 64), generators(1, 2))
    assert torch.equal(disturbed(torch.zeros(2, 2, 64, 64), generators(2, 1)), noise.flip(0))
    assert not torch.equal(*noise)
    many = disturbed(torch.zeros(200, 2, 64, 64), generators(*range(200)))
    torch.testing.assert_close(disturbed(torch.ones(200, 2, 64, 64), generators(*range(200))), 1 + many)
    monkeypatch.setattr(evaluate_stage2, "GRID_STD", 0.0)
    grain = disturbed(torch.zeros(200, 2, 64, 64), generators(*range(200)))
    assert grain.std() == pytest.approx(0.02, rel=0.01)
    smooth = many - grain
    assert 0.03 < smooth.std() < 0.045 and (smooth.diff(dim=-1)).std() < 0.005


def test_missing_stage1_is_said(data, weights, tmp_path):
    (weights / "stage1" / "config.json").unlink()
    results = scores(evaluate_stage2, data, tmp_path / "out")
    assert PREVIEW not in by_name(results) and "--stage1" in results["notes"][0]
    assert evaluate_stage1.main(["--data", str(data), "--out", str(tmp_path / "out")]) == 2


def test_a_folder_of_photographs_is_needed(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("TRICHROME_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert evaluate_stage2.main([]) == 2 and "TRICHROME_DATA" in capsys.readouterr().err
