"""docs/contribute/add-a-kind.md, followed in a copy of the repository: a new kind is trained, judged and used."""

from __future__ import annotations

import importlib
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from photos import luma
from PIL import Image
from safetensors.torch import save_file
from tiny_stages import ROOT, generators

from pipeline import ColorPipeline, cli
from stages import registry
from stages.color.spaces import chroma_from_rgb, gray_from_rgb, merge
from stages.evaluation.features import SqueezeNetFeatures
from stages.faces import CoarseColorizer, GrayView
from stages.options import OptionError, SampleOptions

PAGE = (ROOT / "docs/contribute/add-a-kind.md").read_text()
MODULE, REGISTRATION, USE = re.findall(r"```python\n(.*?)```", PAGE, re.S)
(CONFIG,) = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
(COMMANDS,) = re.findall(r"```bash\n(.*?)```", PAGE, re.S)
(COLORIZE,) = re.findall(r"`trichrome (colorize .*?)`", PAGE)
PROGRAMS = {"accelerate": ["-m", "accelerate.commands.accelerate_cli"], "python": []}


@pytest.fixture
def levels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module of the page, in a copy of the repository that is current, and in this process' table of kinds too."""
    for name in ("stages", "pipeline", "train_scripts", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("weights", "__pycache__"))
    (tmp_path / "pipeline/weights").symlink_to(ROOT / "pipeline/weights")
    (tmp_path / "stages/stage1_coarse/levels.py").write_text(MODULE)
    (tmp_path / "configs/stage1_levels.toml").write_text(CONFIG)
    with (tmp_path / "stages/registry.py").open("a") as table:
        table.write("from stages.stage1_coarse.levels import LevelColorizer, LevelColorizerConfig\n" + REGISTRATION)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("TRICHROME_DATA", raising=False)
    monkeypatch.syspath_prepend(tmp_path / "stages/stage1_coarse")
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))
    module = importlib.import_module("levels")
    exec(REGISTRATION, vars(registry) | vars(module))
    yield module
    del sys.modules["levels"]


def colored(rng: np.random.Generator, side: int = 64) -> np.ndarray:
    """A picture whose color is a function of its gray, blue where dark or bright: (side, side, 3) uint8."""
    cells = np.kron(rng.uniform(0.2, 0.8, (8, 8)), np.ones((side // 8, side // 8)))
    gray = torch.from_numpy(cells).float()[None, None]
    blue = 1.5 * (gray - 0.5) ** 2 - 0.05
    chroma = torch.cat([blue, -blue], 1)
    return (merge(gray, chroma)[0].permute(1, 2, 0) * 255).round().byte().numpy()


def write_data(folder: Path, rng: np.random.Generator) -> None:
    """48 pictures to learn from, 16 to be judged by, and a network of features with random weights."""
    (folder / "photos64").mkdir(parents=True)
    for split, count in (("train", 48), ("validation", 16)):
        rows = []
        for _ in range(count):
            png = io.BytesIO()
            Image.fromarray(colored(rng)).save(png, "PNG")
            rows.append({"image": {"bytes": png.getvalue(), "path": None}})
        pyarrow.parquet.write_table(
            pyarrow.Table.from_pylist(rows), folder / f"photos64/{split}-00000-of-00001.parquet"
        )
    (folder / "features").mkdir()
    save_file(SqueezeNetFeatures().state_dict(), folder / "features/squeezenet1_1.safetensors")


def test_the_page(levels: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    assert 25 <= len([line for line in MODULE[MODULE.index("class LevelColorizer(") :].splitlines() if line]) <= 50
    write_data(tmp_path / "data", rng)
    for command in COMMANDS.splitlines():
        program, *arguments = command.split()
        done = subprocess.run(
            [sys.executable, *PROGRAMS[program], *arguments], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr

    # The log of the training, and the table of the evaluation.
    log = [json.loads(line) for line in Path("runs/stage1_levels/log.jsonl").read_text().splitlines()]
    errors = [entry["ciede2000_preview"] for entry in log if entry["event"] == "report"]
    rows = {row["name"]: row for row in json.loads(Path("runs/eval/stage1/results.json").read_text())["rows"]}
    gray_error = rows["plain gray"]["ciede2000"]
    assert errors[-1] < errors[0] and max(errors[-1], rows["one-pass preview"]["ciede2000"]) < 0.4 * gray_error

    # The stage has learned the function that the pictures were made by, and its option.
    stage = registry.load_stage("runs/stage1_levels/final")
    assert isinstance(stage, CoarseColorizer) and isinstance(stage, levels.LevelColorizer)
    assert stage.config.levels == 12
    rgb = torch.stack([torch.from_numpy(colored(rng)) for _ in range(8)]).permute(0, 3, 1, 2) / 255
    gray = gray_from_rgb(rgb)
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
    assert cli.main([*COLORIZE.split(), "--device", "cpu"]) == 0
    assert np.array_equal(np.asarray(Image.open("colored/photograph.png")), picture)


def test_a_saved_pipeline_needs_the_kind(levels: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    levels.LevelColorizer().save_pretrained(tmp_path / "stage")
    assert registry.load_stage(tmp_path / "stage").config == levels.LevelColorizerConfig()
    shipped = ColorPipeline.from_pretrained()
    ColorPipeline(levels.LevelColorizer(), shipped.color, shipped.superres).save_pretrained(tmp_path / "pipe")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="'coarse' has no kind 'levels'; there are coarse: diffusion, coltran, pic"):
        registry.load_stage(tmp_path / "stage")
    with pytest.raises(ValueError, match="stage1 is of kind 'levels'; known here: diffusion, coltran, pic"):
        ColorPipeline.from_pretrained(tmp_path / "pipe")
