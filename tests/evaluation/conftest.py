"""Tiny random photographs, a random feature network and stand-in stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch
import torch.nn.functional as F
from helpers import PHOTOS, encoded
from safetensors.torch import save_file
from standin_stages import KINDS, StandInColorizer, StandInSuperResolver, StandInUpsampler

import pipeline.folder
from pipeline import ColorPipeline
from stages import registry
from stages.evaluation import photos as photos_module
from stages.evaluation.features import SqueezeNetFeatures
from stages.evaluation.photos import PhotoSet
from train_scripts import weights as weights_module


def write_set(folder: Path, name: str, split: str) -> None:
    (folder / name).mkdir(parents=True)
    rows: list[dict[str, Any]] = [
        {"image": {"bytes": encoded(name, seed), "path": None}} for seed in range(PHOTOS[name])
    ]
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, folder / name / f"{split}-00000-of-00001.parquet")


def write_features(folder: Path) -> None:
    (folder / "features").mkdir()
    torch.manual_seed(0)
    save_file(SqueezeNetFeatures().state_dict(), folder / "features" / "squeezenet1_1.safetensors")


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A data folder: three sets of a few pictures, and a feature network with random weights."""
    folder = tmp_path_factory.mktemp("data")
    for name in PHOTOS:
        write_set(folder, name, "validation")
    write_features(folder)
    return folder


@pytest.fixture
def held_out(tmp_path, monkeypatch):
    """A data folder with training splits, the last four of the six pictures of photos64 held out."""
    folder = tmp_path / "with-train"
    for name in ("photos64", "photos128"):
        write_set(folder, name, "train")
    write_features(folder)
    monkeypatch.setitem(photos_module.SETS, "photos64", PhotoSet(64, 4))
    monkeypatch.setitem(photos_module.SETS, "photos128", PhotoSet(128, 1))
    return folder


@pytest.fixture(autouse=True)
def light_features(monkeypatch):
    """512 random mixtures of an 8x8 reduction: the scripts are tested here, the network in test_metrics."""
    mixture = torch.randn(192, 512, generator=torch.Generator().manual_seed(0))

    def forward(self, pictures):
        return F.adaptive_avg_pool2d(pictures.float(), 8).flatten(1) @ mixture

    monkeypatch.setattr(SqueezeNetFeatures, "forward", forward)


@pytest.fixture
def standins(monkeypatch):
    """The stand-ins in the table of kinds, with nothing seen yet."""
    for kind in KINDS:
        monkeypatch.setitem(registry._KINDS, (kind.family, kind.kind), (kind.config_class, kind))
        kind.seeds.clear()
    StandInColorizer.views.clear()


@pytest.fixture
def weights(standins, tmp_path, monkeypatch):
    """A saved pipeline of stand-ins in the place of the packaged one."""
    folder = tmp_path / "weights"
    ColorPipeline(StandInColorizer(), StandInUpsampler(), StandInSuperResolver(), 0.25).save_pretrained(folder)
    monkeypatch.setattr(weights_module, "DEFAULT_WEIGHTS", folder)
    monkeypatch.setattr(pipeline.folder, "DEFAULT_WEIGHTS", folder)
    return folder
