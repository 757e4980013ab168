"""train_scripts/evaluate_systems.py."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import by_name, scores
from PIL import Image
from standin_stages import StandInColorizer

from pipeline import ColorPipeline
from stages.color.spaces import chroma_from_rgb, gray_from_rgb, merge
from stages.diffusion import ProcessConfig
from stages.evaluation.coarse import streams
from stages.evaluation.conditions import Setting
from stages.evaluation.photos import load_photos
from stages.evaluation.pixel import ciede2000, picture_from_rgb
from stages.evaluation.tables import save_sheet
from stages.image_to_image.face import TranslateOptions
from stages.image_to_image.palette import Palette, PaletteConfig
from stages.nn.unet import UNetConfig
from stages.registry import kind_of, load_stage
from stages.training.config import Config
from stages.training.launch import CONFIGS
from train_scripts import evaluate_systems

FEW = ("--set", "photos128", "--photos", "4", "--best-photos", "2", "--candidates", "2")


@pytest.fixture
def networks(tmp_path) -> list[Path]:
    """A palette and a gan with random weights, at 64x64."""
    torch.manual_seed(0)
    palette = Palette(PaletteConfig(64, ("colorize",), UNetConfig(32, (1, 1), 1, (), 32), ProcessConfig(steps=2)))
    config = Config.read(CONFIGS / "tiny" / "gan.toml")
    gan = kind_of(config.family, config.kind)[1](replace(config.network, side=64))
    for name, stage in (("palette", palette), ("gan", gan)):
        with torch.no_grad():
            for one in stage.parameters():
                one.add_(0.1 * torch.randn_like(one))
        stage.trained = {"config": name, "pictures": 7}
        stage.save_pretrained(tmp_path / name)
    return [tmp_path / "palette", tmp_path / "gan"]


@pytest.fixture
def no_process(monkeypatch):
    costs = {"seconds": 1.0, "memory": 2.0, "memory_before": 1.0}
    monkeypatch.setattr(evaluate_systems, "in_its_own_process", lambda *_: costs)


def test_rows_again_by_hand(data, weights, networks, no_process, tmp_path):
    asked = (*FEW, "--steps", "3", "--weights", *map(str, networks), "--free", str(tmp_path / "free.png"))
    results = scores(evaluate_systems, data, tmp_path / "out", *asked)
    rows = by_name(results)
    assert list(rows) == ["originals (other half)", "plain gray", "one-pass preview", "default output",
                          "default output, best of 2", "palette", "palette, best of 2", "gan"]  # fmt: skip
    photos = load_photos(data, "photos128", "validation", 4)
    small = photos.reduced(64)
    noise = photos.noise(0)
    condition = Setting().condition("colorize", small.rgb(), noise)
    network: Any = load_stage(networks[0])
    options = TranslateOptions(3, "dpmpp_2m")
    drawn = network.sample(condition, "colorize", 2, options, streams(noise, 2, "image_to_image"))
    pictures = picture_from_rgb(merge(condition.source[:, None, :1], chroma_from_rgb(drawn)))
    each = torch.stack([ciede2000(pictures[:, k].contiguous(), small.pictures) for k in range(2)])
    assert rows["palette"]["ciede2000"] == pytest.approx(float(each[0].mean()), abs=0.02)
    assert rows["palette, best of 2"]["ciede2000"] == pytest.approx(float(each.min(0).values[:2].mean()), abs=0.02)
    gray = gray_from_rgb(pictures[:, 0].float() / 255)
    assert (gray - condition.source[:, :1]).abs().mean() < 2 / 255  # the gray picture's own luma
    generator: Any = load_stage(networks[1])
    assert rows["gan"]["parameters"] == sum(one.numel() for one in generator.generator.parameters())
    assert rows["palette"]["parameters"] == sum(one.numel() for one in network.parameters())
    assert rows["gan"]["seconds"] == 1.0 and "gan" not in results["steps"]
    assert rows["gan"]["pictures_seen"] == 7 and "pictures_seen" not in rows["default output"]
    assert results["pool"].keys() == {"default output"} and set(results["weights"]["gan"]) == {"network"}
    assert results["steps"]["palette"] == 3 and results["sampler"]["palette"] == "dpmpp_2m"
    assert "one-pass preview" not in results["steps"]
    with Image.open(tmp_path / "free.png") as sheet:  # twelve rows of six columns
        assert sheet.height > 12 * 64 and sheet.width > 6 * 64


def test_bfloat16_is_of_image_to_image_networks_alone(data, weights, networks, no_process, tmp_path):
    asked = (*FEW, "--steps", "3", "--weights", str(networks[0]))
    exact = scores(evaluate_systems, data, tmp_path / "exact", *asked)
    rough = scores(evaluate_systems, data, tmp_path / "rough", *asked, "--dtype", "bfloat16")
    assert (exact["dtype"], rough["dtype"]) == ("float32", "bfloat16")
    exact, rough = by_name(exact), by_name(rough)
    assert exact["default output"]["ciede2000"] == rough["default output"]["ciede2000"]
    assert exact["palette"]["ciede2000"] != rough["palette"]["ciede2000"]
    assert exact["palette"]["ciede2000"] == pytest.approx(rough["palette"]["ciede2000"], abs=0.5)


def test_time_and_memory_are_of_a_process(networks, capsys):
    assert evaluate_systems.main(["--time", "palette", "--weights", str(networks[0]), "--steps", "2"]) == 0
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert measured["seconds"] > 0 and 0.05 < measured["memory_before"] <= measured["memory"] < 50
    ballast = torch.ones(300_000_000)  # 1.2 GB here, which are not the system's
    asked = evaluate_systems.parser().parse_args(["--steps", "2", "--dtype", "bfloat16"])
    system = evaluate_systems.named(networks[0], 2, 64, torch.bfloat16)
    measured = evaluate_systems.in_its_own_process(system, asked)
    assert 0.05 < measured["memory_before"] < evaluate_systems.peak_memory() - 1
    assert len(ballast) and measured["memory"] < evaluate_systems.peak_memory()


def test_the_process_that_is_timed_computes_as_the_table_does(networks, monkeypatch):
    commands: list[list[str]] = []

    def ran(command: list[str], **_: Any) -> SimpleNamespace:
        commands.append(command)
        return SimpleNamespace(returncode=0, stdout="{}", stderr="")

    monkeypatch.setattr(evaluate_systems.subprocess, "run", ran)
    given = ["--steps", "2", "--side", "128", "--dtype", "bfloat16"]
    system = evaluate_systems.named(networks[1], None, 128, torch.bfloat16)
    assert evaluate_systems.in_its_own_process(system, evaluate_systems.parser().parse_args(given)) == {}
    asked = vars(evaluate_systems.parser().parse_args(commands[0][3:]))
    assert (asked["time"], asked["dtype"], asked["side"], asked["steps"]) == ("gan", "bfloat16", 128, 2)
    assert asked["weights"] == [networks[1].resolve()]


def test_costs_are_the_fewest_seconds_and_the_highest_peaks_of_three_rounds(monkeypatch):
    figures = iter([3.0, 9.0, 1.0, 8.0, 2.0, 7.0])
    monkeypatch.setattr(evaluate_systems, "in_its_own_process",
                        lambda *_: dict.fromkeys(("seconds", "memory", "memory_before"), next(figures)))  # fmt: skip
    systems: Any = [SimpleNamespace(name=name) for name in ("first", "second")]
    costs = evaluate_systems.costs_of(systems, evaluate_systems.parser().parse_args([]))
    assert costs == {"first": {"seconds": 1.0, "memory": 3.0, "memory_before": 3.0},
                     "second": {"seconds": 7.0, "memory": 9.0, "memory_before": 9.0}}  # fmt: skip


@pytest.mark.parametrize("label", ["gan", "stage1_with_a_rather_long_name", "m" * 20])
def test_the_name_of_a_column_stays_above_it(label, tmp_path):
    pictures = [torch.zeros(3, 64, 64, dtype=torch.uint8)]
    save_sheet(tmp_path / "sheet.png", [(label, pictures), ("", pictures)])
    with Image.open(tmp_path / "sheet.png") as sheet:
        dark = np.asarray(sheet.convert("L"))[:20].min(0) < 128
    assert dark[:132].any() and not dark[132:].any()


def test_a_sheet_that_can_not_be_made_is_said_before_anything_is_scored(data, weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluate_systems, "free_photos", list)
    options = ["--data", str(data), "--out", str(tmp_path / "out"), *FEW, "--free", str(tmp_path / "free.png")]
    assert evaluate_systems.main(options) == 2
    assert "there are no free photographs" in capsys.readouterr().err


def test_at_128_the_cascade_stands_beside_networks_of_any_side(data, weights, networks, no_process, tmp_path, capsys):
    asked = (*FEW, "--side", "128", "--weights", str(networks[1]))
    rows = by_name(scores(evaluate_systems, data, tmp_path / "out", *asked))
    photos = load_photos(data, "photos128", "validation", 4)
    pipe = ColorPipeline.from_pretrained()
    output = pipe([gray[0].numpy() for gray in photos.gray()], generator=0, output_type="np")
    pictures = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in output.images])
    expected = float(ciede2000(pictures, photos.pictures).mean())
    assert rows["default output"]["ciede2000"] == pytest.approx(expected, abs=0.02)
    assert rows["default output"]["parameters"] == sum(
        one.numel() for stage in pipe.stages.values() for one in stage.parameters())  # fmt: skip
    assert "gan" in rows and "gan, best of 2" not in rows
    options = ["--data", str(data), "--out", str(tmp_path / "out"), *FEW, "--side", "128"]
    assert evaluate_systems.main([*options, "--weights", str(networks[0])]) == 2
    assert "has side 64, and no other" in capsys.readouterr().err


def test_pix2pix_has_several_answers(data, weights, no_process, tmp_path):
    config = Config.read(CONFIGS / "tiny" / "pix2pix.toml")
    gan = kind_of(config.family, config.kind)[1](replace(config.network, side=64))
    gan.trained = {"config": "pix2pix"}
    gan.save_pretrained(tmp_path / "pix2pix")
    rows = by_name(scores(evaluate_systems, data, tmp_path / "out", *FEW, "--weights", str(tmp_path / "pix2pix")))
    assert rows["pix2pix, best of 2"]["diversity"] > 0


def test_what_can_not_be_compared(data, weights, networks, no_process, tmp_path, capsys):
    options = ["--data", str(data), "--out", str(tmp_path / "out"), *FEW]
    assert evaluate_systems.main([*options, "--weights", str(weights / "stage2")]) == 2
    assert "expected coarse or image_to_image" in capsys.readouterr().err
    assert evaluate_systems.main([*options, "--weights", str(networks[0]), str(networks[0])]) == 2
    assert "have one name" in capsys.readouterr().err
    small = Palette(PaletteConfig(16, ("colorize",), UNetConfig(32, (1, 1), 1, (), 32), ProcessConfig(steps=2)))
    small.save_pretrained(tmp_path / "small")
    assert evaluate_systems.main([*options, "--weights", str(tmp_path / "small")]) == 2
    assert "at 64x64 are compared; this one has side 16" in capsys.readouterr().err


def test_stages_1_are_rows_too(data, weights, no_process, tmp_path):
    StandInColorizer().save_pretrained(tmp_path / "mine")
    rows = by_name(scores(evaluate_systems, data, tmp_path / "out", *FEW, "--weights", str(tmp_path / "mine")))
    assert f"{tmp_path / 'mine'}, best of 2" in rows
