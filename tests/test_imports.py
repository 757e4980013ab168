"""Imports point one way: color, images -> nn, diffusion -> one stage -> pipeline -> command line.

Every module of `stages` and `pipeline` has a level; it may import what is below it, and beside it only its own package.
So no stage knows another, which is what lets each be trained and replaced alone.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEVELS = {
    "stages.color": 0, "stages.precision": 0, "stages.checkpoint": 0, "stages.options": 0, "stages.seeds": 0,
    "stages.provenance": 0,
    "stages.stage": 1, "stages.hints": 1, "stages.corruptions": 1, "stages.photographs": 1,
    "stages.nn": 2, "stages.diffusion": 2, "stages.faces": 2, "stages.graphs": 2,
    "stages.stage1_coarse": 3, "stages.stage2_color": 3, "stages.stage3_superres": 3, "stages.image_to_image": 3,
    "stages.registry": 4,
    "stages.training": 5, "stages.evaluation": 5,
    "pipeline.images": 5, "pipeline.progress": 5, "pipeline.placement": 5, "pipeline.kept": 5,
    "pipeline.full_resolution": 6, "pipeline.known_colors": 6, "pipeline.folder": 6, "pipeline.open_photo": 6,
    "pipeline.output": 6, "pipeline.request": 6, "pipeline.sources": 7, "pipeline.leaning": 7, "pipeline.guides": 8,
    "pipeline.reduced": 7, "pipeline.provenance": 8,
    "pipeline.cascade": 8, "pipeline.translations": 6, "pipeline.color_pipeline": 9, "pipeline.image_to_image": 9,
    "pipeline": 10,  # its face: __init__.py
    "pipeline.files": 11, "pipeline.arguments": 10, "pipeline.steering": 11, "pipeline.coloring_options": 12,
    "pipeline.translate": 12, "pipeline.like": 12,
    "pipeline.colorize": 13,
    "pipeline.video": 12, "pipeline.info": 13, "pipeline.batch": 13, "pipeline.export": 12,
    "pipeline.app": 13, "pipeline.demo": 13, "pipeline.serve": 14, "pipeline.cli": 15,
}  # fmt: skip
STAGES = {name for name, level in LEVELS.items() if level == 3}
# What using the cascade never needs.
NOT_FOR_THE_PIPELINE = {"stages.training", "stages.photographs", "stages.evaluation"}
# Heavy or optional libraries, and the only modules that may import them.
KEPT_APART = {
    "accelerate": {"stages.training.loop"},
    "av": {"pipeline.video.encoding", "pipeline.video.film", "pipeline.video.record"},
    "cv2": {"pipeline.video.flow"},
    "datasets": {"stages.training.data", "stages.evaluation.photos"},
    "diffusers": set(),
    "fastapi": {f"pipeline.app.{name}" for name in ("api", "downloads", "page", "pictures", "problems", "server")},
    "matplotlib": {"pipeline.demo"},
    "onnx": {"pipeline.export.graph_file"},
    "onnxruntime": {"pipeline.export.graph_file"},
    "onnxscript": {"pipeline.export.graph_file"},
    "pillow_heif": {"pipeline.images.heif"},
    "ray": {"pipeline.batch.cluster"},
    "skimage": {"pipeline.demo", "stages.evaluation.pixel"},
    "sklearn": {"pipeline.demo"},
    "starlette": {f"pipeline.app.{name}" for name in ("forms", "guard", "problems", "worker")},
    "uvicorn": {"pipeline.app.server"},
    "xformers": {"stages.nn.attention"},
}
OURS = {"stages", "pipeline", "train_scripts", "tests", "benchmarks"}


def modules() -> dict[str, Path]:
    found = {}
    for package in ("stages", "pipeline"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def unit_of(module: str) -> str | None:
    """The row of LEVELS that a module belongs to: itself, or the package it is in."""
    parts = module.split(".")
    for length in range(len(parts), 1, -1):
        if ".".join(parts[:length]) in LEVELS:
            return ".".join(parts[:length])
    return module if module in LEVELS else None


def imported(module: str, source: str, is_package: bool) -> Iterator[str]:
    """All that the source imports, anywhere in it: modules, or names in modules, with full names."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                home = module.split(".") if is_package else module.split(".")[:-1]
                home = home[: len(home) - node.level + 1]
                base = ".".join([*home, base] if base else home)
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__"):
                yield str(node.args[0].value)


def faults(module: str, source: str, is_package: bool = False) -> list[str]:
    """What the imports of one module do against the rules."""
    unit = unit_of(module)
    if unit is None:
        return [f"{module} has no level: add it to LEVELS"]
    found = []
    for target in imported(module, source, is_package):
        top = target.split(".")[0]
        if module not in KEPT_APART.get(top, {module}):
            found.append(f"{module} imports {target}")
        if top not in OURS:
            continue
        other = unit_of(target)
        if other is None and top == "pipeline" and target not in MODULES:
            other = top  # a name in its face, like ColorPipeline
        if other is None:
            found.append(f"{module} imports {target}, which has no level")
        elif other != unit and LEVELS[other] >= LEVELS[unit] and not (unit == "pipeline" and is_package):
            found.append(f"{module} imports {target}, which is not below it")
        elif unit.startswith("pipeline") and other in NOT_FOR_THE_PIPELINE:
            found.append(f"{module} imports {target}, which only training needs")
    return found


