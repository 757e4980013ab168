"""The command: names, resuming, bad files, and never a half-written or overwritten picture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from standins import StandIn1, known_standins, standin_pipeline

from pipeline import cli
from pipeline.color_pipeline import ColorPipeline
from pipeline.files import run
from pipeline.files.manifest import MANIFEST
from pipeline.files.names import find_inputs, plan
from pipeline.files.records import Report, Settings
from pipeline.images.read import load_photo


@pytest.fixture
def trichrome(monkeypatch, capsys):
    """Runs `trichrome colorize` with stand-in stages: (exit code, stdout, stderr lines)."""
    pipe = standin_pipeline()
    monkeypatch.setattr(ColorPipeline, "from_pretrained", lambda source=None, **_: pipe)

    def run(*arguments) -> tuple[int, str, list[str]]:
        code = cli.main(["colorize", *map(str, arguments), "--device", "cpu", "--pool", "1"])
        said = capsys.readouterr()
        return code, said.out.strip(), said.err.splitlines()

    run.pipe = pipe
    return run


def write(path: Path, seed: int = 0, size: tuple[int, int] = (20, 30), dtype=np.uint8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    gray = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, size, dtype)
    Image.fromarray(gray).save(path)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


# ---------------------------------------------------------------------- a whole run


def test_files_and_folders(trichrome, tmp_path):
    write(tmp_path / "in/a.png", 0)
    write(tmp_path / "in/deep/er/b.jpg", 1)
    write(tmp_path / "in/c.tif", 2)
    write(tmp_path / "in/.hidden/d.png", 3)
    write(tmp_path / "in/.e.png", 3)
    (tmp_path / "in/notes.txt").write_text("not a photo, not looked for")
    out = tmp_path / "out"
    code, summary, said = trichrome(tmp_path / "in", "-o", out)
    assert code == 0 and said == []
    assert summary.startswith("3 colored, 0 skipped (finished before), 0 failed, ")
    assert sorted(tree(out)) == ["a.png", "c.tif", "deep/er/b.jpg"]
    gray = np.asarray(Image.open(tmp_path / "in/a.png")).astype(float)
    rgb = np.asarray(Image.open(out / "a.png"))
    assert np.abs(rgb @ [0.299, 0.587, 0.114] - gray).max() <= 0.5 and np.ptp(rgb, 2).max() > 5


def test_several_samples_differ(trichrome, tmp_path):
    photo = write(tmp_path / "a.png")
    code, _, _ = trichrome(photo, "-o", tmp_path / "out", "--samples", 3)
    files = tree(tmp_path / "out")
    assert code == 0 and sorted(files) == ["a-1.png", "a-2.png", "a-3.png"]
    assert len(set(files.values())) == 3


def test_uncertainty_maps(trichrome, tmp_path, capsys):
    photo, out = write(tmp_path / "a.jpg"), tmp_path / "out"
    assert trichrome(photo, "-o", out)[0] == 0
    code, summary, _ = trichrome(photo, "-o", out, "--samples", 2, "--uncertainty")
    assert code == 0 and summary.startswith("1 colored")
    assert sorted(tree(out)) == ["a-1.jpg", "a-2.jpg", "a-uncertainty.png", "a.jpg"]
    with Image.open(out / "a-uncertainty.png") as image:
        assert image.mode == "L" and image.size == (30, 20) and "icc_profile" not in image.info
        (expected,) = trichrome.pipe(str(photo), 2, generator=0, pool=1, uncertainty=True).uncertainty
        assert np.array_equal(np.asarray(image), np.asarray(expected))
    assert "1 skipped" in trichrome(photo, "-o", out, "--samples", 2, "--uncertainty")[1]
    (out / "a-uncertainty.png").write_bytes(b"another's")
    assert "is not, or no longer" in trichrome(photo, "-o", out, "--samples", 2, "--uncertainty")[2][0]
    (out / "a-uncertainty.png").unlink()
    assert trichrome(photo, "-o", out, "--samples", 2, "--uncertainty")[1].startswith("1 colored")

    pair = tmp_path / "pair"
    write(pair / "a.jpg", 1), write(pair / "a.tif", 2), write(pair / "b.tif", 3)
    assert trichrome(pair, "-o", tmp_path / "maps", "--uncertainty")[0] == 0
    maps = {"a.jpg-uncertainty.png", "a.tif-uncertainty.png", "b-uncertainty.png"}
    assert set(tree(tmp_path / "maps")) == maps | {"a.jpg", "a.tif", "b.tif"}

    both = tmp_path / "in"
    write(both / "a.png", 1), write(both / "a-uncertainty.png", 2)
    code, summary, said = trichrome(both, "-o", tmp_path / "second", "--uncertainty")
    assert code == 1 and len(said) == 2 and all("another input would be written to" in line for line in said)
    code, _, said = trichrome(both / "a.png", both / "a-uncertainty.png", "-o", both, "--uncertainty", "--format", "jpeg")
    assert code == 1 and any("one of the inputs" in line for line in said)


def test_sixteen_bits_stay_where_the_format_holds_them(trichrome, tmp_path):
    import pyvips

    write(tmp_path / "in/a.png", dtype=np.uint16)
    assert trichrome(tmp_path / "in", "-o", tmp_path / "kept")[0] == 0
    kept = pyvips.Image.new_from_file(str(tmp_path / "kept/a.png")).numpy()
    gray = np.asarray(Image.open(tmp_path / "in/a.png")).astype(float)
    assert kept.dtype == np.uint16
    assert np.abs(kept[..., :3] @ np.array([0.299, 0.587, 0.114]) - gray).max() <= 0.503
    code, _, said = trichrome(tmp_path / "in", "-o", tmp_path / "jpeg", "--format", "jpeg")
    assert code == 0 and len(said) == 1 and "note: 16 bits became 8" in said[0]
    assert Image.open(tmp_path / "jpeg/a.jpg").mode == "RGB"


def test_every_sample_photo_keeps_its_luma(trichrome, tmp_path, data_folder):
    samples = data_folder / "samples"
    count = sum(path.is_file() for path in samples.iterdir())
    code, summary, _ = trichrome(samples, "-o", tmp_path, "--format", "png")
    assert code == 0 and summary.startswith(f"{count} colored")
    for job in plan(find_inputs([samples], tmp_path, Report()), tmp_path, Settings(format="png"), Report()):
        before, after = load_photo(job.source), load_photo(tmp_path / job.outputs[0])
        peak = 65535 if before.depth == 16 else 255
        assert after.depth == before.depth and after.gray.shape == before.gray.shape
        assert np.abs(after.gray - before.gray).max() * peak <= 0.503


def test_warnings_are_lines_of_their_photo(trichrome, tmp_path, monkeypatch):
    photo = write(tmp_path / "a.png")
    real = run.load_photo

    def load_photo(path):
        warnings.warn("its profile is broken:\nignored", stacklevel=1)
        return real(path)

    monkeypatch.setattr(run, "load_photo", load_photo)
    code, _, said = trichrome(photo, "-o", tmp_path / "out")
    assert code == 0 and said == [f"{photo}: note: its profile is broken: ignored"]


# ---------------------------------------------------------------------- resuming


def test_a_second_run_skips_and_changes_are_redone(trichrome, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    write(source / "a.png", 0)
    write(source / "b.png", 1)

    def counts(*more) -> str:
        code, summary, said = trichrome(source, "-o", out, *more)
        assert code == 0 and said == []
        return " ".join(word for word in summary.replace(",", "").split() if word.isdigit())

    assert counts() == "2 0 0"
    first = tree(out)
    stamp = (out / "a.png").stat().st_mtime_ns
    assert counts() == "0 2 0" and (out / "a.png").stat().st_mtime_ns == stamp
    write(source / "c.png", 2)
    assert counts() == "1 2 0"
    assert counts("--seed", 1) == "3 0 0" and tree(out)["a.png"] != first["a.png"]
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


# ---------------------------------------------------------------------- what goes wrong


def test_bad_files_have_their_line_and_the_rest_goes_on(trichrome, tmp_path):
    source = tmp_path / "in"
    write(source / "good.png")
    (source / "empty.jpg").write_bytes(b"")
    (source / "text.png").write_text("hello")
    whole = write(source / "cut.png", 1, (200, 200)).read_bytes()
    (source / "cut.png").write_bytes(whole[: len(whole) // 2])
    code, summary, said = trichrome(source, tmp_path / "missing.png", "-o", tmp_path / "out")
    assert code == 1
    assert summary.startswith("1 colored, 0 skipped (finished before), 4 failed")
    assert sorted(tree(tmp_path / "out")) == ["good.png"]
    reasons = dict(line.split(": ", 1) for line in said)
    assert set(reasons) == {str(source / name) for name in ("empty.jpg", "text.png", "cut.png")} | {
        str(tmp_path / "missing.png")}
    assert reasons[str(source / "empty.jpg")] == "the file is empty"
    assert reasons[str(tmp_path / "missing.png")] == "no such file or folder"


ERRORS = [RuntimeError("a bug\nin two lines"), MemoryError(), OSError(28, "No space left")]


@pytest.mark.parametrize("error", ERRORS)
def test_any_error_of_one_photo_is_one_line(trichrome, tmp_path, monkeypatch, error):
    write(tmp_path / "in/a.png", 0)
    write(tmp_path / "in/b.png", 1, (33, 33))
    real = trichrome.pipe.full_size

    def sometimes(photo, *rest):
        if photo.gray.shape == (33, 33):
            raise error
        return real(photo, *rest)

    monkeypatch.setattr(trichrome.pipe, "full_size", sometimes)
    code, summary, said = trichrome(tmp_path / "in", "-o", tmp_path / "out")
    assert code == 1 and len(said) == 1 and said[0].startswith(str(tmp_path / "in/b.png"))
    assert summary.startswith("1 colored, 0 skipped (finished before), 1 failed")
    monkeypatch.undo()


def test_an_input_is_never_overwritten(trichrome, tmp_path):
    write(tmp_path / "a.png", 0)
    write(tmp_path / "sub/b.jpg", 1)
    before = tree(tmp_path)
    for more in ([], ["--overwrite"]):
        code, summary, said = trichrome(tmp_path, "-o", tmp_path, *more)
        assert code == 1 and len(said) == 2 and all("never overwritten" in line for line in said)
        assert tree(tmp_path) == before
    # Another format leaves the inputs alone, but not where an input has that name already.
    write(tmp_path / "sub/b.png", 2)
    before = tree(tmp_path)
    code, _, said = trichrome(tmp_path / "sub", "-o", tmp_path / "sub", "--format", "png")
    assert code == 1 and len(said) == 1
    after = tree(tmp_path)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"sub/b.jpg.png"}


@pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links")
def test_an_input_behind_a_link_is_never_overwritten(trichrome, tmp_path):
    photo = write(tmp_path / "in/a.png")
    before = photo.read_bytes()
    (tmp_path / "out").symlink_to(tmp_path / "in")
    assert trichrome(photo, "-o", tmp_path / "out", "--overwrite")[0] == 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other/a.png").symlink_to(photo)
    assert trichrome(photo, "-o", tmp_path / "other", "--overwrite")[0] == 1
    assert photo.read_bytes() == before


def test_the_output_folder_inside_the_input_is_not_colored_again(trichrome, tmp_path):
    write(tmp_path / "a.png")
    assert trichrome(tmp_path, "-o", tmp_path / "out")[1].startswith("1 colored")
    assert trichrome(tmp_path, "-o", tmp_path / "out")[1].startswith("0 colored, 1 skipped")
    assert sorted(tree(tmp_path)) == ["a.png", "out/a.png"]


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


# ---------------------------------------------------------------------- names


def names(tmp_path, *places: str, **settings) -> tuple[dict[str, str], list[str]]:
    """Planned outputs of photos at these places, and the refused: any order must give the same."""
    results = []
    for order in (sorted(places), sorted(places, reverse=True)):
        report = Report()
        inputs = [(tmp_path / "in" / place, Path(place)) for place in order]
        jobs = plan(inputs, tmp_path / "out", Settings(**settings), report)
        top = tmp_path / "in"
        planned = {job.source.relative_to(top).as_posix(): job.outputs[0].as_posix() for job in jobs}
        refused = sorted(path.relative_to(top).as_posix() for path, _ in report.failed)
        results.append((planned, refused))
    assert results[0] == results[1]
    return results[0]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
def test_names_that_are_not_utf8(trichrome, tmp_path):
    folder = tmp_path / os.fsdecode(b"f\xfcr")
    write(folder / "a.png")
    os.rename(folder / "a.png", folder / os.fsdecode(b"\xe9t\xe9.png"))
    code, out, errors = trichrome(folder, "-o", tmp_path / "out")
    assert (code, errors) == (0, []) and out.startswith("1 colored")
    assert (tmp_path / "out" / os.fsdecode(b"\xe9t\xe9.png")).is_file()
    assert trichrome(folder, "-o", tmp_path / "out")[1].startswith("0 colored, 1 skipped")


def test_a_path_that_can_not_be_looked_at_is_one_line_and_the_rest_goes_on(trichrome, tmp_path, monkeypatch):
    write(tmp_path / "in/a.png")
    walk = os.walk

    def some_locked(top, onerror=None):
        onerror(PermissionError(13, "Permission denied", str(tmp_path / "in/locked")))
        return walk(top, onerror=onerror)

    monkeypatch.setattr(os, "walk", some_locked)
    code, out, errors = trichrome(tmp_path / ("x" * 300), tmp_path / "in", "-o", tmp_path / "out")
    assert code == 1 and out.startswith("1 colored, 0 skipped (finished before), 2 failed")
    assert errors == [f"{tmp_path / ('x' * 300)}: File name too long", f"{tmp_path / 'in/locked'}: Permission denied"]


def test_names_of_outputs(tmp_path):
    assert names(tmp_path, "a.jpg", "b/a.PNG", "scan", "x.jp2") == (
        {"a.jpg": "a.jpg", "b/a.PNG": "b/a.PNG", "scan": "scan.png", "x.jp2": "x.jp2.png"}, [])
    assert names(tmp_path, "a.jpg", "b.jpeg", "c.JPG", format="jpeg")[0] == {
        "a.jpg": "a.jpg", "b.jpeg": "b.jpeg", "c.JPG": "c.JPG"}
    assert names(tmp_path, "a.jpg", "b/a.tif", format="png") == ({"a.jpg": "a.png", "b/a.tif": "b/a.png"}, [])


def test_collisions(tmp_path):
    assert names(tmp_path, "a.jpg", "a.png", format="png") == ({"a.jpg": "a.jpg.png", "a.png": "a.png"}, [])
    assert names(tmp_path, "a.jpg", "a.tif", format="png") == (
        {"a.jpg": "a.jpg.png", "a.tif": "a.tif.png"}, [])
    assert names(tmp_path, "a.jpg", "a.png", "a.jpg.png", format="png") == (
        {"a.png": "a.png"}, ["a.jpg", "a.jpg.png"])


def test_places_of_inputs(tmp_path):
    for name in ("one/a.png", "one/deep/b.png", "two/a.png"):
        write(tmp_path / name)

    def places(*paths):
        report = Report()
        found = find_inputs([tmp_path / path for path in paths], tmp_path / "out", report)
        return [place.as_posix() for _, place in found]

    assert places("one") == ["a.png", "deep/b.png"]
    assert places("one", "two") == ["one/a.png", "one/deep/b.png", "two/a.png"]
    assert places("one", "one/a.png") == ["a.png", "deep/b.png"], "a file met twice counts once"
    report = Report()
    two = find_inputs([tmp_path / "one/a.png", tmp_path / "two/a.png"], tmp_path / "out", report)
    assert plan(two, tmp_path / "out", Settings(), report) == []
    assert len(report.failed) == 2 and "separate folders" in report.failed[0][1]


# ---------------------------------------------------------------------- the command itself


def test_wrong_usage_exits_with_2(trichrome, tmp_path, capsys):
    photo = write(tmp_path / "a.png")
    for arguments in (["--samples", "0"], ["--samples", "x"], ["--quality", "101"], ["--device", "tpu"],
                      ["--temperature", "-1"], ["--temperature", "nan"],
                      ["--preview", "--samples", "2"], ["--dtype", "float16"]):
        code, _, said = trichrome(photo, "-o", tmp_path / "out", *arguments)
        assert code == 2 and said, arguments
    assert trichrome(photo, "-o", photo)[0] == 2
    assert cli.main(["colorize", str(photo)]) == 2
    assert cli.main([]) == 2
    assert not (tmp_path / "out").exists()


def test_missing_weights_exit_with_2(tmp_path, capsys):
    photo = write(tmp_path / "a.png")
    paths = map(str, (photo, "-o", tmp_path / "out", "--weights", tmp_path / "none"))
    code = cli.main(["colorize", *paths])
    assert code == 2 and "there is no folder" in capsys.readouterr().err


def test_another_order_is_another_setting(trichrome, tmp_path, monkeypatch):
    known_standins(monkeypatch)
    judge, photo = tmp_path / "judge", write(tmp_path / "a.png")
    StandIn1().save_pretrained(judge)
    plain = (photo, "-o", tmp_path / "out", "--samples", "3")
    ranked = (*plain, "--rank-with", judge)
    code, _, said = trichrome(*ranked)
    assert code == 2 and "must know likelihoods" in said[-1]
    monkeypatch.setattr(StandIn1, "likelihood", lambda self, gray, coarse: coarse.float().mean((1, 2)), raising=False)
    for arguments, expected in ((ranked, "1 colored"), (ranked, "0 colored"), (plain, "1 colored")):
        code, out, said = trichrome(*arguments)
        assert code == 0 and out.startswith(expected), said


def test_a_preview_has_nothing_to_rank(trichrome, tmp_path):
    photo = write(tmp_path / "a.png")
    code, _, said = trichrome(photo, "-o", tmp_path / "out", "--preview", "--rank-with", tmp_path)
    assert code == 2 and "leave one of them out" in said[-1] and not (tmp_path / "out").exists()


def test_stages_that_draw_row_by_row_show_their_steps(trichrome, tmp_path, monkeypatch):
    photo = write(tmp_path / "a.png")
    assert not any("stage1" in line for line in trichrome(photo, "-o", tmp_path / "a", "--progress")[2])
    monkeypatch.setattr(StandIn1, "rows", 2, raising=False)
    assert any("stage1" in line and "/2 [" in line for line in trichrome(photo, "-o", tmp_path / "b", "--progress")[2])
    assert not any("stage1" in line for line in trichrome(photo, "-o", tmp_path / "c")[2])


def test_settings_of_the_stages_count(trichrome, tmp_path):
    photo = write(tmp_path / "a.png")
    assert trichrome(photo, "-o", tmp_path / "out")[1].startswith("1 colored")
    stage1 = trichrome.pipe.stages["stage1"]
    stage1.config = replace(stage1.config, pool=stage1.config.pool + 1)
    assert trichrome(photo, "-o", tmp_path / "out")[1].startswith("1 colored")


def test_progress_only_on_demand(trichrome, tmp_path):
    photo = write(tmp_path / "a.png")
    _, _, said = trichrome(photo, "-o", tmp_path / "one")
    assert said == []
    _, _, said = trichrome(photo, "-o", tmp_path / "two", "--progress")
    assert any("1/1" in line for line in said)


def test_the_manifest_is_readable(trichrome, tmp_path):
    photo = write(tmp_path / "a.png")
    trichrome(photo, "-o", tmp_path / "out", "--seed", 4)
    begin, done = map(json.loads, (tmp_path / "out" / MANIFEST).read_text().splitlines())
    assert (begin["event"], done["event"]) == ("begin", "done")
    assert done["input"]["path"] == str(photo.resolve())
    assert done["key"]["settings"]["seed"] == 4
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
    monkeypatch.setattr(run, "GROUP_PIXELS", 1)
    trichrome.pipe.stages["stage2"].batches.clear()
    trichrome(tmp_path / "in", "-o", tmp_path / "memory")
    assert trichrome.pipe.stages["stage2"].batches == [4] * 5
    assert tree(tmp_path / "memory") == four


def test_help_and_version_do_not_wait_for_torch():
    code = ("import sys; from pipeline.cli import main; codes = [main(['--version']), "
            "main(['colorize', '--help'])]; print(codes, 'torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("trichrome 0.") and done.stdout.rstrip().endswith("[0, 0] False")
