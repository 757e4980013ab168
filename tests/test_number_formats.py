"""Half precision, values that are not finite, devices without float64: what every kind makes of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from typing import Any

import pytest
import torch
from tiny_stages import KINDS, SIDES, drawn, encoded, generators, lively, picture, small
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, coarse_from_rgb, gray_from_rgb, merge
from stages.faces import CoarseColorizer, HasLikelihood
from stages.nn.axial import AxialAttention
from stages.nn.pixelcnn import logistic_mixture
from stages.nn.pixelcnn.layers import Convolution
from stages.stage import Stage
from stages.stage1_coarse import coltran
from stages.stage1_coarse.candidates import spread_order
from stages.stage1_coarse.uncertainty import expected_error

Which = tuple[str, str]
ALL = pytest.mark.parametrize("which", KINDS, ids="-".join)


def smooth(which: Which) -> Stage:
    """The stage, such that a small error makes a small difference: means in place of the likeliest values."""
    means = {"decode": "mean"} if which == ("superres", "coltran") else {}
    return lively(*which, **means)


def pictures_of(stage: Stage, rgb: Tensor) -> list[Tensor]:
    pictures = [drawn(stage, rgb, generators(1, 2))]
    if isinstance(stage, CoarseColorizer):
        pictures.append(stage.preview(encoded(stage, gray_from_rgb(rgb))))
    return pictures


def bits_of(stage: Stage, rgb: Tensor) -> list[Tensor]:
    return [stage.bits(rgb)] if isinstance(stage, HasLikelihood) else []


@ALL
def test_half_precision_is_near_single_precision(which: Which) -> None:
    """As on GPUs, under autocast: what the networks add to gray, or to plain enlargement, is wrong by a twentieth of
    itself at most on average, and likelihoods by 0.002 bits. Draws have the same seeds.
    """
    stage, rgb = smooth(which), picture(SIDES[which[0]])
    gray = plain = gray_from_rgb(rgb)
    if which == ("superres", "diffusion"):
        plain = merge(gray, resize(chroma_from_rgb(resize(rgb, (64, 64))), (256, 256)))
    with torch.autocast("cpu", torch.bfloat16):
        rough_pictures, rough_bits = pictures_of(stage, rgb), bits_of(stage, rgb)
    for rough, exact in zip(rough_pictures, pictures_of(stage, rgb), strict=True):
        added = exact if exact.shape[1] == 2 else exact - plain  # chroma or colors
        assert rough.dtype == exact.dtype == torch.float32
        assert 0 < (rough - exact).abs().mean() < 0.05 * added.std()
    for rough, exact in zip(rough_bits, bits_of(stage, rgb), strict=True):
        torch.testing.assert_close(rough, exact, rtol=0, atol=2e-3)


def in_single_precision(stage: Stage) -> Stage:
    """The stage, its layers computing in float32 under autocast too: what is left to autocast is between them."""
    layers = [one for one in stage.modules() if isinstance(one, nn.Linear | nn.Conv2d | Convolution | AxialAttention)]
    module: Any
    for module in layers:

        def exact(*inputs: Any, run: Callable[..., Any] = module.forward) -> Any:
            with torch.autocast("cpu", enabled=False):
                return run(*inputs)

        module.forward = exact
    return stage


# The U-Net brings its input to the weights' type by itself, which the layers put in here have not.
WITHOUT_UNET = [which for which in KINDS if which[0] != "image_to_image" and which[1] != "sr3"]


@pytest.mark.parametrize("which", WITHOUT_UNET, ids="-".join)
def test_autocast_reaches_nothing_but_layers(which: Which) -> None:
    """Expectations, mixtures, luma, sizes and filters are float32 always."""
    stage, rgb = in_single_precision(smooth(which)), picture(SIDES[which[0]])

    def answers() -> list[Tensor]:
        answers = pictures_of(stage, rgb) + bits_of(stage, rgb)
        torch.manual_seed(0)
        return [*answers, stage(rgb, torch.tensor([3, -1])).detach()]

    with torch.autocast("cpu", torch.bfloat16):
        rough = answers()
    for one, other in zip(rough, answers(), strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


LAST_LAYERS = {
    ("coarse", "diffusion"): "denoiser.network.write", ("coarse", "coltran"): "core.write",
    ("coarse", "pic"): "pixels.write", ("color", "coltran"): "write", ("superres", "coltran"): "write",
    ("superres", "diffusion"): "denoiser.network.write", ("superres", "sr3"): "denoiser.network.write",
    **{which: "denoiser.network.write" for which in KINDS if which[0] == "image_to_image"},
    ("image_to_image", "gan"): "generator",
}  # fmt: skip
PREVIEW_LAYERS = {"diffusion": "encoder.preview", "coltran": "core.parallel", "pic": "embedding.layers"}


def answering_with(value: float, which: Which, layer: str, **config: object) -> Any:
    """The stage, one of its layers answering a value everywhere."""
    stage = small(*which, **config)
    stage.get_submodule(layer).register_forward_hook(lambda _, __, answer: torch.full_like(answer, value))
    return stage


@ALL
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_answers_that_are_not_finite_are_no_picture(which: Which, value: float) -> None:
    """Not in a sample, as 3-bit colors either, and not in a preview."""
    message, rgb = "are not finite; if this is float16, use float32", picture(SIDES[which[0]])
    with pytest.raises(RuntimeError, match=message):
        drawn(answering_with(value, which, LAST_LAYERS[which]), rgb, generators(1, 2))
    if which[0] == "coarse":
        stage = answering_with(value, which, PREVIEW_LAYERS[which[1]])
        with pytest.raises(RuntimeError, match=message):
            stage.preview(encoded(stage, gray_from_rgb(rgb)))
    if which == ("color", "coltran"):
        with pytest.raises(RuntimeError, match=message):
            drawn(answering_with(value, which, "write", decode="argmax"), rgb)


class WithoutDoubles(TorchFunctionMode):
    """A device that knows no float64, like Apple's GPUs: tensors that are moved to one, or made there, and all that is
    computed from them. That device is the CPU here, so a `torch.device` is taken for it, and "cpu" for the CPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.on_device: MutableMapping[Tensor, bool] = WeakIdKeyDictionary()

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = list(flat([*args, *(kwargs or {}).values()]))
        result = function(*args, **(kwargs or {}))
        if function is Tensor.cpu:
            return result.detach()  # another object, which is not on the device
        if any(isinstance(one, torch.device) or (isinstance(one, Tensor) and one in self.on_device) for one in given):
            for one in flat([result]):
                if isinstance(one, Tensor):
                    assert one.dtype != torch.float64, f"{function} makes a float64 tensor"
                    self.on_device[one] = True
        return result


