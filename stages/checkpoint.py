"""Stages on disk: `config.json` beside `model.safetensors`, strict in both directions, never a pickle."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

Config = TypeVar("Config")
FORMAT = 2
FAMILY_OF_STAGE = {1: "coarse", 2: "color", 3: "superres"}  # how format 1 named the families
CONFIG_NAME, WEIGHTS_NAME = "config.json", "model.safetensors"


class CheckpointError(ValueError):
    """A saved stage or pipeline that is incomplete, damaged, or not what its description says."""


def read_description(folder: Path) -> dict[str, Any]:
    """The parsed config.json of a saved stage: format, family, kind, config; a number of format 1 becomes a family."""
    path = folder / CONFIG_NAME
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} must hold {CONFIG_NAME} and {WEIGHTS_NAME}; {name} is missing")
    try:
        description = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    except RecursionError:
        raise CheckpointError(f"{path} is no description: it is nested too deeply. Copy the folder again.") from None
    if not isinstance(description, dict):
        raise CheckpointError(f"{path} must be an object with format, family, kind and config")
    if description.get("format") not in (1, FORMAT):
        raise CheckpointError(
            f"{path} must have format 1 or {FORMAT}; got {description.get('format')!r}. Update trichrome."
        )
    if description["format"] == 1 and "family" not in description:
        number = description.pop("stage", None)
        description["family"] = FAMILY_OF_STAGE.get(number) if type(number) is int else None
    for key, expected in (("family", str), ("kind", str), ("config", dict)):
        if type(description.get(key)) is not expected:
            raise CheckpointError(f"{path}: {key} must be {expected.__name__}; got {description.get(key)!r}")
    return description


def load_weights(
    module: nn.Module, path: Path, *, may_miss: tuple[str, ...] = (), left_out: tuple[str, ...] = ()
) -> None:
    """Copies the weights of a safetensors file into `module`: every name and shape must agree.

    may_miss: beginnings of names that the file need not have; left_out: of names in it that are not looked at
    """
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}") from error
    weights = {name: value for name, value in weights.items() if not name.startswith(left_out)}
    expected = module.state_dict()
    missing = sorted(name for name in expected.keys() - weights.keys() if not name.startswith(may_miss))
    extra = sorted(weights.keys() - expected.keys())
    if missing or extra:
        raise CheckpointError(f"{path} does not fit its config: missing {missing[:3]}, unknown {extra[:3]} "
                              f"({len(missing)} and {len(extra)} in all)")
    for name, value in weights.items():
        if value.shape != expected[name].shape:
            raise CheckpointError(
                f"{path}: {name} must be {tuple(expected[name].shape)}; got {tuple(value.shape)}"
            )
    module.load_state_dict(weights, strict=False)


def config_from_dict(config_class: type[Config], values: dict[str, Any]) -> Config:
    """A config dataclass from parsed TOML or JSON. Unknown keys and values of another type raise; lists become
    tuples.
    """
    if not isinstance(values, dict):
        raise CheckpointError(f"{config_class.__name__} must be a table of keys and values; got {values!r}")
    fields = {field.name: field for field in dataclasses.fields(config_class)}  # type: ignore[arg-type]
    unknown = sorted(values.keys() - fields.keys())
    if unknown:
        raise CheckpointError(f"unknown keys {unknown} in {config_class.__name__}; known: {sorted(fields)}")
    hints = get_type_hints(config_class)
    converted = {}
    for name, value in values.items():
        try:
            converted[name] = _typed(value, hints[name])
        except TypeError:
            wanted = getattr(hints[name], "__name__", "") if not get_args(hints[name]) else str(hints[name])
            raise CheckpointError(f"{config_class.__name__}.{name} must be {wanted}; got {value!r}") from None
    try:
        return config_class(**converted)
    except ValueError as error:  # what a config says of its own values
        raise CheckpointError(f"{config_class.__name__}: {error}") from error


def _typed(value: Any, hint: Any) -> Any:  # Any: what TOML and JSON hold, and a type that is written as text
    """`value` as the type of a config field; a whole number will do for a float. Raises TypeError."""
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        kinds = get_args(hint)
        if kinds[-1] is Ellipsis:
            kinds = kinds[:1] * len(value)
        if len(kinds) == len(value):
            return tuple(_typed(item, kind) for item, kind in zip(value, kinds, strict=True))
    elif get_origin(hint) in (Union, UnionType):
        for kind in get_args(hint):
            try:
                return _typed(value, kind)
            except TypeError:
                continue
    elif dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        return config_from_dict(hint, value)
    elif hint is Any or type(value) is (NoneType if hint is None else hint):
        return value
    elif hint is float and type(value) is int:
        return float(value)
    raise TypeError


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_hub_id(source: str | Path) -> bool:
    """Whether `source` reads like a repository on the hub, "owner/name", and not like a path."""
    return isinstance(source, str) and bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", source))


def hub_snapshot(name: str, revision: str | None = None) -> Path:
    """The folder of a hub repository in the local cache, fetched where it is not there: JSON and safetensors only.

    revision: branch, tag or commit. Raises CheckpointError where the hub can not give it.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # whatever the hub, the network and the disk come up with
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{name!r} is no folder in {Path.cwd()}, and as a name on the hub it can not be loaded: "
                              f"{reason}") from error  # fmt: skip


def local_folder(source: str | Path) -> Path:
    """`source` as a folder on this machine; a hub id ("owner/name") is fetched."""
    path = Path(source)
    if path.is_dir():
        return path
    if isinstance(source, str) and is_hub_id(source):
        return hub_snapshot(source)
    raise CheckpointError(f"no folder {str(source)!r}; expected a saved folder, or a hub id like 'owner/name'")


@contextmanager
def replaced_folder(folder: str | Path) -> Iterator[Path]:
    """A fresh folder to fill; it takes the place of `folder` when the block ends well, and vanishes when it does
    not.
    """
    folder = Path(folder).resolve()  # a link stays a link to the new folder
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; expected a folder, or a name that is free")
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        fresh.chmod(0o755)
        yield fresh
        old = fresh.with_name(fresh.name + ".old")
        if folder.exists():
            os.rename(folder, old)
        try:
            os.rename(fresh, folder)
        except BaseException:
            if old.exists():
                os.rename(old, folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise

