"""train_scripts/evaluate_image_to_image.py, and the tiny configs from end to end: launched by accelerate, continued
exactly, evaluated, used.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import by_name, photograph, scores
from PIL import Image
from torch import Tensor

from pipeline import ImageToImagePipeline, cli
from stages.checkpoint import sha256_of
from stages.color.spaces import gray_from_rgb
from stages.corruptions.line_art import line_art
from stages.diffusion import ProcessConfig
from stages.evaluation.conditions import HOLES, Setting, shown
from stages.evaluation.judges import Judge
from stages.evaluation.photos import EvaluationError, load_photos
from stages.evaluation.pixel import picture_from_rgb, psnr, ssim
from stages.evaluation.translations import translation_table
from stages.image_to_image.face import Task
from stages.image_to_image.gpic import GPIC, GPICConfig
from stages.image_to_image.palette import PALETTE_TASKS, Palette, PaletteConfig
from stages.image_to_image.unconditional import Unconditional, UnconditionalConfig
from stages.nn.unet import UNetConfig
from stages.provenance import ROOT
from stages.registry import load_stage
from stages.seeds import NoiseSource
from stages.training import launch
from stages.training.config import Config
from train_scripts import evaluate_image_to_image, image_to_image

UNET = UNetConfig(32, (1, 1), 1, (), 32)
SIDE = 16
FEW = ("--photos", "4", "--real", "2", "--best-photos", "2", "--candidates", "2")
CONFIG = PaletteConfig(SIDE, PALETTE_TASKS, UNET, ProcessConfig(steps=2))


def saved(folder: Path, name: str = "palette", **changes: Any) -> Path:
    """A network with random weights, in colors that differ from place to place."""
    torch.manual_seed(0)
    stage: Palette | GPIC | Unconditional
    if name == "gpic":
        stage = GPIC(GPICConfig(SIDE, UNET, 1, ProcessConfig(sampler="posterior", steps=3)))
    elif name == "unconditional":
        stage = Unconditional(UnconditionalConfig(SIDE, UNET, ProcessConfig(sampler="posterior", steps=4)))
    else:
        stage = Palette(replace(CONFIG, **changes))
    torch.nn.init.normal_(stage.network.write.weight, std=0.02)
    stage.trained = {"config": name}
    stage.save_pretrained(folder / name)
    return folder / name


def evaluated(data: Path, tmp_path: Path, *options: object) -> dict[str, Any]:
    return scores(evaluate_image_to_image, data, tmp_path / "out", *FEW, *map(str, options))


# --- rows


def test_networks_side_by_side(data, tmp_path):
    """Palette and its regression: the same photographs, the same noise, every number with what it depends on."""
    folders = [saved(tmp_path), saved(tmp_path, "regression", regression=True)]
    results = evaluated(data, tmp_path, "--task", "colorize", "--steps", 3, "--seed", 5, "--weights", *folders)
    rows = by_name(results)
    assert list(rows) == [
        "originals", "source", "palette", "palette, luma kept", "palette, best of 2",
        "regression", "regression, luma kept", "regression, best of 2",
    ]  # fmt: skip
    photos = load_photos(data, "photos64", "validation")
    assert results["photos"] == {"name": "photos64/validation", "count": 4, "sha256": photos.first(4).sha256}
    assert results["real"] == {
        "name": "photos64/validation", "first": 4, "count": 2, "sha256": photos.part(4, 6).sha256
    }  # fmt: skip
    assert results["pictures"]["side"] == SIDE and results["pictures"]["resize"] == "area" and results["seed"] == 5
    assert results["steps"] == {"palette": 3} and results["sampler"] == {"palette": "dpmpp_2m"}
    assert results["task"] == "colorize" and results["condition"] == {} and results["score_splits"] == 1
    assert set(results["networks"]) == {"squeezenet"} and set(results["weights"]) == {"palette", "regression"}
    for row in results["rows"]:
        assert not any(key.startswith(("fid", "inception", "resnet", "lpips")) for key in row)  # no such network
        assert {"squeezenet_distance", "ciede2000", "psnr", "ssim"} <= set(row)
        assert ("squeezenet_frechet" in row) == ("candidates" not in row) == ("squeezenet_diversity" not in row)
    originals = rows["originals"]
    assert originals["squeezenet_distance"] == 0 == originals["ciede2000"] and originals["ssim"] == 1
    assert originals["psnr"] is None  # infinite
    assert originals["squeezenet_frechet"] > 0  # to other photographs
    assert rows["palette, luma kept"]["psnr"] > rows["palette"]["psnr"] and rows["palette"]["luma_error"] > 1
    assert rows["regression, best of 2"]["squeezenet_diversity"] == 0
    assert rows["palette, best of 2"]["squeezenet_diversity"] > 0

    # The draws are the pipeline's of the same gray picture.
    pipe, small = ImageToImagePipeline.from_pretrained(folders[0]), photos.first(4).reduced(SIDE)
    assert isinstance(small.pictures, Tensor)
    from stages.image_to_image.face import TranslateOptions

    made = [
        pipe(gray[0].numpy(), "colorize", generator=5, keep_luma=False, options=TranslateOptions(3), output_type="pt")
        for gray in small.gray()
    ]
    pictures = picture_from_rgb(torch.stack([one.images[0] for one in made]))
    assert rows["palette"]["psnr"] == pytest.approx(float(psnr(pictures, small.pictures).mean()), rel=1e-4)
    assert rows["palette"]["ssim"] == pytest.approx(float(ssim(pictures, small.pictures).mean()), rel=1e-3)


@pytest.mark.parametrize("task, options, condition", [
    ("inpaint", ("--hole", "20-30", "--sampler", "ddim"), {"hole": "20-30"}), ("inpaint", (), {"hole": "center"}),
    ("uncrop", ("--side", "all"), {"side": "all"}), ("jpeg", ("--quality", "10"), {"quality": 10}),
])  # fmt: skip
def test_tasks_of_palette(task, options, condition, data, tmp_path):
    results = evaluated(data, tmp_path, "--task", task, *options, "--weights", saved(tmp_path))
    assert results["condition"] == condition and results["task"] == task
    assert results["sampler"] == {"palette": "ddim" if "--sampler" in options else "dpmpp_2m"}
    rows = by_name(results)
    assert list(rows) == ["originals", "source", "palette", "palette, best of 2"]
    assert rows["source"]["psnr"] > 0 and rows["palette"]["seconds_per_draw"] > 0
    assert "luma_error" not in rows["palette"]
    assert (tmp_path / "out" / "sheet.png").is_file()


def test_line_art_of_photographs(data, tmp_path, monkeypatch):
    asked: list[Any] = []
    monkeypatch.setattr("stages.image_to_image.face.langevin", lambda *options: asked.append(options))
    options = ("--lines", "canny", "--corrector-steps", 0, "--weights", saved(tmp_path, "gpic"))
    results = evaluated(data, tmp_path, *options)
    rows = by_name(results)
    assert results["task"] == "line_art" and results["condition"] == {"lines": "canny"} and not asked
    assert rows["gpic"]["line_error"] > 0 and rows["source"]["photos"] == 4
    assert results["corrector"]["gpic"]["steps"] == 0 and results["corrector"]["gpic"]["snr"] == 0.16


def test_variations_come_nearer_as_the_factor_falls(data, tmp_path):
    folder = saved(tmp_path, "unconditional")
    options = ("--task", "variation", "--factors", 1, 16, 4, "--low-pass", "box", "--weights", folder)
    results = evaluated(data, tmp_path, *options)
    rows = by_name(results)
    names = [f"unconditional, N = {factor}" for factor in (16, 4, 1)]
    assert [name for name in rows if "best" not in name] == ["originals", "source", *names]
    distances = [rows[name]["ciede2000"] for name in names]
    assert distances == sorted(distances, reverse=True)
    assert rows[names[-1]]["ciede2000"] == pytest.approx(0, abs=0.01)  # N = 1 gives the reference back
    (note,) = [note for note in results["notes"] if note.startswith("unconditional: ciede2000 to the reference")]
    assert note.endswith("it falls at each step")
    assert not [note for note in evaluated(data, tmp_path, "--task", "variation", "--weights", folder)["notes"]
                if "as N falls" in note]  # of one factor nothing falls


def test_lower_precision_is_asked_for_and_recorded(data, tmp_path):
    options = ("--task", "colorize", "--weights", saved(tmp_path))
    full, half = evaluated(data, tmp_path, *options), evaluated(data, tmp_path, *options, "--dtype", "bfloat16")
    assert (full["dtype"], half["dtype"]) == ("float32", "bfloat16")
    first, second = (by_name(one)["palette"]["ciede2000"] for one in (full, half))
    assert first != second and first == pytest.approx(second, rel=0.02)


def test_steps_of_networks_without_steps(data, tmp_path, capsys):
    folder = saved(tmp_path, "regression", regression=True)
    options = ["--data", str(data), "--set", "photos64", "--out", str(tmp_path / "out"), "--task", "colorize",
               "--weights", str(folder)]  # fmt: skip
    assert evaluate_image_to_image.main([*options, "--sampler", "ddim"]) == 2
    assert "are of networks that are sampled in steps; none of these is" in capsys.readouterr().err


def test_figures_of_further_networks(data, tmp_path, monkeypatch):
    """Each by its name; an accuracy only where classes are known."""
    def look(pictures: Tensor) -> tuple[Tensor, Tensor]:
        return pictures.float().mean((2, 3)), pictures.float().mean((2, 3))

    eye, mind = Judge("eye", "eye_frechet", look, False, {"sha256": "a"}), Judge(
        "mind", "", lambda pictures: (None, look(pictures)[1]), True, {"sha256": "b"})  # fmt: skip
    monkeypatch.setattr(evaluate_image_to_image, "inception_judge", lambda path: eye)
    monkeypatch.setattr(evaluate_image_to_image, "classifier_judge", lambda path: mind)
    results = evaluated(data, tmp_path, "--task", "jpeg", "--inception", "x", "--classifier", "y", "--weights",
                        saved(tmp_path))  # fmt: skip
    row, best = by_name(results)["palette"], by_name(results)["palette, best of 2"]
    assert {"eye_frechet", "eye_distance", "eye_score", "mind_score", "mind_score_deviation"} <= set(row)
    assert {"eye_distance", "eye_diversity"} <= set(best) and "mind_accuracy" not in row
    assert results["networks"]["eye"] == {"sha256": "a"} and results["networks"]["mind"] == {"sha256": "b"}
    assert any(note.startswith("no accuracy") for note in results["notes"])
    table = translation_table(results["rows"])
    assert "eye_frechet" in table and "deviation" not in table and "ends in" not in table


def test_labels_are_those_of_the_set(data, tmp_path):
    import pyarrow
    import pyarrow.parquet
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as Picture

    rows = pyarrow.parquet.read_table(next((data / "photos64").glob("validation-*"))).to_pylist()
    names, numbers = ["n01", "n02", "n03"], [0, 2, 1, -1, 0, 2]
    features = Features({"image": Picture(), "label": ClassLabel(names=names)})
    images = [row["image"] for row in rows]
    (tmp_path / "photos64").mkdir()
    Dataset.from_dict({"image": images, "label": numbers}, features).to_parquet(
        tmp_path / "photos64/validation-00000-of-00001.parquet"
    )
    photos = load_photos(tmp_path, "photos64", "validation")
    assert photos.labels == ["n01", "n03", "n02", "", "n01", "n03"] and photos.part(1, 3).labels == ["n03", "n02"]
    assert load_photos(data, "photos64", "validation").labels == []


@pytest.mark.parametrize("options, message", [
    ((), "--task must be one that all of the weights have learned: colorize, inpaint, uncrop, jpeg; got None"),
    (("--task", "line_art"), "have learned: colorize, inpaint, uncrop, jpeg; got line_art"),
    (("--task", "jpeg", "--hole", "center"), "--hole belongs to the task inpaint; the task is jpeg"),
    (("--task", "jpeg", "--factors", "2"), "--factors belongs to the task variation"),
    (("--task", "jpeg", "--quality", "96"), "quality 1 to 95"),
    (("--task", "jpeg", "--photos", "5"), "has 6 photographs, 7 were asked for .--photos to be scored, and"),
    (("--task", "jpeg", "--inception", "nowhere"), "no file nowhere"),
    (("--task", "jpeg", "--classes", "nowhere"), "--classes needs --classifier, and a set with labels"),
    (("--task", "jpeg", "--steps", "3000", "--sampler", "posterior"), "1 to 1000 can be taken"),
])  # fmt: skip
def test_what_can_not_be_evaluated(options, message, data, tmp_path, capsys):
    arguments = ["--data", str(data), "--out", str(tmp_path / "out"), "--weights", str(saved(tmp_path)), *FEW]
    assert evaluate_image_to_image.main([*arguments, *options]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert re.search(message, line), line
    assert not (tmp_path / "out").exists()


def test_networks_that_do_not_belong_together(data, tmp_path, capsys):
    first, other = saved(tmp_path), saved(tmp_path, "other", side=32)
    drawing = saved(tmp_path, "gpic")
    common = ["--data", str(data), "--out", str(tmp_path / "out"), *FEW, "--task", "jpeg", "--weights", str(first)]
    for more, message in (
        (other, "one side, at most the 64 of photos64; got [16, 32]"), (first, "names a folder twice"),
        (drawing, "there is none"),
    ):  # fmt: skip
        assert evaluate_image_to_image.main([*common, str(more)]) == 2
        assert message in capsys.readouterr().err


# --- conditions


@pytest.mark.parametrize("hole", HOLES)
def test_holes_are_in_their_range_and_the_photographs_own(hole):
    noise, rgb = [NoiseSource(3, str(number)) for number in range(6)], torch.rand(6, 3, 32, 32)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    holes = Setting(hole).condition("inpaint", rgb, noise).hole
    assert holes is not None and torch.equal(torch.get_rng_state(), before)
    low, high = HOLES[hole]
    assert all(low <= share <= high for share in holes.float().mean((1, 2, 3)).tolist())
    alone = Setting(hole).condition("inpaint", rgb[4:5], noise[4:5]).hole
    assert alone is not None and torch.equal(alone, holes[4:5])
    assert (len({one.numpy().tobytes() for one in holes}) == 1) == (hole == "center")
    if hole == "center":
        assert holes[0, 0, 8:24, 8:24].all()


def test_what_networks_are_shown_and_held_to():
    rgb, noise, setting = torch.rand(2, 3, 32, 32), [NoiseSource(0, "a"), NoiseSource(0, "b")], Setting(lines="canny")

    def condition(task: Task):
        return setting.condition(task, rgb, noise)

    gray = condition("colorize").source
    torch.testing.assert_close(gray[:, :1], gray_from_rgb(rgb), rtol=0, atol=0.51 / 255)
    assert torch.equal(condition("line_art").source[:, :1], line_art(rgb, "canny"))
    right = condition("uncrop")
    assert right.hole is not None and right.hole[..., 16:].all() and not right.hole[..., :16].any()
    assert (shown(right)[..., 16:] == 0.5).all() and torch.equal(shown(right)[..., :16], rgb[..., :16])
    off = setting.faults("colorize", condition("colorize"), (gray + 0.02))
    assert off["luma_error"].tolist() == pytest.approx([0.02 * 255] * 2, rel=1e-3)
    assert setting.faults("line_art", condition("line_art"), rgb)["line_error"].tolist() == [0, 0]
    assert setting.faults("jpeg", condition("jpeg"), rgb) == {}
    with pytest.raises(EvaluationError, match="hole must be one of center, 10-20"):
        Setting("edge")


# --- the tiny configs, from end to end


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(12):
        photograph("photos128", number).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("name, task", [
    ("palette", "inpaint"), ("gpic", "line_art"), ("unconditional", "variation"),
])  # fmt: skip
def test_tiny_configs_launch_resume_evaluate_and_translate(name, task, photographs, data, tmp_path, capsys):
    config = tmp_path / f"{name}.toml"
    text = (ROOT / "configs" / "tiny" / config.name).read_text()
    for key, value in (("samples", 16), ("report_every", 16), ("save_every", 8)):
        (line,) = [one for one in text.splitlines() if one.startswith(f"{key} = ")]
        text = text.replace(line, f"{key} = {value}")
    config.write_text(text)

    def options(run: str, *more: str) -> list[str]:
        return ["--config", str(config), "--data", str(photographs), "--runs", str(tmp_path / run), *more]

    def train(*arguments: str) -> None:
        code = launch.main("image_to_image", "palette", image_to_image.report, list(arguments))
        assert code == 0, capsys.readouterr()

    train(*options("whole"))
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "--mixed_precision", "no",
                "--dynamo_backend", "no", "--cpu", "--num_machines", "1",
                "--num_cpu_threads_per_process", str(torch.get_num_threads())]  # fmt: skip
    script = "train_scripts/image_to_image.py"
    done = subprocess.run([*launcher, script, *options("parts", "--stop-after", "3")], cwd=ROOT, capture_output=True,
                          text=True, timeout=120, env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "parts" / name / "final").exists()
    train(*options("parts"))
    final = tmp_path / "whole" / name / "final"
    assert sha256_of(final / "model.safetensors") == sha256_of(tmp_path / "parts" / name / "final/model.safetensors")
    log = [json.loads(one) for one in (tmp_path / "parts" / name / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log if entry["event"] == "start"] == [0, 2]  # killed after 3, saved at 2
    report = next(entry for entry in reversed(log) if entry["event"] == "report")
    assert report[f"ciede2000_{task}"] > 0 and report[f"diversity_{task}"] > 0
    assert load_stage(final).config == Config.read(config).network

    rows = by_name(evaluated(data, tmp_path, "--task", task, "--weights", final))
    made = f"{name}, N = 8" if task == "variation" else name
    assert rows[made]["ciede2000"] > 0 and rows[f"{made}, best of 2"]["squeezenet_diversity"] > 0

    photo, mask = photographs / "3.png", tmp_path / "mask.png"
    width, height = Image.open(photo).size
    Image.fromarray(np.full((height, width), 255, np.uint8)).save(mask)
    more: list[str] = {"inpaint": ["--mask", str(mask)], "line_art": ["--draw"], "variation": ["--factor", "4"]}[task]
    arguments = ["translate", str(photo), "-o", str(tmp_path / "out"), "--weights", str(final), "--task", task, *more]
    assert cli.main([*arguments, "--device", "cpu"]) == 0
    assert Image.open(tmp_path / "out" / "3.png").size == (width, height)
