"""The training loop: exact to the bit when killed and continued, in step over processes, and clear about what is wrong.

Most tests train a stand-in of a few weights; those of the scripts train the networks of configs/tiny.
Run as a script (by `accelerate launch`), this file is one process of the two-process test.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import multiprocessing
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from pipeline import ColorPipeline, cli
from stages.checkpoint import CheckpointError, read_description, sha256_of
from stages.registry import kind_of, load_stage
from stages.stage import Stage
from stages.stage1_coarse.diffusion import DiffusionColorizer
from stages.training import launch, loop
from stages.training.batches import Batches
from stages.training.config import Config, DataConfig, TrainingConfig
from stages.training.data import Mixture, Pictures
from stages.training.loop import TrainingError, train
from stages.training.optimizers import build_optimizer, recompute_blocks, set_learning_rate
from train_scripts import package, stage1, stage2, stage3

ROOT = Path(__file__).resolve().parent.parent
TINY = ROOT / "configs" / "tiny"
FAMILIES = {"stage1": "coarse", "stage2": "color", "stage3": "superres"}  # by the names of scripts and configs


# ---------------------------------------------------------------------- a stand-in stage


@dataclass(frozen=True)
class ToyConfig:
    noise: float = 0.1


class Toy(Stage):
    """Chroma from gray by one convolution; `unused` has no part in the loss, like the denoiser of an encoder run."""

    family, kind, config_class = "coarse", "toy", ToyConfig

    def __init__(self, config: ToyConfig | None = None):
        super().__init__(config or ToyConfig())
        torch.manual_seed(0)
        self.mix = nn.Conv2d(1, 3, 3, padding=1)
        self.unused = nn.Linear(2, 2)

    def forward(self, rgb, label=None):
        noise = self.config.noise * torch.randn(rgb.shape)  # of the global generator, like the real stages
        return (self.mix(rgb.mean(1, keepdim=True)) - rgb - noise).square().mean()


def toy_pictures(digest: str = "digest") -> Mixture:
    """Thirty squares of 8x8, of which four are held out, and ten pictures that are larger or not square."""
    generator = torch.Generator().manual_seed(1)

    def pictures(sizes: list[tuple[int, int]], digest: str) -> Pictures:
        images = [torch.randint(256, (3, *size), generator=generator).byte() for size in sizes]
        return Pictures(images, torch.full((len(images),), -1), 8, digest, {}, {})

    sets = pictures([(8, 8)] * 30, digest), pictures([(8, 12), (11, 8), (16, 16), (4, 5), (8, 8)] * 2, "second")
    return Mixture(("first", "second"), sets, (0.7, 0.3), (4, 1))


def toy_config(noise: float = 0.1, **options: Any) -> Config:
    """12 steps of 4 pictures; a report every 5 steps, a checkpoint every 3."""
    values: dict[str, Any] = {
        "samples": 48, "batch_size": 4, "warmup": 8, "average_half_life": 8, "report_every": 20, "save_every": 12,
        "learning_rate": 0.05, "precision": "no",
    }  # fmt: skip
    values |= options
    return Config("toy", "coarse", "toy", ToyConfig(noise), DataConfig(8), TrainingConfig(**values))


def toy_report(stage, rgb, labels):
    return {"sum": sum(p.double().sum().item() for p in stage.parameters())}, rgb[0]


def train_toy(run: Path, config: Config | None = None, stage: Stage | None = None, **options) -> Path | None:
    config = config or toy_config()
    pictures = options.pop("pictures", None) or toy_pictures()
    return train(config, stage or Toy(config.network), pictures, run, toy_report, command="test", **options)


def log_of(run: Path, event: str = "report") -> list[dict]:
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [entry for entry in entries if entry["event"] == event]


def timeless(entries: list[dict]) -> list[dict]:
    return [{k: v for k, v in entry.items() if k not in ("time", "pictures_per_second", "cores")} for entry in entries]


def flipped(path: Path) -> None:
    """One bit in the middle of a file turned."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


