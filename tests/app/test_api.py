"""The HTTP API: the command's bytes, every option of it, and an error with a sentence for everything else."""

from __future__ import annotations

import base64
import io
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scans import gray

from pipeline import cli
from pipeline.app.forms import FILES, OPTIONS
from pipeline.app.problems import CODES
from pipeline.colorize import run_colorize
from pipeline.files.run import Listeners
from pipeline.images import load_photo

HINTS = {"format": 1, "size": [64, 48], "points": [{"x": 20, "y": 30, "color": "#a03020"}]}


def by_command(pipe, out: Path, *arguments: object) -> dict[str, bytes]:
    """What the command writes: names and bytes."""
    run_colorize(pipe, [f"--output={out}", *map(str, arguments)], Listeners())
    return {path.name: path.read_bytes() for path in out.iterdir() if not path.name.startswith(".")}


def files(*paths: Path) -> list[tuple[str, tuple[str, bytes]]]:
    return [("file", (path.name, path.read_bytes())) for path in paths]


def problem(answer) -> tuple[int, str, str]:
    error = answer.json()["error"]
    assert error.keys() == {"code", "message"} and answer.status_code == CODES[error["code"]][0]
    return answer.status_code, error["code"], error["message"]


@pytest.mark.parametrize("options", [
    {}, {"seed": "3", "pool": "2"}, {"preview": "true"}, {"format": "jpeg", "quality": "80"},
])  # fmt: skip
def test_a_picture_has_the_bytes_of_the_command(client, pipe, scan, tmp_path, options):
    answer = client.post("/v1/colorize", files=files(scan), data=options)
    assert answer.status_code == 200, answer.text
    arguments = ["--preview" if name == "preview" else f"--{name}={value}" for name, value in options.items()]
    ((name, content),) = by_command(pipe, tmp_path / "out", scan, *arguments).items()
    assert answer.content == content
    assert answer.headers["content-type"] == f"image/{options.get('format', 'png')}"
    assert f'filename="{name}"' in answer.headers["content-disposition"]


def test_several_photographs_come_back_as_a_zip_with_a_report(client, pipe, tmp_path):
    paths = []
    for name, seed in (("a.png", 1), ("b.png", 2)):
        Image.fromarray(gray(seed)).save(tmp_path / name)
        paths.append(tmp_path / name)
    (tmp_path / "c.png").write_bytes(paths[0].read_bytes()[:500])
    answer = client.post("/v1/colorize", files=files(*paths, tmp_path / "c.png"), data={"samples": "2"})
    with zipfile.ZipFile(io.BytesIO(answer.content)) as zipped:
        content = {name: zipped.read(name) for name in zipped.namelist()}
    report = [json.loads(line) for line in content.pop("report.jsonl").splitlines()]
    assert content == by_command(pipe, tmp_path / "out", *paths, "--samples=2")
    told = {one["input"]: one["status"] for one in report}
    assert told == {"a.png": "colored", "b.png": "colored", "c.png": "failed"}
    assert "trichrome-" not in json.dumps(report), "the server's folders are its own"


def test_photographs_of_one_name_are_numbered(client, scan):
    answer = client.post("/v1/colorize", files=files(scan, scan))
    assert sorted(zipfile.ZipFile(io.BytesIO(answer.content)).namelist()) == ["report.jsonl", "scan-2.png", "scan.png"]


def test_hints_as_json_are_those_of_the_call(client, pipe, scan):
    answer = client.post("/v1/colorize", files=files(scan), data={"hints": json.dumps(HINTS), "seed": "1"})
    hinted = pipe(scan, generator=1, hints=[(20, 30, "#a03020")], output_type="np").images[0]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), hinted)
    plain = client.post("/v1/colorize", files=files(scan), data={"seed": "1"})
    assert plain.content != answer.content


def test_strength_0_is_the_gray_picture(client, scan):
    answer = client.post("/v1/colorize", files=files(scan), data={"strength": "0"})
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), gray()[..., None].repeat(3, 2))


def test_a_reference_guides_and_a_mask_keeps(client, pipe, tmp_path):
    color = np.random.default_rng(3).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(color).save(tmp_path / "color.png")
    Image.fromarray(np.full((48, 64), 255, np.uint8)).save(tmp_path / "mask.png")
    uploads = files(tmp_path / "color.png") + [("keep", ("mask.png", (tmp_path / "mask.png").read_bytes()))]
    answer = client.post("/v1/colorize", files=uploads)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), color), "white keeps"
    uploads = files(tmp_path / "mask.png") + [("reference", ("c.png", (tmp_path / "color.png").read_bytes()))]
    assert client.post("/v1/colorize", files=uploads).status_code == 200


def test_the_map_and_the_places_to_ask_about(client, pipe, scan):
    answer = client.post("/v1/uncertainty", files=files(scan), data={"seed": "2", "hints": json.dumps(HINTS)}).json()
    output = pipe(scan, generator=2, hints=[(20, 30, "#a03020")], uncertainty=True)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["map"]))))
    assert np.array_equal(shown, np.asarray(output.uncertainty[0])) and answer["size"] == [64, 48]
    assert answer["suggestions"] == json.loads(json.dumps([vars(one) for one in output.suggestions[0]]))


