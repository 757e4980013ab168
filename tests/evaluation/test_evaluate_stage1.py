"""train_scripts/evaluate_stage1.py."""

from __future__ import annotations

import pytest
import torch
from helpers import by_name, check_complete, scores, tiny
from PIL import Image
from standin_stages import CoarseOnly, StandInColorizer

from pipeline import ColorPipeline
from stages.color.resample import resize, sharp_gray
from stages.color.spaces import gray_from_rgb
from stages.evaluation import pixel
from stages.evaluation.coarse import central
from stages.evaluation.photos import load_photos
from stages.evaluation.pixel import picture_from_rgb
from stages.evaluation.tables import GRAY, ORIGINALS, PREVIEW
from stages.faces import HasLikelihood
from stages.stage import Stage
from stages.stage1_coarse.candidates import spread_order
from train_scripts import evaluate_stage1


def test_rows(data, weights, tmp_path, capsys):
    results = scores(evaluate_stage1, data, tmp_path / "out", "--best-photos", "4")
    check_complete(results, "photos64", {"stage1"})
    rows = by_name(results)
    originals, gray, preview = (rows[name] for name in (ORIGINALS, GRAY, PREVIEW))
    assert originals["ciede2000"] == 0 and originals["psnr"] is None and originals["colorfulness_ratio"] == 1
    assert gray["ciede2000"] > 5 and preview["ciede2000"] == pytest.approx(gray["ciede2000"], abs=0.2)
    assert rows["best of 8, continuous"]["photos"] == 4 and rows["best of 8, continuous"]["diversity"] > 0
    assert rows["default output, continuous"]["squeezenet_kid_minus_preview"]["interval_95"]
    assert rows["default output, continuous"]["ciede2000"] != rows["one plain sample, continuous"]["ciede2000"]
    best = rows["best of 8, coarse (3 bit)"]
    photos = load_photos(data, "photos64", "validation")
    gray_of_4 = best["ciede2000"] / best["relative_to_gray"]["ciede2000"]
    assert gray_of_4 == pytest.approx(float(pixel.ciede2000(photos.plain_gray(), photos.pictures)[:4].mean()))
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:  # 3 + 2 defaults + 3 candidates, 2 photographs
        assert sheet.size == (8 * 132, 22 + 2 * 132)
    printed = capsys.readouterr().out
    assert "default output, continuous" in printed and "CIEDE2000" in printed


def test_scores_do_not_depend_on_batches_or_on_other_photographs(data, weights, tmp_path, monkeypatch):
    once = scores(evaluate_stage1, data, tmp_path / "a")
    monkeypatch.setattr(evaluate_stage1, "BATCH", 4)
    again = scores(evaluate_stage1, data, tmp_path / "b", "--best-photos", "4")
    for name in ("one plain sample, continuous", "default output, coarse (3 bit)"):
        assert by_name(once)[name] == by_name(again)[name]
    reseeded = scores(evaluate_stage1, data, tmp_path / "c", "--seed", "1")
    name = "one plain sample, continuous"
    assert by_name(once)[name] != by_name(reseeded)[name]


@pytest.mark.parametrize("name", ["photos128", "photos256"])
def test_the_draws_are_those_of_the_pipeline(name, data, weights, tmp_path):
    """Seen in the seeds of the generators: photographs in 8 bits, one seed for all, noise of each one's own."""
    scores(evaluate_stage1, data, tmp_path / "out", "--set", name, "--seed", "5", "--candidates", "4")
    photos, count = load_photos(data, name, "validation"), 4
    evaluated = list(StandInColorizer.seeds[: count * len(photos)])
    assert len(set(evaluated)) == count * len(photos)
    StandInColorizer.seeds.clear()
    ColorPipeline.from_pretrained()([gray[0].numpy() for gray in photos.gray()], generator=5)  # calls of 4 draws
    assert StandInColorizer.seeds == evaluated


def test_the_default_is_the_central_one_of_the_pool():
    generator = torch.Generator().manual_seed(0)
    gray64 = torch.rand(3, 1, 64, 64, generator=generator)
    coarse64 = torch.randint(512, (3, 6, 1, 1), generator=generator).expand(-1, -1, 64, 64)
    assert central(gray64, coarse64, 1).tolist() == [0, 0, 0]
    for pool in (2, 5, 6):
        assert torch.equal(central(gray64, coarse64, pool), spread_order(gray64, coarse64, pool)[:, 0])
    assert central(gray64, coarse64, 6).tolist() != [0, 0, 0]


def test_without_continuous_chroma(data, weights, tmp_path):
    with_chroma = by_name(scores(evaluate_stage1, data, tmp_path / "a"))
    CoarseOnly().save_pretrained(tmp_path / "coarse")
    results = scores(evaluate_stage1, data, tmp_path / "b", "--weights", str(tmp_path / "coarse"))
    assert not any("continuous" in name for name in by_name(results))
    assert any("3-bit rows only" in note for note in results["notes"])
    assert len(by_name(results)) == 6
    for name, row in by_name(results).items():  # both ways to the same coarse colors
        assert row == with_chroma[name]