# ---------------------------------------------------------------------- continuing


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run without interruption."""
    AcceleratorState._reset_state(True)
    run = tmp_path_factory.mktemp("whole") / "run"
    assert train_toy(run) == run / "final"
    return run


def assert_same_run(run: Path, whole: Path) -> None:
    for name in ("final/model.safetensors", "checkpoint-00000012/weights.safetensors", "samples-00000048.png"):
        assert sha256_of(run / name) == sha256_of(whole / name), name
    reports = {entry["step"]: entry for entry in timeless(log_of(run))}
    assert list(reports.values()) == timeless(log_of(whole))


def test_the_run_depends_on_noise_order_and_seed(whole, tmp_path):
    changes: list[dict[str, Any]] = [{"noise": 0.2}, {"seed": 1}, {"learning_rate": 0.04}]
    for number, options in enumerate(changes):
        train_toy(tmp_path / str(number), toy_config(**options))
        name = "final/model.safetensors"
        assert sha256_of(tmp_path / str(number) / name) != sha256_of(whole / name), options


@pytest.mark.parametrize("stops", [(4,), (3, 1, 1, 5), (7, 2)])
def test_stopped_and_continued_is_the_same_to_the_bit(stops, whole, tmp_path):
    run = tmp_path / "run"
    for stop in stops:  # steps since the last checkpoint are lost and done again
        assert train_toy(run, stop_after=stop) is None
        torch.manual_seed(stop)  # the state of the generators must not matter
        assert not (run / "final").exists()
    assert train_toy(run) == run / "final"
    assert_same_run(run, whole)


def test_a_finished_run_is_left_as_it_is(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    assert train_toy(run) == run / "final"
    assert_same_run(run, whole)


def test_a_run_may_be_made_longer_or_shorter(whole, tmp_path):
    longer = shutil.copytree(whole, tmp_path / "longer")
    train_toy(longer, toy_config(samples=64))
    assert log_of(longer, "end")[-1]["step"] == 16
    shorter = shutil.copytree(whole, tmp_path / "shorter")
    train_toy(shorter, toy_config(samples=20))  # it is beyond that already
    assert log_of(shorter, "end")[-1]["step"] == 12


def test_the_newest_two_checkpoints_are_kept_and_nothing_unfinished(whole, tmp_path):
    names = ["checkpoint-00000009", "checkpoint-00000012", "final", "log.jsonl",
             "samples-00000020.png", "samples-00000040.png", "samples-00000048.png"]  # fmt: skip
    assert sorted(path.name for path in whole.iterdir()) == names
    run = tmp_path / "run"
    (run / ".checkpoint-00000003.abc").mkdir(parents=True)  # killed while it saved
    train_toy(run)
    assert sorted(path.name for path in run.iterdir()) == names


def test_a_run_under_way_may_be_given_an_end(tmp_path):
    """A longer run, a decay and other intervals, decided on later, are the same as decided on at once."""
    planned: dict[str, Any] = {"schedule": "constant", "samples": 64, "decay_from": 32, "decay": 32, "report_every": 16}
    train_toy(tmp_path / "whole", toy_config(**planned))
    train_toy(tmp_path / "run", toy_config(schedule="constant"), stop_after=7)
    train_toy(tmp_path / "run", toy_config(**planned, save_every=8, save_minutes=3.0))
    train_toy(tmp_path / "constant", toy_config(schedule="constant", samples=64))
    digests = [sha256_of(tmp_path / name / "final/model.safetensors") for name in ("whole", "run", "constant")]
    assert digests[0] == digests[1] != digests[2]
    rates = [
        torch.load(run / "checkpoint-00000016/optimizer.pt")["param_groups"][0]["lr"]
        for run in (tmp_path / "run", tmp_path / "constant")
    ]
    assert rates == [pytest.approx(0.05 * 4 / 32), 0.05]  # of the last step


def test_asked_to_stop_a_run_saves_what_it_has_done(whole, tmp_path):
    asked = iter([False] * 3 + [True])
    with pytest.raises(loop.Terminated, match="after step 4, saved in .*checkpoint-00000004.*same again: test"):
        train_toy(tmp_path / "run", stop=lambda: next(asked))
    assert not (tmp_path / "run/final").exists() and log_of(tmp_path / "run") == []
    train_toy(tmp_path / "run")
    assert log_of(tmp_path / "run", "start")[-1]["step"] == 4
    assert_same_run(tmp_path / "run", whole)
    last = iter([False] * 11 + [True])
    assert train_toy(tmp_path / "last", stop=lambda: next(last)) == tmp_path / "last/final"  # it is finished


def test_checkpoints_come_by_time_too(tmp_path, monkeypatch):
    minutes, saved, save = [0], [], loop.save_checkpoint
    monkeypatch.setattr(loop.time, "perf_counter", lambda: 60.0 * minutes[0])

    def a_minute_later() -> bool:
        minutes[0] += 1
        return False

    def noted(run, state, *rest):
        saved.append(state["step"])
        save(run, state, *rest)

    monkeypatch.setattr(loop, "save_checkpoint", noted)
    for save_minutes, steps in ((0.0, [8, 12]), (5.0, [5, 8, 12]), (2.0, [2, 4, 6, 8, 10, 12])):
        config = toy_config(save_every=32, save_minutes=save_minutes)
        train_toy(tmp_path / str(save_minutes), config, stop=a_minute_later)
        assert saved == steps
        saved.clear()


@pytest.mark.parametrize("name", ["weights.safetensors", "averaged.safetensors", "optimizer.pt"])
def test_a_damaged_checkpoint_is_refused(name, whole, tmp_path):
    run = tmp_path / "run"
    train_toy(run, stop_after=10)
    newest = run / "checkpoint-00000009"
    intact = (newest / name).read_bytes()
    flipped(newest / name)
    with pytest.raises(CheckpointError, match=f"{name} is damaged .* delete .*00009 to use the one before it"):
        train_toy(run)
    (newest / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} is damaged"):
        train_toy(run)
    (newest / name).write_bytes(intact)
    (newest / "state.json").write_text((newest / "state.json").read_text()[:-9])
    with pytest.raises(CheckpointError, match="state.json is damaged"):
        train_toy(run)
    shutil.rmtree(newest)  # as the message says
    train_toy(run)
    assert_same_run(run, whole)


def test_memory_may_be_saved_from_some_step_on(whole, tmp_path):
    run = tmp_path / "run"
    train_toy(run, stop_after=7)
    train_toy(run, toy_config(recompute=True))
    assert_same_run(run, whole)


def test_a_run_from_before_a_key_existed_goes_on(whole, tmp_path):
    run = tmp_path / "run"
    train_toy(run, stop_after=10)
    state = run / "checkpoint-00000009" / "state.json"
    record = json.loads(state.read_text())
    del record["config"]["data"]["limit"], record["config"]["training"]["accumulation"]
    del record["config"]["network"]["noise"]
    state.write_text(json.dumps(record))
    train_toy(run)
    assert_same_run(run, whole)
    record["config"]["data"]["side"] = 32  # another value than today's default
    state.write_text(json.dumps(record))
    shutil.rmtree(run / "checkpoint-00000012")
    with pytest.raises(CheckpointError, match="another config"):
        train_toy(run)


def test_another_config_or_other_pictures_are_refused(whole):
    for other in (toy_config(learning_rate=0.04), toy_config(noise=0.3), toy_config(batch_size=8)):
        with pytest.raises(CheckpointError, match="belongs to a run with another config; choose other --runs"):
            train_toy(whole, other)
    with pytest.raises(CheckpointError, match="belongs to a run on other pictures"):
        train_toy(whole, pictures=toy_pictures("other"))


def test_a_failing_checkpoint_leaves_the_run_as_it_was(tmp_path, monkeypatch):
    run = tmp_path / "run"
    train_toy(run, stop_after=4)
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        train_toy(run)
    assert [path.name for path in run.glob("*checkpoint*")] == ["checkpoint-00000003"]


# ---------------------------------------------------------------------- what stops a run


class Exploding(Toy):
    """Its loss, or only the gradient of its loss, is not finite from the fifth step on."""

    def __init__(self, only_the_gradient: bool):
        super().__init__()
        self.calls, self.only_the_gradient = 0, only_the_gradient

    def forward(self, rgb, label=None):
        self.calls += 1
        loss = super().forward(rgb)
        if self.calls < 5:
            return loss
        return loss + (self.mix.weight * 0).sum().sqrt() if self.only_the_gradient else loss * math.nan


@pytest.mark.parametrize("only_the_gradient", [False, True])
def test_a_loss_that_is_not_finite_stops_the_run(only_the_gradient, tmp_path):
    with pytest.raises(FloatingPointError, match=r"at step 4 the loss is .*not finite.*checkpoint-00000003"):
        train_toy(tmp_path, stage=Exploding(only_the_gradient))
    saved = load_file(tmp_path / "checkpoint-00000003" / "weights.safetensors")
    assert all(value.isfinite().all() for value in saved.values())
    assert not (tmp_path / "checkpoint-00000006").exists() and not (tmp_path / "final").exists()


@pytest.mark.parametrize("options, message", [
    ({"batch_size": 0}, "batch_size must be at least 1"),
    ({"save_every": 0}, "save_every must be at least 1"),
    ({"accumulation": 3}, "multiple of processes x accumulation = 1 x 3"),
    ({"precision": "fp8"}, "precision must be auto, no, bf16 or fp16"),
    ({"freeze": ("nothing",)}, "no parameter begins with 'nothing'"),
    ({"optimizer": "sgd"}, r"training.optimizer must be one of \('adamw', 'rmsprop'\); got 'sgd'"),
    ({"schedule": "step"}, "training.schedule must be one of"),
    ({"decay_from": 8, "decay": 40}, 'decay_from needs schedule = "constant"; got \'cosine\''),
    ({"decay": 40, "schedule": "constant"}, "need each other; got 0 and 40"),
    ({"decay_from": 8, "decay": 8, "schedule": "constant"}, r"at most decay_from \+ decay = 16, where .*; got 48"),
    ({"save_minutes": -1.0}, "must not be negative"),
    ({"workers": -1}, "must not be negative"),
    ({"freeze": ("mix",)}, "nothing that the loss depends on is trained: freeze less"),
    ({"average_widths": (0.5,)}, "the width of an average must be between 0 and 0.289 of the run; got 0.5"),
])  # fmt: skip
def test_settings_that_make_no_sense(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train_toy(tmp_path, toy_config(**options))


def test_one_process_where_two_are_expected(tmp_path, monkeypatch):
    with pytest.raises(TrainingError, match="expected 2 processes that synchronize; got 1.*ACCELERATE_USE_CPU=true"):
        train_toy(tmp_path, expect_world=2)
    monkeypatch.setenv("WORLD_SIZE", "2")  # as torchrun sets it: two processes, each alone
    with pytest.raises(TrainingError, match="expected 2 processes that synchronize; got 1"):
        train_toy(tmp_path)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------- schedule, averages, accumulation, freezing


def test_the_learning_rate_is_a_function_of_pictures_seen():
    options = TrainingConfig(samples=1000, batch_size=10, warmup=100, learning_rate=2.0, backbone_learning_rate=0.5)
    optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.ones(1))], "peak": peak} for peak in (2.0, 0.5)])

    def rates(seen: int, **changes) -> list[float]:
        set_learning_rate(optimizer, replace(options, **changes), seen)
        return [group["lr"] for group in optimizer.param_groups]

    assert rates(0)[0] == pytest.approx(2 * 0.1)
    for seen in (90, 250, 500, 990):
        expected = 0.5 * (1 + math.cos(math.pi * seen / 1000))
        assert rates(seen) == pytest.approx([2 * expected, 0.5 * expected])
        assert rates(seen) == rates(seen, batch_size=40) == rates(seen, accumulation=5)
    assert rates(1000) == pytest.approx([0, 0]) and rates(500) == pytest.approx([1, 0.25])
    assert rates(0, schedule="constant")[0] == pytest.approx(2 * 0.1)
    assert rates(900, schedule="constant") == [2.0, 0.5]
    decaying = {"schedule": "constant", "decay_from": 600, "decay": 400}
    for seen, factor in ((600, 1), (700, 0.75), (990, 0.025), (1000, 0), (1100, 0)):
        assert rates(seen, **decaying) == pytest.approx([2 * factor, 0.5 * factor])
    for seen in (0, 90, 590):
        assert rates(seen, **decaying) == rates(seen, schedule="constant")


def test_rmsprop_takes_the_steps_of_keras():
    """v <- 0.9 v + 0.1 g², w <- w - lr g / (sqrt(v) + 1e-7)."""
    stage = Toy(ToyConfig(0.1))
    optimizer = build_optimizer(stage, TrainingConfig(optimizer="rmsprop", learning_rate=0.01, weight_decay=0.0))
    assert isinstance(build_optimizer(stage, TrainingConfig()), torch.optim.AdamW)
    torch.manual_seed(0)
    expected = [parameter.detach().clone() for parameter in stage.parameters()]
    mean_squares = [torch.zeros_like(value) for value in expected]
    for _ in range(3):
        for parameter, value, v in zip(stage.parameters(), expected, mean_squares, strict=True):
            parameter.grad = torch.randn_like(parameter)
            v.mul_(0.9).add_(0.1 * parameter.grad**2)
            value -= 0.01 * parameter.grad / (v.sqrt() + 1e-7)
        optimizer.step()
    torch.testing.assert_close([parameter.detach() for parameter in stage.parameters()], expected)


def test_no_clipping_leaves_the_gradient_as_it_is(tmp_path):
    free = train_toy(tmp_path / "free", toy_config(gradient_clip=0.0))
    wide = train_toy(tmp_path / "wide", toy_config(gradient_clip=1e9))
    tight = train_toy(tmp_path / "tight", toy_config(gradient_clip=1e-9))
    weights = [load_file(folder / "model.safetensors") for folder in (free, wide, tight) if folder]
    torch.testing.assert_close(weights[0], weights[1])
    assert any(not torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_further_averages_are_saved_and_continued(tmp_path):
    config = toy_config(average_widths=(0.05, 0.1))
    train_toy(tmp_path / "whole", config)
    train_toy(tmp_path / "run", config, stop_after=7)
    train_toy(tmp_path / "run", config)
    whole, run = (
        [sha256_of(tmp_path / one / name / "model.safetensors") for name in ("final", "final-0.05", "final-0.1")]
        for one in ("whole", "run")
    )
    assert whole == run and len(set(whole)) == 3
    (tmp_path / "run" / "checkpoint-00000012" / "averaged-0.1.safetensors").unlink()
    with pytest.raises(CheckpointError, match="averaged-0.1.safetensors is damaged"):
        train_toy(tmp_path / "run", config)


def test_accumulation_changes_the_memory_and_not_the_gradient(tmp_path):
    """Without noise, parts of a batch add up to the batch."""
    for parts in (1, 2, 4):
        train_toy(tmp_path / str(parts), toy_config(noise=0, accumulation=parts))
    one, two, four = (load_file(tmp_path / str(parts) / "final/model.safetensors") for parts in (1, 2, 4))
    for name in one:
        assert torch.allclose(one[name], two[name], atol=1e-5) and torch.allclose(one[name], four[name], atol=1e-5)
    assert not torch.equal(one["mix.weight"], Toy().mix.weight)


def test_frozen_parameters_stay_and_the_others_learn(tmp_path):
    train_toy(tmp_path, toy_config(freeze=("mix.weight", "unused")))
    final, start = load_file(tmp_path / "final/model.safetensors"), Toy().state_dict()
    assert [torch.equal(final[name], start[name]) for name in ("mix.weight", "unused.weight", "mix.bias")] == [
        True, True, False,
    ]  # fmt: skip


def saved_bytes(stage: Stage, rgb: torch.Tensor) -> tuple[int, list[torch.Tensor]]:
    """What the backward pass of a loss finds kept, and the gradients it makes."""
    kept = {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    torch.manual_seed(0)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = stage(rgb)
    loss.backward()
    return sum(kept.values()), [p.grad for p in stage.parameters() if p.grad is not None]


@pytest.mark.parametrize("name", ["stage1", "stage1_coltran", "stage1_pic", "stage2", "stage3"])
def test_recomputing_blocks_changes_the_memory_and_not_the_gradient(name):
    config = Config.read(TINY / f"{name}.toml")
    _, stage_class = kind_of(config.family, config.kind)
    torch.manual_seed(0)
    keeping = stage_class(config.network).train()
    for parameter in keeping.parameters():  # layers that start at zero would hide what is before them
        nn.init.normal_(parameter, std=0.1) if not parameter.any() else None
    recomputing = copy.deepcopy(keeping)
    recompute_blocks(recomputing)
    rgb = torch.rand(2, 3, config.data.side, config.data.side)
    (more, expected), (less, gradients) = saved_bytes(keeping, rgb), saved_bytes(recomputing, rgb)
    torch.testing.assert_close(gradients, expected)
    assert less < more


def test_a_compiled_run_learns_the_same(tmp_path):
    """Without noise: compiled code draws its own."""
    plain, compiled = (train_toy(tmp_path / str(on), toy_config(noise=0, compile=on)) for on in (False, True))
    weights = [load_file(folder / "model.safetensors") for folder in (plain, compiled) if folder]
    torch.testing.assert_close(weights[0], weights[1], atol=1e-4, rtol=1e-4)


class Signed(Batches):
    """In place of labels: who cut."""

    def __getitem__(self, step):
        return super().__getitem__(step)[0], torch.full((1,), os.getpid())


@pytest.mark.parametrize("rank", [0, 1])
def test_workers_cut_the_same_batches_in_the_same_order(rank):
    cuts = Signed(toy_pictures(), 8, seed=3, rank=rank, processes=2)
    here = list(cuts.of(range(2, 7), torch.device("cpu")))
    theirs = list(cuts.of(range(2, 7), torch.device("cpu"), workers=2))
    assert {int(who) for _, who in here} == {os.getpid()}
    assert len({int(who) for _, who in theirs} - {os.getpid()}) == 2
    assert all(rgb.shape == (4, 3, 8, 8) for rgb, _ in here) and not torch.equal(here[0][0], here[1][0])
    assert [rgb.tolist() for rgb, _ in here] == [rgb.tolist() for rgb, _ in theirs]


def test_workers_end_with_their_run():
    batches: Any = Batches(toy_pictures(), 8, seed=3).of(range(50), torch.device("cpu"), workers=2)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert multiprocessing.active_children() == []


def test_a_run_with_workers_is_the_same_run_and_may_go_on_without(whole, tmp_path):
    assert train_toy(tmp_path / "run", toy_config(workers=2), stop_after=4) is None
    train_toy(tmp_path / "run")
    assert_same_run(tmp_path / "run", whole)


def test_a_tracker_gets_the_reports(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train_toy(tmp_path, track="tensorboard")
    (folder,) = {path.parent for path in tmp_path.rglob("events.out.tfevents.*")}
    written = events.EventAccumulator(str(folder)).Reload()
    losses = [(event.step, event.value) for event in written.Scalars("loss")]
    assert losses == [(entry["pictures"], pytest.approx(entry["loss"])) for entry in log_of(tmp_path)]
    assert [event.step for event in written.Images("samples")] == [20, 40, 48]


def test_a_tracker_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(loop.Accelerator, "__init__", without_trackers(loop.Accelerator.__init__))
    with pytest.raises(CheckpointError, match="the tracker 'tensorboard' is not installed: pip install tensorboard"):
        train_toy(tmp_path, track="tensorboard")
    assert not list(tmp_path.iterdir())


def without_trackers(init):
    """accelerate's answer to a tracker that is not installed: none, and no word."""

    def initialized(self, *args, log_with=None, **options):
        init(self, *args, **options)

    return initialized


