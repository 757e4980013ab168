"""The commands `trichrome app` and `trichrome serve`: what they refuse, and a whole life of a server."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from pipeline import cli, serve

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("command", ["app", "serve"])
def test_without_the_extra_it_says_what_to_install(monkeypatch, capsys, command):
    monkeypatch.setattr(serve.importlib.util, "find_spec", lambda name: None)
    assert cli.main([command]) == 2
    said = capsys.readouterr().err
    assert "FastAPI, uvicorn, python-multipart: pip install 'trichrome[app]'" in said and command in said


@pytest.mark.parametrize("arguments, sentence", [
    (["serve", "--port", "70000"], "port 70000"), (["serve", "--queue", "0"], "--queue: expected a whole number"),
    (["app", "--max-megapixels", "-1"], "--max-megapixels"), (["app", "--host", "0.0.0.0"], "--host"),
    (["serve", "--host", "999.1.1.1", "--port", "0"], "can not listen at 999.1.1.1"),
    (["serve", "--port", "0", "--weights", "./nowhere"], "nowhere"),
])  # fmt: skip
def test_what_can_not_be_is_said(capsys, arguments, sentence):
    assert cli.main(arguments) == 2
    assert sentence in capsys.readouterr().err


def test_a_port_that_is_taken_is_said_or_another_found(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["serve", "--port", str(port)]) == 2
        assert f"port {port}" in capsys.readouterr().err
        original, serve.PORT = serve.PORT, port
        try:
            with serve._listener("127.0.0.1", None) as other:
                assert other.getsockname()[1] != port
        finally:
            serve.PORT = original


def test_a_server_answers_until_it_is_stopped():
    command = [sys.executable, "-m", "pipeline.cli", "serve", "--port", "0", "--no-page"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None and server.stderr is not None
        address = server.stdout.readline().split()[3].removesuffix("docs")
        with urllib.request.urlopen(f"{address}v1/health") as answer:
            assert json.load(answer)["status"] == "ok"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(address)  # no page
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0 and server.stderr.read() == ""
