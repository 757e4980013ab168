"""train_scripts/draw_candidates.py and train_scripts/evaluate_critic.py."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import torch
from helpers import scores
from standin_stages import StandIn, tints
from torch import Tensor

from stages import registry
from stages.color.spaces import coarse_from_rgb, gray_from_rgb, levels_from_coarse, merge
from stages.evaluation import pixel
from stages.evaluation.coarse import bin_centers, streams
from stages.evaluation.photos import load_photos
from stages.evaluation.pixel import picture_from_rgb
from stages.faces import Critic
from stages.stage1_coarse.candidates import spread_order
from stages.training.data import load_pictures
from train_scripts import draw_candidates, evaluate_critic


@dataclass(frozen=True)
class RedCriticConfig:
    pass


class RedCritic(StandIn, Critic):
    """The redder the better."""

    kind, config_class = "red", RedCriticConfig
    family = "critic"

    def __init__(self, config: RedCriticConfig | None = None):
        Critic.__init__(self, config or RedCriticConfig())
        self.register_buffer("mark", torch.ones(1))
        self.trained = {"ema": True}

    @property
    def sampling(self) -> None:  # type: ignore[override]
        return None

    def score(self, gray64: Tensor, coarse64: Tensor) -> Tensor:
        return levels_from_coarse(coarse64)[:, 0].float().mean((1, 2))


@pytest.fixture
def red(tmp_path, monkeypatch):
    monkeypatch.setitem(registry._KINDS, ("critic", "red"), (RedCriticConfig, RedCritic))
    RedCritic().save_pretrained(tmp_path / "red")
    return tmp_path / "red"


def test_draws_become_a_set_with_labels(held_out, weights, tmp_path):
    out = tmp_path / "draws"
    options = ["--data", str(held_out), "--set", "photos64", "--out", str(out), "--photos", "2", "--draws", "2",
               "--seed", "5"]  # fmt: skip
    assert draw_candidates.main(options) == 0
    results = json.loads((out / "results.json").read_text())
    assert results["photos"]["count"] == 2 and results["photos"]["name"] == "photos64/train"
    assert (results["draws"], results["pictures"], results["seed"]) == (2, 6, 5) and "stage1" in results["weights"]
    drawn = load_pictures(out, "draws64", "train", 64)
    assert drawn.labels.tolist() == [1, 0, 0, 1, 0, 0]
    photos = load_photos(held_out, "photos64", "train").first(2)
    gray, pixels = gray_from_rgb(photos.rgb()), torch.stack(list(drawn.images)).unflatten(0, (2, 3))
    assert isinstance(photos.pictures, Tensor) and torch.equal(pixels[:, 0], photos.pictures)
    expected = merge(gray[:, None], tints(streams(photos.noise(5), 2), 4).unflatten(0, (2, 2)))
    assert torch.equal(pixels[:, 1:], picture_from_rgb(expected))


def test_what_is_held_out_is_never_drawn(held_out, weights, tmp_path, capsys):
    options = ["--data", str(held_out), "--set", "photos64", "--out", str(tmp_path / "draws")]
    assert draw_candidates.main([*options, "--photos", "3"]) == 2
    assert "the last 4 are held out of training: ask for at most 2 with --photos; got 3" in capsys.readouterr().err
    assert not (tmp_path / "draws").exists()
    assert draw_candidates.main(options) == 0
    assert len(load_pictures(tmp_path / "draws", "draws64", "train", 64)) == 4


def test_rows_again_by_hand(data, weights, red, tmp_path):
    asked = ("--set", "photos64", "--weights", str(red), "--pools", "3", "6", "--seed", "5")
    results = scores(evaluate_critic, data, tmp_path / "out", *asked)
    rows = {row["name"]: row for row in results["rows"]}
    assert list(rows)[2:] == ["one plain sample", "medoid of 3", "critic's best of 3", "medoid of 6",
                              "critic's best of 6", "critic's worst of 6"]  # fmt: skip
    photos = load_photos(data, "photos64", "validation")
    gray64, count = gray_from_rgb(photos.rgb()), len(photos)
    drawn = tints(streams(photos.noise(5), 6), 6 * count).unflatten(0, (count, 6))
    coarse64 = coarse_from_rgb(merge(gray64[:, None], drawn))
    red_level = levels_from_coarse(coarse64)[:, :, 0].float().mean((-2, -1))
    chosen = {
        "one plain sample": torch.zeros(count, dtype=torch.int64),
        "medoid of 3": spread_order(gray64, coarse64, 3)[:, 0],
        "critic's best of 3": red_level[:, :3].argmax(1), "critic's best of 6": red_level.argmax(1),
        "critic's worst of 6": red_level.argmin(1),
    }  # fmt: skip
    error = {}
    for name, number in chosen.items():
        picture = picture_from_rgb(bin_centers(gray64, coarse64[torch.arange(count), number][:, None]))[:, 0]
        error[name] = pixel.ciede2000(picture, photos.pictures)
        assert rows[name]["ciede2000"] == pytest.approx(float(error[name].mean())), name
    apart = error["critic's best of 3"] - error["medoid of 3"]
    stored = rows["critic's best of 3"]["ciede2000_minus_medoid"]
    assert stored["value"] == pytest.approx(float(apart.mean()))
    low, high = stored["interval_95"]
    assert high - low == pytest.approx(2 * 1.96 * float(apart.std()) / count**0.5)
    assert "squeezenet_kid_minus_medoid" in rows["critic's best of 6"] and len(results["notes"]) == 6
    assert set(results["weights"]) == {"stage1", "critic"}


def test_what_can_not_score_is_refused(data, weights, tmp_path, capsys):
    options = ["--data", str(data), "--out", str(tmp_path / "out"), "--weights", str(weights / "stage2")]
    assert evaluate_critic.main(options) == 2
    assert "of the family color, which can not score draws" in capsys.readouterr().err
