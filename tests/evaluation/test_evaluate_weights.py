"""train_scripts/evaluate_weights.py: two pipelines on the same photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import by_name, scores
from standin_stages import StandInColorizer, StandInConfig, StandInSuperResolver, StandInUpsampler

from pipeline import ColorPipeline
from stages.color.resample import resize
from stages.evaluation import pixel
from stages.evaluation.photos import load_photos
from train_scripts import evaluate_weights

PREVIEW, DEFAULT = "preview, at 64x64", "default output"


@pytest.fixture
def plainer(weights: Path, tmp_path: Path) -> Path:
    """The same stand-ins, whose default output is a plain draw."""
    folder = tmp_path / "plainer"
    coarse = StandInColorizer(StandInConfig(pool=1))
    ColorPipeline(coarse, StandInUpsampler(), StandInSuperResolver(), 0.25).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ["photos128", "photos256"])
def test_weights_are_level_with_themselves(name: str, data: Path, weights: Path, tmp_path: Path) -> None:
    results = scores(evaluate_weights, data, tmp_path / "out", "--set", name, "--against", str(weights))
    assert set(results["weights"]) == {"stage1", "stage2", "stage3"}
    assert results["photos"]["name"] == f"{name}/validation"
    rows = by_name(results)
    for row in (rows[PREVIEW], rows[DEFAULT]):
        assert row["ratio"]["value"] == 1 and row["ratio"]["interval_95"] == pytest.approx([1, 1])
    assert rows[DEFAULT]["squeezenet_kid_minus_the_others"] == {"value": 0, "interval_95": [0, 0]}


def test_ratios_are_of_the_same_photographs(data: Path, weights: Path, plainer: Path, tmp_path: Path) -> None:
    results = scores(evaluate_weights, data, tmp_path / "out", "--against", str(plainer), "--seed", "4")
    rows, photos = by_name(results), load_photos(data, "photos256", "validation")
    errors = []
    for folder in (weights, plainer):
        pipe = ColorPipeline.from_pretrained(folder)
        images = [pipe(gray[0].numpy(), generator=4, output_type="np").images[0] for gray in photos.gray()]
        errors.append(pixel.ciede2000(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), photos.pictures))
    mine, theirs = errors
    assert mine.mean() != theirs.mean()
    assert rows[DEFAULT]["ciede2000"] == float(mine.mean())
    assert rows["default output of the others"]["ciede2000"] == float(theirs.mean())
    assert rows[DEFAULT]["ratio"]["value"] == float(mine.mean() / theirs.mean())
    assert results["against"] == dict(ColorPipeline.from_pretrained(plainer).fingerprint())


def test_the_preview_is_scored_at_64(data: Path, weights: Path, tmp_path: Path) -> None:
    rows = by_name(scores(evaluate_weights, data, tmp_path / "out", "--against", str(weights)))
    photos, pipe = load_photos(data, "photos256", "validation"), ColorPipeline.from_pretrained(weights)
    small = [resize(pipe(gray[0].numpy(), preview=True, output_type="pt").images[0][None], (64, 64))
             for gray in photos.gray()]  # fmt: skip
    error = pixel.ciede2000(pixel.picture_from_rgb(torch.cat(small)), photos.reduced(64).pictures)
    assert rows[PREVIEW]["ciede2000"] == pytest.approx(float(error.mean()), abs=1e-6)
