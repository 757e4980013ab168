"""Saved stages: bit-exact round trips for every kind, and a clear error for everything that does not fit."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_stages import KINDS, SIDES, SMALL, drawn, encoded, generators, picture
from tiny_stages import small as tiny

from stages import stage
from stages.checkpoint import CheckpointError, config_from_dict, local_folder, replaced_folder, sha256_of
from stages.color.spaces import gray_from_rgb
from stages.registry import load_stage
from stages.stage2_color.coltran import ColTranColorUpsampler
from stages.stage3_superres.diffusion import DiffusionSuperResolver


def small(family: str, kind: str, **changes: object) -> Any:
    """A small stage of the kind, every weight of it random (many begin as zeros, which would hide a loss)."""
    stage = tiny(family, kind, **changes).train()
    for parameter in stage.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return stage


def bits(stage) -> dict[str, bytes]:
    """Name -> shape, type and bytes of all that is stored."""
    return {
        name: f"{tuple(value.shape)} {value.dtype} ".encode() + value.contiguous().flatten().numpy().tobytes()
        for name, value in stage.state_dict().items()
    }


@pytest.fixture
def saved(tmp_path) -> Path:
    small("color", "coltran").save_pretrained(tmp_path / "stage")
    return tmp_path / "stage"


@pytest.mark.parametrize("family, kind", KINDS)
def test_round_trip_is_bit_exact(family, kind, tmp_path):
    stage, folder = small(family, kind), tmp_path / "deep" / "stage"
    stage.save_pretrained(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    for loaded in (type(stage).from_pretrained(folder), load_stage(folder), load_stage(str(folder))):
        assert type(loaded) is type(stage) and loaded.config == stage.config
        assert not any(module.training for module in loaded.modules())
        assert bits(loaded) == bits(stage)
    loaded.save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert sha256_of(tmp_path / "again" / name) == sha256_of(folder / name)


@pytest.mark.parametrize("family, kind", KINDS)
def test_half_precision_storage(family, kind, tmp_path):
    stage = small(family, kind)
    stage.save_pretrained(tmp_path / "half", dtype=torch.float16)
    assert all(value.dtype == torch.float16 for value in load_file(tmp_path / "half/model.safetensors").values())
    loaded = load_stage(tmp_path / "half")
    for name, value in stage.state_dict().items():
        assert loaded.state_dict()[name].dtype == torch.float32
        assert torch.equal(loaded.state_dict()[name], value.half().float())
    loaded.save_pretrained(tmp_path / "again", dtype=torch.float16)
    assert sha256_of(tmp_path / "again/model.safetensors") == sha256_of(tmp_path / "half/model.safetensors")


def test_half_precision_refuses_values_it_cannot_hold(tmp_path):
    stage = small("color", "coltran")
    with torch.no_grad():
        stage.write.bias[3] = 1e6
    with pytest.raises(CheckpointError, match=r"write.bias.*1e\+06.*float16"):
        stage.save_pretrained(tmp_path / "half", dtype=torch.float16)
    assert not (tmp_path / "half").exists()


def _weights(folder: Path, change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def _describe(folder: Path, **changes: Any) -> None:
    description = json.loads((folder / "config.json").read_text()) | changes
    description = {key: value for key, value in description.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(description))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


CONFIG = dataclasses.asdict(SMALL["color", "coltran"])
DAMAGES = {
    "missing name": (lambda f: _weights(f, lambda w: w.pop("write.bias")), r"missing \['write.bias'\]"),
    "extra name": (lambda f: _weights(f, lambda w: w.update(more=torch.ones(1))), r"unknown \['more'\]"),
    "shape": (lambda f: _weights(f, lambda w: w.update({"write.bias": torch.ones(255)})), r"\(256,\); got \(255,\)"),
    "other size": (lambda f: _describe(f, config=CONFIG | {"channels": 32}), "must be"),
    "truncated": (lambda f: _truncate(f / "model.safetensors"), "cannot be read as safetensors"),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "cannot be read as safetensors"),
    "a pickle": (lambda f: torch.save({"x": torch.ones(1)}, f / "model.safetensors"), "cannot be read as safetensors"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json is missing"),
    "not JSON": (lambda f: _truncate(f / "config.json"), "not JSON"),
    "a list": (lambda f: (f / "config.json").write_text("[1]"), "must be an object"),
    "newer format": (lambda f: _describe(f, format=3), "format 1 or 2; got 3. Update trichrome"),
    "no family": (lambda f: _describe(f, family=None), "family must be str; got None"),
    "kind a list": (lambda f: _describe(f, kind=["coltran"]), "kind must be str"),
    "family a number": (lambda f: _describe(f, family=2), "family must be str; got 2"),
    "number no family": (lambda f: _describe(f, format=1, family=None, stage=4), "family must be str; got None"),
    "unknown family": (lambda f: _describe(f, family="paint"), "paint"),
    "unknown kind": (lambda f: _describe(f, kind="gan"), "gan"),
    "unknown key": (lambda f: _describe(f, config=CONFIG | {"depth": 3}), r"unknown keys \['depth'\]"),
    "wrong type": (lambda f: _describe(f, config=CONFIG | {"layers": "1"}), "layers must be int; got '1'"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_anything_that_does_not_fit_is_an_error(damage, saved):
    spoil, message = DAMAGES[damage]
    spoil(saved)
    for load in (ColTranColorUpsampler.from_pretrained, load_stage):
        with pytest.raises(CheckpointError, match=message):
            load(saved)


def test_another_kind_is_refused(saved):
    said = "must hold kind .diffusion. of the family superres; got kind .coltran. of the family color"
    with pytest.raises(CheckpointError, match=said):
        DiffusionSuperResolver.from_pretrained(saved)


# ---------------------------------------------------------------------- formats


def test_format_2_is_what_is_written(saved):
    description = json.loads((saved / "config.json").read_text())
    assert description == {"format": 2, "family": "color", "kind": "coltran", "config": CONFIG}


OLD_NAMES = {
    "chroma_gain": "vividness", "film": "prints", "chroma_std": "chroma_spread", "residual_std": "residual_spread"
}  # fmt: skip


def as_format_1(folder: Path, renamed: dict[str, str] | None = None) -> None:
    """Rewrites config.json as format 1 had it: a number for the family, and old names of keys (new: old)."""
    new = json.loads((folder / "config.json").read_text())
    old = {
        "format": 1, "stage": {"coarse": 1, "color": 2, "superres": 3}[new["family"]], "kind": new["kind"],
        "config": {(renamed or {}).get(key, key): value for key, value in new["config"].items()},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(old))


@pytest.mark.parametrize("family, kind", [
    ("coarse", "diffusion"), ("color", "coltran"), ("superres", "diffusion"),
])  # fmt: skip
def test_format_1_still_loads_and_gives_the_same_picture(family, kind, tmp_path):
    changes = {"chroma_gain": 1.32, "film": 0.2} if family == "coarse" else {}
    stage, rgb = small(family, kind, **changes).eval(), picture(SIDES[family])
    stage.save_pretrained(tmp_path / "old")
    as_format_1(tmp_path / "old", OLD_NAMES)
    text = (tmp_path / "old/config.json").read_text()
    assert '"family"' not in text and ("vividness" in text and "prints" in text) == (family == "coarse")
    loaded: Any
    for loaded in (type(stage).from_pretrained(tmp_path / "old"), load_stage(tmp_path / "old")):
        assert loaded.config == stage.config
        assert torch.equal(drawn(loaded, rgb, generators(1, 2)), drawn(stage, rgb, generators(1, 2)))
    loaded.save_pretrained(tmp_path / "new")
    stage.save_pretrained(tmp_path / "same")
    assert (tmp_path / "new/config.json").read_bytes() == (tmp_path / "same/config.json").read_bytes()
    if family == "coarse":
        gray = gray_from_rgb(rgb)
        assert torch.equal(loaded.preview(encoded(loaded, gray)), stage.preview(encoded(stage, gray)))


@pytest.mark.parametrize("family, chroma_std, more", [
    ("coarse", 0.07, {}), ("superres", 0.07, {"residual_std": 0.02})
])  # fmt: skip
def test_old_names_of_keys_load_in_format_2_too(family, chroma_std, more, tmp_path):
    stage = small(family, "diffusion", chroma_std=chroma_std, **more)
    stage.save_pretrained(tmp_path / "old")
    config = tmp_path / "old/config.json"
    config.write_text(re.sub("(chroma|residual)_std", r"\1_spread", config.read_text()))
    assert "chroma_spread" in config.read_text() and load_stage(tmp_path / "old").config == stage.config


def test_a_key_of_format_1_that_never_was_is_refused(saved):
    as_format_1(saved, {"channels": "width"})
    with pytest.raises(CheckpointError, match=r"unknown keys \['width'\]"):
        load_stage(saved)


# ---------------------------------------------------------------------- sources


def test_a_path_that_does_not_exist(tmp_path, saved):
    for missing in (tmp_path / "none", str(tmp_path / "none"), "none"):
        with pytest.raises(CheckpointError, match="no folder .*none"):
            load_stage(missing)
    with pytest.raises(CheckpointError, match="no folder"):
        load_stage(saved / "model.safetensors")


def test_a_hub_id_fetches_no_pickle(saved, monkeypatch):
    asked = {}

    def snapshot_download(name, revision, allow_patterns):
        asked[name] = allow_patterns
        if name == "gone/stage":
            raise OSError("no such repository")
        return str(saved)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert local_folder("someone/stage") == saved
    assert asked == {"someone/stage": ["*.json", "*.safetensors"]}
    with pytest.raises(CheckpointError, match="is no folder in .* can not be loaded: no such repository"):
        load_stage("gone/stage")


# ---------------------------------------------------------------------- saving


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failing_save_changes_nothing(error, saved, monkeypatch):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def fails(weights, path):
        path.write_bytes(b"half of it")
        raise error

    monkeypatch.setattr(stage, "save_file", fails)
    for folder in (saved, saved.with_name("new")):
        with pytest.raises(type(error)):
            small("color", "coltran").save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == ["stage"]


def test_a_failing_rename_puts_the_old_folder_back(saved, monkeypatch):
    rename = os.rename

    def fails(source, target):
        if Path(target) == saved and not str(source).endswith(".old"):
            raise OSError("no permission")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fails)
    with pytest.raises(OSError, match="no permission"):
        small("color", "coltran").save_pretrained(saved)
    assert [path.name for path in saved.parent.iterdir()] == ["stage"]
    load_stage(saved)


def test_saving_takes_no_other_files_away(saved):
    (saved / "notes.txt").write_text("keep me")
    with pytest.raises(CheckpointError, match="notes.txt"):
        small("color", "coltran").save_pretrained(saved)
    assert (saved / "notes.txt").read_text() == "keep me"
    with pytest.raises(CheckpointError, match="is a file"):
        small("color", "coltran").save_pretrained(saved / "notes.txt")
    assert (saved / "notes.txt").read_text() == "keep me"


def test_saving_replaces_through_a_link(saved):
    link = saved.with_name("link")
    link.symlink_to(saved)
    stage = small("color", "coltran")
    with torch.no_grad():
        stage.write.bias += 1
    stage.save_pretrained(link)
    assert link.is_symlink() and bits(load_stage(saved)) == bits(stage)
    assert sorted(path.name for path in saved.parent.iterdir()) == ["link", "stage"]


def test_a_replaced_folder_is_new(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "old").touch()
    with replaced_folder(tmp_path / "x") as fresh:
        (fresh / "new").touch()
        assert (tmp_path / "x" / "old").exists()
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["new"]


# ---------------------------------------------------------------------- configs


@dataclass(frozen=True)
class Sample:
    whole: int = 1
    real: float = 1.0
    text: str = "a"
    switch: bool = False
    pair: tuple[int, int] = (1, 2)
    names: tuple[str, ...] = ()
    maybe: int | None = None


def test_config_from_dict_converts_what_is_the_same():
    given = {"real": 2, "pair": [3, 4], "names": ["x", "y"], "maybe": 5, "switch": True}
    config = config_from_dict(Sample, given)
    assert config == Sample(real=2.0, pair=(3, 4), names=("x", "y"), maybe=5, switch=True)
    assert type(config.real) is float
    assert config_from_dict(Sample, {}) == Sample()


@pytest.mark.parametrize("values", [
    {"whole": 1.0}, {"whole": True}, {"whole": "1"}, {"whole": None}, {"real": "1"}, {"real": True}, {"text": 1},
    {"switch": 1}, {"pair": [1]}, {"pair": [1, 2, 3]}, {"pair": [1, 2.5]}, {"pair": 1}, {"names": "x"}, {"names": [1]},
    {"maybe": "x"},
])  # fmt: skip
def test_config_from_dict_refuses_other_types(values):
    (name,) = values
    with pytest.raises(CheckpointError, match=f"Sample.{name} must be .*; got"):
        config_from_dict(Sample, values)


def test_config_from_dict_refuses_unknown_keys():
    with pytest.raises(CheckpointError, match=r"unknown keys \['wohle'\].*whole"):
        config_from_dict(Sample, {"wohle": 1})
    with pytest.raises(CheckpointError, match="must be a table"):
        config_from_dict(Sample, 3)  # type: ignore[arg-type]