# ---------------------------------------------------------------------- several processes


def in_two_processes(*command: str | Path, **environment: str) -> subprocess.CompletedProcess:
    config = ROOT / "configs" / "accelerate" / "gpus.yaml"
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config),
                "--num_processes", "2", "--main_process_port", "0"]  # any free port  # fmt: skip
    return subprocess.run(
        [*launcher, *map(str, command)], cwd=ROOT, capture_output=True, text=True, timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )  # fmt: skip


def uncut(mixture, picks, generator):
    return mixture.squares(picks)


def test_two_processes_train_as_one_does(tmp_path, monkeypatch):
    """Without noise and augmentation, two shares of a batch are the batch: same weights, same learning rates."""
    done = in_two_processes(__file__, tmp_path / "two", ACCELERATE_USE_CPU="true")
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(Mixture, "cuts", uncut)
    train_toy(tmp_path / "one", toy_config(noise=0))

    assert [log_of(tmp_path / name, "start")[0]["processes"] for name in ("one", "two")] == [1, 2]
    (first, second), (alone,) = (log_of(tmp_path / name, "end")[0]["digest_by_process"] for name in ("two", "one"))
    assert first == second, "the processes have different weights"
    for name in ("final/model.safetensors", "checkpoint-00000012/weights.safetensors"):
        one, two = load_file(tmp_path / "one" / name), load_file(tmp_path / "two" / name)
        for key in one:
            assert torch.allclose(one[key], two[key], atol=1e-4), key
        assert not torch.allclose(one["mix.weight"], Toy().mix.weight, atol=1e-2)
    reports = zip(log_of(tmp_path / "one"), log_of(tmp_path / "two"), strict=True)
    assert all(a["loss"] == pytest.approx(b["loss"], rel=1e-4) for a, b in reports)
    rates = [
        [group["lr"] for group in torch.load(tmp_path / name / "checkpoint-00000009/optimizer.pt")["param_groups"]]
        for name in ("one", "two")
    ]
    assert rates[0] == rates[1]


