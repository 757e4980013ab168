"""The manifest: what is finished, whose files these are, and what is done again."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command import tree, write
from PIL import Image

from pipeline.color_pipeline import ColorPipeline
from pipeline.files import coloring
from pipeline.files.manifest import MANIFEST, RECIPE
from stages.seeds import NoiseSource, noise_key


def test_a_second_run_skips_and_changes_are_redone(trichrome, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    write(source / "a.png", 0)
    write(source / "b.png", 1)

    replaced: list[int] = []

    def counts(*more) -> str:
        code, summary, said = trichrome(source, "-o", out, *more)
        replaced.append(len(said))
        assert code == 0 and all("colored again" in line for line in said)
        return " ".join(word for word in summary.replace(",", "").split() if word.isdigit())

    assert counts() == "2 0 0"
    first = tree(out)
    stamp = (out / "a.png").stat().st_mtime_ns
    assert counts() == "0 2 0" and (out / "a.png").stat().st_mtime_ns == stamp
    write(source / "c.png", 2)
    assert counts() == "1 2 0"
    assert replaced == [0, 0, 0]
    assert counts("--seed", 1) == "3 0 0" and tree(out)["a.png"] != first["a.png"]
    assert replaced.pop() == 3, "another seed says what it replaces"
    assert counts("--seed", 1, "--steps", 4) == "3 0 0"
    assert counts() == "3 0 0" and tree(out)["a.png"] == first["a.png"], "the default seed gives one picture"
    assert counts("--quality", 50) == "0 3 0", "PNG has no quality"

    write(source / "a.png", 7)  # another picture under the same name
    assert counts() == "1 2 0"
    os.utime(source / "b.png", (1, 1))  # touched, not changed
    assert counts() == "0 3 0"
    (out / "b.png").unlink()
    assert counts() == "1 2 0" and tree(out)["b.png"] == first["b.png"]
    with torch.no_grad():
        trichrome.pipe.stages["stage3"].mix.bias[0] += 0.01
    assert counts() == "3 0 0", "other weights, other pictures"


def test_quality_counts_for_jpeg(trichrome, tmp_path):
    photo = write(tmp_path / "a.jpg")
    trichrome(photo, "-o", tmp_path / "out")
    assert trichrome(photo, "-o", tmp_path / "out", "--quality", 50)[1].startswith("1 colored, 0 skipped")


def test_files_of_others_are_not_replaced(trichrome, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    write(source / "a.png", 0)
    write(source / "b.png", 1)
    foreign = write(out / "a.png", 9).read_bytes()
    code, summary, said = trichrome(source, "-o", out)
    assert code == 1 and summary.startswith("1 colored, 0 skipped (finished before), 1 failed")
    assert len(said) == 1 and said[0].startswith(f"{source / 'a.png'}: ") and "--overwrite" in said[0]
    assert (out / "a.png").read_bytes() == foreign

    retouched = write(out / "b.png", 8).read_bytes()  # a person worked on our output
    code, _, said = trichrome(source, "-o", out, "--seed", 3)
    assert code == 1 and len(said) == 2 and (out / "b.png").read_bytes() == retouched
    assert trichrome(source, "-o", out, "--overwrite")[0] == 0
    assert (out / "a.png").read_bytes() != foreign
    assert trichrome(source, "-o", out)[1].startswith("0 colored, 2 skipped")
    assert trichrome(source, "-o", out, "--overwrite")[1].startswith("2 colored, 0 skipped")


def test_a_damaged_manifest_is_said_and_survived(trichrome, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    for seed, name in enumerate("abc"):
        write(source / f"{name}.png", seed)
    trichrome(source, "-o", out)
    manifest = out / MANIFEST
    lines = manifest.read_bytes().splitlines()
    assert len(lines) == 6  # begin and done for each
    manifest.write_bytes(b"\n".join([b"\xff\xfe nonsense", b"{}", b"[1]", *lines[:-1], lines[-1][:40]]))
    code, summary, said = trichrome(source, "-o", out)
    assert code == 0 and "4 unreadable lines" in said[0]
    assert summary.startswith("1 colored, 2 skipped"), "the begin line still says that c.png is ours"
    assert len(manifest.read_bytes().splitlines()) == 11, "the torn line must not swallow the next one"
    code, summary, _ = trichrome(source, "-o", out)
    assert summary.startswith("0 colored, 3 skipped")


def test_interrupted_leaves_nothing_partial_and_resumes(trichrome, tmp_path, monkeypatch):
    source, out = tmp_path / "in", tmp_path / "out"
    for seed, name in enumerate("abc"):
        write(source / f"{name}.png", seed)
    real, calls = os.replace, []

    def stop_at_the_fourth(temporary, path):
        calls.append(path)
        if len(calls) == 4:  # the second picture of b
            raise KeyboardInterrupt
        return real(temporary, path)

    monkeypatch.setattr(os, "replace", stop_at_the_fourth)
    code, summary, said = trichrome(source, "-o", out, "--samples", 2)
    assert code == 130 and summary == "" and "interrupted" in said[-1]
    assert sorted(tree(out)) == ["a-1.png", "a-2.png", "b-1.png"]
    for path in out.glob("*.png"):
        Image.open(path).load()
    monkeypatch.setattr(os, "replace", real)
    code, summary, _ = trichrome(source, "-o", out, "--samples", 2)
    assert code == 0 and summary.startswith("2 colored, 1 skipped"), "b-1.png is ours and is redone"
    assert len(tree(out)) == 6


def test_a_full_manifest_disk_is_an_error_of_the_photo(trichrome, tmp_path, monkeypatch):
    photo = write(tmp_path / "a.png")
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, line: real(handle, line[:10]))
    code, _, said = trichrome(photo, "-o", tmp_path / "out")
    assert code == 1 and "is the disk full" in said[0]
    assert tree(tmp_path / "out") == {}


def test_settings_of_the_stages_count(trichrome, tmp_path):
    photo = write(tmp_path / "a.png")
    assert trichrome(photo, "-o", tmp_path / "out")[1].startswith("1 colored")
    stage1 = trichrome.pipe.stages["stage1"]
    stage1.config = replace(stage1.config, pool=stage1.config.pool + 1)
    assert trichrome(photo, "-o", tmp_path / "out")[1].startswith("1 colored")


def test_the_manifest_is_readable(trichrome, tmp_path):
    photo = write(tmp_path / "a.png")
    trichrome(photo, "-o", tmp_path / "out", "--seed", 4)
    begin, done = map(json.loads, (tmp_path / "out" / MANIFEST).read_text().splitlines())
    assert (begin["event"], done["event"]) == ("begin", "done")
    assert done["input"]["path"] == str(photo.resolve())
    assert done["key"]["recipe"] == RECIPE == 2 and done["key"]["settings"]["seed"] == 4
    assert set(done["key"]["weights"]) == {"stage1", "stage2", "stage3", "sharpness"}
    assert done["outputs"][0]["path"] == "a.png" and len(done["outputs"][0]["sha256"]) == 64
    assert done["device"] == "cpu" and done["dtype"] == "float32"


def test_groups_for_a_card_give_the_same_files(trichrome, tmp_path, monkeypatch):
    for seed in range(5):
        write(tmp_path / f"in/{seed}.png", seed)
    (tmp_path / "in/bad.png").write_text("x")
    assert trichrome(tmp_path / "in", "-o", tmp_path / "one")[0] == 1
    monkeypatch.setattr(ColorPipeline, "to", lambda self, *_: self)
    trichrome.pipe.batch_size = 4
    for stage in trichrome.pipe.stages.values():
        stage.batches.clear()
    assert trichrome(tmp_path / "in", "-o", tmp_path / "four")[0] == 1
    assert trichrome.pipe.stages["stage2"].batches == [4, 4]
    one, four = tree(tmp_path / "one"), tree(tmp_path / "four")
    assert set(one) == set(four) and len(one) == 5
    monkeypatch.setattr(coloring, "GROUP_PIXELS", 1)
    trichrome.pipe.stages["stage2"].batches.clear()
    trichrome(tmp_path / "in", "-o", tmp_path / "memory")
    assert trichrome.pipe.stages["stage2"].batches == [4] * 5
    assert tree(tmp_path / "memory") == four


def as_recipe_1(out: Path) -> None:
    """The manifest as the version before recipes wrote it, whose keys did not name one."""
    path = out / MANIFEST
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        if record["event"] == "done":
            del record["key"]["recipe"]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_a_folder_half_done_by_the_old_recipe_is_done_again_and_says_so(trichrome, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    write(source / "a.png", 0), write(source / "b.png", 1)
    assert trichrome(source, "-o", out)[0] == 0
    today = tree(out)
    as_recipe_1(out)
    for name in ("a.png", "b.png"):  # other colors, as the old recipe gave: its own files, as the manifest says
        old = write(out / name, 9).read_bytes()
        lines = (out / MANIFEST).read_text().replace(_sha256(today[name]), _sha256(old))
        size = f'"size": {len(today[name])}'
        (out / MANIFEST).write_text(lines.replace(size, f'"size": {len(old)}'))
    write(source / "c.png", 2)  # new since then
    code, summary, said = trichrome(source, "-o", out)
    assert code == 0 and summary.startswith("3 colored, 0 skipped (finished before), 0 failed")
    assert said == [
        f"{source / name}: was colored by recipe 1; today's is 2, which gives other colors: colored again"
        for name in ("a.png", "b.png")
    ]
    again = tree(out)
    assert {name: again[name] for name in today} == today and set(again) == {"a.png", "b.png", "c.png"}
    assert trichrome(source, "-o", out)[1].startswith("0 colored, 3 skipped")


def test_a_file_of_the_old_recipe_that_was_retouched_is_kept(trichrome, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    write(source / "a.png", 0), write(source / "b.png", 1)
    assert trichrome(source, "-o", out)[0] == 0
    as_recipe_1(out)
    retouched = write(out / "b.png", 8).read_bytes()
    code, summary, said = trichrome(source, "-o", out)
    assert code == 1 and summary.startswith("1 colored, 0 skipped (finished before), 1 failed")
    assert "colored again" in said[0] and said[1].startswith(f"{source / 'b.png'}: ") and "--overwrite" in said[1]
    assert len(said) == 2, "what is not colored again is not announced"
    assert (out / "b.png").read_bytes() == retouched


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_folder_gives_the_bytes_of_single_photos(trichrome, tmp_path, monkeypatch, batch_size):
    """Each photo has its own noise, so its neighbors in the folder do not matter."""
    monkeypatch.setattr(ColorPipeline, "to", lambda self, *_: self)
    trichrome.pipe.batch_size = batch_size
    for seed in range(3):
        write(tmp_path / f"in/{seed}.png", seed)
    write(tmp_path / "in/copy.png", 1)
    assert trichrome(tmp_path / "in", "-o", tmp_path / "all")[0] == 0
    together = tree(tmp_path / "all")
    assert together["copy.png"] == together["1.png"]
    for seed in range(3):
        trichrome.pipe.coarse.seeds.clear()
        assert trichrome(tmp_path / f"in/{seed}.png", "-o", tmp_path / "alone")[0] == 0
        photo = np.asarray(Image.open(tmp_path / f"in/{seed}.png"))
        key = noise_key((photo / 255).astype(np.float32), 8)
        first = NoiseSource(0, key).generator(0).initial_seed()
        assert trichrome.pipe.coarse.seeds[0] == first
    assert tree(tmp_path / "alone") == {name: together[name] for name in ("0.png", "1.png", "2.png")}