def flat(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from flat(value)
        else:
            yield value


def test_a_float64_tensor_is_noticed() -> None:
    x = torch.ones(3)
    with WithoutDoubles() as device:
        device.on_device[x] = True
        assert (2 * x).cpu().double().dtype == torch.float64  # on the CPU it may be
        for doubled in (lambda: (x + 1).double(), lambda: torch.ones(2, dtype=torch.float64, device=x.device)):
            with pytest.raises(AssertionError, match="makes a float64 tensor"):
                doubled()


@pytest.mark.parametrize("which, changes", [
    *(pytest.param(which, {}, id="-".join(which)) for which in KINDS),
    pytest.param(("coarse", "diffusion"), {"sampler": "spectral", "tuned": 3, "film": 0.5, "hints": 0.5}, id="options"),
    pytest.param(("superres", "diffusion"), {"steps": 2}, id="two steps of superres"),
])  # fmt: skip
def test_nothing_on_a_device_is_float64(
    which: Which, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Apple's GPUs do not have it. Training, samples, previews and likelihoods, with everything on the device."""
    for module in (coltran, logistic_mixture):  # which ask the device
        monkeypatch.setattr(module, "exact", lambda x: x.float())
    stage = small(*which, **changes)
    rgb, label = picture(SIDES[which[0]]), torch.tensor([3, -1])
    with WithoutDoubles() as device:
        for tensor in (*stage.parameters(), *stage.buffers(), rgb, label):
            device.on_device[tensor] = True
        stage.fit_to([rgb])
        stage(rgb, label).backward()
        drawn(stage, rgb, generators(1, 2))
        bits_of(stage, rgb)
        if isinstance(stage, CoarseColorizer):
            gray = gray_from_rgb(rgb)
            preview = stage.preview(encoded(stage, gray))
            spread_order(gray, coarse_from_rgb(preview)[:, None])
            expected_error(gray[0], chroma_from_rgb(rgb), chroma_from_rgb(preview))
            assert preview in device.on_device