def test_two_processes_that_were_stopped_continue_to_the_bit(photographs, tmp_path):
    path = tmp_path / "two.toml"
    path.write_text((TINY / "stage1.toml").read_text().replace("samples = 48", "samples = 32"))
    script = [ROOT / "train_scripts/stage1.py", "--config", path, "--data", photographs, "--expect-world", "2"]
    for runs, *more in (["whole"], ["parts", "--stop-after", "6"], ["parts"]):
        done = in_two_processes(*script, "--runs", tmp_path / runs, *more, ACCELERATE_USE_CPU="true")
        assert done.returncode == 0, done.stderr
    whole, parts = tmp_path / "whole" / "two", tmp_path / "parts" / "two"
    assert [entry["step"] for entry in log_of(parts, "start")] == [0, 4]
    for name in ("final/model.safetensors", "checkpoint-00000008/weights.safetensors", "samples-00000032.png"):
        assert sha256_of(parts / name) == sha256_of(whole / name), name
    assert timeless(log_of(parts))[-1] == timeless(log_of(whole))[-1]


def test_stage1_trains_in_two_processes(photographs, tmp_path):
    """The encoder and then, from its weights, the denoiser, as the default configs do. The first uses no denoiser."""
    text = (TINY / "stage1.toml").read_text().replace("samples = 48", "samples = 8")
    encoder = text.replace("noise_levels = 2", "noise_levels = 0").replace("batch_size", "accumulation = 2\nbatch_size")
    (tmp_path / "first.toml").write_text(encoder)
    (tmp_path / "second.toml").write_text(f'{text}start_from = "first"\nfreeze = ["encoder"]\n')
    done = in_two_processes(
        ROOT / "train_scripts/stage1.py", "--config", tmp_path / "second.toml", "--data", photographs,
        "--runs", tmp_path / "runs", "--expect-world", "2", ACCELERATE_USE_CPU="true",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("first", "second"):
        first, second = log_of(tmp_path / "runs" / name, "end")[0]["digest_by_process"]
        assert first == second and log_of(tmp_path / "runs" / name, "start")[0]["processes"] == 2
    first, second = (load_file(tmp_path / "runs" / name / "final/model.safetensors") for name in ("first", "second"))
    changed = {name.split(".")[0] for name in first if not torch.equal(first[name], second[name])}
    assert changed == {"denoiser"}


# ---------------------------------------------------------------------- the scripts


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """Twelve smooth pictures of many colors, and one without color."""
    folder = tmp_path_factory.mktemp("photographs")
    for seed in range(12):
        small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(small).resize((300, 256), Image.Resampling.BICUBIC).save(folder / f"{seed}.png")
    Image.new("RGB", (300, 256), (90, 90, 90)).save(folder / "gray.png")
    return folder


def run_script(*options: str | Path, wait: bool = True):
    command = [sys.executable, str(ROOT / "train_scripts/stage1.py"), *map(str, options)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    if wait:
        out, error = process.communicate(timeout=600)
        return process.returncode, out, error
    return process


def test_killed_and_continued_equals_uninterrupted(photographs, tmp_path):
    """SIGKILL, a new process, and in the end the same bytes."""
    text = (TINY / "stage1.toml").read_text().replace("samples = 48", "samples = 120")
    (tmp_path / "kill.toml").write_text(text)
    options = ["--config", tmp_path / "kill.toml", "--data", photographs, "--runs"]
    uninterrupted = run_script(*options, tmp_path / "whole", wait=False)
    killed = run_script(*options, tmp_path / "killed", wait=False)
    run, deadline = tmp_path / "killed" / "kill", time.monotonic() + 500
    while not (run / "checkpoint-00000008").is_dir() and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL and not (run / "final").exists()

    code, out, error = run_script(*options, tmp_path / "killed")
    assert code == 0 and f"final weights: {run}/final" in out, error
    _, error = uninterrupted.communicate(timeout=600)
    assert uninterrupted.returncode == 0, error
    whole = tmp_path / "whole" / "kill"
    first, second = log_of(run, "start")
    assert first["step"] == 0 and 8 <= second["step"] < 30
    for name in ("final/model.safetensors", "checkpoint-00000030/averaged.safetensors", "samples-00000120.png"):
        assert sha256_of(run / name) == sha256_of(whole / name), name
    assert log_of(run, "end")[-1]["weights_sha256"] == sha256_of(whole / "final/model.safetensors")
    assert {e["step"]: e for e in timeless(log_of(run))} == {e["step"]: e for e in timeless(log_of(whole))}


@pytest.mark.parametrize("workers", [0, 2])
def test_sigterm_saves_and_says_how_to_continue(workers, photographs, tmp_path):
    longer = f"samples = 40_000\nworkers = {workers}"
    (tmp_path / "long.toml").write_text((TINY / "stage1.toml").read_text().replace("samples = 48", longer))
    options = ["--config", tmp_path / "long.toml", "--data", photographs, "--runs", tmp_path / "runs"]
    process, run = run_script(*options, wait=False), tmp_path / "runs/long"
    deadline = time.monotonic() + 300
    while not (run / "checkpoint-00000004").is_dir() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)  # to all of its processes, as launchers do
    out, error = process.communicate(timeout=120)
    assert process.returncode == 143 and "Traceback" not in error, error
    newest = sorted(run.glob("checkpoint-*"))[-1]
    message = re.search(r"stopped after step (\d+), saved in (\S+)\. To .* same again: \S*stage1.py", out)
    assert message is not None
    step, place = message.groups()
    assert place == str(newest) and int(step) == int(newest.name[-8:]) and not (run / "final").exists()
    assert run_script(*options, "--stop-after", "1")[0] == 0
    assert [entry["step"] for entry in log_of(run, "start")] == [0, int(newest.name[-8:])]


def saved_tiny(folder: Path, **changes) -> Path:
    """A saved stage 1 of the tiny config, with distilled steps."""
    network = replace(Config.read(TINY / "stage1.toml").network, sampler="spectral", steps=2, tuned=2, **changes)
    torch.manual_seed(5)
    kind_of("coarse", "diffusion")[1](network).save_pretrained(folder / "saved", dtype=torch.float16)
    return folder / "saved"


def test_a_training_starts_from_saved_weights_without_their_distilled_steps(tmp_path, monkeypatch):
    folder = saved_tiny(tmp_path)
    path = tmp_path / "c.toml"
    path.write_text((TINY / "stage1.toml").read_text().replace("[training]", f'[training]\nstart_from = "{folder}"'))
    config = Config.read(path)
    assert launch.given_start(config.training.start_from) == folder
    stage: Any = launch.first_stage(config, path, folder)
    saved = load_file(folder / "model.safetensors")
    state = stage.state_dict()
    assert {name for name in saved if name not in state} == {"tuned.levels", "tuned.gains", "tuned.modulation"}
    assert all(torch.equal(value, saved[name].float()) for name, value in state.items())
    assert stage.config == config.network and stage.config.sampler == "dpmpp_2m"  # how it samples is the config's

    class Wider(DiffusionColorizer):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.more = nn.Linear(2, 2)

    monkeypatch.setattr(launch, "kind_of", lambda *_: (None, Wider))
    with pytest.raises(CheckpointError, match=r"missing \['more.bias', 'more.weight'\], unknown \[\]"):
        launch.first_stage(config, path, folder)
    Wider.new_parameters = ("more.",)
    fresh: Any = launch.first_stage(config, path, folder)
    again: Any = launch.first_stage(config, path, folder)
    assert torch.equal(fresh.more.weight, again.more.weight)
    assert torch.equal(fresh.encoder.up.weight, stage.encoder.up.weight)
    monkeypatch.setattr(Wider, "finishing_parameters", ())
    with pytest.raises(CheckpointError, match=r"missing \[\], unknown \['tuned.gains', 'tuned.levels'"):
        launch.first_stage(config, path, folder)


def test_the_packaged_weights_are_a_start():
    path = ROOT / "configs/stage1_hints.toml"
    config = Config.read(path)
    stage = launch.first_stage(config, path, launch.given_start("package:stage1"))
    packaged = ColorPipeline.from_pretrained().stages["stage1"].state_dict()
    assert all(torch.equal(value, packaged[name]) for name, value in stage.state_dict().items())
    code = "import sys; from stages.training.launch import given_start as g; g('package:stage1')"
    subprocess.run([sys.executable, "-c", code + "; sys.exit('pipeline' in sys.modules)"], cwd=ROOT, check=True)


def test_a_stage_freezes_its_own_first_blocks(tmp_path):
    """In any training, wherever the weights come from."""
    path = tmp_path / "c.toml"
    text = (TINY / "stage1.toml").read_text().replace("backbone_frozen = 0", "backbone_frozen = 2")
    path.write_text(text.replace("samples = 48", "samples = 8"))
    config = Config.read(path)
    stage = launch.first_stage(config, path, saved_tiny(tmp_path))
    before = {name: value.clone() for name, value in stage.named_parameters()}
    side = config.data.side
    images = list(torch.randint(256, (12, 3, side, side)).byte())
    pictures = Pictures(images, torch.zeros(12, dtype=torch.long), side, "", {}, {})
    train(config, stage, Mixture(("a",), (pictures,), (1.0,), (4,)), tmp_path / "run", toy_report)
    kept = {name for name, value in stage.named_parameters() if torch.equal(value, before[name])}
    first = ("encoder.backbone.stem.", "encoder.backbone.blocks.0.", "encoder.backbone.blocks.1.")
    assert {name for name in kept if "backbone" in name} == {name for name in before if name.startswith(first)}


def test_mistakes_in_the_code_keep_their_traceback(photographs, tmp_path, monkeypatch):
    def broken(*_):
        raise ValueError("a bug")

    monkeypatch.setattr(launch, "load_mixture", broken)
    options = ["--config", str(TINY / "stage1.toml"), "--data", str(photographs), "--runs", str(tmp_path)]
    with pytest.raises(ValueError, match="a bug"):
        launch.main("coarse", "unused", stage1.report, options)


@pytest.mark.parametrize("name, script", [
    ("stage1", stage1), ("stage1_coltran", stage1), ("stage1_pic", stage1), ("stage2", stage2), ("stage3", stage3),
    ("stage3_coltran", stage3),
])  # fmt: skip
def test_tiny_configs_train_each_stage(name, script, photographs, tmp_path, capsys):
    path = tmp_path / f"{name}.toml"
    text = (TINY / path.name).read_text()
    path.write_text(re.sub(r"(samples|report_every|save_every) = \d+", r"\1 = 4", text))
    code = launch.main(FAMILIES[name[:6]], "unused", script.report, [
        "--config", str(path), "--data", str(photographs), "--runs", str(tmp_path / "runs")
    ])  # fmt: skip
    captured = capsys.readouterr()
    assert code == 0 and "final weights:" in captured.out, captured.err
    run = tmp_path / "runs" / path.stem
    start, report = log_of(run, "start")[0], log_of(run)[-1]
    (photos,) = start["sets"]
    assert photos["dropped"] == {"broken": 0, "too small": 0, "gray or one tint": 1}
    assert photos["noted"] == {"profile ignored": 0} and photos["pictures"] == start["pictures"]
    assert start["pictures"] + Config.read(path).data.sets[0].holdout == 12 and start["config"]["name"] == path.stem
    assert len(start["commit"].rstrip("+")) == 40 or start["commit"] == "unknown"
    assert report["loss"] > 0 and report["pictures_per_second"] > 0 and report["pictures"] == 4
    assert any(key.startswith("colorfulness") for key in report) and any(key.startswith("ciede2000") for key in report)
    with Image.open(run / "samples-00000004.png") as grid:
        assert grid.mode == "RGB" and grid.width >= 2 * Config.read(path).data.side
        assert np.asarray(grid).std() > 5
    stage = load_stage(run / "final")
    assert stage.config == Config.read(path).network


def test_runs_become_a_pipeline_that_colors(photographs, tmp_path, capsys):
    """The cascade of the paper, from photographs to a picture: only its configs tell it from the default one."""
    for name, script in (("stage1_coltran", stage1), ("stage2", stage2), ("stage3_coltran", stage3)):
        path = tmp_path / f"{name}.toml"
        path.write_text(re.sub(r"(samples|report_every|save_every) = \d+", r"\1 = 2", (TINY / path.name).read_text()))
        options = ["--config", str(path), "--data", str(photographs), "--runs", str(tmp_path / "runs")]
        assert launch.main(FAMILIES[name[:6]], "unused", script.report, options) == 0, capsys.readouterr().err
    options = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "pipeline"), "--config"]
    assert package.main([*options, str(TINY / "pipeline_coltran.toml")]) == 0
    pipe = ColorPipeline.from_pretrained(tmp_path / "pipeline")
    assert [stage.kind for stage in pipe.stages.values()] == ["coltran"] * 3
    gray = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
    seen: list[str] = []

    def note(_: object, step: int, sigma: float, tensors: dict) -> None:
        seen.append(tensors["stage"])

    picture = pipe(Image.fromarray(gray), generator=0, callback_on_step_end=note).images[0]
    assert picture.mode == "RGB" and picture.size == (60, 40) and seen == ["stage1"] * 64
    luma = np.asarray(picture, dtype=np.float64) @ (0.299, 0.587, 0.114)
    assert np.abs(luma - gray).max() <= 0.501

    own = tmp_path / "own.toml"
    text = (TINY / "pipeline_coltran.toml").read_text()
    wrong: list[tuple[str, int, str]] = [
        ("heads = 4", 1, "another network"), ("colour = 1", 1, "unknown keys"), ("saved = 3", 1, "must name a run"),
        ('saved = "no"', 1, "there is no"),
    ]  # fmt: skip
    another = load_stage(tmp_path / "runs/stage1_coltran/final")
    next(another.parameters()).data += 0.1  # another average of the run
    another.save_pretrained(tmp_path / "runs/stage1_coltran/again")
    for settings, code, message in (('saved = "again", pool = 3', 0, ""), *wrong):
        own.write_text(text.replace('"stage1_coltran"', f'{{ run = "stage1_coltran", {settings} }}'))
        assert package.main([*options, str(own)]) == code and message in capsys.readouterr().err
    changed = ColorPipeline.from_pretrained(tmp_path / "pipeline").stages["stage1"]
    assert (changed.pool, changed.trained) == (3, pipe.stages["stage1"].trained)

    own.write_text((TINY / "pipeline_coltran.toml").read_text() + "sharpness = 0.25\n")
    assert package.main([*options, str(own)]) == 0
    assert (pipe.sharpness, ColorPipeline.from_pretrained(tmp_path / "pipeline").sharpness) == (0, 0.25)
    for value, message in (('"much"', "sharpness must be a number"), ("-1", "sharpness must be a number from 0 to 2")):
        own.write_text((TINY / "pipeline_coltran.toml").read_text() + f"sharpness = {value}\n")
        assert package.main([*options, str(own)]) == 1 and message in capsys.readouterr().err

    given = [f"--{name}={tmp_path / 'runs' / name / 'final'}" for name in ("stage2", "stage3_coltran")]
    misplaced = [given[0].replace("--stage2", "--stage1"), *given[:1], given[1].replace("stage3_coltran=", "stage3=")]
    assert package.main(["--out", str(tmp_path / "wrong"), *misplaced]) == 1
    assert "holds weights of the family color; expected coarse" in capsys.readouterr().err
    assert not (tmp_path / "wrong").exists()

    (tmp_path / "two.toml").write_text('stage1 = "a"\nstage2 = "b"\n')
    assert package.main([*options, str(tmp_path / "two.toml")]) == 1
    assert "must name a run for each of stage1, stage2, stage3" in capsys.readouterr().err
    assert package.main([*options, str(ROOT / "configs" / "pipeline.toml")]) == 1  # not trained
    assert "stage1_regular/tuned" in capsys.readouterr().err


