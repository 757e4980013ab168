"""Pipelines on disk: the same picture again, all or nothing, and a clear error for everything that does not fit."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from photos import photo, plane, same
from standins import known_standins, standin_pipeline

from pipeline import ColorPipeline
from pipeline.full_resolution import sharpened
from stages.checkpoint import CheckpointError, sha256_of
from stages.options import OptionError


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    known_standins(monkeypatch)
    standin_pipeline().save_pretrained(tmp_path / "pipe")
    return tmp_path / "pipe"


def test_save_and_load_give_the_same_picture(folder, tmp_path):
    gray = photo(30, 40)
    images = standin_pipeline()(gray, 2, generator=4).images
    once = ColorPipeline.from_pretrained(folder)
    assert same(once(gray, 2, generator=4).images, images)
    once.save_pretrained(tmp_path / "again")
    twice = ColorPipeline.from_pretrained(str(tmp_path / "again"))
    assert same(twice(gray, 2, generator=4).images, images)
    assert twice.fingerprint() == once.fingerprint()
    with torch.no_grad():
        next(twice.color.parameters()).view(-1)[0] += 1e-3
    changed = {name for name, value in twice.fingerprint().items() if value != once.fingerprint()[name]}
    assert changed == {"stage2"}


def test_sharpness_is_part_of_the_pipeline(folder, tmp_path):
    gray = photo(256, 256)
    plain = ColorPipeline.from_pretrained(folder)
    sharp = ColorPipeline(plain.coarse, plain.color, plain.superres, sharpness=0.5)
    sharp.save_pretrained(tmp_path / "sharp")
    loaded = ColorPipeline.from_pretrained(tmp_path / "sharp")
    assert loaded.fingerprint() == sharp.fingerprint() and loaded.sharpness == 0.5
    assert {name for name, value in sharp.fingerprint().items() if value != plain.fingerprint()[name]} == {"sharpness"}
    without, with_it = (pipe(gray, generator=1, output_type="pt").images[0] for pipe in (plain, loaded))
    torch.testing.assert_close(with_it[None], sharpened(plane(gray), without[None], 0.5), rtol=0, atol=1e-5)
    assert (with_it - without).abs().max() > 1e-3
    calls = ((plain, 0.5), (loaded, 0))
    asked = [pipe(gray, generator=1, output_type="pt", sharpness=sharpness).images[0] for pipe, sharpness in calls]
    assert torch.equal(asked[0], with_it) and torch.equal(asked[1], without)
    for wrong in (-1, 3, float("nan")):
        with pytest.raises(OptionError, match="sharpness must be a number from 0 to 2"):
            ColorPipeline(plain.coarse, plain.color, plain.superres, sharpness=wrong)


def test_format_2_is_what_is_written(folder):
    index = json.loads((folder / "model_index.json").read_text())
    families = {"stage1": "coarse", "stage2": "color", "stage3": "superres"}
    assert index == {"format": 2, "sharpness": 0.0, "stages": {
        name: {"family": family, "kind": "standin", "sha256": sha256_of(folder / name / "model.safetensors")}
        for name, family in families.items()
    }}  # fmt: skip


def test_format_1_still_loads_and_gives_the_same_picture(folder, tmp_path):
    """Written by hand as earlier versions did: a number for the family, none of it in the index."""
    for number, name in enumerate(("stage1", "stage2", "stage3"), 1):
        config = {"pool": 8}
        old = {"format": 1, "stage": number, "kind": "standin", "config": config}
        (folder / name / "config.json").write_text(json.dumps(old))
    entries = {
        name: {"kind": "standin", "sha256": sha256_of(folder / name / "model.safetensors")}
        for name in ("stage1", "stage2", "stage3")
    }
    (folder / "model_index.json").write_text(json.dumps({"format": 1, "sharpness": 0.5, "stages": entries}))
    loaded, pipe = ColorPipeline.from_pretrained(folder), standin_pipeline()
    assert loaded.sharpness == 0.5
    gray = photo(30, 40)
    assert same(loaded(gray, 2, generator=4).images, pipe(gray, 2, generator=4, sharpness=0.5).images)
    loaded.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again/model_index.json").read_text())["format"] == 2
    assert ColorPipeline.from_pretrained(tmp_path / "again").fingerprint() == loaded.fingerprint()


def test_saving_replaces_a_pipeline_and_nothing_else(folder, tmp_path, monkeypatch):
    pipe = standin_pipeline()
    before = (folder / "model_index.json").read_bytes()
    pipe.save_pretrained(folder)
    assert (folder / "model_index.json").read_bytes() == before

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep me")
    with pytest.raises(FileExistsError, match="letter.txt"):
        pipe.save_pretrained(tmp_path / "mine")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "keep me"

    def fails(folder, dtype=None):
        raise OSError("disk full")

    monkeypatch.setattr(pipe.stages["stage3"], "save_pretrained", fails)
    for target in (folder, tmp_path / "new"):
        with pytest.raises(OSError, match="disk full"):
            pipe.save_pretrained(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "pipe"]
    ColorPipeline.from_pretrained(folder)


def _edit(folder: Path, change) -> None:
    path = folder / "model_index.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


def _exchange(folder: Path) -> None:
    """Stage 1 in the place of stage 2."""
    shutil.rmtree(folder / "stage2")
    shutil.copytree(folder / "stage1", folder / "stage2")
    _edit(folder, lambda index: index["stages"]["stage2"].update(sha256=index["stages"]["stage1"]["sha256"]))


DAMAGES = {
    "no index": (lambda f: (f / "model_index.json").unlink(), "no model_index.json"),
    "not JSON": (lambda f: (f / "model_index.json").write_text("{"), "can not be read"),
    "a list": (lambda f: (f / "model_index.json").write_text("[]"), "format None"),
    "newer format": (lambda f: _edit(f, lambda i: i.update(format=3)), "format 3; this version reads formats 1 and 2"),
    "stage left out": (lambda f: _edit(f, lambda i: i["stages"].pop("stage2")), "must name exactly"),
    "unknown kind": (
        lambda f: _edit(f, lambda i: i["stages"]["stage1"].update(kind="magic")), "'magic'; known"),
    "no hash": (lambda f: _edit(f, lambda i: i["stages"]["stage1"].pop("sha256")), "must have family, kind, sha256"),
    "no family": (lambda f: _edit(f, lambda i: i["stages"]["stage1"].pop("family")), "must have family, kind, sha256"),
    "a family in format 1": (lambda f: _edit(f, lambda i: i.update(format=1)), "must have kind, sha256"),
    "wrong family": (
        lambda f: _edit(f, lambda i: i["stages"]["stage1"].update(family="color")), "family coarse; got 'color'"),
    "sharpness in words": (lambda f: _edit(f, lambda i: i.update(sharpness="0.5")), "sharpness must be a number"),
    "too sharp": (lambda f: _edit(f, lambda i: i.update(sharpness=9)), "sharpness must be a number in"),
    "folder missing": (lambda f: shutil.rmtree(f / "stage3"), "stage3 is missing"),
    "weights missing": (
        lambda f: (f / "stage2" / "model.safetensors").unlink(), "model.safetensors is missing"),
    "other weights": (
        lambda f: shutil.copy(f / "stage1/model.safetensors", f / "stage2/model.safetensors"), "SHA-256"),
    "pickle": (lambda f: (f / "stage1" / "pytorch_model.bin").write_bytes(b"\x80"), "pickle"),
    "stages exchanged": (
        _exchange,
        "stage2 holds kind 'standin' of the family coarse; model_index.json says kind 'standin' of the family color"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_folder_is_an_error(folder, name):
    damage, message = DAMAGES[name]
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        ColorPipeline.from_pretrained(folder)


@pytest.mark.skipif(not hasattr(os, "symlink") or sys.platform == "win32", reason="needs symbolic links")
def test_links_out_of_the_folder_are_refused(folder, tmp_path):
    shutil.move(folder / "stage2", tmp_path / "elsewhere")
    (folder / "stage2").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="link that leaves"):
        ColorPipeline.from_pretrained(folder)
    (folder / "stage2").unlink()
    shutil.copytree(tmp_path / "elsewhere", folder / "stage2")
    (folder / "stage2" / "model.safetensors").unlink()
    (folder / "stage2" / "model.safetensors").symlink_to(tmp_path / "elsewhere" / "model.safetensors")
    with pytest.raises(CheckpointError, match="link that leaves"):
        ColorPipeline.from_pretrained(folder)


def test_hub_cache_links_are_followed(folder, tmp_path, monkeypatch):
    """The hub's cache: snapshots/<revision>/… are links into blobs/ of the same repository."""
    repository = tmp_path / "models--someone--colors"
    snapshot = repository / "snapshots" / "abc"
    (repository / "blobs").mkdir(parents=True)
    for number, file in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        blob, link = repository / "blobs" / str(number), snapshot / file.relative_to(folder)
        shutil.copy(file, blob)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    asked: dict[str, Any] = {}

    def fake(name, revision=None, allow_patterns=None):
        asked.update(name=name, revision=revision, allow_patterns=allow_patterns)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    pipe = ColorPipeline.from_pretrained("someone/colors", revision="v1")
    assert pipe.fingerprint() == ColorPipeline.from_pretrained(folder).fingerprint()
    patterns = ["*.json", "*.safetensors"]
    assert asked == {"name": "someone/colors", "revision": "v1", "allow_patterns": patterns}


def test_names_that_lead_nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    for name in ("./no/where", "/no/where", "nowhere", "a/b/c", Path("no/where"), "~/no_where_at_all"):
        with pytest.raises(CheckpointError, match="there is no folder"):
            ColorPipeline.from_pretrained(name)
    with pytest.raises(CheckpointError, match="is a file"):
        ColorPipeline.from_pretrained("file")

    def offline(*_, **__):
        raise ConnectionError("no network here\nsecond line")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(CheckpointError) as caught:
        ColorPipeline.from_pretrained("owner/name")
    message = str(caught.value)
    assert "no folder in" in message and "on the hub" in message and "no network here" in message
    assert "\n" not in message
    monkeypatch.setattr("pipeline.folder.DEFAULT_WEIGHTS", tmp_path)
    with pytest.raises(CheckpointError, match="default weights are missing"):
        ColorPipeline.from_pretrained()