@pytest.mark.parametrize("path, data, send, code, sentence", [
    ("colorize", {}, False, "bad_request", "photograph is missing"),
    ("colorize", {"sead": "1"}, True, "bad_request", "no field 'sead'"),
    ("colorize", {"rank-with": "/etc"}, True, "bad_request", "no field 'rank-with'"),
    ("colorize", {"reference": "/etc/passwd"}, True, "bad_request", "reference must be a file"),
    ("colorize", {"seed": "many"}, True, "bad_option", "--seed: invalid int value: 'many'"),
    ("colorize", {"seed": "--overwrite"}, True, "bad_option", "--seed"),
    ("colorize", {"samples": "0"}, True, "bad_option", "whole number from 1"),
    ("colorize", {"sharpness": "3"}, True, "bad_option", "from 0 to 2"),
    ("colorize", {"preview": "yes"}, True, "bad_option", "true or false"),
    ("colorize", {"preview": "true", "samples": "2"}, True, "bad_option", "leave out --samples"),
    ("colorize", {"format": "gif"}, True, "bad_option", "choose from"),
    ("colorize", {"hints": "{"}, True, "bad_option", "JSON"),
    ("colorize", {"hints": "[" * 100_000}, True, "bad_option", "JSON"),
    ("colorize", {"hints": json.dumps({**HINTS, "size": [1, 1]})}, True, "bad_option", "scan.png"),
    ("colorize", {"hints": [json.dumps(HINTS)] * 2}, True, "bad_request", "each of 1"),
    ("colorize", {"seed": ["1", "2"]}, True, "bad_request", "seed may come once"),
    ("uncertainty", {"palette": "mauvish"}, True, "bad_option", "color must be"),
    ("uncertainty", {"samples": "2"}, True, "bad_request", "no field 'samples'"),
    ("uncertainty", {"strength": "7"}, True, "bad_option", "0 to 2"),
    ("uncertainty", {"hints": "[]"}, True, "bad_option", "valid dictionary"),
])  # fmt: skip
def test_what_is_wrong_is_said(client, scan, path, data, send, code, sentence):
    answer = client.post(f"/v1/{path}", data=data, files=files(scan) if send else [("hints", ("h", b"{}"))])
    status, said, message = problem(answer)
    assert (said, 400 <= status < 500) == (code, True) and sentence in message
    assert "trichrome-" not in message


@pytest.mark.parametrize("content, sentence", [
    (b"", "empty"), (b"GIF89a", "a GIF file"), (b"\x89PNG\r\n\x1a\n" + bytes(50), "damaged"),
    (b"words", "not an image"),
])  # fmt: skip
def test_a_bad_picture_is_said(client, content, sentence):
    for path in ("colorize", "uncertainty"):
        _, code, message = problem(client.post(f"/v1/{path}", files=[("file", ("../../x.png", content))]))
        assert code == "bad_picture" and sentence in message


def test_too_many_photographs_and_pixels(client, scan):
    assert problem(client.post("/v1/colorize", files=files(*[scan] * 5)))[1] == "too_large"
    file = io.BytesIO()
    Image.new("L", (2000, 600)).save(file, "PNG")
    answer = client.post("/v1/colorize", files=[("file", ("x.png", file.getvalue()))])
    assert "more than the limit of 1" in problem(answer)[2]


def test_no_form_no_such_place_and_another_method(client):
    assert problem(client.post("/v1/colorize", json={}))[1] == "bad_request"
    without_boundary = {"content-type": "multipart/form-data"}
    assert problem(client.post("/v1/colorize", content=b"x", headers=without_boundary))[1] == "bad_request"
    assert problem(client.get("/v1/nowhere"))[:2] == (404, "not_found")
    assert problem(client.get("/v1/colorize"))[:2] == (405, "not_allowed")


def test_health_says_what_runs(client, pipe):
    health = client.get("/v1/health").json()
    assert health["status"] == "ok" and health["weights"] == pipe.fingerprint() and health["waiting"] == 0
    assert health["limits"]["files"] == 4


def test_fields_are_options_of_the_command(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "500")
    assert cli.main(["colorize", "--help"]) == 0
    options = set(re.findall(r"--([a-z][a-z-]*)", capsys.readouterr().out))
    assert set(OPTIONS) | set(FILES) - {"file"} <= options
    of_the_server = {"help", "output", "device", "dtype", "weights", "rank-with", "report", "progress", "overwrite",
                     "max-megapixels", "no-provenance", "like", "include", "exclude", "dry-run", "threads", "workers",
                     "sheet"}  # fmt: skip
    assert options - set(OPTIONS) - set(FILES) == of_the_server, "every other option is a field"


def test_the_description_names_every_field_and_is_shown_without_other_hosts(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {"/v1/health", "/v1/colorize", "/v1/uncertainty"}
    form = paths["/v1/colorize"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["properties"]) == set(OPTIONS) | set(FILES)
    page = client.get("/docs").text
    for address in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert address.startswith("/") or address == "data:,"
        assert address == "data:," or client.get(address).status_code == 200


def test_sixteen_bits_and_metadata_are_kept(client, tmp_path):
    levels = gray(4, np.uint16)
    Image.fromarray(levels).save(tmp_path / "scan.tif", dpi=(240, 240))
    answer = client.post("/v1/colorize", files=files(tmp_path / "scan.tif"))
    photo = load_photo(answer.content)
    assert (photo.depth, photo.format, photo.dpi) == (16, "tiff", pytest.approx((240, 240)))
    assert np.abs(photo.gray * 65535 - levels).max() <= 0.51