def test_the_documented_tiny_chain_ends_in_a_colored_photo(photographs, tmp_path, monkeypatch, capsys):
    """Command by command as docs/research/training.md has them, but for the data and where runs go."""
    text = (ROOT / "docs/research/training.md").read_text()
    (block,) = [one for one in re.findall(r"```sh\n(.*?)```", text, re.S) if "configs/tiny/pipeline.toml" in one]
    Image.new("L", (60, 40), 128).save(tmp_path / "photo.jpg")
    monkeypatch.setenv("TRICHROME_DATA", str(photographs))
    monkeypatch.chdir(tmp_path)
    mains = {"stage1": stage1, "stage2": stage2, "stage3": stage3}
    for line in block.strip().splitlines():
        program, *rest = shlex.split(line.replace("configs/", f"{ROOT}/configs/"))
        if program == "trichrome":
            assert cli.main(rest) == 0, capsys.readouterr().err
            continue
        name = Path(rest[0]).stem
        if name == "package":
            assert package.main(rest[1:]) == 0, capsys.readouterr().err
        else:
            assert launch.main(FAMILIES[name], name, mains[name].report, rest[1:]) == 0, capsys.readouterr().err
    with Image.open(tmp_path / "colored" / "photo.jpg") as picture:
        assert picture.mode == "RGB" and picture.size == (60, 40)


