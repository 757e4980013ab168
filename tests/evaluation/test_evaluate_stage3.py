"""train_scripts/evaluate_stage3.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import by_name, check_complete, scores, tiny
from standin_stages import LikelySuperResolver, StandInSuperResolver

from pipeline import ColorPipeline
from pipeline.full_resolution import sharpened
from stages.evaluation import pixel
from stages.evaluation.photos import load_photos
from train_scripts import evaluate_stage3


@pytest.mark.parametrize("name", ["photos128", "photos256"])
def test_rows(name, data, weights, tmp_path):
    results = scores(evaluate_stage3, data, tmp_path / "out", "--stage1", str(weights / "stage1"), "--set", name)
    check_complete(results, name, {"stage1", "stage2", "stage3"})
    rows = by_name(results)
    for rgb64 in ("true", "sampled"):  # the stand-in is the luma-guided enlargement
        guided, stage3 = rows[f"luma-guided, {rgb64} rgb64"], rows[f"stage 3, {rgb64} rgb64"]
        assert guided["ciede2000"] == pytest.approx(stage3["ciede2000"], rel=0 if name == "photos256" else 2e-3)
        assert f"bicubic, {rgb64} rgb64" in rows
    assert rows["bicubic, true rgb64"]["ciede2000"] < 3 < rows["bicubic, sampled rgb64"]["ciede2000"]


def test_the_sampled_row_is_the_default_output_of_the_pipeline(data, weights, tmp_path):
    rows = by_name(scores(evaluate_stage3, data, tmp_path / "out", "--seed", "5"))
    seeds = list(StandInSuperResolver.seeds)
    photos = load_photos(data, "photos256", "validation")
    StandInSuperResolver.seeds.clear()
    grays = [gray[0].numpy() for gray in photos.gray()]
    images = ColorPipeline.from_pretrained()(grays, generator=5, sharpness=0.0, output_type="np").images
    assert StandInSuperResolver.seeds == seeds[len(photos) :] != seeds[: len(photos)]  # of the chosen candidates
    pictures = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    expected = float(pixel.ciede2000(pictures, photos.pictures).mean())
    assert rows["stage 3, sampled rgb64"]["ciede2000"] == pytest.approx(expected, abs=0.03)  # gray was 8 bits here


def test_other_numbers_of_steps(data, weights, tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    stage = tiny("stage3", residual_std=0.3)  # to be seen in 8 bits
    for weight in stage.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    stage.save_pretrained(tmp_path / "stage3")
    for wrong in (["--sharpness", "-1"], ["--sharpness", "3"], ["--more-steps", "2"]):  # the stand-in takes no steps
        assert evaluate_stage3.main(["--data", str(data), "--out", str(tmp_path / "no"), *wrong]) == 2
        assert wrong[0].strip("-").split("-")[-1] in capsys.readouterr().err
    options = ["--weights", str(tmp_path / "stage3"), "--more-steps", "5", "2", "--steps", "2"]
    rows = by_name(scores(evaluate_stage3, data, tmp_path / "out", *options))
    for name in ("true", "sampled"):
        two, same, most = (rows[f"stage 3{way}, {name} rgb64"] for way in ("", " in 2 steps", " in 5 steps"))
        key = "squeezenet_kid_minus_most_steps"
        assert {**two, "name": ""} == {**same, "name": ""} and two["ciede2000"] != most["ciede2000"]
        assert most[key]["value"] == 0
        assert two[key]["value"] == pytest.approx(two["squeezenet_kid"] - most["squeezenet_kid"], abs=1e-6)
        assert f"stage 3, sharpened, {name} rgb64" not in rows
    seen: list[float] = []

    def noted(gray: torch.Tensor, rgb: torch.Tensor, sharpness: float) -> torch.Tensor:
        seen.append(sharpness)
        return sharpened(gray, rgb, sharpness)

    monkeypatch.setattr(evaluate_stage3, "sharpened", noted)
    sharper = by_name(scores(evaluate_stage3, data, tmp_path / "out", *options, "--sharpness", "0.7"))
    assert set(seen) == {0, 0.7}
    for name in ("true", "sampled"):
        row, plain = (sharper[f"stage 3{form}, {name} rgb64"] for form in (", sharpened", ""))
        assert plain["ciede2000"] == rows[f"stage 3, {name} rgb64"]["ciede2000"] != row["ciede2000"]
        assert row["colorfulness_ratio"] > plain["colorfulness_ratio"]
        for what in ("", ", sharpened"):
            most = sharper[f"stage 3 in 5 steps{what}, {name} rgb64"]
            more = row[f"squeezenet_kid_minus_most_steps{what.replace(', ', '_')}"]["value"]
            assert more == pytest.approx(row["squeezenet_kid"] - most["squeezenet_kid"], abs=1e-6)


def test_bits_are_of_photographs_at_256(data, weights, tmp_path):
    LikelySuperResolver().save_pretrained(tmp_path / "stage3")
    options = ("--weights", str(tmp_path / "stage3"))
    results = scores(evaluate_stage3, data, tmp_path / "out", *options)
    expected = load_photos(data, "photos256", "validation").rgb().mean().item()
    assert results["bits_per_dimension"] == pytest.approx(expected, rel=1e-4)
    results = scores(evaluate_stage3, data, tmp_path / "out", *options, "--set", "photos128")
    assert "bits_per_dimension" not in results and "256x256" in results["notes"][-1]
