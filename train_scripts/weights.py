"""The stages that evaluation scripts are asked for: named folders of weights, else the packaged ones."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pipeline import ColorPipeline
from pipeline.folder import DEFAULT_WEIGHTS, FAMILIES
from stages.checkpoint import read_description
from stages.evaluation.photos import EvaluationError
from stages.evaluation.report import Account
from stages.faces import CoarseColorizer, ColorUpsampler, SuperResolver
from stages.image_to_image.face import ImageToImage
from stages.options import SampleOptions
from stages.registry import load_stage


def stage_weights(named: Path | None, family: str) -> Path:
    """Folder of a stage's weights, the named or the packaged one; raises EvaluationError."""
    folder = named or _packaged(family)
    if not (folder / "config.json").is_file():
        raise EvaluationError(f"no {family} weights in {folder}: give a folder written by save_pretrained")
    if (other := read_description(folder)["family"]) != family:
        raise EvaluationError(f"{folder} holds weights of the family {other}; expected {family}")
    return folder


def optional_weights(named: Path | None, family: str) -> Path | None:
    """As `stage_weights`, but None where none was named and none is packaged."""
    if named is None and not (_packaged(family) / "config.json").is_file():
        return None
    return stage_weights(named, family)


def coarse_colorizer(folder: Path) -> CoarseColorizer[Any]:  # Any: each kind has an encoding of its own
    stage = load_stage(folder)
    assert isinstance(stage, CoarseColorizer)  # the registry has seen to it, here and below
    return stage


def color_upsampler(folder: Path) -> ColorUpsampler:
    stage = load_stage(folder)
    assert isinstance(stage, ColorUpsampler)
    return stage


def super_resolver(folder: Path) -> SuperResolver:
    stage = load_stage(folder)
    assert isinstance(stage, SuperResolver)
    return stage


def image_to_image(folder: Path) -> ImageToImage:
    stage = load_stage(folder)
    assert isinstance(stage, ImageToImage)
    return stage


def _packaged(family: str) -> Path:
    (name,) = (name for name, one in FAMILIES.items() if one == family)
    return DEFAULT_WEIGHTS / name


def loaded_pipeline(args: argparse.Namespace, account: Account) -> ColorPipeline:
    """The pipeline of `--weights`, recorded; raises OptionError where its stage 1 can not honor `--steps`."""
    pipe = ColorPipeline.from_pretrained(args.weights)
    pipe.coarse.check_honored(SampleOptions(steps=args.steps), SampleOptions.COARSE)
    account.record |= {"sharpness": pipe.sharpness, "pool": pipe.coarse.pool}
    for name, stage in pipe.stages.items():
        folder = (args.weights or DEFAULT_WEIGHTS) / name
        account.use_weights(name, folder, stage, args.steps if name == "stage1" else None)
    return pipe
