"""train_scripts/evaluate_luma.py."""

from __future__ import annotations

import json

from helpers import random_picture

from stages.evaluation.photos import load_photos
from train_scripts import evaluate_luma


def test_luma_of_the_files(data, weights, tmp_path, monkeypatch, capsys):
    (tmp_path / "own" / "deeper").mkdir(parents=True)
    for number, name in enumerate(("own.tiff", "own.jpg", "deeper/own.PNG")):
        random_picture((40 + number, 40), number).save(tmp_path / "own" / name)
    options = ["--data", str(data), "--photos", "2", "--samples", str(tmp_path / "own"),
               "--set", "photos64", "photos128",
               "--json", str(tmp_path / "luma.json"), "--", "--weights", str(weights), "--seed", "1"]  # fmt: skip
    assert evaluate_luma.main(options) == 0
    record = json.loads((tmp_path / "luma.json").read_text())
    rows = record["rows"]
    assert record["photos_sha256"]["photos64"] == load_photos(data, "photos64", "validation", 2).sha256
    assert record["weights"] == json.loads((weights / "model_index.json").read_text()) and record["commit"]
    assert [(row["set"], row["format"], row["bits"], row["files"]) for row in rows] == [
        *((name, kind, bits, 2) for name in ("photos64", "photos128") for kind in ("png", "tiff") for bits in (8, 16)),
        ("samples", "png", 8, 3), ("samples", "tiff", 8, 3),
    ]  # fmt: skip
    assert all(0 < row["worst"] <= 0.501 for row in rows)

    real = evaluate_luma.load_photo

    def brighter(path):  # one output pixel is two levels off
        photo = real(path)
        if "-out" in str(path):
            photo.gray[0, 0] += 2 / 255
        return photo

    monkeypatch.setattr(evaluate_luma, "load_photo", brighter)
    assert evaluate_luma.main(options) == 1
    assert "NOT KEPT" in capsys.readouterr().out
