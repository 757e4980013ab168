"""Pipelines on disk: `model_index.json` and one folder per stage."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from stages.checkpoint import CheckpointError
from stages.registry import KINDS

FORMAT = 1  # of model_index.json
MAX_SHARPNESS = 2.0
DEFAULT_WEIGHTS = Path(__file__).parent / "weights"
STAGES = {"stage1": 1, "stage2": 2, "stage3": 3}
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}


def read_index(folder: Path) -> tuple[dict[str, dict[str, str]], float]:
    """The checked content of model_index.json: for each stage its kind and the SHA-256 of its weights; sharpness."""
    path = folder / "model_index.json"
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is no pipeline folder: it has no model_index.json") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} can not be read: {error}") from None
    if not isinstance(index, Mapping) or index.get("format") != FORMAT:
        found = index.get("format") if isinstance(index, Mapping) else None
        raise CheckpointError(f"{path} has format {found!r}; this version reads format {FORMAT}")
    stages = index.get("stages")
    if not isinstance(stages, Mapping) or set(stages) != set(STAGES):
        raise CheckpointError(f"{path} must name exactly {', '.join(STAGES)}; it names {stages!r}")
    for name, entry in stages.items():
        if not isinstance(entry, Mapping) or set(entry) != {"kind", "sha256"}:
            raise CheckpointError(f"{path}: {name} must have a kind and a sha256; got {entry!r}")
        kinds = KINDS.get(STAGES[name], {})
        if entry["kind"] not in kinds:
            known = ", ".join(kinds)
            raise CheckpointError(f"{path}: {name} is of kind {entry['kind']!r}; known here: {known}")
    sharpness = index.get("sharpness", 0.0)
    if type(sharpness) not in (int, float) or not 0 <= sharpness <= MAX_SHARPNESS:
        raise CheckpointError(f"{path}: sharpness must be a number in [0, {MAX_SHARPNESS}]; got {sharpness!r}")
    return {name: dict(stages[name]) for name in STAGES}, sharpness


def _locate(source: str | Path | None, revision: str | None) -> tuple[Path, Path]:
    """The pipeline folder, and the folder that its files must not leave."""
    if source is None:
        if not (DEFAULT_WEIGHTS / "model_index.json").is_file():
            raise CheckpointError(f"the default weights are missing: {DEFAULT_WEIGHTS} has no "
                                  "model_index.json. Install the package again, or name a folder.")
        return DEFAULT_WEIGHTS, DEFAULT_WEIGHTS
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder, folder
    if folder.exists():
        raise CheckpointError(f"{folder} is a file; name the folder that holds model_index.json")
    text = str(source)
    is_path = isinstance(source, Path) or text.startswith((".", "/", "\\", "~"))
    if is_path or not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", text):
        raise CheckpointError(f"there is no folder {text!r}")
    from huggingface_hub import snapshot_download

    try:
        patterns = ["*.json", "*.safetensors"]
        snapshot = Path(snapshot_download(text, revision=revision, allow_patterns=patterns))
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{text!r} is no folder in {Path.cwd()}, and as a name on the hub it can not "
                              f"be loaded: {reason}") from error
    # The hub's cache keeps the files of all revisions in blobs/, beside snapshots/, and links to them.
    return snapshot, snapshot.parent.parent


def _check_files(folder: Path, inside: Path) -> None:
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is missing")
    for path in _walk(folder):
        if not path.resolve().is_relative_to(inside.resolve()):
            raise CheckpointError(f"{path} is a link that leaves {inside}; copy the file itself there")
        if path.suffix.lower() in PICKLES:
            raise CheckpointError(f"{path} is a pickle file, which can run code when loaded and is refused; "
                                  "a stage is config.json and model.safetensors only")
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name} is missing")


def _walk(folder: Path) -> Iterator[Path]:
    yield folder
    yield from sorted(folder.rglob("*"))
