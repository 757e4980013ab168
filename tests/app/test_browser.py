"""The page in a real browser: a visit from the first picture to the download, by mouse and by keyboard.

Every test ends with a look at the browser's log: no error, and no request to any other host. Pictures of the page go
to docs/use where TRICHROME_PICTURES is set.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from pipeline.demo import free_photos
from pipeline.images import load_photo

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium") or "chromium"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]  # fmt: skip
PICTURES = Path(__file__).parents[2] / "docs" / "use"
RED = "#a03428"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server of its own, with the weights in the package."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pipeline.cli", "serve", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert f":{port}/" in server.stdout.readline()
        yield f"http://127.0.0.1:{port}"
        server.terminate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page of 1280x800 pixels, or as the test says; afterwards its log is looked through."""
    options: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}} | getattr(request, "param", {})
    page = browser.new_page(**options)
    errors: list[str] = []
    hosts: set[str] = set()
    expected: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda asked: hosts.add(re.sub(r"^(data|blob):.*", r"\1:", asked.url).split("/page")[0]))
    page.expected_errors = expected  # type: ignore[attr-defined]  # of the status that a test provokes
    page.goto(address)
    yield page
    page.close()
    assert [error for error in errors if not any(part in error for part in expected)] == []
    elsewhere = [host for host in hosts if not host.startswith((address, "data:", "blob:"))]
    assert elsewhere == []


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Free photographs made gray: a 16-bit TIFF with a resolution, and JPEGs."""
    folder = tmp_path_factory.mktemp("scans")
    scans = {}
    for path in free_photos():
        gray = Image.open(path).convert("L")
        if path.stem == "coffee":
            levels = np.asarray(gray, np.uint16) * 257
            Image.fromarray(levels).save(folder / "coffee.tif", dpi=(300, 300), description="a cup")
            scans["coffee"] = folder / "coffee.tif"
        else:
            large = gray.resize((2 * gray.width, 2 * gray.height), Image.Resampling.LANCZOS)
            large.save(folder / f"{path.stem}.jpg", quality=92)
            scans[path.stem] = folder / f"{path.stem}.jpg"
    scans["color"] = next(path for path in free_photos() if path.stem == "flower")
    return scans


def opened(page: Page, *paths: Path) -> None:
    """Opens photographs and waits for the versions of the first."""
    page.set_input_files("#file", list(paths))
    page.wait_for_selector(".version img")
    page.wait_for_function("() => document.querySelector('#activity').hidden")


def pictures(page: Page) -> int:
    """How many colored pictures the canvas has shown."""
    return int(page.locator("#canvas").get_attribute("data-pictures") or 0)


def after(page: Page, number: int) -> None:
    """Waits until another picture than the first `number` is shown, and nothing is under way."""
    page.wait_for_function("n => Number(document.querySelector('#canvas').dataset.pictures) > n", arg=number)
    page.wait_for_function("() => document.querySelector('#stage').ariaBusy === 'false'")
    page.wait_for_function("() => document.querySelector('#activity').hidden")


def shown(page: Page) -> str:
    """The picture on the canvas, without what lies over it."""
    return page.locator("#canvas").evaluate("canvas => canvas.toDataURL()")


def hint_at(page: Page, x: float, y: float) -> None:
    """Clicks a place of the stage, in shares of it, and waits for the colors that are offered."""
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
    page.wait_for_selector("#picker-colors .swatch")


def paint(page: Page, color: str) -> None:
    before = pictures(page)
    page.locator("#picker-any").fill(color)
    after(page, before)


def saved(page: Page, button: str, folder: Path) -> Path:
    with page.expect_download() as waiting:
        page.locator(button).click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def colored_by_api(address: str, photo: Path, **fields: str) -> bytes:
    """The picture that the HTTP API gives."""
    boundary = "trichrome-test"
    parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
             for name, value in fields.items()]  # fmt: skip
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{photo.name}"\r\n\r\n'
    body = b"".join([*parts, head.encode(), photo.read_bytes(), f"\r\n--{boundary}--\r\n".encode()])
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    with urllib.request.urlopen(urllib.request.Request(f"{address}/v1/colorize", body, headers)) as answer:
        return answer.read()


def test_a_visit_from_upload_to_download(page: Page, address: str, scans: dict[str, Path], tmp_path: Path) -> None:
    opened(page, scans["coffee"])
    assert page.locator(".version").count() == 4 and page.locator(".version[aria-pressed=true]").count() == 1
    first = shown(page)

    count = pictures(page)
    page.locator(".version").nth(1).click()
    after(page, count)
    second = shown(page)
    assert second != first and page.locator(".version").nth(1).get_attribute("aria-pressed") == "true"

    hint_at(page, 0.5, 0.4)
    assert page.locator(".hint.pending").count() == 1 and shown(page) == second, "a place has no color yet"
    paint(page, RED)
    hinted = shown(page)
    assert hinted != second and page.locator(".chip").count() == 1

    marker = page.locator(".hint button")
    box = marker.bounding_box()
    assert box is not None
    count = pictures(page)
    page.mouse.move(box["x"] + 13, box["y"] + 13)
    page.mouse.down()
    page.mouse.move(box["x"] + 150, box["y"] + 90, steps=6)
    page.mouse.up()
    after(page, count)
    dragged = shown(page)
    assert dragged != hinted

    count = pictures(page)
    page.locator("#picker-any").focus()  # a color has no undo of its own
    page.keyboard.press("Control+z")
    after(page, count)
    assert page.locator(".hint button").bounding_box() == box, "one step takes a whole drag back"
    page.locator("#redo").click()
    after(page, count + 1)
    assert page.locator(".hint button").bounding_box() != box

    page.keyboard.press("Escape")
    page.locator(".switch").click()
    page.wait_for_selector(".place button")
    page.wait_for_function("() => document.querySelector('#activity').hidden")
    assert page.locator("#suggestions .chip").count() == page.locator(".place").count() > 0
    count = pictures(page)
    page.locator(".place button").first.click()
    page.locator("#picker-colors .swatch").first.click()
    after(page, count)
    assert page.locator("#hints .chip").count() == 2
    page.locator(".switch").click()

    count = pictures(page)
    page.set_input_files("#reference-file", scans["color"])
    after(page, count)
    assert page.locator("#reference-name").inner_text() == "flower.jpg"
    count = pictures(page)
    page.locator("#strength").fill("0.5")
    after(page, count)
    page.locator("#reference-remove").click()
    after(page, count + 1)

    path = saved(page, "#download", tmp_path)
    scan, colored = load_photo(scans["coffee"]), load_photo(path, keep_rgb=True)
    assert (path.name, colored.depth, colored.format) == ("coffee-colored.tif", 16, "tiff")
    assert colored.dpi == pytest.approx((300, 300))
    assert np.abs(colored.gray - scan.gray).max() * 65535 <= 0.51 and colored.is_color
    assert colored.exif is not None and b"a cup" in colored.exif

    hints = saved(page, "#hints-save", tmp_path)
    note = page.locator("#save-note").inner_text()
    seed, candidate = re.findall(r"Seed (\d+), draw (\d+)", note)[0]
    options = {"hints": hints.read_text(), "seed": seed, "candidate": candidate, "strength": "0.5"}
    again = colored_by_api(address, scans["coffee"], **options)
    assert again == path.read_bytes(), "the same from the page and from the API with its hints file"


def test_hints_come_back_from_their_file(page: Page, scans: dict[str, Path], tmp_path: Path) -> None:
    opened(page, scans["coffee"])
    hint_at(page, 0.4, 0.5)
    paint(page, RED)
    page.keyboard.press("Escape")
    one = saved(page, "#download", tmp_path).read_bytes()
    hints = saved(page, "#hints-save", tmp_path)
    assert hints.name == "coffee.tif.hints.json"
    page.locator("#hints .chip").click()
    page.locator("#picker-delete").click()
    assert page.locator("#hints .chip").count() == 0
    count = pictures(page)
    page.set_input_files("#hints-file", hints)
    after(page, count)
    assert saved(page, "#download", tmp_path).read_bytes() == one

    page.expected_errors.append("422")  # type: ignore[attr-defined]
    for content, sentence in (("{", "not JSON"), (json.dumps({"format": 2}), "must have"),
                              (json.dumps({"format": 1, "size": [5, 5], "points": []}), "5 × 5 pixels")):  # fmt: skip
        (tmp_path / "wrong.json").write_text(content)
        page.set_input_files("#hints-file", tmp_path / "wrong.json")
        page.wait_for_function("s => document.querySelector('#messages').innerText.includes(s)", arg=sentence)
    assert page.locator("#hints .chip").count() == 1


def test_all_of_it_by_keyboard(page: Page, scans: dict[str, Path]) -> None:
    opened(page, scans["coffee"])
    count = pictures(page)
    page.keyboard.press("2")
    after(page, count)
    page.keyboard.press("h")
    page.wait_for_selector("#picker-colors .swatch")
    page.locator("#picker-colors .swatch").nth(1).focus()
    count = pictures(page)
    page.keyboard.press("Enter")
    after(page, count)
    page.keyboard.press("Escape")
    marker = page.locator(".hint button")
    assert marker.evaluate("button => button === document.activeElement"), "closing gives the focus back"
    where = marker.get_attribute("aria-label")
    count = pictures(page)
    for key in ("ArrowRight", "ArrowDown", "Shift+ArrowRight", "]"):
        page.keyboard.press(key)
    after(page, count)
    assert marker.get_attribute("aria-label") != where
    page.keyboard.press("Delete")
    assert page.locator(".hint").count() == 0
    page.keyboard.press("c")
    divider = page.locator("#divider")
    divider.focus()
    page.keyboard.press("ArrowRight")
    assert divider.get_attribute("aria-valuenow") == "52"
    zoom = page.locator("#zoom").inner_text()
    page.keyboard.press("+")
    assert page.locator("#zoom").inner_text() != zoom
    page.keyboard.press("0")
    assert page.locator("#zoom").inner_text() == zoom


def test_bad_files_are_said_and_the_good_ones_opened(page: Page, scans: dict[str, Path], tmp_path: Path) -> None:
    page.expected_errors.append("415")  # type: ignore[attr-defined]
    torn = scans["china"].read_bytes()[:4000]
    for name, content in (("notes.txt", b"words"), ("torn.jpg", torn), ("empty.png", b"")):
        (tmp_path / name).write_bytes(content)
    opened(page, tmp_path / "notes.txt", tmp_path / "torn.jpg", tmp_path / "empty.png", scans["coffee"])
    said = page.locator("#messages").inner_text().lower()
    for words in ("notes.txt is no picture", "torn.jpg: damaged or truncated", "empty.png: the file is empty"):
        assert words in said
    assert "coffee.tif" in page.locator("#title").inner_text()


def test_many_photographs_to_a_zip(page: Page, scans: dict[str, Path], tmp_path: Path) -> None:
    opened(page, scans["coffee"], scans["astronaut"])
    page.wait_for_selector(".thumb >> nth=1")
    page.locator(".thumb").nth(1).click()
    page.wait_for_function("() => document.querySelector('#title').innerText.includes('astronaut')")
    path = saved(page, "#download-all", tmp_path)
    with zipfile.ZipFile(path) as zipped:
        assert zipped.namelist() == ["coffee-colored.tif", "astronaut-colored.jpg"]


def test_what_takes_long_can_be_cancelled(page: Page, scans: dict[str, Path]) -> None:
    opened(page, scans["coffee"])
    page.route("**/uncertainty", lambda route: None)  # never answered
    page.locator(".switch").click()
    page.locator("#activity-cancel").click()
    page.wait_for_function("() => document.querySelector('#activity').hidden")
    assert not page.locator("#overlay").is_checked() and page.locator("#messages").inner_text() == ""


def test_the_end_of_a_visit_is_mended(page: Page, address: str, scans: dict[str, Path]) -> None:
    opened(page, scans["coffee"])
    page.expected_errors.append("410")  # type: ignore[attr-defined]
    secret = page.evaluate("async () => (await (await import('/static/api.js')).begun()).visit")
    urllib.request.urlopen(urllib.request.Request(f"{address}/page/visit/end", secret.encode()))
    count = pictures(page)
    page.locator("#strength").fill("0.7")
    after(page, count)
    assert page.locator("#messages").inner_text() == "", "the page sends its file again"


@pytest.mark.parametrize("page", [
    {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
    {"viewport": {"width": 390, "height": 844}, "color_scheme": "light", "has_touch": True},
    {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "has_touch": True},
], indirect=True, ids=["wide-light", "wide-dark", "phone-light", "phone-dark"])  # fmt: skip
def test_nobody_is_kept_from_using_it(page: Page, scans: dict[str, Path], request: pytest.FixtureRequest) -> None:
    from axe import fetch

    script = fetch().read_text()

    def serious() -> list[str]:
        page.evaluate(script)  # by the test's own hand: the page itself may load nothing of the kind
        found = page.evaluate("axe.run()")["violations"]
        return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in ("serious", "critical")]

    assert serious() == [], "the start"
    opened(page, scans["china"], scans["astronaut"])
    hint_at(page, 0.45, 0.42)
    paint(page, RED)
    assert serious() == [], "with a hint"
    picture(page, f"page-{request.node.callspec.id}.jpg")
    page.keyboard.press("Escape")
    page.locator(".switch").click()
    page.wait_for_selector(".place button")
    assert serious() == [], "with the map"
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= page.viewport_size["width"], "nothing hangs out at the side"  # type: ignore[index]


def picture(page: Page, name: str) -> None:
    """Of the page for the docs, where they are wanted."""
    if os.environ.get("TRICHROME_PICTURES"):
        page.screenshot(path=PICTURES / name, type="jpeg", quality=85)
