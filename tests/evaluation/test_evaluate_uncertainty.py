"""train_scripts/evaluate_uncertainty.py."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from helpers import scores

from pipeline import ColorPipeline
from pipeline.cascade import uncertainty_map
from pipeline.full_resolution import full_size_uncertainty
from pipeline.sources import noise_sources, photo_from
from stages.color.difference import ciede2000
from stages.color.spaces import chroma_from_rgb, lab_from_rgb, merge
from stages.evaluation.photos import load_photos
from train_scripts import evaluate_uncertainty
from train_scripts.evaluate_uncertainty import uncertainty_draws


def test_rank_correlations(data, weights, tmp_path):
    assert evaluate_uncertainty.main(["--data", str(data), "--photos", "1", "--out", str(tmp_path / "no")]) == 2
    options = ("--samples", "3", "--seed", "5", "--set", "photos128", "--photos", "2")
    results = scores(evaluate_uncertainty, data, tmp_path / "out", *options)
    rows = {(row["errors_of"], row["name"]): row for row in results["rows"]}
    assert results["photos"]["name"] == "photos128/validation" and results["samples"] == 3
    names = ("uncertainty map", "saturation", "saturation of the preview", "contrast of gray", "gray")
    apart = "standard deviation of 3 samples"
    assert set(rows) == {*((judged, name) for judged in ("mean sample", "default output") for name in names),
                         ("mean sample", apart)}  # fmt: skip
    pipe, photos = ColorPipeline.from_pretrained(), load_photos(data, "photos128", "validation", 2)
    expected: dict[tuple[str, str], list[np.ndarray]] = {}
    for rgb, levels in zip(photos.rgb(), photos.gray(), strict=True):
        photo = photo_from(levels[0].numpy())
        gray, (noise,) = torch.from_numpy(photo.gray)[None], noise_sources([photo], [5], [None])
        samples = torch.stack(pipe(photo, 3, generator=5, pool=1, output_type="pt").images)
        mean = merge(gray, chroma_from_rgb(samples).mean(0))
        default = pipe(photo, uncertainty=True, generator=5, output_type="pt")
        assert default.uncertainty is not None
        ab = lab_from_rgb(samples)[:, 1:].numpy()
        (of_mean,) = uncertainty_map(photo, uncertainty_draws(pipe, photo, noise, None), mean[None])
        for key, one in {
            ("mean sample", "uncertainty map"): full_size_uncertainty(of_mean, photo.gray.shape),
            ("mean sample", apart): np.sqrt(ab.var(0).sum(0)),
            ("mean sample", "error"): ciede2000(lab_from_rgb(mean), lab_from_rgb(rgb)),
            ("mean sample", "gray"): gray, ("default output", "uncertainty map"): default.uncertainty[0],
            ("default output", "saturation"): np.hypot(*lab_from_rgb(default.images[0])[1:].numpy()),
            ("default output", "error"): ciede2000(lab_from_rgb(default.images[0]), lab_from_rgb(rgb)),
        }.items():  # fmt: skip
            expected.setdefault(key, []).append(np.asarray(one).flatten())
    for key in expected:
        if key[1] == "error":
            continue
        errors = expected[key[0], "error"]
        within = [scipy.stats.spearmanr(*pair).statistic for pair in zip(expected[key], errors, strict=True)]
        whole = scipy.stats.spearmanr(np.concatenate(expected[key]), np.concatenate(errors)).statistic
        assert rows[key]["spearman_within"] == pytest.approx(np.mean(within), abs=1e-3)
        assert rows[key]["spearman"] == pytest.approx(whole, abs=1e-3)


def test_contrast_is_the_standard_deviation_of_a_window():
    assert np.allclose(evaluate_uncertainty.contrast(torch.ones(1, 20, 30)).numpy(), 0)
    assert evaluate_uncertainty.contrast(torch.eye(20)[None])[10, 10] == pytest.approx(np.std(np.eye(9)), rel=1e-4)
