"""train_scripts/choose_guidance.py and guided draws."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from helpers import by_name, scores, tiny

from stages.evaluation.coarse import view_of
from stages.evaluation.guided_draws import guided_draws
from stages.evaluation.photos import load_photos
from stages.faces import Draws
from stages.options import SampleOptions
from stages.stage1_coarse.diffusion import DiffusionColorizer
from train_scripts import choose_guidance


def lively(seed: int, **changes: object) -> DiffusionColorizer:
    torch.manual_seed(seed)
    stage = tiny("stage1", **changes)
    with torch.no_grad():
        for one in stage.parameters():
            one.add_(0.1 * torch.randn_like(one))
    return stage


def chroma(draws: Draws) -> torch.Tensor:
    assert draws.chroma64 is not None
    return draws.chroma64


def streams(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def test_what_is_no_stronger_or_not_led_draws_as_before(data):
    """Weight 1, or as weak a twin, gives the sampler's own draws; in its own terms a twin with another mean too."""
    stage = lively(0, sampler="dpmpp_2m")
    encoding = stage.encode(view_of(load_photos(data, "photos64", "validation"), range(2)))
    expected = stage.sample(encoding, 2, SampleOptions(steps=5), streams(4)).chroma64
    assert expected is not None
    for weight, weaker in ((1.0, None), (1.0, (lively(1), encoding)), (3.0, (stage, encoding))):
        draws = guided_draws(stage, encoding, 2, 5, weight, weaker, generator=streams(4))
        assert torch.allclose(chroma(draws), expected, atol=1e-4), weight
    aside = dataclasses.replace(encoding, hinted=encoding.hinted + 0.3)
    draws = guided_draws(stage, encoding, 2, 5, 2.0, (stage, aside), generator=streams(4))
    assert not torch.allclose(chroma(draws), expected, atol=1e-2), "it believes another mean"


def test_guidance_leads_away_from_the_weaker(data):
    """Denoisers without a network pull to their means: what is led away from one ends on the other side."""
    stage = tiny("stage1", sampler="dpmpp_2m")
    torch.nn.init.zeros_(stage.network.write.weight)
    encoding = stage.encode(view_of(load_photos(data, "photos64", "validation"), range(1)))
    aside = dataclasses.replace(encoding, hinted=encoding.hinted + 0.05)
    plain, led = (chroma(guided_draws(stage, encoding, 1, 8, weight, (stage, aside), generator=streams(1)))
                  for weight in (1.0, 2.0))  # fmt: skip
    unit = stage.config.temperature * stage.config.chroma_gain * stage.config.chroma_std
    assert -0.06 * unit < (led - plain).mean() < -0.01 * unit, "away from +0.05"


def test_rows(data, tmp_path):
    lively(0, condition_dropout=0.1).save_pretrained(tmp_path / "stage1")
    lively(1).save_pretrained(tmp_path / "other")
    asked = ["--set", "photos128", "--split", "validation", "--weights", str(tmp_path / "stage1"), "--steps", "3",
             "--pool", "2", "--guidance", "2"]  # fmt: skip
    first = scores(choose_guidance, data, tmp_path / "out", *asked)
    rows = by_name(first)
    assert list(rows)[2:] == ["guidance 1, one sample", "guidance 1, central of 2", "guidance 2, one sample",
                              "guidance 2, central of 2"]  # fmt: skip
    plain, led = (rows[f"guidance {weight}, one sample"] for weight in (1, 2))
    less = led["ciede2000_minus_no_guidance"]["value"]
    assert less == pytest.approx(led["ciede2000"] - plain["ciede2000"])
    second = scores(choose_guidance, data, tmp_path / "out", *asked, "--weaker", str(tmp_path / "other"))
    assert by_name(second)["guidance 1, one sample"]["ciede2000"] == plain["ciede2000"]
    assert by_name(second)["guidance 2, one sample"]["ciede2000"] != led["ciede2000"]
    assert second["weights"]["weaker"]["sha256"] != second["weights"]["stage1"]["sha256"]


def test_weights_that_always_saw_their_condition_need_a_weaker(data, tmp_path, capsys):
    lively(0).save_pretrained(tmp_path / "stage1")
    options = ["--data", str(data), "--set", "photos128", "--split", "validation", "--weights"]
    assert choose_guidance.main([*options, str(tmp_path / "stage1")]) == 2
    assert "name a --weaker" in capsys.readouterr().err
