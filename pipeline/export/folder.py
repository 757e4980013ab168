"""A pipeline as a folder of ONNX graphs and a JSON of what lies between them."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch

from pipeline.color_pipeline import ColorPipeline
from pipeline.export.between import description
from pipeline.export.graph_file import ExportError, checked, in_16_bits, model_of
from stages.checkpoint import CheckpointError, replaced_folder
from stages.graphs import Exports
from stages.options import OptionError
from stages.registry import kind_of, kinds_of
from stages.stage import Stage

__all__ = ["DESCRIPTION", "export_onnx"]

DESCRIPTION = "trichrome.json"


def export_onnx(pipe: ColorPipeline, folder: str | Path, *, fp16: bool = False) -> dict[str, int]:
    """Writes the graphs of all stages and `trichrome.json`: all of it or nothing.

    fp16: weights are rounded to 16 bits and stored in them; what is computed with them stays float32
    returns: bytes of each file, by its name
    Raises OptionError for a kind that can not be exported, CheckpointError where the folder holds other files,
    ExportError where a graph does not do what its stage does.
    """
    folder = Path(folder)
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if others := sorted(name for name in names if name != DESCRIPTION and not name.endswith(".onnx")):
        raise CheckpointError(f"{folder} also holds {others[:3]}; choose another, or one with an export alone")
    exported = [exporting(stage) for stage in pipe.stages.values()]  # before anything slow
    if fp16:
        exported = [exporting(rounded16(stage)) for stage in pipe.stages.values()]
    graphs = [graph for stage in exported for graph in stage.graphs()]
    with replaced_folder(folder) as fresh:
        for graph in graphs:
            model = model_of(graph)
            content = (in_16_bits(model) if fp16 else model).SerializeToString()
            checked(graph, content)
            (fresh / f"{graph.name}.onnx").write_bytes(content)
        text = json.dumps(description(pipe, graphs, fresh), indent=1)
        (fresh / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
        return {path.name: path.stat().st_size for path in sorted(fresh.iterdir())}


def exporting(stage: Stage) -> Exports:
    """The stage itself. Raises OptionError where its kind can not be exported."""
    if isinstance(stage, Exports):
        return stage
    able = [kind for kind in kinds_of(stage.family) if issubclass(kind_of(stage.family, kind)[1], Exports)]
    raise OptionError(
        f"kind {stage.kind!r} of the family {stage.family} can not be exported; of this family can: "
        f"{', '.join(able) or 'none'}"
    )


@torch.no_grad()
def rounded16(stage: Stage) -> Stage:
    """The stage with parameters that fit into 16 bits. Raises ExportError where one is too large for them."""
    stage = copy.deepcopy(stage)
    for name, parameter in stage.named_parameters():
        parameter.copy_(parameter.half())
        if not parameter.isfinite().all():
            raise ExportError(f"{name} is too large for 16 bits; leave out --fp16")
    return stage