@pytest.mark.parametrize("kind, unit", [("coltran", "symbol"), ("pic", "dimension")])
def test_kinds_that_know_likelihoods(kind, unit, data, tmp_path):
    """No stand-in: from a saved stage to the table, by the code that scores every kind."""
    torch.manual_seed(0)
    stage = tiny(f"stage1_{kind}")
    assert isinstance(stage, Stage) and isinstance(stage, HasLikelihood)
    stage.save_pretrained(tmp_path / "stage")
    options = ("--weights", str(tmp_path / "stage"), "--best-photos", "2", "--candidates", "2")
    results = scores(evaluate_stage1, data, tmp_path / "out", *options)
    photos = load_photos(data, "photos64", "validation")
    assert results[f"bits_per_{unit}"] == pytest.approx(stage.bits(photos.rgb()).mean().item(), rel=1e-4)
    assert results["weights"]["stage1"]["kind"] == kind
    rows = by_name(results)
    assert rows["best of 2, coarse (3 bit)"]["diversity"] > 0 and PREVIEW in rows


def test_steps_that_a_kind_can_not_honor_are_an_error(data, weights, tmp_path, capsys):
    name = "one plain sample, continuous"
    plain = by_name(scores(evaluate_stage1, data, tmp_path / "out"))[name]
    results = scores(evaluate_stage1, data, tmp_path / "out", "--steps", "9")
    assert results["steps"] == {"stage1": 9} and by_name(results)[name] != plain
    CoarseOnly().save_pretrained(tmp_path / "coarse")
    options = ["--data", str(data), "--out", str(tmp_path / "no"), "--weights", str(tmp_path / "coarse")]
    assert evaluate_stage1.main([*options, "--steps", "9"]) == 2
    assert "steps can not be honored" in capsys.readouterr().err and not (tmp_path / "no").exists()


@pytest.mark.parametrize("name", ["photos128", "photos256"])
def test_larger_photographs(name, data, weights, tmp_path):
    results = scores(evaluate_stage1, data, tmp_path / "all", "--set", name)
    check_complete(results, name, {"stage1"})
    large = load_photos(data, name, "validation")
    for view in StandInColorizer.views:  # all of the photograph's pixels that stage 1 can use
        gray = gray_from_rgb(large.rgb(slice(len(view))))
        torch.testing.assert_close(view.gray128, sharp_gray(gray, 128), rtol=0, atol=0)
        torch.testing.assert_close(view.gray64, resize(gray, (64, 64)), rtol=0, atol=0)
    small = resize(large.rgb(), (64, 64))
    gray = picture_from_rgb(gray_from_rgb(small).expand(-1, 3, -1, -1))
    preview = by_name(results)[PREVIEW]
    assert preview["ciede2000"] == pytest.approx(float(pixel.ciede2000(gray, picture_from_rgb(small)).mean()), abs=0.05)

    StandInColorizer.views.clear()
    only = scores(evaluate_stage1, data, tmp_path / "preview", "--set", name, "--preview-only")
    assert [row["name"] for row in only["rows"]] == [ORIGINALS, GRAY, PREVIEW]
    assert by_name(only)[PREVIEW] == preview and len(StandInColorizer.views) == 1


def test_the_mirror_image_is_shown_and_turned_back(data, weights, tmp_path):
    StandInColorizer.views.clear()
    results = scores(evaluate_stage1, data, tmp_path / "out", "--set", "photos256", "--preview-only", "--mirrored")
    seen, mirrored = StandInColorizer.views
    assert torch.equal(mirrored.gray64, seen.gray64.flip(-1)) and torch.equal(mirrored.gray128, seen.gray128.flip(-1))
    rows = by_name(results)
    both = rows["mean of both previews"]  # the stand-in colors each pixel by its luma, whichever side it is on
    assert both["ciede2000"] == pytest.approx(rows[PREVIEW]["ciede2000"], abs=0.01)
    assert both["ciede2000_minus_preview"]["value"] == pytest.approx(0, abs=0.01)


def test_after_stage2(data, weights, tmp_path):
    results = scores(evaluate_stage1, data, tmp_path / "out", "--stage2", str(weights / "stage2"))
    check_complete(results, "photos64", {"stage1", "stage2"})
    rows = by_name(results)
    for name in ("default output", "one plain sample", "best of 8"):  # the stand-in's stage 2 writes bin centers
        after, coarse = rows[f"{name}, after stage 2"], rows[f"{name}, coarse (3 bit)"]
        assert {**after, "name": ""} == {**coarse, "name": ""} != {**rows[f"{name}, continuous"], "name": ""}
    assert results["seconds_per_candidate"] > 0