def test_tuned_steps_are_packaged_with_the_weights_of_their_run(tmp_path, capsys):
    runs, network = tmp_path / "runs", Config.read(TINY / "stage1.toml").network
    run = runs / "mine"
    stage = kind_of("coarse", "diffusion")[1](replace(network, sampler="spectral", steps=2, tuned=2))
    stage.save_pretrained(run / "tuned", dtype=torch.float16)
    (tmp_path / "own.toml").write_text('stage1 = { run = "mine", saved = "tuned" }\nstage2 = "b"\nstage3 = "c"\n')
    for name, saved in (("stage2", "b"), ("stage3", "c")):
        config = Config.read(TINY / f"{name}.toml")
        kind_of(config.family, config.kind)[1](config.network).save_pretrained(runs / saved / "final")
    options = ["--config", str(tmp_path / "own.toml"), "--runs", str(runs), "--out", str(tmp_path / "pipe")]
    assert package.main(options) == 1 and "none of []" in capsys.readouterr().err
    untuned = kind_of("coarse", "diffusion")[1](network)
    untuned.load_state_dict({name: value for name, value in stage.state_dict().items() if "tuned." not in name})
    next(untuned.parameters()).data += 0.1
    untuned.save_pretrained(run / "final")
    assert package.main(options) == 1 and "none of ['final']" in capsys.readouterr().err
    next(untuned.parameters()).data -= 0.1
    untuned.save_pretrained(run / "final-0.05")
    assert package.main(options) == 0, capsys.readouterr().err


