"""Exported graphs do what the stages do, and the example does with them what the pipeline does, without torch."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from photos import luma, photo, plane, streams
from PIL import Image
from standins import standin_pipeline
from tiny_stages import lively, picture, small

from pipeline import ColorPipeline, cli
from pipeline.export import command
from pipeline.export.folder import export_onnx, rounded16
from pipeline.export.graph_file import ExportError, checked, in_16_bits, model_of, run
from pipeline.images.read import xmp_of
from pipeline.images.xmp import property_of
from pipeline.provenance.record import SOURCE_TYPE
from stages.color.resample import resize, sharp_gray
from stages.color.spaces import gray_from_rgb
from stages.diffusion.noise import draw_noise
from stages.faces import GrayView
from stages.options import OptionError

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "onnx_colorize.py"


@pytest.fixture(scope="module")
def pipe() -> ColorPipeline:
    return ColorPipeline.from_pretrained()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights in the package, by the command."""
    folder = tmp_path_factory.mktemp("export") / "graphs"
    assert cli.main(["export", "--format", "onnx", "--fp16", "-o", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def example() -> Any:
    spec = importlib.util.spec_from_file_location("onnx_colorize", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answers(folder: Path, name: str, *inputs: torch.Tensor | np.ndarray) -> list[torch.Tensor]:
    """Of a graph of the folder, to inputs in their order."""
    about = json.loads((folder / "trichrome.json").read_text())["graphs"][name]
    named = dict(zip(about["inputs"], (np.asarray(one) for one in inputs), strict=False))
    return [torch.from_numpy(one) for one in run((folder / about["file"]).read_bytes(), named)]


def test_the_graphs_of_the_default_weights_give_the_colors_of_torch(exported, pipe):
    """The same coarse64 becomes the same rgb64 and rgb256 to one level of 8 bits."""
    gray = gray_from_rgb(picture(256, batch=1))
    gray64 = resize(gray, (64, 64))
    encoding = pipe.coarse.encode(GrayView.of(gray))
    coarse64 = pipe.coarse.sample(encoding, 1, generator=torch.Generator().manual_seed(0)).coarse64[:, 0]
    rgb64 = pipe.color.upsample(gray64, coarse64)
    rgb256 = pipe.superres.sample(gray, rgb64)
    (found64,) = answers(exported, "stage2", gray64, coarse64)
    assert (found64 - rgb64).abs().max() < 1 / 255
    (found256,) = answers(exported, "stage3", gray, found64)
    assert (found256 - rgb256).abs().max() < 1 / 255


def test_the_graphs_of_stage_1_draw_what_torch_draws(exported, pipe):
    """Of two draws nearly every one of the 3-bit colors is the same."""
    gray = photo(200, 150)
    view = GrayView.of(plane(gray))
    encoding = pipe.coarse.encode(view)
    draws = pipe.coarse.sample(encoding, 2, generator=streams(gray, 4, 2))
    noise = draw_noise((2, 2, 32, 32), streams(gray, 4, 2))
    hints = [torch.zeros(1, 3, 32, 32)] if pipe.coarse.takes_hints else []
    features, mean32, preview64 = answers(exported, "stage1_encode", view.gray64, view.gray128, *hints)
    assert (preview64 - pipe.coarse.preview(encoding)).abs().max() < 1e-3
    config = pipe.coarse.config
    assert draws.chroma64 is not None
    for number in range(2):
        numbers = torch.tensor(config.temperature), torch.tensor(config.chroma_gain)
        inputs = features, mean32, view.gray64, noise[number : number + 1], *numbers
        coarse64, chroma64 = answers(exported, "stage1_draw", *inputs)
        assert coarse64.dtype == torch.int64
        assert (coarse64[0] == draws.coarse64[0, number]).float().mean() > 0.998
        assert (chroma64[0] - draws.chroma64[0, number]).abs().max() < 1e-3


@pytest.mark.parametrize("size", [(420, 300), (90, 330), (100, 80)])
def test_the_example_colors_as_the_pipeline_does(exported, pipe, example, size):
    """Larger than the networks' pictures, larger along one axis, smaller; the luma to half a level."""
    gray = photo(*size)
    expected = np.asarray(pipe(gray, candidate=1, generator=5).images[0]).astype(int)
    levels = (gray / np.float32(255)).astype(np.float32)
    found = example.Colorizer(exported)(levels, example.noise_of(levels, 5, 1)).astype(int)
    assert np.ptp(expected, 2).max() > 5
    assert (np.abs(found - expected).max(2) <= 2).mean() >= 0.995
    assert np.abs(luma(found) - gray).max() <= 0.5


def test_the_example_needs_no_torch(exported, tmp_path, pipe):
    """As a command, where torch and this library can not be imported: a photograph in color, turned by its EXIF."""
    for name in ("torch", "stages", "pipeline"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('this is not for the example')\n")
    rgb = np.stack([photo(60, 90, seed) for seed in range(3)], axis=2)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rgb).save(tmp_path / "photo.png", exif=exif)
    command = [sys.executable, EXAMPLE, exported, "photo.png", "-o", "colored.png", "--seed", "3"]
    environment = {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    packet = xmp_of(tmp_path / "colored.png")
    assert packet is not None and property_of(packet, SOURCE_TYPE.namespace, SOURCE_TYPE.name) == SOURCE_TYPE.text
    with Image.open(tmp_path / "colored.png") as image:
        found = np.asarray(image).astype(int)
    expected = np.asarray(pipe(tmp_path / "photo.png", candidate=0, generator=3).images[0]).astype(int)
    assert found.shape == (90, 60, 3) and (np.abs(found - expected).max(2) <= 2).mean() >= 0.995


def test_the_example_has_the_noise_and_the_sizes_of_the_library(example):
    gray = photo(70, 50)
    noise = draw_noise((1, 2, 32, 32), streams(gray, 7, 3)[2:])[0]
    levels = plane(gray)[0, 0].numpy()
    assert np.abs(example.noise_of(levels, 7, 2) - noise.numpy()).max() < 1e-5
    for size in ((64, 64), (64, 256), (256, 31), (70, 50)):
        expected = resize(plane(gray), size)[0, 0].numpy()
        assert np.abs(example.resized(levels, size) - expected).max() < 1e-6
    for other in (gray, photo(200, 127), photo(128, 300)):
        levels = plane(other)[0, 0].numpy()
        found = example.sharp(levels, example.resized(levels, (64, 64)))
        assert np.abs(found - sharp_gray(plane(other), 128)[0, 0].numpy()).max() < 1e-6


def test_the_description_names_the_files_and_what_the_weights_ask_for(exported, pipe):
    about = json.loads((exported / "trichrome.json").read_text())
    assert {path.name for path in exported.iterdir()} == {"trichrome.json"} | {
        graph["file"] for graph in about["graphs"].values()
    }
    assert list(about["graphs"]) == ["stage1_encode", "stage1_draw", "stage2", "stage3"]
    assert all((exported / graph["file"]).stat().st_size == graph["bytes"] for graph in about["graphs"].values())
    draw = about["graphs"]["stage1_draw"]
    assert draw["inputs"]["temperature"] == {"shape": [], "dtype": "float32", "default": pipe.coarse.config.temperature}
    assert draw["inputs"]["noise"]["shape"] == [1, 2, 32, 32]
    assert about["sharpen"]["sharpness"] == pipe.sharpness and about["weights"] == pipe.fingerprint()
    stored = sum((ROOT / "pipeline/weights" / name / "model.safetensors").stat().st_size for name in pipe.stages)
    assert sum(graph["bytes"] for graph in about["graphs"].values()) < 1.3 * stored, "weights are stored in 16 bits"


def test_hints_are_an_input_where_they_were_learned():
    """Of zeros, as where none is given; else the graph changes what `with_hints` changes."""
    stage = lively("coarse", "diffusion", hints=0.5, sampler="spectral")
    graph = stage.graphs()[0]
    assert "hints" in graph.inputs and graph.defaults == {"hints": 0.0}
    model = model_of(graph).SerializeToString()
    checked(graph, model)
    view = GrayView.of(gray_from_rgb(picture(200, batch=1)))
    encoding = stage.encode(view)
    hints = torch.zeros(1, 3, 32, 32)
    for told in (encoding, None):
        if told is None:
            hints[:, :, 3:6, 8:12] = torch.tensor([1.0, 0.2, -0.1])[:, None, None]
            told = stage.with_hints(encoding, hints)
            assert (told.hinted - encoding.hinted).abs().max() > 0.1
        inputs = {"gray64": view.gray64, "gray128": view.gray128, "hints": hints}
        features, mean32, _ = run(model, {name: one.numpy() for name, one in inputs.items()})
        assert np.abs(mean32 - told.hinted.numpy()).max() < 1e-4
        assert np.abs(features - told.told.numpy()).max() < 1e-3


def test_a_graph_that_does_something_else_is_seen():
    stage = small("coarse", "diffusion", sampler="spectral")
    graph = stage.graphs()[0]
    node = onnx.helper.make_node
    shapes = {"features": [1, 16, 16, 16], "mean32": [1, 2, 32, 32], "preview64": [1, 3, 64, 64]}
    infos = [onnx.helper.make_tensor_value_info(name, 1, list(one.shape)) for name, one in graph.inputs.items()]
    outputs = [onnx.helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items()]
    zeros = [
        node("ConstantOfShape", [f"{name} shape"], [name], value=onnx.helper.make_tensor("value", 1, [1], [0.5]))
        for name in shapes
    ]
    sizes = [onnx.helper.make_tensor(f"{name} shape", 7, [4], shape) for name, shape in shapes.items()]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(zeros, "half", infos, outputs, sizes), opset_imports=[onnx.helper.make_opsetid("", 18)]
    )
    with pytest.raises(ExportError, match=r"stage1_encode: features of onnxruntime and of torch differ by"):
        checked(graph, model.SerializeToString())


def test_16_bits_hold_what_they_can_hold_exactly():
    """Weights that need more stay as they are, so that answers do; few numbers are not worth a cast."""
    make = onnx.helper
    weights = {"halves": np.arange(400) / 4, "thirds": np.arange(400) / 3, "few": np.arange(8.0)}
    nodes = [make.make_node("ReduceSum", [name], [f"{name} sum"], keepdims=0) for name in weights]
    outputs = [make.make_tensor_value_info(f"{name} sum", 1, []) for name in weights]
    tensors = [onnx.numpy_helper.from_array(one.astype(np.float32), name) for name, one in weights.items()]
    model = make.make_model(
        make.make_graph(nodes, "sums", [], outputs, tensors), opset_imports=[make.make_opsetid("", 18)]
    )
    small = in_16_bits(model)
    kinds = {one.name: one.data_type for one in small.graph.initializer}
    assert kinds == {"halves.16": onnx.TensorProto.FLOAT16, "thirds": 1, "few": 1}
    assert run(small.SerializeToString(), {}) == run(model.SerializeToString(), {})


def test_weights_are_rounded_to_16_bits_in_a_copy():
    stage = small("superres", "diffusion")
    before = stage.encoder.read.weight.clone()
    rounded: Any = rounded16(stage)
    assert torch.equal(rounded.encoder.read.weight, before.half().float())
    assert torch.equal(stage.encoder.read.weight, before)
    with torch.no_grad():
        stage.encoder.read.weight[0, 0, 0, 0] = 1e6
    with pytest.raises(ExportError, match="encoder.read.weight is too large for 16 bits"):
        rounded16(stage)


def parts(**changed: Any) -> ColorPipeline:
    stages: dict[str, Any] = {
        "coarse": small("coarse", "diffusion", sampler="spectral"), "color": small("color", "coltran"),
        "superres": small("superres", "diffusion"),
    } | changed  # fmt: skip
    return ColorPipeline(**stages)


@pytest.mark.parametrize("changed, words", [
    ({"coarse": ("coarse", "pic", {})}, "kind 'pic' of the family coarse can not be exported; .* can: diffusion"),
    ({"superres": ("superres", "coltran", {})}, "kind 'coltran' of the family superres can not be .* can: diffusion"),
    ({"coarse": ("coarse", "diffusion", {})}, "weights with the sampler 'spectral' can be exported; these have 'dpmpp"),
    ({"superres": ("superres", "diffusion", {"steps": 3})}, "that take one step can be exported; these take 3"),
])  # fmt: skip
def test_what_can_not_be_exported_is_refused(tmp_path, changed, words):
    ((family, arguments),) = changed.items()
    with pytest.raises(OptionError, match=words):
        export_onnx(parts(**{family: small(*arguments[:2], **arguments[2])}), tmp_path / "graphs")
    assert list(tmp_path.iterdir()) == []


def test_stand_ins_are_told_what_can_be_exported(tmp_path):
    with pytest.raises(OptionError, match="kind 'standin'"):
        export_onnx(standin_pipeline(), tmp_path / "graphs")


def test_the_command_refuses_a_folder_with_other_files(tmp_path, capsys):
    (tmp_path / "letter.txt").write_text("dear")
    assert cli.main(["export", "-o", str(tmp_path)]) == 2
    assert "also holds ['letter.txt']; choose another" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_without_the_extra_the_command_says_what_to_install(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "NEEDED", ("onnx", "onnx_of_nobody"))
    assert cli.main(["export", "-o", str(tmp_path / "graphs")]) == 2
    assert "it needs onnx_of_nobody: pip install 'trichrome[export]'" in capsys.readouterr().err
