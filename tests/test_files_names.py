"""Which file becomes which, whatever the order of work."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from command import tree, write

from pipeline.files.names import find_inputs, plan
from pipeline.files.records import Report, Settings


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
