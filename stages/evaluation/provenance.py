"""Where numbers come from: versions, weights."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from stages.checkpoint import read_description, sha256_of
from stages.provenance import ROOT


def weights_of(folder: Path) -> dict[str, Any]:
    """Where weights came from, their hash and settings, and what they tell of their training (None: nothing)."""
    description = read_description(folder)
    trained = description.get("trained")
    absolute = folder.resolve()
    shown = absolute.relative_to(ROOT) if absolute.is_relative_to(ROOT) else folder
    return {
        "folder": str(shown), "kind": description["kind"], "sha256": sha256_of(folder / "model.safetensors"),
        "ema": (trained or {}).get("ema"), "trained": trained, "config": description["config"],
    }  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of what a figure can depend on."""
    known = {"python": platform.python_version(), "cpu": platform.machine()}
    for name in ("trichrome", "torch", "numpy", "pillow", "datasets", "safetensors"):
        try:
            known[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            known[name] = "not installed"
    return known
