"""train_scripts/choose_mix.py."""

from __future__ import annotations

import pytest
import torch
from helpers import by_name, scores

from stages.evaluation.coarse import view_of
from stages.evaluation.photos import load_photos
from stages.evaluation.pixel import ciede2000, picture_from_rgb
from stages.stage1_coarse.diffusion import DiffusionColorizer
from stages.training.config import Config
from stages.training.launch import CONFIGS
from train_scripts import choose_mix


@pytest.fixture
def folders(tmp_path):
    config = Config.read(CONFIGS / "tiny" / "stage1.toml").network
    for name in ("after", "before"):
        stage = DiffusionColorizer(config)
        with torch.no_grad():
            for weights in stage.parameters():
                weights.add_(0.1 * torch.randn_like(weights))
        stage.save_pretrained(tmp_path / name)
    return tmp_path / "after", tmp_path / "before"


def test_ends_are_the_two_stages(held_out, folders, tmp_path, capsys):
    after, before = folders
    results = scores(choose_mix, held_out, tmp_path / "out", "--weights", str(after), "--with", str(before),
                     "--set", "photos64", "--shares", "0.5", "1")  # fmt: skip
    rows = by_name(results)
    assert list(rows) == ["0 of --weights", "0.5 of --weights", "1 of --weights"]
    photos = load_photos(held_out, "photos64", "held-out")
    expected = {}
    for name, folder in (("0 of --weights", before), ("1 of --weights", after)):
        stage = DiffusionColorizer.from_pretrained(folder)
        preview = stage.preview(stage.encode(view_of(photos, range(len(photos)))))
        expected[name] = ciede2000(picture_from_rgb(preview), photos.pictures)
        assert rows[name]["ciede2000"] == pytest.approx(float(expected[name].mean()), rel=1e-5)
    less = expected["1 of --weights"] - expected["0 of --weights"]
    assert rows["1 of --weights"]["minus_none"]["value"] == pytest.approx(float(less.mean()), abs=1e-4)
    assert rows["0 of --weights"]["minus_none"] == {"value": 0.0, "interval_95": [0.0, 0.0]}
    assert set(results["weights"]) == {"stage1", "with"}
