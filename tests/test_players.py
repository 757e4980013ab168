"""Players in the training loop: turns, frozen parameters, optimizers of their own, exact continuation, two processes.

Most tests train the kind `gan`, some thousand parameters large. Run as a script (by `accelerate launch`), this file is
one process of the two-process test.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_training import (
    flipped,
    in_two_processes,
    log_of,
    timeless,
    toy_pictures,
    toy_report,
    uncut,
)
from torch import Tensor, nn

from stages.checkpoint import CheckpointError, sha256_of
from stages.image_to_image.gan import GAN, GANConfig
from stages.nn.gan.discriminator import DiscriminatorConfig
from stages.nn.gan.spectral import power_iteration
from stages.nn.gan.unet import GANUNetConfig
from stages.stage import Stage
from stages.training.adversarial import Turns, build_optimizers
from stages.training.config import Config, DataConfig, TrainingConfig
from stages.training.data import Mixture
from stages.training.ema import Averaged
from stages.training.loop import train

NETWORK = GANConfig(
    8, unet=GANUNetConfig((8, 8), attention=(2,)),
    discriminator=DiscriminatorConfig(8, (2, 1), scales=3, attention=(1, 1, 0)),
)  # fmt: skip
OPTIMIZERS = ("optimizer-discriminator.pt", "optimizer-generator.pt")


def config_of(network: Any = NETWORK, **options: Any) -> Config:
    """12 steps of 4 pictures; a report every 5 steps, a checkpoint every 3."""
    values: dict[str, Any] = {
        "samples": 48, "batch_size": 4, "warmup": 8, "average_half_life": 8, "report_every": 20, "save_every": 12,
        "learning_rate": 1e-3, "betas": (0.5, 0.999), "precision": "no",
    }  # fmt: skip
    return Config("toy", "image_to_image", "gan", network, DataConfig(8), TrainingConfig(**(values | options)))


def gan(network: GANConfig = NETWORK) -> GAN:
    torch.manual_seed(0)
    return GAN(network)


def train_gan(run: Path, stage: Stage | None = None, **options: Any) -> Path | None:
    more = {key: options.pop(key) for key in ("stop_after", "expect_world") if key in options}
    config = config_of(**options)
    return train(config, stage or gan(config.network), toy_pictures(), run, toy_report, command="test", **more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run without interruption."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert train_gan(run) == run / "final"
    return run


# ---------------------------------------------------------------------- turns


@dataclass(frozen=True)
class ThreeConfig:
    pass


class Three(Stage):
    """Three players with a number each: all of them are in every loss."""

    family, kind, config_class = "image_to_image", "three", ThreeConfig
    players = ("rock", "scissors", "paper")

    def __init__(self) -> None:
        super().__init__(ThreeConfig())
        self.rock, self.scissors, self.paper = (nn.Linear(1, 1, bias=False) for _ in range(3))
        self.turns: list[tuple[str, list[str], list[float]]] = []

    def forward(self, rgb: Tensor, label: Tensor, player: str) -> Tensor:
        numbers = [one.weight for one in (self.rock, self.scissors, self.paper)]
        open_ones = [name.split(".")[0] for name, one in self.named_parameters() if one.requires_grad]
        self.turns.append((player, open_ones, [one.item() for one in numbers]))
        return (torch.stack(numbers).sum() - self.players.index(player)).square()


def test_players_learn_in_their_order_and_alone(tmp_path):
    stage = Three()
    config = config_of(ThreeConfig(), samples=8, accumulation=2, save_every=8)
    train(config, stage, toy_pictures(), tmp_path, toy_report, command="test")
    assert [player for player, _, _ in stage.turns] == ["rock"] * 2 + ["scissors"] * 2 + ["paper"] * 2 + [
        "rock", "rock", "scissors", "scissors", "paper", "paper"
    ]  # fmt: skip
    assert all(open_ones == [player] for player, open_ones, _ in stage.turns)
    numbers = [values for _, _, values in stage.turns[::2]]
    for turn, (before, after) in enumerate(zip(numbers, numbers[1:], strict=False)):
        changed = [place for place in range(3) if before[place] != after[place]]
        assert changed == [turn % 3]
    (report,) = log_of(tmp_path)
    assert {"loss_rock", "loss_scissors", "loss_paper"} <= report.keys() and "loss" not in report
    names = {path.name for path in (tmp_path / "checkpoint-00000002").iterdir()}
    assert names == {"weights.safetensors", "averaged.safetensors", "state.json", "optimizer-rock.pt",
                     "optimizer-scissors.pt", "optimizer-paper.pt"}  # fmt: skip


def test_what_is_frozen_stays_frozen_in_its_players_turn(tmp_path):
    stage = gan()
    before = {name: value.clone() for name, value in stage.named_parameters()}
    train_gan(tmp_path, stage, samples=8, freeze=("generator.down", "discriminator.scales.1"))
    kept = {name for name, value in stage.named_parameters() if torch.equal(value, before[name])}
    frozen = {name for name in before if name.startswith(("generator.down", "discriminator.scales.1"))}
    assert kept == frozen
    for everything in ("generator", "discriminator"):
        with pytest.raises(CheckpointError, match=f"nothing of the {everything} is trained: freeze less"):
            train_gan(tmp_path / everything, freeze=(everything,))


def test_a_parameter_without_a_player_is_a_mistake_in_the_code():
    stage = Three()
    stage.well = nn.Linear(1, 1)
    with pytest.raises(AssertionError, match="well.weight belongs to none of the players"):
        Turns(stage)


@pytest.mark.parametrize("player", ["discriminator", "generator"])
def test_a_step_of_one_player_leaves_the_other_as_it_was(player):
    """To the bit, buffers of spectral normalization included, all scales."""
    stage = gan().train()
    turns, optimizers = Turns(stage), build_optimizers(stage, config_of().training)
    rgb = torch.rand(4, 3, 8, 8)
    for other in stage.players:  # gamma leaves zero
        turns.begin(other)
        stage(rgb, None, other).backward()
        for group in optimizers[other].param_groups:
            group["lr"] = 1e-2
        optimizers[other].step()
        optimizers[other].zero_grad()
    before = {name: value.clone() for name, value in stage.state_dict().items()}
    turns.begin(player)
    stage(rgb, None, player).backward()
    assert all(value.grad is None for name, value in stage.named_parameters() if not name.startswith(player))
    optimizers[player].step()
    changed = {name for name, value in stage.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith(f"{player}.") for name in changed)
    scales = {name.split(".")[2] for name in changed if "scales" in name}
    assert scales == ({"0", "1", "2"} if player == "discriminator" else set())


# ---------------------------------------------------------------------- rates


def test_each_player_has_a_rate_of_its_own(tmp_path):
    train_gan(tmp_path, discriminator_learning_rate=4e-3, schedule="constant")
    for name, rate in zip(OPTIMIZERS, (4e-3, 1e-3), strict=True):
        groups = torch.load(tmp_path / "checkpoint-00000012" / name)["param_groups"]
        assert {group["lr"] for group in groups} == {rate} and {group["betas"] for group in groups} == {(0.5, 0.999)}


@pytest.mark.parametrize("options, message", [
    ({"betas": (0.5, 1.0)}, r"betas must be at least 0 and less than 1; got \(0.5, 1.0\)"),
    ({"optimizer": "rmsprop"}, "betas are of adamw; leave them out with rmsprop"),
])  # fmt: skip
def test_settings_that_make_no_sense(options, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        train_gan(tmp_path, **options)


def test_a_rate_for_a_player_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointError, match="discriminator_learning_rate must not be negative; got -0.1"):
        train_gan(tmp_path, discriminator_learning_rate=-0.1)
    with pytest.raises(CheckpointError, match="kind 'three' has no discriminator: leave out"):
        config = config_of(ThreeConfig(), discriminator_learning_rate=1e-3)
        train(config, Three(), toy_pictures(), tmp_path, toy_report, command="test")


# ---------------------------------------------------------------------- continuing, stopping, averages


def test_stopped_and_continued_is_the_same_to_the_bit(whole, tmp_path):
    for stop in (4, 3, 1):
        assert train_gan(tmp_path, stop_after=stop) is None
        torch.manual_seed(stop)
    assert train_gan(tmp_path) == tmp_path / "final"
    for name in ("final/model.safetensors", "checkpoint-00000012/weights.safetensors"):
        assert sha256_of(tmp_path / name) == sha256_of(whole / name), name
    for name in OPTIMIZERS:
        states = [torch.load(run / "checkpoint-00000012" / name) for run in (tmp_path, whole)]
        torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
        assert states[0]["state"][0]["step"] == 12
    reports = {entry["step"]: entry for entry in timeless(log_of(tmp_path))}
    assert list(reports.values()) == timeless(log_of(whole))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_damaged_optimizer_is_refused(name, tmp_path):
    train_gan(tmp_path, stop_after=4)
    flipped(tmp_path / "checkpoint-00000003" / name)
    with pytest.raises(CheckpointError, match=f"{name} is damaged"):
        train_gan(tmp_path)


class Exploding(GAN):
    """The loss of one player is not finite from its fifth step on."""

    worst, calls = "generator", 0

    def forward(self, rgb: Tensor, label: Tensor | None = None, player: str = "generator") -> Tensor:
        loss = super().forward(rgb, label, player)
        self.calls += player == self.worst
        return loss * math.nan if player == self.worst and self.calls > 4 else loss


@pytest.mark.parametrize("player", ["discriminator", "generator"])
def test_a_loss_that_is_not_finite_names_its_player(player, tmp_path):
    stage = Exploding(NETWORK)
    stage.worst = player
    with pytest.raises(FloatingPointError, match=f"at step 4 the loss of the {player} is nan .*checkpoint-00000003"):
        train_gan(tmp_path, stage)
    assert not (tmp_path / "checkpoint-00000006").exists()


def test_averaged_weights_are_spectrally_normalized_too():
    """The average of weights that go to and fro has singular vectors that none of them has."""
    stage = gan().train()
    averaged = Averaged(stage, lambda batch, seen: 0.98)
    weights = [value for name, value in stage.named_parameters() if name.endswith("original")]
    places = [[torch.randn_like(one) for one in weights] for _ in range(2)]
    for step in range(200):
        for weight, place in zip(weights, places[step % 2], strict=True):
            weight.data.copy_(place)
        power_iteration(stage)
        averaged.update(stage, 1, step + 1)
    convolutions = [one for one in averaged.stage.modules() if isinstance(one, nn.Conv2d)]
    largest = torch.stack([torch.linalg.matrix_norm(one.weight.flatten(1), 2) for one in convolutions])
    assert len(largest) > 20 and (largest - 1).abs().max() < 0.01


# ---------------------------------------------------------------------- several processes


def test_two_processes_train_as_one_does(tmp_path, monkeypatch):
    """Two shares of a batch are the batch: the same gradients, so the same weights and losses."""
    done = in_two_processes(__file__, tmp_path / "two", ACCELERATE_USE_CPU="true")
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(Mixture, "cuts", uncut)
    train_gan(tmp_path / "one", optimizer="rmsprop", betas=(0.9, 0.99))
    first, second = log_of(tmp_path / "two", "end")[0]["digest_by_process"]
    assert first == second, "the processes have different weights"
    one, two = (load_file(tmp_path / name / "checkpoint-00000012/weights.safetensors") for name in ("one", "two"))
    start = gan().state_dict()
    for name in one:
        moved = (one[name] - start[name]).abs().max()
        assert (one[name] - two[name]).abs().max() < 1e-3 * moved + 1e-5, name
    for a, b in zip(log_of(tmp_path / "one"), log_of(tmp_path / "two"), strict=True):
        for player in ("discriminator", "generator"):
            assert a[f"loss_{player}"] == pytest.approx(b[f"loss_{player}"], rel=1e-4)


def test_the_hybrids_order_gives_everyone_pictures_of_its_own():
    network = replace(NETWORK, faithful=True)
    stage, plain = gan(network).eval(), gan(NETWORK).eval()
    rgb = torch.rand(8, 3, 8, 8)
    for place in range(4):  # whose loss knows of these two pictures?
        other = rgb.clone()
        other[2 * place : 2 * place + 2] = torch.rand(2, 3, 8, 8)
        changed = [bool(stage(rgb, None, one) != stage(other, None, one)) for one in stage.players]
        assert changed == ([True, False] if place < 3 else [False, True])
        assert all(bool(plain(rgb, None, one) != plain(other, None, one)) for one in plain.players)
    same = rgb[:2].repeat(4, 1, 1, 1)
    torch.testing.assert_close(stage(same, None, "discriminator"), 2 * plain(rgb[:2], None, "discriminator"))
    torch.testing.assert_close(stage(same, None, "generator"), plain(rgb[:2], None, "generator"))
    with pytest.raises(CheckpointError, match=r"multiple of scales \+ 1 = 4 pictures; got 3"):
        stage(rgb[:3], None, "generator")


if __name__ == "__main__":
    Mixture.cuts = uncut  # type: ignore[method-assign]
    train_gan(Path(sys.argv[1]), optimizer="rmsprop", betas=(0.9, 0.99), expect_world=2)
