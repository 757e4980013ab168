"""One graph of a stage as an ONNX file, compared with torch before it is given away."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import onnxscript.optimizer
import torch
from numpy.typing import NDArray

from stages.graphs import Graph

__all__ = ["OPSET", "ExportError", "checked", "in_16_bits", "model_of", "run"]

OPSET = 18
LARGEST_CONSTANT = 2**17  # bytes of what is computed beforehand: more would swell the file
MANY = 256  # numbers from which a tensor is worth a cast
FLOAT_TOLERANCE = 1e-3  # of the largest value, from 1: a quarter of a level of 8 bits
WHOLE_TOLERANCE = 1e-3  # share of whole numbers that differ: where a color lies on the border between two


class ExportError(RuntimeError):
    """A graph that does not do what its stage does."""


@torch.no_grad()
def model_of(graph: Graph) -> onnx.ModelProto:
    """The graph with its weights in float32."""
    with _quiet():
        program = torch.onnx.export(
            graph.module.eval(), tuple(graph.inputs.values()), dynamo=True, verbose=False, opset_version=OPSET,
            input_names=list(graph.inputs), output_names=list(graph.outputs), optimize=False,
        )  # fmt: skip
        assert program is not None
        model = _folded(program.model_proto)
        onnxscript.optimizer.fold_constants(model, onnx_shape_inference=False)  # sequences, which few runtimes have
        onnxscript.optimizer.remove_unused_nodes(model)
        return _folded(model)


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph without what can be computed beforehand, in operators that all runtimes have."""
    options = _options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.add_session_config_entry("optimization.constant_folding_max_output_size_in_bytes", str(LARGEST_CONSTANT))
    count = len(model.graph.node) + 1
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "model.onnx")
        while len(model.graph.node) < count:  # one pass finds work for the next
            count = len(model.graph.node)
            onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            model = onnx.load(options.optimized_model_filepath)
    used = {node.domain for node in model.graph.node}
    for opset in [one for one in model.opset_import if one.domain not in used]:
        model.opset_import.remove(opset)
    return model


def in_16_bits(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in about half of the bytes: weights that fit into 16 bits exactly are stored in them, and brought
    back to 32 when it is opened. Nothing that it computes changes.
    """
    small = onnx.ModelProto()
    small.CopyFrom(model)
    casts = []
    for weight in small.graph.initializer:
        if weight.data_type != onnx.TensorProto.FLOAT or np.prod(weight.dims) < MANY:
            continue
        values = onnx.numpy_helper.to_array(weight)
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if not np.array_equal(halves.astype(np.float32), values):
            continue
        name = weight.name
        weight.CopyFrom(onnx.numpy_helper.from_array(halves, f"{name}.16"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}.16"], [name], to=onnx.TensorProto.FLOAT))
    nodes = list(small.graph.node)
    del small.graph.node[:]
    small.graph.node.extend([*casts, *nodes])
    for info in [one for one in small.graph.value_info if one.name in {cast.output[0] for cast in casts}]:
        small.graph.value_info.remove(info)
    return small


def run(model: bytes, inputs: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """The answers of a graph in onnxruntime, on the CPU."""
    session = onnxruntime.InferenceSession(model, _options(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


@torch.no_grad()
def checked(graph: Graph, model: bytes) -> None:
    """Raises ExportError where onnxruntime's answers to the graph's examples are not those of torch."""
    answers = run(model, {name: example.numpy() for name, example in graph.inputs.items()})
    expected = graph.module(*graph.inputs.values())
    expected = (expected,) if isinstance(expected, torch.Tensor) else expected
    for name, answer, truth in zip(graph.outputs, answers, (one.numpy() for one in expected), strict=True):
        if answer.shape != truth.shape:
            raise ExportError(f"{graph.name}: {name} is {answer.shape} in onnxruntime, {truth.shape} in torch")
        if truth.dtype.kind == "f":
            wrong, most = np.abs(answer - truth).max(), FLOAT_TOLERANCE * max(1.0, np.abs(truth).max())
        else:
            wrong, most = np.mean(answer != truth), WHOLE_TOLERANCE
        if not wrong <= most:
            raise ExportError(
                f"{graph.name}: {name} of onnxruntime and of torch differ by {wrong:.3g}; at most {most:.3g}"
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters say of their own insides."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    return options
