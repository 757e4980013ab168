"""Steering from the command line: it gives what the call gives; hints beside a photo are taken and remembered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import tree, write
from PIL import Image
from test_steering import Featured, colored, mask

from pipeline.files.manifest import MANIFEST
from stages.hints.hints import Hints, Point

POINTS = [(5, 6, "#aa3322", 4.0), (22.5, 12, "rgb(20, 60, 160)")]


@pytest.fixture
def run(trichrome):
    """The command with a stage 1 by whose features places are compared."""
    trichrome.pipe.coarse = Featured().eval()
    return trichrome


def hints_of(photo: Path, points: list[tuple[Any, ...]] = POINTS, strokes: Image.Image | None = None) -> Path:
    with Image.open(photo) as image:
        hints = Hints(image.size, [Point(*point) for point in points], strokes)
    path = photo.with_name(photo.name + ".hints.json")
    hints.save(path)
    return path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def of_call(run, photo: Path, **options: Any) -> np.ndarray:
    return run.pipe(photo, generator=0, pool=1, output_type="np", **options).images[0]


def last_key(out: Path) -> dict[str, Any]:
    return json.loads((out / MANIFEST).read_text().splitlines()[-1])["key"]


def test_hints_go_through_the_file_and_the_command_to_the_same_bytes(run, tmp_path):
    photo, out = write(tmp_path / "in" / "a.png"), tmp_path / "out"
    wanted = of_call(run, photo, hints=POINTS)
    assert not np.array_equal(wanted, of_call(run, photo))
    path = hints_of(photo)
    assert np.array_equal(of_call(run, photo, hints=Hints.load(path)), wanted)
    code, summary, said = run(photo.parent, "-o", out)
    assert code == 0 and said == [f"{photo}: note: with the hints of a.png.hints.json"]
    assert np.array_equal(pixels(out / "a.png"), wanted) and "1 of hints, which their photos take" in summary
    assert run(photo, "-o", tmp_path / "single.png")[0] == 0, "a single photo takes them too"
    assert np.array_equal(pixels(tmp_path / "single.png"), wanted)
    moved = path.rename(tmp_path / "elsewhere.json")
    points = [word for point in POINTS for word in ("--hint", ",".join(map(str, point)))]
    asked: list[list[Any]] = [["--hints", moved], points]
    for number, given in enumerate(asked):
        assert run(photo, "-o", tmp_path / f"{number}.png", *given)[::2] == (0, [])
        assert np.array_equal(pixels(tmp_path / f"{number}.png"), wanted)


def test_strokes_are_hints_and_no_photo(run, tmp_path):
    photo, out = write(tmp_path / "in" / "a.png"), tmp_path / "out"
    strokes = Image.new("RGBA", (30, 20))
    strokes.paste((200, 40, 40, 255), (3, 3, 12, 9))
    wanted = of_call(run, photo, hints=strokes)
    strokes.save(tmp_path / "strokes.png")
    assert run(photo, "-o", tmp_path / "own.png", "--hints", tmp_path / "strokes.png")[0] == 0
    assert np.array_equal(pixels(tmp_path / "own.png"), wanted)
    hints_of(photo, [], strokes)
    write(tmp_path / "in" / "lost.jpg").rename(tmp_path / "in" / "lost.jpg.hints.json.strokes.png")
    (tmp_path / "in" / "lost.jpg.hints.json").write_text('{"strokes": "lost.jpg.hints.json.strokes.png"}')
    code, summary, _ = run(tmp_path / "in", "-o", out)
    assert code == 0 and list(tree(out)) == ["a.png"] and np.array_equal(pixels(out / "a.png"), wanted)
    assert "2 of hints, which their photos take" in summary and "2 of hints without their photo" in summary
    every = sorted((tmp_path / "in").glob("a*"))
    assert run(*every[:2], "-o", tmp_path / "again")[1].startswith("1 colored"), "given by a pattern"


def test_the_manifest_knows_hints_by_their_content(run, tmp_path):
    photo, out = write(tmp_path / "in" / "a.png"), tmp_path / "out"

    def colored_anew() -> bool:
        code, summary, said = run(photo.parent, "-o", out)
        assert code == 0
        if "1 colored" in summary and keys:
            assert "was colored with other hints, reference or colors to keep" in said[0]
        keys.append(last_key(out))
        return summary.startswith("1 colored")

    keys: list[dict[str, Any]] = []
    assert colored_anew() and not colored_anew()
    assert keys[0].keys() == {"recipe", "settings", "weights"}, "older manifests stay valid"
    assert not {"palette", "strength"} & keys[0]["settings"].keys()
    path = hints_of(photo)
    assert colored_anew() and not colored_anew()
    shutil.copy(path, tmp_path / "kept.json")
    hints_of(photo, POINTS[:1])
    assert colored_anew()
    shutil.copy(tmp_path / "kept.json", path)
    assert colored_anew() and not colored_anew(), "by its content, not its time"
    strokes = Image.new("RGBA", (30, 20), (200, 40, 40, 90))
    hints_of(photo, POINTS, strokes)
    assert colored_anew() and not colored_anew()
    Image.new("RGBA", (30, 20), (200, 40, 40, 91)).save(f"{path}.strokes.png")
    assert colored_anew() and not colored_anew()
    path.unlink()
    assert colored_anew() and keys[-1] == keys[0], "strokes that are left alone are no photo"


@pytest.mark.parametrize("content, reason", [
    ("{", "a.png.hints.json: Expecting"),
    ('{"format": 1, "size": [9, 9], "points": []}', "these hints are for a photo of 9x9 pixels; got one of 30x20"),
    ('{"format": 1, "size": [30, 20], "points": [], "strokes": "no.png"}', "no.png"),
    ('{"format": 1, "size": [30, 20], "points": [], "strokes": "../b.png"}', "strokes must lie in the folder"),
    ('{"format": 1, "size": [30, 20], "points": [{"x": 1, "y": 1, "color": "redd"}]}', "color must be a name or code"),
])  # fmt: skip
def test_broken_hints_fail_their_own_photo(run, tmp_path, content, reason):
    photo = write(tmp_path / "in" / "a.png")
    write(tmp_path / "in" / "b.png", 1)
    photo.with_name("a.png.hints.json").write_text(content)
    code, summary, said = run(photo.parent, "-o", tmp_path / "out")
    assert code == 1 and summary.startswith("1 colored, 0 skipped (finished before), 1 failed")
    assert len(said) == 1 and said[0].startswith(f"{photo}: ") and reason in said[0]
    assert list(tree(tmp_path / "out")) == ["b.png"]


def test_what_is_given_reaches_the_picture(run, tmp_path):
    photo, out = tmp_path / "a.png", tmp_path / "out"
    Image.fromarray(colored()).save(photo)
    Image.fromarray(mask()).save(tmp_path / "mask.png")
    Image.fromarray(colored(seed=1)).save(tmp_path / "other.png")
    asked: list[tuple[list[Any], dict[str, Any]]] = [
        (["--strength", 0], {"strength": 0}),
        (["--palette", "navy, rgb(192, 128, 64),gray"], {"palette": ["navy", (192, 128, 64), "gray"]}),
        (["--keep", tmp_path / "mask.png"], {"keep": mask()}),
        (["--reference", tmp_path / "other.png"], {"reference": colored(seed=1)}),
    ]  # fmt: skip
    seen = [of_call(run, photo).tobytes()]
    for words, options in asked:
        assert run(photo, "-o", out, *words)[1].startswith("1 colored"), words
        wanted = of_call(run, photo, **options)
        assert np.array_equal(pixels(out / "a.png"), wanted) and wanted.tobytes() not in seen
        seen.append(wanted.tobytes())
        assert run(photo, "-o", out, *words)[1].startswith("0 colored, 1 skipped"), words
    Image.fromarray(colored(seed=2)).save(tmp_path / "other.png")
    _, summary, said = run(photo, "-o", out, "--reference", tmp_path / "other.png")
    assert summary.startswith("1 colored") and "other hints, reference or colors to keep" in said[0]


def test_what_is_of_one_photo_is_refused_for_several(run, tmp_path):
    photo, other = write(tmp_path / "in" / "a.png"), write(tmp_path / "in" / "b.png", 1)
    given: list[list[Any]] = [["--hint", "1,1,red"], ["--hints", other], ["--keep", other]]
    for words in given:
        for paths in ([photo, other], [photo.parent], [photo, "--page", "all"]):
            code, _, said = run(*paths, "-o", tmp_path / "out", *words)
            assert code == 2 and f"{words[0]}: of one photo, there are several; name one PATH" in said[-1]
    for words in (["--hints", "no.json"], ["--keep", "no.png"], ["--reference", "no.png"]):
        code, _, said = run(photo, "-o", tmp_path / "out", *words)
        assert code == 2 and f"{words[0]} {words[1]}: no such file" in said[-1]
    code, _, said = run(photo, "-o", tmp_path / "out", "--reference", other)
    assert code == 2 and f"{other}: a reference must be a picture in color" in said[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words, message", [
    (["--hint", "1,1"], "expected X,Y,COLOR or X,Y,COLOR,R in pixels, got '1,1'"),
    (["--hint", "1,b,red"], "expected X,Y,COLOR or X,Y,COLOR,R in pixels, got '1,b,red'"),
    (["--hint", "1,1,redd"], "color must be a name or code"),
    (["--palette", "red,,blue"], "color must be a name or code"),
    (["--strength", "2.5"], "expected a number from 0 to 2, got '2.5'"),
    (["--strength", "nan"], "expected a number from 0 to 2, got 'nan'"),
])  # fmt: skip
def test_wrong_words(run, tmp_path, words, message):
    code, _, said = run(write(tmp_path / "a.png"), "-o", tmp_path / "out", *words)
    assert code == 2 and message in said[-1]


def test_hints_are_of_one_page(run, tmp_path):
    pages = [Image.fromarray(np.full((20, 30), level, np.uint8)) for level in (90, 160)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    hints_of(tmp_path / "a.tif")
    code, _, said = run(tmp_path / "a.tif", "-o", tmp_path / "out", "--page", "all")
    assert code == 1 and "is for one picture, --page all asks for all of a file" in said[0]
    assert run(tmp_path / "a.tif", "-o", tmp_path / "out", "--page", 2)[0] == 0


def test_a_hint_outside_fails_the_photo(run, tmp_path):
    code, _, said = run(write(tmp_path / "a.png"), "-o", tmp_path / "out", "--hint", "30,1,red")
    assert code == 1 and "x of a point must be a number from 0 to below 30" in said[0]
