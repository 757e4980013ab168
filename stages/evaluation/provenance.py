"""Where numbers come from: commit, versions, weights."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

from stages.checkpoint import read_description, sha256_of

ROOT = Path(__file__).resolve().parents[2]


def weights_of(folder: Path | str) -> dict[str, Any]:
    """Where weights came from, their hash and settings, and whether they are averaged (EMA; None: not known)."""
    folder = Path(folder)
    description = read_description(folder)
    averaged = (description.get("trained") or {}).get("ema")
    sha256 = sha256_of(folder / "model.safetensors")
    own = folder.resolve()
    shown = own.relative_to(ROOT) if own.is_relative_to(ROOT) else folder
    config = description["config"]
    return {"folder": str(shown), "kind": description["kind"], "sha256": sha256, "ema": averaged, "config": config}


def git_state(folder: Path) -> dict[str, Any]:
    """Commit of the working copy and whether tracked files differ from it; both None outside a repository."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changed is None else bool(changed)}


def versions() -> dict[str, str]:
    """Versions of what a figure can depend on."""
    found = {"python": platform.python_version(), "cpu": platform.machine()}
    for name in ("trichrome", "torch", "numpy", "pillow", "datasets", "safetensors"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found

