"""The examples of docs/use/http-api.md, run as they stand there against a server."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from PIL import Image
from scans import gray

from pipeline.app.server import create_app
from pipeline.colorize import run_colorize

PAGE = Path(__file__).parents[2] / "docs" / "use" / "http-api.md"
HERE = "http://127.0.0.1:8000"


@pytest.fixture
def address(pipe) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(create_app(pipe, run_colorize, page=False), log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def example(language: str, address: str) -> str:
    blocks = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (found,) = (block for block in blocks if HERE in block)
    return found.replace(HERE, address)


def test_curl_and_python_do_what_the_page_says(address, pipe, tmp_path):
    Image.fromarray(gray()).save(tmp_path / "grandmother.jpg")
    if shutil.which("curl"):
        subprocess.run(["bash", "-e", "-c", example("sh", address)], cwd=tmp_path, check=True)
        colored = np.asarray(Image.open(tmp_path / "colored.jpg"))
        pipe(tmp_path / "grandmother.jpg", generator=4).save(tmp_path / "expected.jpg")
        assert np.array_equal(colored, np.asarray(Image.open(tmp_path / "expected.jpg")))
        assert (tmp_path / "hinted.jpg").read_bytes() != (tmp_path / "colored.jpg").read_bytes()
    subprocess.run([sys.executable, "-c", example("python", address)], cwd=tmp_path, check=True)
    assert Image.open(tmp_path / "uncertainty.png").size == (64, 48)
    assert Image.open(tmp_path / "colored-again.jpg").size == (64, 48)
