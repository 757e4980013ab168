"""train_scripts/evaluate_steps.py and tune_steps.py: a real, small stage 1."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
import torch
from helpers import scores, tiny
from standin_stages import StandInColorizer

from stages.checkpoint import sha256_of
from stages.registry import load_stage
from stages.stage1_coarse.diffusion import DiffusionColorizer
from train_scripts import evaluate_steps, tune_steps


def results_in(folder):
    return json.loads((folder / "results.json").read_text())


def test_evaluations_of_the_denoiser_are_counted(data, tmp_path):
    torch.manual_seed(0)
    tiny("stage1").save_pretrained(tmp_path / "stage1")
    options = ("--weights", str(tmp_path / "stage1"), "--reference", "6", "--evaluations", "2", "3", "4", "6",
               "--samplers", "dpmpp_2m", "heun", "spectral")  # fmt: skip
    rows = scores(evaluate_steps, data, tmp_path / "out", *options)["rows"][2:]
    assert [(row["sampler"], row["evaluations"]) for row in rows] == [
        ("dpmpp_2m", 6), ("dpmpp_2m", 2), ("dpmpp_2m", 3), ("dpmpp_2m", 4), ("heun", 1), ("heun", 3), ("heun", 5),
        ("spectral", 2), ("spectral", 3), ("spectral", 4), ("spectral", 6),
    ]  # fmt: skip
    assert all(row["seconds_per_draw"] > 0 for row in rows) and "squeezenet_kid_minus_reference" not in rows[0]
    more = rows[1]["squeezenet_kid_minus_reference"]["value"]
    assert more == pytest.approx(rows[1]["squeezenet_kid"] - rows[0]["squeezenet_kid"], abs=1e-6)
    with pytest.raises(SystemExit):
        evaluate_steps.main(["--steps", "3"])  # the rows say how many


def test_tuned_steps_of_the_weights_and_of_others(data, tmp_path):
    torch.manual_seed(0)
    stage = tiny("stage1", sampler="spectral", steps=3, tuned=3)
    torch.nn.init.normal_(stage.network.write.weight, std=0.1)
    stage.tuned.gains.fill_(0.5)
    stage.save_pretrained(tmp_path / "stage1")
    other = DiffusionColorizer(dataclasses.replace(stage.config, steps=2, tuned=2)).eval()
    assert other.tuned is not None
    arguments = ["--data", str(data), "--out", str(tmp_path / "out"), "--weights", str(tmp_path / "stage1"),
                 "--reference", "3", "--evaluations", "2", "3", "--samplers", "spectral"]  # fmt: skip
    two = ["--tuned", str(tmp_path / "two")]
    for weights, status in ((other.state_dict(), 2), (stage.state_dict() | other.tuned.state_dict(prefix="tuned."), 0)):
        weights["tuned.gains"] = torch.full_like(weights["tuned.gains"], 0.7)
        other.load_state_dict(weights)
        other.save_pretrained(tmp_path / "two", dtype=torch.float16)
        assert evaluate_steps.main([*arguments, *two]) == status
    results = results_in(tmp_path / "out")
    rows = results["rows"][2:]
    assert [(row["evaluations"], row["tuned"]) for row in rows] == [(3, False), (2, False), (2, True), (3, True)]
    assert len({row["ciede2000"] for row in rows}) == 4, [(row["name"], row["ciede2000"]) for row in rows]
    assert results["tuned"] == {two[1]: sha256_of(tmp_path / "two" / "model.safetensors")}
    smaller = dataclasses.replace(stage.config, steps=4, tuned=4, encoder_channels=(32, 32))
    untuned, copy = dataclasses.replace(stage.config, tuned=0), stage.config
    for config in (untuned, copy, smaller):
        DiffusionColorizer(config).save_pretrained(tmp_path / "other")
        assert evaluate_steps.main([*arguments, "--tuned", str(tmp_path / "other")]) == 2


@pytest.mark.parametrize("script", [evaluate_steps, tune_steps])
def test_another_kind_is_an_error(script, data, standins, tmp_path, capsys):
    StandInColorizer().save_pretrained(tmp_path / "stage1")
    options = ["--weights", str(tmp_path / "stage1"), "--data", str(data), "--out", str(tmp_path / "out")]
    assert script.main(options) == 2
    assert "got kind 'stand-in'" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_weights_that_have_learned_hints_are_tuned_with_some(held_out, tmp_path, monkeypatch):
    """Half of the draws know of hints: with another share the same noise ends elsewhere."""
    torch.manual_seed(0)
    stage = tiny("stage1", hints=0.5)
    for weights in stage.parameters():
        weights.data += 0.05 * torch.randn_like(weights)
    stage.save_pretrained(tmp_path / "stage1")
    options = ["--photos", "4", "--passes", "1", "--reference", "3", "--weights", str(tmp_path / "stage1"),
               "--tuned", str(tmp_path / "tuned"), "--levels", "40", "2"]  # fmt: skip
    results = scores(tune_steps, held_out, tmp_path / "half", *options)
    monkeypatch.setattr(tune_steps, "HINTED", 0.0)
    without = scores(tune_steps, held_out, tmp_path / "none", *options)
    assert (results["hinted"], without["hinted"]) == (0.5, 0.0)
    assert results["rows"][0]["relative_error"] != without["rows"][0]["relative_error"]


def test_tuning_brings_few_steps_nearer_to_many(held_out, tmp_path, monkeypatch):
    torch.manual_seed(0)
    stage = tiny("stage1")
    for weights in stage.denoiser.parameters():
        weights.data += 0.05 * torch.randn_like(weights)
    stage.save_pretrained(tmp_path / "stage1")
    monkeypatch.setattr(tune_steps, "BATCH", 2)
    options = ["--photos", "4", "--passes", "8", "--reference", "12", "--weights", str(tmp_path / "stage1"),
               "--tuned", str(tmp_path / "tuned"), "--levels", "40", "2", "0.3"]  # fmt: skip
    results = scores(tune_steps, held_out, tmp_path / "out", *options)
    before, after = results["rows"]
    assert after["relative_error"] < before["relative_error"] and results["learned_from"] == 3
    assert len(results["loss_by_pass"]) == 8 and results["loss_by_pass"][-1] < results["loss_by_pass"][0]
    assert results["tuned"]["sha256"] == sha256_of(tmp_path / "tuned" / "model.safetensors")
    tuned = load_stage(tmp_path / "tuned")
    assert isinstance(tuned, DiffusionColorizer) and tuned.tuned is not None
    assert (tuned.config.sampler, tuned.config.steps, tuned.config.tuned) == ("spectral", 3, 3)
    assert tuned.tuned.levels.tolist() == pytest.approx([40, 2, 0.3])
    assert all(value.any() for value in (tuned.tuned.gains - 1, tuned.tuned.modulation))
    kept = stage.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in tuned.state_dict().items() if name in kept)
    arguments = ["--data", str(held_out), "--out", str(tmp_path / "no")]
    again = [*options, "--weights", str(tmp_path / "tuned"), "--tuned", str(tmp_path / "again")]
    assert scores(tune_steps, held_out, tmp_path / "out", *again)["rows"] == results["rows"]  # from the beginning
    untouched = ["--tuned", str(tmp_path / "stage1")]
    for wrong in (["--photos", "2"], ["--levels", "1", "2"], untouched,
                  ["--levels", "1e20", "1", "--tuned", str(tmp_path / "no")]):  # fmt: skip
        assert tune_steps.main([*arguments, *options, *wrong]) == 2
    assert not (tmp_path / "no").exists()
    tiny("stage1_coltran").save_pretrained(tmp_path / "other")
    assert tune_steps.main([*arguments, "--photos", "4", "--weights", str(tmp_path / "other")]) == 2

    # Where it would go is looked at before the work.
    monkeypatch.setattr(tune_steps, "LongDraws", None)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").write_text("kept")
    shutil.copytree(tmp_path / "stage1", tmp_path / "copy")
    for taken in ("run", "copy", "other"):
        assert tune_steps.main([*arguments, *options, "--tuned", str(tmp_path / taken)]) == 2
    with pytest.raises(TypeError):  # that `LongDraws` is none: an earlier tuning may be replaced
        tune_steps.main([*arguments, *options])
    (tmp_path / "model_index.json").write_text("{}")
    assert tune_steps.main([*arguments, "--photos", "4", "--weights", str(tmp_path / "stage1")]) == 2
    assert tune_steps.is_free(tmp_path / "new") and tune_steps.is_free(tmp_path / "again")


def test_many_steps_are_those_of_the_stage(data, tmp_path):
    """`LongDraws` ends where `sample` does in as many steps, and knows the same photographs and noise."""
    from stages.evaluation.coarse import streams, view_of
    from stages.evaluation.photos import load_photos
    from stages.options import SampleOptions

    torch.manual_seed(0)
    stage = tiny("stage1", sampler="spectral", temperature=1.0, chroma_gain=1.0)
    torch.nn.init.normal_(stage.network.write.weight, std=0.1)
    photos = load_photos(data, "photos128", "validation")
    encoding = stage.encode(view_of(photos, slice(None)))
    expected = stage.sample(encoding, 1, SampleOptions(steps=9), streams(photos.noise(5), 1)).chroma[:, 0]
    with torch.no_grad():
        draws = tune_steps.LongDraws(stage, photos, 5, 9)
        torch.testing.assert_close(stage._enlarged(encoding.preview + draws.target), expected, rtol=0, atol=1e-6)