def test_there_is_something_to_check():
    assert {"stages.color.spaces", "stages.nn", "stages.nn.axial", "pipeline", "pipeline.cascade"} <= MODULES.keys()
    assert len(MODULES) > 25


@pytest.mark.parametrize("module", [name for name in MODULES if name != "stages"])
def test_imports_point_down(module):
    path = MODULES[module]
    assert faults(module, path.read_text(), path.name == "__init__.py") == []


def test_the_package_of_stages_is_empty():
    assert not ast.parse(MODULES["stages"].read_text()).body[1:]  # a docstring at most


def test_no_circles():
    """Also inside nn and diffusion, where one level is not enough to tell."""
    graph: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        needs = set()
        for target in imported(module, path.read_text(), path.name == "__init__.py"):
            while target and target not in MODULES:
                target = target.rpartition(".")[0]
            needs.add(target)
        graph[module] = needs - {"", module}
    TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize("module, source", [
    ("stages.stage1_coarse.diffusion", "from stages.stage2_color.coltran import ColTranColorUpsampler"),
    ("stages.stage2_color.coltran", "def f():\n    import stages.stage1_coarse.candidates"),
    ("stages.stage3_superres.diffusion", "from stages import stage1_coarse"),
    ("stages.stage3_superres.diffusion", "from ..stage1_coarse import diffusion"),
    ("stages.stage3_superres.diffusion", "importlib.import_module('stages.stage1_coarse.diffusion')"),
    ("stages.stage1_coarse.diffusion", "from stages.registry import kind_of"),
    ("stages.stage1_coarse.diffusion", "from stages.training.loop import train"),
    ("stages.stage1_coarse.diffusion", "from pipeline import ColorPipeline"),
    ("stages.stage1_coarse.diffusion", "from train_scripts.stage1 import picture_grid"),
    ("stages.nn.axial", "from stages.stage1_coarse.candidates import spread_order"),
    ("stages.nn.axial", "from stages.diffusion import Denoiser"),
    ("stages.nn.axial", "import xformers.ops"),
    ("stages.diffusion.samplers", "from stages.registry import kind_of"),
    ("stages.color.spaces", "from stages import stage"),
    ("stages.corruptions.film", "from .. import nn"),
    ("stages.checkpoint", "from stages.registry import load_stage"),
    ("stages.new_module", "import torch"),
    ("pipeline.full_resolution", "from .color_pipeline import ColorPipeline"),
    ("pipeline.cascade", "from pipeline.color_pipeline import ColorPipeline"),
    ("pipeline.request", "from pipeline.sources import photo_from"),
    ("stages.options", "from stages.stage import Stage"),
    ("pipeline.color_pipeline", "from pipeline.cli import main"),
    ("pipeline.color_pipeline", "from stages.training.loop import train"),
    ("pipeline.color_pipeline", "from accelerate import Accelerator"),
    ("pipeline.color_pipeline", "if True:\n    import fastapi"),
    ("pipeline.cli", "from stages.training.data import Pictures"),
])  # fmt: skip
def test_a_wrong_import_is_seen(module, source):
    assert len(faults(module, source)) == 1


@pytest.mark.parametrize("module, source", [
    ("stages.stage1_coarse.diffusion", "from stages.stage1_coarse.candidates import spread_order"),
    ("stages.stage1_coarse.diffusion", "from .candidates import spread_order\nfrom ..color.spaces import merge"),
    ("stages.nn.attention", "importlib.import_module('xformers.ops')"),
    ("pipeline.cli", "from .files import run\nfrom pipeline.color_pipeline import ColorPipeline\nimport torch"),
])  # fmt: skip
def test_a_right_import_is_not(module, source):
    assert faults(module, source) == []


def test_using_the_cascade_loads_nothing_heavy():
    """In a fresh process: the package, then everything behind it and a call of the networks' attention."""
    code = (
        "import json, sys\n"
        "import pipeline\n"
        "first = sorted(sys.modules)\n"
        "pipeline.ColorPipeline\n"
        "import torch, pipeline.cli, pipeline.files.run\n"
        "from stages.nn.attention import attention\n"
        "x = torch.zeros(1, 4, 1, 8)\n"
        "attention(x, x, x)\n"
        "print(json.dumps([first, sorted(sys.modules), pipeline.__file__]))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    first, then, where = json.loads(result.stdout)
    assert Path(where).parent == ROOT / "pipeline"
    heavy = {"xformers", "datasets", "fastapi", "accelerate", "diffusers", "skimage", "sklearn", "matplotlib", "triton",
             "pillow_heif", "av", "cv2", "ray", "onnx", "onnxruntime", "onnxscript"}
    assert heavy & {name.split(".")[0] for name in then} == set()
    assert {"stages.training", "stages.photographs", "stages.evaluation"} & set(then) == set()
    assert "torch" not in first and "stages.registry" in then