def test_without_photographs_the_script_says_what_to_do(tmp_path):
    code, out, error = run_script("--data", tmp_path / "none")
    assert code == 1 and "Traceback" not in error
    assert re.search(r"error: no photographs: .*none is not a folder. Pass --data FOLDER, set TRICHROME_DATA", error)


def test_errors_of_users_are_one_line_and_exit_code_1(photographs, tmp_path, capsys, monkeypatch):
    def fails(message: str, **changes: str) -> None:
        text = (TINY / "stage1.toml").read_text()
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "c.toml").write_text(text)
        given = ["--config", str(tmp_path / "c.toml"), "--data", str(photographs), "--runs", str(tmp_path / "runs")]
        assert launch.main(family, "unused", stage1.report, given + extra) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert re.search(f"^error: .*{message}", line), line

    family: str = "color"
    extra: list[str] = []
    fails("is of the family coarse; expected color")
    family = "coarse"
    fails(r"unknown keys \['epochs'\]", warmup="epochs")
    fails("sampler must be one of .*got 'euler'", **{"steps = 2": 'steps = 2\nsampler = "euler"'})
    fails("lite7", lite0="lite7")
    fails("start_from goes in a circle: c <- c", **{"[training]": '[training]\nstart_from = "c"'})
    with monkeypatch.context() as patched:
        load = launch.load_mixture

        def labeled(*arguments) -> Mixture:
            mixture = load(*arguments)
            return replace(mixture, sets=tuple(replace(one, labels=torch.arange(12)) for one in mixture.sets))

        patched.setattr(launch, "load_mixture", labeled)
        fails("below classes = 3, or -1 where unknown; got 0 to 11", **{"[network]": "[network]\nclasses = 3"})
    fails("less than the 12 usable pictures; got 12", **{"holdout = 4": "holdout = 12"})
    fails("the first set must hold out a picture", **{"holdout = 4": "holdout = 0"})
    fails("data.side must be 64 for this network; got 32", **{"[data]": "[data]\nside = 32"})
    fails("no config .*gone.toml", **{"warmup = 8": 'start_from = "gone"'})
    fails("there is no folder none/of/mine", **{"warmup = 8": 'start_from = "none/of/mine"'})
    fails("there is no folder .*weights/stage9", **{"warmup = 8": 'start_from = "package:stage9"'})
    fails("does not fit its config: missing", **{"warmup = 8": 'start_from = "package:stage1"'})
    fails("would stay random: set start_from .* or backbone_frozen = 0", **{"backbone_frozen = 0": ""})
    fails("no parameter begins with 'encoder.backbone.blocks.16.'", **{
        "backbone_frozen = 0": "backbone_frozen = 99", "warmup = 8": f'start_from = "{saved_tiny(tmp_path)}"'
    })  # fmt: skip
    fails("decay_from and decay need each other; got 8 and 0", **{"warmup = 8": "decay_from = 8"})
    monkeypatch.setattr("stages.nn.efficientnet.importlib.util.find_spec", lambda name: None)
    fails(r"pip install 'trichrome\[train\]'", **{"warmup = 8": "pretrained_backbone = true"})
    extra = ["--expect-world", "2"]
    fails("expected 2 processes that synchronize; got 1")
    family, extra = "color", []
    fails("has no pretrained backbone", **{
        '"coarse"': '"color"', '"diffusion"': '"coltran"', "warmup = 8": "pretrained_backbone = true",
        (TINY / "stage1.toml").read_text().split("[network]")[1].split("[data]")[0]: "\n",
    })  # fmt: skip
    assert not (tmp_path / "runs").exists()


