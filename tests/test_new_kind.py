"""docs/contribute/add-a-kind.md, to the letter: a kind that nobody knew, trained, saved, judged and used."""

from __future__ import annotations

import importlib
import re
import sys
import tomllib

import numpy as np
import pytest
import torch
from photos import luma
from PIL import Image
from tiny_stages import ROOT, generators

from pipeline import ColorPipeline, cli
from stages import registry
from stages.checkpoint import config_from_dict
from stages.color.difference import ciede2000
from stages.color.spaces import chroma_from_rgb, gray_from_rgb, lab_from_rgb, merge
from stages.options import OptionError, SampleOptions
from stages.stage import GrayView, Stage
from stages.training.config import Config, DataConfig, TrainingConfig
from stages.training.data import load_pictures
from stages.training.loop import train

PAGE = (ROOT / "docs/contribute/add-a-kind.md").read_text()
MODULE, REGISTRATION, USE = re.findall(r"```python\n(.*?)```", PAGE, re.S)
(CONFIG,) = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
COMMAND = re.search(r"`trichrome (colorize .*?)`", PAGE).group(1).split()


@pytest.fixture
def levels(tmp_path, monkeypatch):
    """The module of the page, imported, and its line of the table, run; in the folder that is current then."""
    (tmp_path / "levels.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))
    module = importlib.import_module("levels")
    exec(REGISTRATION, vars(registry) | vars(module))
    yield module
    del sys.modules["levels"]


def colored(rng: np.random.Generator, side: int = 64) -> np.ndarray:
    """A picture whose color is a function of its gray, blue where dark or bright: (side, side, 3) uint8."""
    gray = np.kron(rng.uniform(0.2, 0.8, (8, 8)), np.ones((side // 8, side // 8)))
    gray = torch.from_numpy(gray).float()[None, None]
    blue = 1.5 * (gray - 0.5) ** 2 - 0.05
    chroma = torch.cat([blue, -blue], 1)
    return (merge(gray, chroma)[0].permute(1, 2, 0) * 255).round().byte().numpy()


def test_the_page(levels, tmp_path, rng):
    assert 25 <= len([line for line in MODULE[MODULE.index("class LevelColorizer(") :].splitlines() if line]) <= 50
    for number in range(48):
        (tmp_path / "photographs").mkdir(exist_ok=True)
        Image.fromarray(colored(rng)).save(tmp_path / f"photographs/{number}.png")

    # Training, as train_scripts/stage1.py does it.
    table = tomllib.loads(CONFIG)
    assert (table["stage"], table["kind"]) == (1, "levels")
    config = Config(
        "stage1_levels", 1, "levels", config_from_dict(levels.LevelColorizerConfig, table["network"]),
        config_from_dict(DataConfig, table["data"]), config_from_dict(TrainingConfig, table["training"]),
    )  # fmt: skip
    pictures = load_pictures(tmp_path / "photographs", config.data.name, "train", config.data.side)
    errors: list[float] = []

    def report(stage: Stage, rgb: torch.Tensor) -> tuple[dict[str, float], torch.Tensor]:
        preview = stage.preview(stage.encode(GrayView.of(gray_from_rgb(rgb))))
        errors.append(ciede2000(lab_from_rgb(preview), lab_from_rgb(rgb)).mean().item())
        return {"ciede2000_preview": errors[-1]}, preview[0]

    torch.manual_seed(0)
    final = train(config, levels.LevelColorizer(config.network), pictures, tmp_path / "runs/stage1_levels", report)
    assert final == tmp_path / "runs/stage1_levels/final"
    rgb = pictures.rgb(slice(8))
    gray = gray_from_rgb(rgb)
    nothing = ciede2000(lab_from_rgb(gray.expand_as(rgb)), lab_from_rgb(rgb)).mean().item()
    assert errors[-1] < 0.4 * nothing and errors[-1] < errors[0], (errors, nothing)

    # The stage, loaded: it has learned the function that the pictures were made by, and its options.
    stage = registry.load_stage(final)
    assert type(stage) is levels.LevelColorizer and stage.config.levels == 12
    encoding = stage.encode(GrayView.of(gray))
    error = (chroma_from_rgb(stage.preview(encoding)) - chroma_from_rgb(rgb)).abs()
    assert error.mean() < 0.02 and error.max() < 0.06  # 12 levels do not follow it quite
    draws = stage.sample(encoding, 2, generator=generators(*range(16)))
    assert draws.coarse64.shape == (8, 2, 64, 64) and not torch.equal(draws.chroma[:, 0], draws.chroma[:, 1])
    still = stage.sample(encoding, 1, SampleOptions(temperature=0.0), generators(*range(8)))
    torch.testing.assert_close(merge(gray, still.chroma[:, 0]), stage.preview(encoding))
    with pytest.raises(OptionError, match="steps can not be honored by kind 'levels' of the family coarse"):
        stage.sample(encoding, 1, SampleOptions(steps=3))

    # In the pipeline.
    old = np.asarray(Image.fromarray(colored(rng, 96)).convert("L"))
    Image.fromarray(old).save("photograph.png")
    exec(USE, {})
    picture = np.asarray(Image.open("colored.png"))
    assert np.abs(luma(picture) - old).max() <= 0.5 and np.ptp(picture, 2).max() > 10
    assert cli.main([*COMMAND, "--device", "cpu"]) == 0
    assert np.array_equal(np.asarray(Image.open("colored/photograph.png")), picture)


def test_a_saved_pipeline_needs_the_kind(levels, tmp_path, monkeypatch):
    levels.LevelColorizer().save_pretrained(tmp_path / "stage")
    assert registry.load_stage(tmp_path / "stage").config == levels.LevelColorizerConfig()
    shipped = ColorPipeline.from_pretrained()
    ColorPipeline(levels.LevelColorizer(), shipped.color, shipped.superres).save_pretrained(tmp_path / "pipe")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="'coarse' has no kind 'levels'; there are coarse: diffusion, coltran, pic"):
        registry.load_stage(tmp_path / "stage")
    with pytest.raises(ValueError, match="stage1 is of kind 'levels'; known here: diffusion, coltran, pic"):
        ColorPipeline.from_pretrained(tmp_path / "pipe")
