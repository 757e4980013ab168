"""train_scripts/finetune.py: from a folder of pictures to a pipeline folder, in one command."""

from __future__ import annotations

import json

import pytest
import torch
from helpers import random_picture, tiny
from standin_stages import StandInSuperResolver, StandInUpsampler

import pipeline.folder
from pipeline import ColorPipeline
from stages.provenance import ROOT
from train_scripts import finetune

CONFIG = """
family = "coarse"
kind = "diffusion"
[network]
backbone = "lite0"
backbone_frozen = 0
backbone_side = 64
encoder_channels = [16, 16]
encoder_blocks = 1
denoiser_channels = [16, 16]
denoiser_blocks = [1, 1]
hints = 0.5
sampler = "spectral"
[data]
side = 64
[[data.sets]]
name = "pictures"
upsample2x = true
[training]
start_from = "{start}/"
samples = 16
batch_size = 4
learning_rate = 1e-3
report_every = 8
average_half_life = 4
"""


@pytest.fixture
def packaged(standins, tmp_path, monkeypatch):
    """A package whose stage 1 is a tiny diffusion model with distilled steps."""
    torch.manual_seed(0)
    stage = tiny("stage1", sampler="spectral", steps=2, tuned=2, temperature=0.8, chroma_gain=1.3, pool=2)
    folder = tmp_path / "packaged"
    ColorPipeline(stage, StandInUpsampler(), StandInSuperResolver()).save_pretrained(folder)
    monkeypatch.setattr(pipeline.folder, "DEFAULT_WEIGHTS", folder)
    monkeypatch.setattr(finetune, "REFERENCE", 4)
    monkeypatch.setattr(finetune, "UPDATES", 2)
    (tmp_path / "config.toml").write_text(CONFIG.format(start=folder / "stage1"))
    return tmp_path


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures" / "below"
    folder.mkdir(parents=True)
    for seed in range(20):
        random_picture((80, 70), seed).save(folder / f"{seed}.jpg")
    return folder.parent


def arguments(folder, pictures):
    return [str(pictures), "--out", str(folder / "mine"), "--config", str(folder / "config.toml")]


def test_pictures_become_weights(packaged, pictures, capsys):
    assert finetune.main(arguments(packaged, pictures)) == 0
    printed = capsys.readouterr().out
    assert "20 pictures" in printed and "4 held out" in printed
    mine, before = ColorPipeline.from_pretrained(packaged / "mine"), ColorPipeline.from_pretrained()
    assert (mine.coarse.config.temperature, mine.coarse.config.chroma_gain, mine.coarse.pool) == (0.8, 1.3, 2)
    assert mine.coarse.config.steps == mine.coarse.config.tuned == 2
    assert mine.fingerprint()["stage2"] == before.fingerprint()["stage2"]
    assert mine.fingerprint()["stage1"] != before.fingerprint()["stage1"]
    run = packaged / "mine-run"
    reports = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert {entry["pictures"] for entry in reports if entry["event"] == "report"} == {8, 16}
    assert all("colorfulness_sample" in entry for entry in reports if entry["event"] == "report")
    results = json.loads((run / "results.json").read_text())
    rows = {row["name"]: row["ciede2000"] for row in results["rows"]}
    ratio = results["preview_ciede2000_after_by_before"]
    assert ratio["value"] == pytest.approx(rows["preview, after"] / rows["preview, before"])
    assert ratio["interval_95"][0] <= ratio["value"] <= ratio["interval_95"][1]
    assert results["photos"]["count"] == 4 and (run / "sheet.png").is_file()

    # A second time nothing is trained again.
    digest = mine.fingerprint()
    assert finetune.main([*arguments(packaged, pictures), "--test", str(pictures)]) == 0
    assert ColorPipeline.from_pretrained(packaged / "mine").fingerprint() == digest
    assert json.loads((run / "results.json").read_text())["photos"]["count"] == 20


def test_what_can_not_work_is_said_before_the_work(packaged, pictures, data, capsys):
    taken = packaged / "mine"
    taken.mkdir()
    assert finetune.main(arguments(packaged, pictures)) == 1
    assert "holds no pipeline" in capsys.readouterr().err
    taken.rmdir()
    next(pictures.rglob("*.jpg")).unlink()
    assert finetune.main(arguments(packaged, pictures)) == 1
    assert "19 usable pictures; at least 20" in capsys.readouterr().err
    assert finetune.main(arguments(packaged, packaged / "no-such")) == 1
    assert "is no folder" in capsys.readouterr().err
    (data / "photos64" / "train-0.parquet").write_bytes(b"")
    assert finetune.main(arguments(packaged, data)) == 1
    assert "holds the sets photos64" in capsys.readouterr().err
    (data / "photos64" / "train-0.parquet").unlink()
    assert not (packaged / "mine-run").exists()


def test_the_recipe_fits_the_packaged_weights():
    """But for hints, which they need not have learned."""
    from stages.checkpoint import read_description
    from stages.training.config import Config

    network = Config.read(ROOT / "configs" / "finetune.toml").network
    packaged = read_description(ROOT / "pipeline" / "weights" / "stage1")["config"]
    for name in ("backbone", "backbone_side", "gray_side", "encoder_channels", "denoiser_channels", "denoiser_blocks"):
        value = getattr(network, name)
        assert (list(value) if isinstance(value, tuple) else value) == packaged[name], name
