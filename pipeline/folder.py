"""Pipelines on disk: `model_index.json` and one folder per stage, as saved by the stage."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from stages.checkpoint import CheckpointError, hub_snapshot, is_hub_id, replaced_folder, sha256_of
from stages.faces import CoarseColorizer, ColorUpsampler, SuperResolver
from stages.options import MAX_SHARPNESS
from stages.registry import kinds_of, load_stage
from stages.stage import Stage

__all__ = ["DEFAULT_WEIGHTS", "FAMILIES", "digest_of", "load_stages", "read_index", "save_stages"]

FORMAT = 2  # of model_index.json
DEFAULT_WEIGHTS = Path(__file__).parent / "weights"
FAMILIES = {"stage1": "coarse", "stage2": "color", "stage3": "superres"}  # by folder
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}

Face = TypeVar("Face", bound=Stage)


def load_stages(
    source: str | Path | None, revision: str | None = None
) -> tuple[CoarseColorizer, ColorUpsampler, SuperResolver, float]:
    """The stages of a pipeline, and its sharpness: see `ColorPipeline.from_pretrained`."""
    folder, inside = _locate(source, revision)
    _check_inside(folder / "model_index.json", inside)
    entries, sharpness = read_index(folder)

    def opened(name: str, face: type[Face]) -> Face:
        _check_files(folder / name, inside)
        weights = folder / name / "model.safetensors"
        if (digest := sha256_of(weights)) != entries[name]["sha256"]:
            raise CheckpointError(
                f"{weights} is not the file that model_index.json names: SHA-256 {digest}, expected "
                f"{entries[name]['sha256']}. Copy the folder again."
            )
        stage = load_stage(folder / name)
        if not isinstance(stage, face) or stage.kind != entries[name]["kind"]:
            raise CheckpointError(
                f"{folder / name} holds kind {stage.kind!r} of the family {stage.family}; model_index.json says kind "
                f"{entries[name]['kind']!r} of the family {FAMILIES[name]}"
            )
        return stage

    # mypy takes an abstract class for one that would be made here.
    coarse: CoarseColorizer[Any] = opened("stage1", CoarseColorizer)  # type: ignore[type-abstract]
    color = opened("stage2", ColorUpsampler)  # type: ignore[type-abstract]
    return coarse, color, opened("stage3", SuperResolver), sharpness  # type: ignore[type-abstract]


def save_stages(folder: Path, stages: Mapping[str, Stage], sharpness: float, dtype: torch.dtype | None) -> None:
    """All of a pipeline or nothing: see `ColorPipeline.save_pretrained`."""
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; name a folder")
    present = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if others := sorted(present - {"model_index.json", *FAMILIES}):
        raise FileExistsError(f"{folder} holds more than a pipeline ({', '.join(others[:3])}), which would "
                              "be lost; choose another folder")  # fmt: skip
    index: dict[str, Any] = {"format": FORMAT, "sharpness": sharpness, "stages": {}}
    with replaced_folder(folder) as fresh:
        for name, stage in stages.items():
            stage.save_pretrained(fresh / name, dtype=dtype)
            digest = sha256_of(fresh / name / "model.safetensors")
            index["stages"][name] = {"family": stage.family, "kind": stage.kind, "sha256": digest}
        (fresh / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def digest_of(stage: Stage) -> str:
    """SHA-256 of a stage in use: its kind, its settings, and the names, shapes and values of its weights."""
    settings = json.dumps(dataclasses.asdict(stage.config), sort_keys=True)
    digest = hashlib.sha256(f"{stage.kind} {settings}\n".encode())
    for key, value in sorted(stage.state_dict().items()):
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def read_index(folder: Path) -> tuple[dict[str, dict[str, str]], float]:
    """The checked content of model_index.json: for each stage its kind and the SHA-256 of its weights; sharpness."""
    path = folder / "model_index.json"
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is no pipeline folder: it has no model_index.json") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} can not be read: {error}") from None
    except RecursionError:
        raise CheckpointError(f"{path} is no index: it is nested too deeply. Copy the folder again.") from None
    if not isinstance(index, Mapping) or index.get("format") not in (1, FORMAT):
        version = index.get("format") if isinstance(index, Mapping) else None
        raise CheckpointError(f"{path} has format {version!r}; this version reads formats 1 and {FORMAT}")
    stages = index.get("stages")
    if not isinstance(stages, Mapping) or set(stages) != set(FAMILIES):
        raise CheckpointError(f"{path} must name exactly {', '.join(FAMILIES)}; it names {stages!r}")
    for name, entry in stages.items():
        wanted = {"kind", "sha256"} if index["format"] == 1 else {"family", "kind", "sha256"}
        if not isinstance(entry, Mapping) or set(entry) != wanted:
            raise CheckpointError(f"{path}: {name} must have {', '.join(sorted(wanted))}; got {entry!r}")
        if (family := entry.get("family", FAMILIES[name])) != FAMILIES[name]:
            raise CheckpointError(f"{path}: {name} must be of the family {FAMILIES[name]}; got {family!r}")
        if any(type(value) is not str for value in entry.values()):
            raise CheckpointError(f"{path}: {', '.join(sorted(wanted))} of {name} must be texts; got {dict(entry)!r}")
        if entry["kind"] not in kinds_of(FAMILIES[name]):
            known = ", ".join(kinds_of(FAMILIES[name]))
            raise CheckpointError(f"{path}: {name} is of kind {entry['kind']!r}; known here: {known}")
    sharpness = index.get("sharpness", 0.0)
    if type(sharpness) not in (int, float) or not 0 <= sharpness <= MAX_SHARPNESS:
        raise CheckpointError(f"{path}: sharpness must be a number in [0, {MAX_SHARPNESS}]; got {sharpness!r}")
    return {name: dict(stages[name]) for name in FAMILIES}, sharpness


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
    if not is_hub_id(source):
        raise CheckpointError(f"there is no folder {str(source)!r}")
    snapshot = hub_snapshot(str(source), revision)
    # The hub's cache keeps the files of all revisions in blobs/, beside snapshots/, and links to them.
    return snapshot, snapshot.parent.parent


def _check_files(folder: Path, inside: Path) -> None:
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is missing")
    for path in _walk(folder):
        _check_inside(path, inside)
        if path.suffix.lower() in PICKLES:
            raise CheckpointError(f"{path} is a pickle file, which can run code when loaded and is refused; "
                                  "a stage is config.json and model.safetensors only")
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name} is missing")


def _check_inside(path: Path, inside: Path) -> None:
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(inside)):
        raise CheckpointError(f"{path} is a link that leaves {inside}; copy the file itself there")


def _walk(folder: Path) -> Iterator[Path]:
    yield folder
    yield from sorted(folder.rglob("*"))
