"""train_scripts/mix_weights.py: weights between those of two stages."""

import dataclasses
from pathlib import Path

import pytest
import torch

from stages.checkpoint import CheckpointError, read_description, sha256_of
from stages.registry import load_stage
from stages.stage1_coarse.diffusion import DiffusionColorizer
from stages.training.config import Config
from train_scripts import mix_weights

TINY = Path(__file__).resolve().parent.parent / "configs" / "tiny"


@pytest.fixture
def folders(tmp_path):
    """A tiny stage 1, the same trained on, and the same trained on with hints, of other weights each."""
    config = Config.read(TINY / "stage1.toml").network
    for number, changes in enumerate(({"hints": 0.0}, {"hints": 0.0}, {"hints": 0.5})):
        torch.manual_seed(number)
        stage = DiffusionColorizer(dataclasses.replace(config, **changes))
        with torch.no_grad():
            for weights in stage.parameters():
                weights.normal_()
        stage.save_pretrained(tmp_path / str(number))
    return [tmp_path / str(number) for number in range(3)]


def mix(first, second, out, *more):
    return mix_weights.main(["--weights", str(first), "--with", str(second), "--out", str(out), *more])


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_weights_are_the_weighted_mean(folders, tmp_path, share):
    assert mix(folders[1], folders[0], tmp_path / "out", f"--share={share}") == 0
    out, ours, theirs = (load_stage(one).state_dict() for one in (tmp_path / "out", folders[1], folders[0]))
    for name, value in out.items():
        torch.testing.assert_close(value, share * ours[name] + (1 - share) * theirs[name], rtol=1e-5, atol=1e-6)
    parts = read_description(tmp_path / "out")["trained"]["mixed_from"]
    assert [part["share"] for part in parts] == [share, 1 - share]
    assert [part["sha256"] for part in parts] == [sha256_of(one / "model.safetensors") for one in folders[1::-1]]


def test_what_only_the_first_has_is_taken_as_it_is(folders, tmp_path):
    assert mix(folders[2], folders[0], tmp_path / "out") == 0
    out, ours, theirs = (load_stage(one).state_dict() for one in (tmp_path / "out", folders[2], folders[0]))
    alone = [name for name in ours if name not in theirs]
    assert alone and all(torch.equal(out[name], ours[name]) for name in alone)
    assert any(not torch.equal(out[name], ours[name]) for name in theirs)


def test_what_does_not_fit_is_an_error(folders, tmp_path, capsys):
    assert mix(folders[0], folders[2], tmp_path / "out") == 1
    assert "--with must be what --weights was trained on from" in capsys.readouterr().err
    assert mix(folders[1], folders[0], tmp_path / "out", "--share=1.5") == 1
    assert "a share must be a number from 0 to 1; got 1.5" in capsys.readouterr().err
    assert mix(folders[1], tmp_path, tmp_path / "out") == 1
    assert not (tmp_path / "out").exists()


def test_tuned_steps_are_not_mixed(folders, tmp_path):
    stage = load_stage(folders[0])
    config = dataclasses.replace(stage.config, sampler="spectral", steps=2, tuned=2)
    tuned = DiffusionColorizer(config)
    with pytest.raises(CheckpointError, match="tuned steps"):
        mix_weights.mixed(tuned, stage, 0.5)
    assert not any(name.startswith("tuned.") for name in mix_weights.mixed(stage, tuned, 0.5).state_dict())
