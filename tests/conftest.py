"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder of the photographs: TRICHROME_DATA, else data/ or ../shared/data; skips where there is none."""
    named = os.environ.get("TRICHROME_DATA")
    candidates = [Path(named)] if named else [ROOT / "data", ROOT.parent / "shared" / "data"]
    for folder in candidates:
        if folder.is_dir():
            return folder
    pytest.skip("no photographs: set TRICHROME_DATA to their folder (looked in "
                + ", ".join(map(str, candidates)) + ")")
