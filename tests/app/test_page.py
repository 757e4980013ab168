"""What the page asks of the server: pictures of the call's own bytes, for whom they belong to, and nobody else."""

from __future__ import annotations

import base64
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scans import gray

from pipeline.app.problems import CODES
from pipeline.images import load_photo

LOOK: dict[str, Any] = {
    "seed": 1, "candidate": None, "palette": [], "strength": 1.0, "reference": None,
    "hints": {"format": 1, "size": [64, 48], "points": [{"x": 20, "y": 30.5, "color": "#a03020", "radius": 6}]},
}  # fmt: skip
CALL: dict[str, Any] = {"generator": 1, "hints": [(20, 30.5, "#a03020", 6)]}


class Visitor:
    def __init__(self, client) -> None:
        self.client = client
        self.headers = {"Trichrome-Visit": client.post("/page/visit").json()["visit"]}

    def __call__(self, path: str, json: object = None, method: str = "POST", **options):
        return self.client.request(method, f"/page/{path}", json=json, headers=self.headers, **options)

    def opens(self, path: Path, name: str | None = None) -> str:
        answer = self(f"photos?name={name or path.name}", content=path.read_bytes())
        assert answer.status_code == 200, answer.text
        return answer.json()["id"]


@pytest.fixture
def visitor(client):
    visitor = Visitor(client)
    yield visitor
    client.post("/page/visit/end", content=visitor.headers["Trichrome-Visit"])


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def test_an_upload_says_what_it_is(visitor, scan):
    told = visitor("photos?name=..%2F..%2Fscan.png", content=scan.read_bytes()).json()
    assert told.pop("id")
    assert told == {"width": 64, "height": 48, "depth": 8, "format": "png", "is_color": False, "notes": []}


def test_a_picture_is_that_of_the_call_and_says_its_draw(visitor, pipe, scan):
    key = visitor.opens(scan)
    answer = visitor(f"photos/{key}/picture", {"look": LOOK})
    output = pipe(scan, **CALL)
    expected = io.BytesIO()
    output.images[0].save(expected, "JPEG", quality=92, subsampling=0)
    assert answer.content == expected.getvalue()
    assert answer.headers["trichrome-candidate"] == str(output.info[0].candidate)
    small = visitor(f"photos/{key}/picture", {"look": LOOK, "side": 32})
    assert pixels(small.content).shape == (24, 32, 3)


def test_the_gray_picture_is_gray(visitor, scan):
    shown = pixels(visitor(f"photos/{visitor.opens(scan)}/gray", {}).content)
    assert shown.shape == (48, 64) and np.abs(shown.astype(int) - gray()).mean() < 4


def test_versions_are_the_pictures_of_a_call_for_four(visitor, pipe, scan):
    told = visitor(f"photos/{visitor.opens(scan)}/versions", {"seed": 1}).json()["versions"]
    output = pipe(scan, num_samples=4, generator=1)
    assert [one["candidate"] for one in told] == [info.candidate for info in output.info]
    assert all(one["thumbnail"].startswith("data:image/jpeg;base64,") for one in told)


def test_the_map_has_its_suggestions(visitor, pipe, scan):
    told = visitor(f"photos/{visitor.opens(scan)}/uncertainty", {"look": LOOK}).json()
    output = pipe(scan, uncertainty=True, **CALL)
    shown = pixels(base64.b64decode(told["map"].split(",")[1]))
    assert np.array_equal(shown, np.asarray(output.uncertainty[0]))
    assert [one["x"] for one in told["suggestions"]] == [one.x for one in output.suggestions[0]]


def test_colors_of_a_place_are_those_of_draws(visitor, pipe, scan):
    key = visitor.opens(scan)
    colors = visitor(f"photos/{key}/colors", {"seed": 0, "x": 10, "y": 10, "radius": 4}).json()["colors"]
    assert colors == list(pipe.colors_at(scan, 10, 10, 4, generator=0)) and 1 <= len(colors) <= 5
    wrong = visitor(f"photos/{key}/colors", {"seed": 0, "x": 64, "y": 10, "radius": 4})
    assert wrong.json()["error"]["code"] == "bad_option"


def test_a_file_has_the_bytes_that_the_call_saves(visitor, pipe, tmp_path):
    levels = gray(5, np.uint16)
    Image.fromarray(levels).save(tmp_path / "scan.tif", dpi=(240, 240))
    answer = visitor(f"photos/{visitor.opens(tmp_path / 'scan.tif')}/file", {"look": LOOK})
    pipe(tmp_path / "scan.tif", **CALL).save(tmp_path / "saved.tif")
    assert answer.content == (tmp_path / "saved.tif").read_bytes()
    assert "scan-colored.tif" in answer.headers["content-disposition"]
    photo = load_photo(answer.content)
    assert photo.depth == 16 and np.abs(photo.gray * 65535 - levels).max() <= 0.51
    assert photo.dpi == pytest.approx((240, 240))


def test_a_file_keeps_its_format_whatever_its_name(visitor, scan):
    answer = visitor(f"photos/{visitor.opens(scan, 'süß scan.jpeg')}/file", {"look": LOOK})
    assert "s%C3%BC%C3%9F%20scan-colored.png" in answer.headers["content-disposition"]
    assert answer.content.startswith(b"\x89PNG")


