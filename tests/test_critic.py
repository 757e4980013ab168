"""A critic of stage 1's draws: what it learns from, that it learns it, and that it ranks."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from standins import standin_pipeline
from tiny_stages import picture

from pipeline import cli
from pipeline.color_pipeline import ColorPipeline
from stages.color.spaces import chroma_from_rgb, coarse_from_rgb, gray_from_rgb, merge, rgb_from_coarse
from stages.faces import Critic, Scores
from stages.nn.gan.discriminator import DiscriminatorConfig
from stages.registry import FACES, kind_of, kinds_of, load_stage
from stages.stage1_coarse.critic import PatchCritic, PatchCriticConfig
from stages.training import launch
from stages.training.config import Config
from train_scripts import critic as script

ROOT = Path(__file__).resolve().parent.parent
SMALL = PatchCriticConfig(DiscriminatorConfig(8, (2, 2, 1), scales=2, attention=(1, 0)))


def critic() -> PatchCritic:
    torch.manual_seed(0)
    return PatchCritic(SMALL)


def test_the_family_has_a_face_of_its_own():
    assert kinds_of("critic") == ["patches"] and kind_of("critic", "patches") == (PatchCriticConfig, PatchCritic)
    assert FACES["critic"] is Critic and issubclass(Critic, Scores)


def test_the_loss_is_the_cross_entropy_of_every_patch():
    stage, rgb = critic().eval(), picture(64, 4)
    label = torch.tensor([1, 0, 0, 1])
    gray, coarse = gray_from_rgb(rgb), coarse_from_rgb(rgb)
    seen = torch.cat([2 * gray - 1, 2 * chroma_from_rgb(rgb_from_coarse(coarse))], 1)
    logits = [one.logits for one in stage.discriminator(seen)]
    expected = torch.zeros(())
    for one in logits:
        chance = torch.where(label.view(-1, 1, 1, 1) == 1, one.sigmoid(), 1 - one.sigmoid())
        expected = expected - chance.log().mean() / 2
    torch.testing.assert_close(stage(rgb, label), expected)
    torch.testing.assert_close(stage.score(gray, coarse), (logits[0].mean((1, 2, 3)) + logits[1].mean((1, 2, 3))) / 2)
    with pytest.raises(ValueError, match="labels must be 1 for photographs and 0 for draws"):
        stage(rgb, torch.tensor([1, -1, 0, 0]))
    with pytest.raises(ValueError, match=r"rgb must be \(B, 3, 64, 64\)"):
        stage(picture(32), label)


def write_set(folder: Path) -> None:
    """Sixty pairs: a picture that is bluer where it is brighter, and one of the same gray the other way round."""
    rows = []
    for seed in range(60):
        gray = gray_from_rgb(0.3 + 0.4 * picture(64, 1, seed))
        chroma = 0.3 * torch.cat([gray - 0.5, 0.5 - gray], 1)
        for label, sign in ((1, 1), (0, -1)):
            file = io.BytesIO()
            pixels = (merge(gray, sign * chroma)[0].permute(1, 2, 0) * 255).round().byte().numpy()
            Image.fromarray(pixels).save(file, "PNG")
            rows.append({"image": {"bytes": file.getvalue(), "path": None}, "label": label})
    (folder / "draws64").mkdir(parents=True)
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, folder / "draws64/train-00000-of-00001.parquet")


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> Path:
    """The final weights of a critic that has learned which pictures are bluer where brighter."""
    folder = tmp_path_factory.mktemp("critic")
    write_set(folder / "data")
    text = (ROOT / "configs/tiny/critic.toml").read_text()
    for old, new in (
        ("limit = 40", "limit = 0"), ("holdout = 8", "holdout = 20"), ("samples = 48", "samples = 480"),
        ("batch_size = 4", "batch_size = 8\nlearning_rate = 3e-3"), ("report_every = 24", "report_every = 480"),
        ("save_every = 16", "save_every = 480"), ("average_half_life = 8", "average_half_life = 40"),
    ):  # fmt: skip
        assert old in text
        text = text.replace(old, new)
    (folder / "critic.toml").write_text(text)
    options = ["--config", str(folder / "critic.toml"), "--data", str(folder / "data"), "--runs", str(folder / "runs")]
    assert launch.main("critic", "critic", script.report, options) == 0
    return folder / "runs/critic/final"


def test_it_learns_to_tell_pictures_from_draws(learned):
    log = [json.loads(line) for line in (learned.parent / "log.jsonl").read_text().splitlines()]
    assert log[1]["pairs_right"] > 0.95 and log[1]["pairs_right_same_gray"] > 0.95 and log[1]["loss"] > 0
    stage = load_stage(learned)
    assert isinstance(stage, PatchCritic)
    gray = gray_from_rgb(0.3 + 0.4 * picture(64, 8, 99))
    chroma = 0.3 * torch.cat([gray - 0.5, 0.5 - gray], 1)
    better, worse = (stage.score(gray, coarse_from_rgb(merge(gray, sign * chroma))) for sign in (1, -1))
    assert bool((better > worse).all())


def test_pictures_without_labels_are_refused(tmp_path, capsys):
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    text = (ROOT / "configs/tiny/critic.toml").read_text().replace('name = "draws64"', "")
    text = text.replace("holdout = 8", "holdout = 4")
    (tmp_path / "critic.toml").write_text(text)
    options = ["--config", str(tmp_path / "critic.toml"), "--data", str(tmp_path), "--runs", str(tmp_path / "runs")]
    assert launch.main("critic", "critic", script.report, options) == 1
    assert "the family critic learns from labels, and 12 of 12 pictures have none" in capsys.readouterr().err


def test_a_report_of_photographs_alone_has_no_pairs():
    values, _ = script.report(critic().eval(), picture(64, 4), torch.ones(4, dtype=torch.int64))
    assert values == {}


def test_it_ranks_in_the_call_and_in_the_command(learned, tmp_path, monkeypatch, capsys):
    judge = load_stage(learned)
    assert isinstance(judge, PatchCritic)
    pipe = standin_pipeline()
    gray = np.random.default_rng(0).integers(0, 256, (50, 70), dtype=np.uint8)
    info = pipe(Image.fromarray(gray), num_samples=4, generator=0, rank_with=judge).info
    scores = [one.score for one in info if one.score is not None]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == 4
    Image.fromarray(gray).save(tmp_path / "a.png")
    monkeypatch.setattr(ColorPipeline, "from_pretrained", lambda *_, **__: pipe)
    options = ["--rank-with", str(learned), "--samples", "2", "--device", "cpu"]
    assert cli.main(["colorize", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), *options]) == 0
    capsys.readouterr()
    best = np.asarray(Image.open(tmp_path / "out/a-1.png"))
    again = pipe(Image.open(tmp_path / "a.png"), num_samples=2, generator=0, rank_with=judge).images[0]
    assert np.array_equal(best, np.asarray(again))


@pytest.mark.parametrize("name", ["critic", "tiny/critic"])
def test_configs_that_ship_can_be_read(name):
    path = ROOT / f"configs/{name}.toml"
    config = Config.read(path)
    assert (config.family, config.data.side) == ("critic", 64)
    with torch.device("meta"):
        kind_of(config.family, config.kind)[1](config.network)
    assert f"configs/{name}.toml" in path.read_text() or name == "critic"
