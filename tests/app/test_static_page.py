"""The page of docs/use/browser in a real browser, on static files alone: it colors as torch does."""

from __future__ import annotations

import functools
import http.server
import shutil
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import ort_web
import pytest
from PIL import Image
from test_browser import ARGUMENTS, CHROMIUM

from pipeline import ColorPipeline, cli
from pipeline.demo import free_photos
from pipeline.images.read import xmp_of
from pipeline.images.xmp import property_of
from pipeline.provenance.record import SOURCE_TYPE

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="Debian's chromium is not installed"),
    pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed: onnxruntime-web comes from it"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page, the graphs of the weights in the package, and onnxruntime-web."""
    folder = tmp_path_factory.mktemp("static") / "site"
    shutil.copytree(ort_web.PAGE, folder)
    shutil.copytree(ort_web.fetch(), folder / "ort")
    assert cli.main(["export", "--format", "onnx", "--fp16", "-o", str(folder / "graphs")]) == 0
    return folder


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *_: object) -> None:  # noqa: A002  (the name that it has there)
        pass


@pytest.fixture
def page(site: Path) -> Iterator[Page]:
    """The page; afterwards its log is looked through: no error, and no request to any other host."""
    from playwright.sync_api import sync_playwright

    with socketserver.TCPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            page = browser.new_page()
            errors: list[str] = []
            asked: list[str] = []
            page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("request", lambda request: asked.append(request.url))
            page.goto(address)
            yield page
            browser.close()
        server.shutdown()
    assert errors == []
    assert [url for url in asked if not url.startswith((address, "blob:", "data:"))] == []


def download(page: Page, to: Path) -> np.ndarray:
    with page.expect_download() as event:
        page.get_by_role("button", name="Download PNG").click()
    event.value.save_as(to)
    with Image.open(to) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def source_type(path: Path) -> str | None:
    return property_of(xmp_of(path) or b"", SOURCE_TYPE.namespace, SOURCE_TYPE.name)


def test_the_page_colors_as_torch_does(page: Page, tmp_path: Path) -> None:
    """Two draws of a photograph: at least 99.5 % of the pixels within two levels, and the luma to half a level."""
    with Image.open(next(path for path in free_photos() if path.stem == "coffee")) as image:
        gray = image.convert("L").resize((450, 300))
    gray.save(tmp_path / "scan.png")
    page.set_input_files("#photo", tmp_path / "scan.png")
    pipe = ColorPipeline.from_pretrained()
    for candidate in range(2):
        page.get_by_text(f"Draw {candidate + 1}.").wait_for(timeout=120_000)
        found = download(page, tmp_path / "scan-colored.png")
        assert source_type(tmp_path / "scan-colored.png") == SOURCE_TYPE.text
        expected = np.asarray(pipe(gray, candidate=candidate, generator=0).images[0]).astype(int)
        assert (np.abs(found - expected).max(2) <= 2).mean() >= 0.995
        assert np.abs(found @ np.array([0.299, 0.587, 0.114]) - np.asarray(gray)).max() <= 0.5
        page.get_by_role("button", name="Another draw").click()


def test_what_is_no_picture_is_said(page: Page, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    page.set_input_files("#photo", tmp_path / "letter.txt")
    page.get_by_text("letter.txt is no picture that this browser reads").wait_for()
    assert page.get_by_role("button", name="Download PNG").is_disabled()


def test_a_failed_download_is_tried_again(page: Page, site: Path, tmp_path: Path) -> None:
    Image.new("L", (90, 60), 99).save(tmp_path / "a.png")
    page.route("**/trichrome.json", lambda route: route.fulfill(status=200, body="no JSON"), times=1)
    page.set_input_files("#photo", tmp_path / "a.png")
    page.get_by_text("It failed:").wait_for()
    page.set_input_files("#photo", [])
    page.set_input_files("#photo", tmp_path / "a.png")
    page.get_by_text("Draw 1.").wait_for(timeout=120_000)
