"""Tiny photographs, and evaluation scripts run on them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.evaluation.tables import GRAY, ORIGINALS, PREVIEW
from stages.provenance import ROOT
from stages.registry import kind_of
from stages.training.config import Config

PHOTOS = {"photos64": 6, "photos128": 4, "photos256": 4}


def random_picture(size: tuple[int, int], seed: int) -> Image.Image:
    """Smooth random colors, as photographs rather are than noise is; size: (width, height)."""
    values = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.BICUBIC)


def photograph(name: str, seed: int) -> Image.Image:
    """Those of photos128 are not square, and now and then larger than need be."""
    side = int(name.removeprefix("photos"))
    sizes = [(128, 150), (171, 128), (128, 128), (192, 256)] if name == "photos128" else [(side, side)]
    return random_picture(sizes[seed % len(sizes)], seed)


def encoded(name: str, seed: int) -> bytes:
    buffer = BytesIO()
    photograph(name, seed).save(buffer, format="PNG")
    return buffer.getvalue()


def scores(script: ModuleType, data: Path, out: Path, *options: str) -> dict[str, Any]:
    assert script.main(["--data", str(data), "--out", str(out), "--sheet-photos", "2", *options]) == 0
    return json.loads((out / "results.json").read_text(), parse_constant=lambda name: pytest.fail(name))


def by_name(results: dict[str, Any]) -> dict[str, Any]:
    return {row["name"]: row for row in results["rows"]}


def check_complete(results: dict[str, Any], name: str, stages: set[str]) -> None:
    """Every number with what is needed to get it again."""
    digests = b"".join(hashlib.sha256(encoded(name, seed)).digest() for seed in range(PHOTOS[name]))
    expected = hashlib.sha256(digests).hexdigest()
    assert results["photos"] == {"name": f"{name}/validation", "count": PHOTOS[name], "sha256": expected}
    assert results["command"].startswith("python ") and results["seed"] == 0
    assert results["commit"] and results["date"] and results["threads"] >= 1
    assert {"python", "trichrome", "torch", "numpy", "pillow", "datasets"} <= set(results["versions"])
    assert results["half_splits"]["splits"] == 20 and len(results["features"]["sha256"]) == 64
    assert set(results["weights"]) == stages
    assert results["steps"] == {stage: 7 for stage in stages}
    assert results["sampler"] == {stage: "none" for stage in stages}
    for entry in results["weights"].values():
        assert len(entry["sha256"]) == 64 and entry["ema"] is True and entry["kind"].startswith("stand-in")
    rows = [row["name"] for row in results["rows"]]
    assert rows[:3] == [ORIGINALS, GRAY, PREVIEW]
    for row in results["rows"]:
        assert {"ciede2000", "squeezenet_distance"} <= set(row)
        if "candidates" not in row:
            assert {"psnr", "colorfulness_ratio", "squeezenet_kid", "squeezenet_kid_95"} <= set(row)


def tiny(name: str, **changes: Any) -> Any:
    """A real stage as small as a config of configs/tiny makes it, with random weights."""
    config = Config.read(ROOT / "configs" / "tiny" / f"{name}.toml")
    return kind_of(config.family, config.kind)[1](replace(config.network, **changes)).eval()