# ---------------------------------------------------------------------- configs


SHIPPED = [*ROOT.glob("configs/**/stage*.toml")]


@pytest.mark.parametrize("path", sorted(SHIPPED), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_configs_that_ship_can_be_read(path):
    config, text = Config.read(path), path.read_text()
    script = config.name.split("_")[0]
    assert FAMILIES[script] == config.family and f"train_scripts/{script}.py" in text
    assert f"{config.name}.toml" in text or config.name == script  # those are the scripts' defaults
    start = config.training.start_from
    if start.startswith("package:"):
        assert read_description(launch.given_start(start))["family"] == config.family
    elif "/" in start:  # a folder that a script made in a run of another config
        assert Config.read(ROOT / "configs" / f"{Path(start).parent.name}.toml").family == config.family
    elif start:
        before = path.with_name(f"{start}.toml")
        before = before if before.is_file() else ROOT / "configs" / before.name
        assert Config.read(before).family == config.family
    assert config.training.batch_size % config.training.accumulation == 0


@pytest.mark.parametrize("old, new, message", [
    ('family = "coarse"', "", "must begin with family and kind"),
    ('"coarse"', "1", "must begin with family and kind"),
    ('"coarse"', '"sharp"', "the family 'sharp' has no kind 'diffusion'; there are coarse: diffusion, coltran, pic;"),
    ('"diffusion"', '"gan"', "the family 'coarse' has no kind 'gan'"),
    ('family = "coarse"', "stage = 1", 'families have names now: family = "coarse" in place of stage'),
    ('family = "coarse"', "stage = 3", 'families have names now: family = "superres" in place of stage'),
    ("encoder_blocks", "vividness = 1.1\nencoder_blocks", "vividness is called chroma_gain now"),
    ("encoder_blocks", "prints = 0.3\nencoder_blocks", "prints is called film now"),
    ("[data]", "[date]", r"unknown keys \['date'\]"),
    ("limit", "limits", r"unknown keys \['limits'\] in DataConfig"),
    ("holdout", "hold_out", r"unknown keys \['hold_out'\] in SetConfig"),
    ("[[data.sets]]", "[data.sets]", "DataConfig.sets must be tuple"),
    ("warmup", "warm_up", r"unknown keys \['warm_up'\] in TrainingConfig"),
    ("encoder_blocks", "tuned = 3\nencoder_blocks", "steps are tuned once training is finished"),
    ("encoder_blocks", "blocks", r"unknown keys \['blocks'\] in DiffusionColorizerConfig"),
    ("samples = 48", "samples = 48.5", "samples must be int; got 48.5"),
    ("samples = 48", 'samples = "48"', "samples must be int; got '48'"),
    ("samples = 48", "pretrained_backbone = 1", "pretrained_backbone must be bool; got 1"),
    ("samples = 48", "freeze = [1]", "freeze must be tuple.*got"),
    ("[16, 16]", "[16]", "encoder_channels must be tuple"),
    ('family = "coarse"', 'family = = "coarse"', "is not TOML"),
])  # fmt: skip
def test_configs_with_mistakes(old, new, message, tmp_path):
    text = (TINY / "stage1.toml").read_text()
    assert old in text
    (tmp_path / "c.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(CheckpointError, match=message):
        Config.read(tmp_path / "c.toml")


def test_whole_numbers_will_do_for_floats(tmp_path):
    (tmp_path / "c.toml").write_text('family = "color"\nkind = "coltran"\n[training]\nlearning_rate = 1\n')
    config = Config.read(tmp_path / "c.toml")
    assert type(config.training.learning_rate) is float and dataclasses.asdict(config)["name"] == "c"


if __name__ == "__main__":
    Mixture.cuts = uncut  # type: ignore[method-assign]
    train_toy(Path(sys.argv[1]), toy_config(noise=0), expect_world=2)
