"""train_scripts/choose_candidate.py."""

from __future__ import annotations

import pytest
import torch
from helpers import PHOTOS, scores
from standin_stages import CoarseOnly, StandInColorizer, tints

from stages.color.spaces import coarse_from_rgb, gray_from_rgb, merge
from stages.evaluation import pixel
from stages.evaluation.coarse import streams
from stages.evaluation.features import SqueezeNetFeatures
from stages.evaluation.photos import load_photos
from stages.evaluation.pixel import picture_from_rgb
from stages.stage1_coarse.candidates import spread_order
from train_scripts import choose_candidate


def test_rows_again_by_hand(held_out, weights, tmp_path):
    asked = ["--temperatures", "0.5", "1", "--chroma-gains", "1.5", "--pools", "1", "3", "--candidates", "2",
             "--evened", "0", "1"]  # fmt: skip
    results = scores(choose_candidate, held_out, tmp_path / "out", *asked, "--best-photos", "3", "--seed", "5")
    assert results["photos"]["name"] == "photos64/held-out" and results["photos"]["count"] == 4
    names = [row["name"] for row in results["rows"][3:]]
    assert len(names) == 12 and names[2:6] == [
        f"{head}temperature 0.5, chroma gain 1.5, central of 3, exponent {evened}"
        for evened in (0.0, 1.0) for head in ("", "best of 2, ")]  # fmt: skip
    assert names[6] == "temperature 1.0, chroma gain 1.5, one sample"
    photos = load_photos(held_out, "photos64", "held-out")
    gray64, noise = gray_from_rgb(photos.rgb()), photos.noise(5)
    for row, pool, temperature, evened in ((-2, 3, 1.0, 1), (-4, 3, 1.0, 0), (-6, 1, 1.0, 0), (-8, 3, 0.5, 1)):
        drawn = 1.5 * temperature * tints(streams(noise, 6), 24).unflatten(0, (4, 6))
        order = spread_order(gray64, coarse_from_rgb(merge(gray64[:, None], drawn)), pool, evened)
        order = torch.arange(6).expand(4, -1) if pool == 1 else order
        pictures = picture_from_rgb(merge(gray64[:, None], drawn))[torch.arange(4)[:, None], order[:, :2]]
        first = pixel.ciede2000(pictures[:, 0], photos.pictures)
        assert results["rows"][row]["ciede2000"] == pytest.approx(float(first.mean()))
        both = torch.stack([first, pixel.ciede2000(pictures[:, 1], photos.pictures)])
        assert results["rows"][row + 1]["ciede2000"] == pytest.approx(float(both.min(0).values[:3].mean()))
        of = SqueezeNetFeatures.from_file(held_out / "features" / "squeezenet1_1.safetensors").of
        deviation = of(photos.pictures).double().std(0)
        one, other = (of(pictures[:3, k].contiguous()).double() for k in (0, 1))
        steps = torch.where(deviation > 0, (one - other) / deviation, 0).norm(dim=1)
        assert results["rows"][row + 1]["diversity"] == pytest.approx(float(steps.mean()), rel=1e-4)


@pytest.mark.parametrize("name", ["photos128", "photos256"])
def test_photographs_of_another_size(name, data, weights, tmp_path):
    results = scores(choose_candidate, data, tmp_path / "out", "--set", name, "--split", "validation",
                     "--temperatures", "1", "--pools", "1", "--chroma-gains", "1", "--candidates", "2",
                     "--best-photos", "1")  # fmt: skip
    assert results["photos"]["name"] == f"{name}/validation"
    assert sum(len(view) for view in StandInColorizer.views) == PHOTOS[name]
    photos = load_photos(data, name, "validation")
    gray = gray_from_rgb(photos.rgb())
    chroma = tints(streams(photos.noise(0), 1), len(photos))[..., :1, :1]  # flat, so that it is easily enlarged
    pictures = picture_from_rgb(merge(gray, chroma.expand(-1, -1, *gray.shape[2:])))
    expected = float(pixel.ciede2000(pictures, photos.pictures).mean())
    assert results["rows"][3]["ciede2000"] == pytest.approx(expected, abs=1e-3)


def test_what_can_not_be_chosen(data, weights, tmp_path, capsys):
    options = ["--data", str(data), "--out", str(tmp_path / "out"), "--split", "validation"]
    for wrong, name in (("--temperatures=-1", "temperature"), ("--chroma-gains=-1", "chroma_gain")):
        assert choose_candidate.main([*options, wrong]) == 2
        assert f"{name} must be a number from 0" in capsys.readouterr().err
    CoarseOnly().save_pretrained(tmp_path / "coarse")
    assert choose_candidate.main([*options, "--weights", str(tmp_path / "coarse")]) == 2
    assert "no chroma before rounding" in capsys.readouterr().err