def test_many_come_in_a_zip(visitor, pipe, scan, tmp_path):
    keys = [visitor.opens(scan), visitor.opens(scan)]
    plain = {**LOOK, "hints": None}
    ordered = [{"photo": keys[0], "look": LOOK}, {"photo": keys[1], "look": plain}]
    answer = visitor("zip", {"photos": ordered})
    with zipfile.ZipFile(io.BytesIO(answer.content)) as zipped:
        assert zipped.namelist() == ["scan-colored.png", "scan-colored-2.png"]
        pipe(scan, **CALL).save(tmp_path / "saved.png")
        assert zipped.read("scan-colored.png") == (tmp_path / "saved.png").read_bytes()


def test_a_reference_and_a_palette_guide(visitor, pipe, scan, tmp_path):
    color = np.random.default_rng(3).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(color).save(tmp_path / "color.png")
    key, other = visitor.opens(scan), visitor.opens(tmp_path / "color.png")
    look = {**LOOK, "hints": None, "reference": other, "palette": ["#204080"], "strength": 0.5}
    answer = visitor(f"photos/{key}/picture", {"look": look})
    output = pipe(scan, generator=1, reference=color, palette=["#204080"], strength=0.5)
    expected = io.BytesIO()
    output.images[0].save(expected, "JPEG", quality=92, subsampling=0)
    assert answer.content == expected.getvalue()
    look["reference"] = key
    refused = visitor(f"photos/{key}/picture", {"look": look}).json()["error"]
    assert refused["code"] == "bad_option" and "picture in color" in refused["message"]


def test_a_hints_file_is_checked_and_its_colors_are_made_plain(visitor):
    record = {"format": 1, "size": [64, 48], "points": [{"x": 1, "y": 2, "color": "navy"}]}
    told = visitor("hints", {"hints": record}).json()
    assert told == {"size": [64, 48], "points": [{"x": 1, "y": 2, "color": "#000080", "radius": None}]}
    outside = [{"x": 99, "y": 2, "color": "navy"}]
    for change, sentence in (({"format": 2}, "format must be 1"), ({"strokes": "x.png"}, "leave them out"),
                             ({"points": outside}, "inside the photograph")):  # fmt: skip
        error = visitor("hints", {"hints": {**record, **change}}).json()["error"]
        assert error["code"] == "bad_option" and sentence in error["message"]


def test_nobody_sees_the_pictures_of_another(client, visitor, scan):
    key, other = visitor.opens(scan), Visitor(client)
    look: dict[str, Any] = {"look": LOOK}
    for path, json in ((f"photos/{key}/gray", {}), (f"photos/{key}/picture", look), (f"photos/{key}/file", look),
                       ("zip", {"photos": [{"photo": key, **look}]})):  # fmt: skip
        assert other(path, json).status_code == 404
    assert other(f"photos/{key}", method="DELETE").status_code == 404
    assert visitor(f"photos/{key}", method="DELETE").status_code == 204
    assert visitor(f"photos/{key}/gray", {}).status_code == 404


def test_after_the_visit_nothing_is_there(client, scan):
    visitor = Visitor(client)
    key = visitor.opens(scan)
    client.post("/page/visit/end", content=visitor.headers["Trichrome-Visit"])
    answer = visitor(f"photos/{key}/gray", {})
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "gone")
    assert client.post("/page/photos?name=x", content=b"", headers={"Trichrome-Visit": "guessed"}).status_code == 410


@pytest.mark.parametrize("path, json, code", [
    ("photos/{key}/picture", {}, "bad_request"), ("photos/{key}/picture", {"look": {"sead": 1}}, "bad_request"),
    ("photos/{key}/picture", {"look": {"strength": 3}}, "bad_option"),
    ("photos/{key}/picture", {"look": {"candidate": -1}}, "bad_option"),
    ("photos/{key}/picture", {"look": {"palette": ["mauvish"]}}, "bad_option"),
    ("photos/{key}/picture", {"look": {"reference": "x"}}, "not_found"),
    ("photos/{key}/picture", {"look": {"hints": {"format": 1, "size": [9, 9], "points": []}}}, "bad_option"),
    ("photos/{key}/picture", {"look": {}, "side": 0}, "bad_request"), ("photos/x/picture", {"look": {}}, "not_found"),
    ("jobs/x", None, "not_allowed"),
])  # fmt: skip
def test_what_is_wrong_is_said(visitor, scan, path, json, code):
    answer = visitor(path.format(key=visitor.opens(scan)), json)
    error = answer.json()["error"]
    assert (error["code"], answer.status_code) == (code, CODES[code][0]) and error["message"]


def test_a_job_that_nobody_knows_is_at_its_beginning(visitor):
    assert visitor("jobs/x", method="GET").json() == {"ahead": 0, "done": 0, "total": 0}


def test_the_page_and_its_parts_are_there(client):
    page = client.get("/").text
    assert "<title>Trichrome</title>" in page
    folder = Path(__file__).parents[2] / "pipeline" / "app" / "page"
    for path in folder.iterdir():
        assert client.get(f"/static/{path.name}").status_code == 200
        text = path.read_text()
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "") and "https://" not in text
