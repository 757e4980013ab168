"""One bad thing never stops a folder, a lost output folder ends the run, and nothing is passed over in silence."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import cli
from pipeline.color_pipeline import ColorPipeline
from pipeline.files.report import shown
from pipeline.folder import read_index
from pipeline.images import partial
from pipeline.images.read import load_photo
from stages.checkpoint import CheckpointError, read_description

sys.path.insert(0, str(Path(__file__).resolve().parent / "fuzz"))
from plain import plain_pipeline  # noqa: E402


@pytest.fixture
def trichrome(monkeypatch, capsys):
    """Runs `trichrome colorize --preview` without networks: (exit code, stdout, stderr lines)."""
    return Command(monkeypatch, capsys)


class Command:
    def __init__(self, monkeypatch, capsys):
        self.pipe, self.capsys = plain_pipeline(), capsys
        monkeypatch.setattr(ColorPipeline, "from_pretrained", lambda source=None, **_: self.pipe)

    def __call__(self, *arguments, preview=True):
        more = ["--preview"] if preview else []
        code = cli.main(["colorize", *map(str, arguments), "--device", "cpu", *more])
        said = self.capsys.readouterr()
        return code, said.out.splitlines(), said.err.splitlines()


def write(path: Path, seed: int = 0, size=(20, 30), **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)).save(path, **options)
    return path


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# ------------------------------------------------------------- one bad thing never stops the folder


def test_links_that_loop_or_lead_nowhere(trichrome, tmp_path):
    source = tmp_path / "in"
    write(source / "good.png")
    (source / "self.png").symlink_to(source / "self.png")
    (source / "a.png").symlink_to(source / "b.png")
    (source / "b.png").symlink_to(source / "a.png")
    (source / "nowhere.png").symlink_to(source / "none")
    (source / "circle").symlink_to(source / "circle")
    (source / "up").symlink_to(source)
    code, out, said = trichrome(source, "-o", tmp_path / "out")
    assert code == 1 and out[0].startswith("1 colored, 0 skipped (finished before), 4 failed")
    assert (tmp_path / "out/good.png").is_file() and not any("Traceback" in line for line in said)
    code, _, said = trichrome(source / "self.png", source / "nowhere.png", source / "good.png", "-o", tmp_path / "two")
    assert code == 1 and (tmp_path / "two/good.png").is_file()
    assert f"{source / 'nowhere.png'}: a link that leads nowhere" in said


@pytest.mark.skipif(sys.platform == "win32", reason="names have 255 UTF-16 units there")
def test_long_names_in_bytes(trichrome, tmp_path):
    name = "写" * 80 + ".png"
    assert len(name.encode()) == 244
    write(tmp_path / "in" / name)
    assert trichrome(tmp_path / "in", "-o", tmp_path / "out")[0] == 0
    assert (tmp_path / "out" / name).is_file()


@pytest.mark.parametrize("name", ["a\nb.png", "a\x1b[31mred.png", "a\u202eb.png"])
def test_names_are_printed_escaped(trichrome, tmp_path, name):
    write(tmp_path / "in" / name)
    (tmp_path / "in" / f"bad{name}").write_bytes(b"")
    (tmp_path / "in" / f"{name}.txt").write_bytes(b"")
    code, out, said = trichrome(tmp_path / "in", "-o", tmp_path / "out")
    assert code == 1 and len(said) == 3 and len(out) == 2
    assert all(line.isprintable() for line in out + said)
    assert (tmp_path / "out" / name).is_file()


def test_shown():
    assert shown("a\nb\x1b[0m \udcfc é 写") == "a\\nb\\x1b[0m \\udcfc é 写"


def index_of(folder: Path, stages) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "model_index.json").write_text(json.dumps({"format": 2, "sharpness": 0.0, "stages": stages}))
    return folder


def test_odd_weights_are_a_sentence(tmp_path, capsys):
    good = {
        name: {"family": family, "kind": "coltran", "sha256": "0" * 64}
        for name, family in (("stage1", "coarse"), ("stage2", "color"), ("stage3", "superres"))
    }
    nested = tmp_path / "nested"
    nested.mkdir()
    (nested / "model_index.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="nested too deeply"):
        read_index(nested)
    (nested / "config.json").write_text("[" * 100_000)
    (nested / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="nested too deeply"):
        read_description(nested)
    for kind in (["coltran"], {"a": 1}, 5, None):
        with pytest.raises(CheckpointError, match="of stage1 must be texts"):
            read_index(index_of(tmp_path / "kind", {**good, "stage1": {**good["stage1"], "kind": kind}}))
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "model_index.json").symlink_to(index_of(tmp_path / "elsewhere", good) / "model_index.json")
    with pytest.raises(CheckpointError, match="is a link that leaves"):
        ColorPipeline.from_pretrained(linked)
    photo = write(tmp_path / "a.png")
    assert cli.main(["colorize", str(photo), "-o", str(tmp_path / "out"), "--weights", str(nested)]) == 2
    assert "Traceback" not in capsys.readouterr().err


# ------------------------------------------------------------------------ the output folder is lost


def three(tmp_path) -> Path:
    for seed in range(3):
        write(tmp_path / f"in/{seed}.png", seed)
    return tmp_path / "in"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_full_or_broken_disk_ends_the_run_at_once(trichrome, tmp_path, monkeypatch, number):
    source, calls = three(tmp_path), []

    def full(handle):
        calls.append(handle)
        raise OSError(number, os.strerror(number))

    real = trichrome.pipe.small_photos
    colored = []

    def counted(*arguments):
        colored.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(trichrome.pipe, "small_photos", counted)
    monkeypatch.setattr(partial.os, "fsync", full)
    code, out, said = trichrome(source, "-o", tmp_path / "out", "--report", tmp_path / "report.jsonl")
    assert code == 1 and len(colored) <= 2, "the next one is at hand while this one is written"
    assert out[0].startswith("0 colored, 0 skipped (finished before), 1 failed")
    assert said == [f"the output folder {tmp_path / 'out'} can not be written to: {os.strerror(number)}; stopped, the "
                    "same command goes on from here"]  # fmt: skip
    assert [record["status"] for record in records(tmp_path / "report.jsonl")] == ["failed"]
    monkeypatch.undo()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".trichrome.jsonl"]


def test_a_full_disk_in_words_of_libvips(trichrome, tmp_path, monkeypatch):
    import pyvips

    from pipeline.images import write as writing

    def full(*arguments):
        raise pyvips.Error("unable to write", "target: write error\nsystem error: No space left on device\n")

    monkeypatch.setattr(writing, "_write", full)
    code, _, said = trichrome(three(tmp_path), "-o", tmp_path / "out")
    assert code == 1 and len(said) == 1 and "No space left on device; stopped" in said[0]


def test_a_vanished_output_folder_ends_the_run_and_is_not_made_again(trichrome, tmp_path, monkeypatch):
    source, out = three(tmp_path), tmp_path / "out"
    real, colored = trichrome.pipe.small_photos, []

    def vanishing(*arguments):
        colored.append(arguments)
        if len(colored) == 2:
            out.rename(tmp_path / "gone")  # at once: a file is being written
        return real(*arguments)

    monkeypatch.setattr(trichrome.pipe, "small_photos", vanishing)
    code, _, said = trichrome(source, "-o", out)
    assert code == 1 and len(colored) <= 3 and not out.exists()
    assert said[-1].startswith(f"the output folder {out} can not be written to: it is not there any more; stopped")


def test_a_read_only_output_folder_is_told_before_any_work(trichrome, tmp_path, monkeypatch):
    source, out = three(tmp_path), tmp_path / "out"
    out.mkdir()
    real = os.open

    def read_only(path, flags, *rest, **more):
        if flags & os.O_CREAT and Path(path).parent == out:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", read_only)
    monkeypatch.setattr(trichrome.pipe, "small_photos", lambda *a: pytest.fail("work for nothing"))
    code, out_lines, said = trichrome(source, "-o", out)
    assert code == 1 and len(said) == 1 and f"the output folder {out} can not be written to: Read-only" in said[0]
    assert out_lines[0].startswith("0 colored")


def test_an_output_folder_that_can_not_be_made(trichrome, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    code, _, said = trichrome(write(tmp_path / "a.png"), "-o", tmp_path / "file/out")
    assert code == 1 and said[0].startswith(f"the output folder {tmp_path / 'file/out'} can not be made")


# ------------------------------------------------------------------ nothing is passed over in silence


def test_what_is_ignored_is_counted_and_named(trichrome, tmp_path):
    source = tmp_path / "in"
    write(source / "a.png")
    for name in ("b.gif", "c.txt", "d.psd", "e.pdf", "empty/f.doc", ".hidden.png"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(b"x")
    (source / "bare/deeper").mkdir(parents=True)
    write(source / "full/deeper/g.png")
    write(tmp_path / "other/h.png")
    (source / "link").symlink_to(tmp_path / "other")
    report = tmp_path / "new/report.jsonl"
    code, out, said = trichrome(source, "-o", tmp_path / "out", "--report", report)
    assert code == 0 and out[0].startswith("2 colored, 0 skipped (finished before), 0 failed") and len(out) == 2
    assert out[1].startswith("9 ignored: ")
    links = "1 links to folders, which are not followed ("
    for words in ("5 of formats that are not read (", ", …)", "1 hidden (", links):
        assert words in out[1]
    assert f"2 folders without a photograph ({source / 'bare'}, {source / 'empty'})" in out[1]
    lines = records(report)
    assert len(lines) == 11 and len({line["input"] for line in lines}) == 11
    for line in lines:
        assert set(line) == {"input", "status", "outputs", "notes", "reason"}
        assert (line["status"] == "ignored") == (line["reason"] is not None) == (line["outputs"] == [])
    assert len(said) == 11, "each has its line outside a terminal"


def test_nothing_found_is_an_error(trichrome, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.gif").write_bytes(b"GIF8")
    code, out, said = trichrome(tmp_path / "in", "-o", tmp_path / "out")
    assert code == 1 and said[-1] == f"no photograph was found in {tmp_path / 'in'}"
    assert "1 of formats that are not read" in out[1] and not (tmp_path / "out").exists()


def test_the_report_has_every_status(trichrome, tmp_path):
    source, report = tmp_path / "in", tmp_path / "report.jsonl"
    write(source / "a.png"), write(source / "b.png", 1)
    whole = (source / "b.png").read_bytes()
    (source / "bad.png").write_bytes(whole[: len(whole) // 2])
    (source / "c.txt").write_bytes(b"")
    trichrome(source / "a.png", "-o", tmp_path / "out")
    assert trichrome(source, tmp_path / "none.png", "-o", tmp_path / "out", "--report", report)[0] == 1
    found = {Path(line["input"]).name: line for line in records(report)}
    assert {name: line["status"] for name, line in found.items()} == {
        "a.png": "skipped", "b.png": "colored", "bad.png": "failed", "c.txt": "ignored", "none.png": "failed"}
    assert found["b.png"]["outputs"] == [str(tmp_path / "out/b.png")] and found["a.png"]["outputs"]
    assert "damaged" in found["bad.png"]["reason"] and found["none.png"]["reason"] == "no such file or folder"
    trichrome(source / "a.png", "-o", tmp_path / "out", "--report", report)
    assert len(records(report)) == 1, "a report is of one run"


def test_notes_are_in_the_report(trichrome, tmp_path):
    photo = write(tmp_path / "a.jpg", icc_profile=b"garbage")
    _, _, said = trichrome(photo, "-o", tmp_path / "out", "--report", tmp_path / "report.jsonl")
    note = "the embedded ICC profile is broken: ignored"
    assert records(tmp_path / "report.jsonl")[0]["notes"] == [note] and said[0] == f"{photo}: note: {note}"


def test_what_is_replaced_is_said(trichrome, tmp_path):
    photo, out = write(tmp_path / "a.jpg"), tmp_path / "out"
    trichrome(photo, "-o", out)
    for arguments, words in (
        (["--seed", 3], "seed 0 (now 3)"), (["--seed", 3, "--quality", 50], "quality 95 (now 50)"),
        ([], "quality 50 (now 95), seed 3 (now 0)"),
    ):  # fmt: skip
        _, _, said = trichrome(photo, "-o", out, *arguments)
        assert said[0] == f"{photo}: was colored with {words}: colored again, {out / 'a.jpg'} replaced"
    write(photo, 5)
    assert "another photo under this name" in trichrome(photo, "-o", out)[2][0]
    assert trichrome(photo, "-o", out)[2] == [f"{photo}: skipped (finished before): {out / 'a.jpg'}"]


# -------------------------------------------------------------------------- one photo into one file


def test_one_photo_into_one_file(trichrome, tmp_path):
    photo, target = write(tmp_path / "in/a.png"), tmp_path / "out/x.jpg"
    code, out, _ = trichrome(photo, "-o", target)
    assert code == 0 and out[0].startswith("1 colored")
    assert [path.name for path in target.parent.iterdir()] == ["x.jpg"], "no manifest, no lock"
    before = target.read_bytes()
    code, out, said = trichrome(photo, "-o", target)
    assert code == 1 and said == [f"{photo}: {target} is there already; --overwrite replaces it"]
    assert target.read_bytes() == before
    assert trichrome(photo, "-o", target, "--overwrite", "--quality", 40)[0] == 0 and target.read_bytes() != before


def test_several_pictures_of_one_photo(trichrome, tmp_path):
    photo = write(tmp_path / "a.png")
    assert trichrome(photo, "-o", tmp_path / "x.webp", "--samples", 3, preview=False)[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "x-1.webp", "x-2.webp", "x-3.webp"]
    code, _, said = trichrome(photo, "-o", tmp_path / "x.webp", "--samples", 4, preview=False)
    assert code == 1 and "x-1.webp is there already" in said[0] and not (tmp_path / "x-4.webp").exists()


def test_wrong_targets_are_usage_errors(trichrome, tmp_path):
    photo, other = write(tmp_path / "in/a.png"), write(tmp_path / "in/b.png")
    before = photo.read_bytes()
    for arguments, words in (
        ([photo, other, "-o", tmp_path / "x.jpg"], "names a file, which one photo"),
        ([tmp_path / "in", "-o", tmp_path / "x.jpg"], "names a file, which one photo"),
        ([photo, "-o", photo, "--overwrite"], "is the photo itself"),
        ([photo, "-o", tmp_path / "x.jpg", "--format", "png"], "do not go together"),
        ([photo, "-o", tmp_path / "x.jpg", "--page", "all"], "name a folder"),
    ):
        code, _, said = trichrome(*arguments)
        assert code == 2 and words in said[-1] and not (tmp_path / "x.jpg").exists()
    assert photo.read_bytes() == before


# --------------------------------------------------------------------------- pages, overlay, limits


def test_pages_of_a_file(trichrome, tmp_path):
    pages = [Image.fromarray(np.full((20, 30), level, np.uint8)) for level in (50, 100, 150)]
    (tmp_path / "in").mkdir()
    pages[0].save(tmp_path / "in/many.tif", save_all=True, append_images=pages[1:])
    write(tmp_path / "in/one.png")
    assert trichrome(tmp_path / "in", "-o", tmp_path / "no")[0] == 1
    assert trichrome(tmp_path / "in", "-o", tmp_path / "all", "--page", "all")[0] == 0
    assert sorted(path.name for path in (tmp_path / "all").glob("*.*") if path.name[0] != ".") == [
        "many-page1.tif", "many-page2.tif", "many-page3.tif", "one.png"]
    for number, level in enumerate((50, 100, 150), 1):
        assert load_photo(tmp_path / f"all/many-page{number}.tif").gray.mean() == pytest.approx(level / 255, abs=0.003)
    assert trichrome(tmp_path / "in", "-o", tmp_path / "all", "--page", "all")[1][0].startswith("0 colored, 4 skipped")
    code, _, said = trichrome(tmp_path / "in", "-o", tmp_path / "two", "--page", 2)
    assert code == 1 and load_photo(tmp_path / "two/many.tif").gray.mean() == pytest.approx(100 / 255, abs=0.003)
    assert any("there is no page 2: it holds 1" in line for line in said)


def test_the_overlay_has_a_legend(trichrome, tmp_path):
    photo = write(tmp_path / "a.png", size=(200, 300))
    assert trichrome(photo, "-o", tmp_path / "out", "--uncertainty-overlay", preview=False)[0] == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) == ["a-overlay.png", "a.png"]
    overlay, picture = (np.asarray(Image.open(tmp_path / f"out/{name}.png")) for name in ("a-overlay", "a"))
    assert overlay.shape == (232, 300, 3) and picture.shape == (200, 300, 3)
    assert np.ptp(overlay[202].astype(int), axis=0).max() > 100, "the scale"
    assert (overlay[-20:] == 255).mean() > 0.5 and (overlay[-20:] < 100).any(), "its words"


def test_the_limit_of_pixels_is_an_option(trichrome, tmp_path):
    Image.new("1", (8000, 5000), 1).save(tmp_path / "a.tif", compression="group4")
    code, _, said = trichrome(tmp_path / "a.tif", "-o", tmp_path / "out")
    assert code == 1 and "pixels to a byte" in said[0] and "--max-megapixels" in said[0]
    code, _, said = trichrome(tmp_path / "a.tif", "-o", tmp_path / "out", "--max-megapixels", 39)
    assert code == 1 and "40 megapixels, more than the limit of 39" in said[0]


@pytest.mark.parametrize("name, content", [
    ("a.png", None), ("notes.txt", "mine"), (".trichrome.jsonl", '{"format": 1}\n'), ("mine.jsonl", "mine\n"),
    ("list.jsonl", "[1, 2]\n"),
])  # fmt: skip
def test_a_report_takes_the_place_of_a_report_alone(trichrome, tmp_path, name, content):
    photo = write(tmp_path / "a.png")
    target = tmp_path / name
    if content is not None:
        target.write_text(content)
    before = target.read_bytes()
    code, _, said = trichrome(photo, "-o", tmp_path / "out", "--report", target)
    assert code == 2 and "name a new file that ends in .jsonl" in said[-1]
    assert target.read_bytes() == before and not (tmp_path / "out").exists()


def test_no_output_of_one_photo_is_the_photo_itself(trichrome, tmp_path):
    photo = write(tmp_path / "scan-1.png")
    before = photo.read_bytes()
    code, _, said = trichrome(photo, "-o", tmp_path / "scan.png", "--samples", 2, "--overwrite", preview=False)
    assert code == 1 and "is the photo itself; an input is never overwritten" in said[0]
    assert photo.read_bytes() == before
    map_ = write(tmp_path / "b-uncertainty.png")
    before = map_.read_bytes()
    code, _, said = trichrome(map_, "-o", tmp_path / "b.png", "--uncertainty", "--overwrite", preview=False)
    assert code == 1 and "is the photo itself" in said[0] and map_.read_bytes() == before
    code, _, said = trichrome(tmp_path / "none.png", "-o", tmp_path / "c.png")
    assert code == 1 and said[0].endswith("no such file")
