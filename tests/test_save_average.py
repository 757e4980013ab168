"""train_scripts/save_average.py: a run's EMA so far, as a stage."""

import copy
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.checkpoint import CheckpointError, read_description
from stages.registry import kind_of, load_stage
from stages.training.config import Config
from stages.training.run_folder import save_checkpoint, write_log
from train_scripts import save_average

TINY = Path(__file__).resolve().parent.parent / "configs" / "tiny"


@pytest.fixture
def run(tmp_path):
    """A run of a tiny stage 2 after three steps; its average is not its weights."""
    config = Config.read(TINY / "stage2.toml")
    stage = kind_of(config.family, config.kind)[1](config.network)
    average = copy.deepcopy(stage)
    for weights in average.parameters():
        weights.data += 1
    optimizer = torch.optim.AdamW(stage.parameters())
    folder = tmp_path / "run"
    folder.mkdir()
    for commit in ("first", "second"):
        write_log(folder, {"event": "start", "commit": commit})
    averages: dict[str, Any] = {"": types.SimpleNamespace(stage=average)}
    save_checkpoint(folder, {"step": 3}, config, stage, averages, optimizer, None, "digest")
    return types.SimpleNamespace(folder=folder, average=average, config=config)


def test_it_is_the_average_and_says_how_far_it_came(run, tmp_path):
    assert save_average.main(["--run", str(run.folder), "--out", str(tmp_path / "out")]) == 0
    saved = load_stage(tmp_path / "out")
    for name, weights in run.average.state_dict().items():
        assert torch.equal(saved.state_dict()[name], weights)
    trained = read_description(tmp_path / "out")["trained"]
    assert trained["pictures"] == 3 * run.config.training.batch_size and not trained["finished"]
    assert trained["commit"] == "second" and trained["pictures_sha256"] == "digest"


def test_nothing_to_save_and_damage_are_errors(run, tmp_path, capsys):
    with pytest.raises(CheckpointError, match="no checkpoint"):
        save_average.averaged_stage(tmp_path)
    averaged = next(run.folder.glob("checkpoint-*")) / "averaged.safetensors"
    averaged.write_bytes(averaged.read_bytes()[:-1] + b"x")
    assert save_average.main(["--run", str(run.folder), "--out", str(tmp_path / "out")]) == 1
    assert "damaged" in capsys.readouterr().err and not (tmp_path / "out").exists()
