"""A server with stand-in stages, asked without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from scans import gray
from standins import Featured, StandIn2, StandIn3
from starlette.testclient import TestClient

from pipeline.app.limits import Limits
from pipeline.app.server import create_app
from pipeline.color_pipeline import ColorPipeline
from pipeline.colorize import run_colorize

HERE = "http://127.0.0.1:8000"
LIMITS = Limits(megabytes=2, megapixels=1, files=4, queue=4, seconds=60, photos=5, visit_megabytes=3)


@pytest.fixture(scope="session")
def pipe() -> ColorPipeline:
    return ColorPipeline(Featured(), StandIn2(), StandIn3())


@pytest.fixture(scope="session")
def client(pipe: ColorPipeline) -> Iterator[TestClient]:
    with TestClient(create_app(pipe, run_colorize, LIMITS), base_url=HERE) as client:
        yield client


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A gray photograph of 64x48 in 8 bits."""
    Image.fromarray(gray()).save(tmp_path / "scan.png", dpi=(300, 300))
    return tmp_path / "scan.png"
