"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def training_leaves_nothing_behind():
    """accelerate keeps precision and devices once chosen, also in the environment; the loop sets denormals to zero."""
    before = dict(os.environ)
    yield
    if (torch := sys.modules.get("torch")) is not None:  # many tests do without, and it takes a second to import
        torch.set_flush_denormal(False)
    if (state := sys.modules.get("accelerate.state")) is not None:
        state.AcceleratorState._reset_state(True)
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)


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


@pytest.fixture
def trichrome(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs `trichrome colorize` with stand-in stages: see tests/command.py."""
    from command import with_standins  # loads torch, which many tests do without

    return with_standins(capsys, monkeypatch)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
