"""ColorPipeline: luma, inputs, outputs, steps, memory, precision; with stand-ins and the real stages, untrained."""

from __future__ import annotations

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from photos import luma, photo, plane, same, view
from PIL import Image
from standins import Poisoned, StandIn1, StandIn2, StandIn3, standin_pipeline

from pipeline import ColorPipeline, StepBar, placement
from pipeline import full_resolution as fullres
from pipeline.placement import why_not
from stages.color.resample import resize, upsample2x
from stages.color.spaces import gray_from_rgb
from stages.stage1_coarse.diffusion import DiffusionColorizer, DiffusionColorizerConfig
from stages.stage2_color.coltran import ColTranColorUpsampler, ColTranColorUpsamplerConfig
from stages.stage3_superres.diffusion import DiffusionSuperResolver, DiffusionSuperResolverConfig


@pytest.fixture(scope="module")
def pipe() -> ColorPipeline:
    return standin_pipeline()


@pytest.mark.parametrize("size", [(300, 420), (23, 17), (40, 320), (90, 1)])
@pytest.mark.parametrize("preview", [False, True])
def test_luma_contract_through_the_whole_pipeline(pipe, size, preview):
    asked = {"preview": True} if preview else {"generator": 1, "pool": 1}
    for dtype, peak in ((np.uint8, 255), (np.uint16, 65535)):
        gray = photo(*size, dtype=dtype)
        (levels,) = pipe(gray, **asked, output_type="np").images
        assert levels.shape == (*size, 3) and levels.dtype == dtype
        assert (levels.max(2) != levels.min(2)).any(), "the picture is gray"
        error = np.abs(luma(levels) - gray)
        assert error.max() <= 0.5 + 0.003 * (peak > 255) and error.mean() <= 0.3
        (exact,) = pipe(gray, **asked, output_type="pt").images
        assert exact.shape == (3, *size) and exact.dtype == torch.float32
        assert (gray_from_rgb(exact)[0].numpy() - gray / peak).__abs__().max() <= 1e-4


def test_stage_1_is_shown_all_pixels_it_can_use():
    seen: list[torch.Tensor] = []

    class Sharp(StandIn1):
        def encode(self, view):
            seen.append(view.gray128)
            return super().encode(view)

    pipe, grays = ColorPipeline(Sharp(), StandIn2(), StandIn3()), [photo(256, 384), photo(90, 70)]
    pipe.batch_size = 2
    pipe(grays, generator=1)
    pipe(grays[1], preview=True)
    large, small = map(plane, grays)
    expected = [resize(large, (128, 128)), upsample2x(resize(small, (64, 64))).clamp(0, 1)]
    assert len(seen) == 2
    torch.testing.assert_close(seen[0], torch.cat(expected), rtol=0, atol=1e-6)
    torch.testing.assert_close(seen[1][:1], expected[1], rtol=0, atol=1e-6)


def test_output_types(pipe):
    gray = photo(30, 40, dtype=np.uint16)
    (image,) = pipe(gray, generator=1).images
    assert isinstance(image, Image.Image) and image.mode == "RGB" and image.size == (40, 30)
    (levels,) = pipe(gray, generator=1, output_type="np").images
    assert levels.dtype == np.uint16
    assert np.abs(levels / 257 - np.asarray(image)).max() <= 1.1
    with pytest.raises(ValueError, match="output_type"):
        pipe(gray, output_type="latent")


def test_inputs_of_every_kind(pipe, tmp_path):
    gray = photo(30, 40)
    path = tmp_path / "a.png"
    Image.fromarray(gray).save(path)
    tensor = torch.from_numpy(gray)
    sources = [
        gray, Image.fromarray(gray), path, str(path), tensor, tensor[None], tensor[None].expand(3, -1, -1),
        np.stack([gray] * 3, 2), Image.fromarray(gray).convert("RGB"),
    ]  # fmt: skip
    images = pipe(sources, generator=5, pool=1).images
    assert len(images) == len(sources)
    assert same(images, [images[0]] * len(images))
    floats = [tensor / 255.0, (tensor / 255.0)[None], (gray / 255).astype(np.float32)]  # 16 bits, so other noise
    deep = pipe(floats, generator=5, pool=1).images
    assert same(deep, [deep[0]] * len(floats)) and not same(deep[:1], images[:1])
    one_key = pipe([*sources, *floats], generator=5, pool=1, noise_key="one").images
    assert same(one_key, [one_key[0]] * len(one_key))
    batch = torch.stack([tensor, tensor])[:, None]
    assert same(pipe(batch, generator=5, pool=1).images, images[:2])


def test_bad_inputs_say_what_is_wrong(pipe, tmp_path):
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 5, 6\)"):
        pipe(torch.zeros(2, 3, 4, 5, 6))
    with pytest.raises(ValueError, match=r"tensor must be .*\(5, 8, 8\)"):
        pipe(torch.zeros(5, 8, 8))
    with pytest.raises(ValueError, match="Divide 8-bit"):
        pipe(torch.full((8, 8), 200.0))
    with pytest.raises(ValueError, match="no.png"):
        pipe(tmp_path / "no.png")
    with pytest.raises(TypeError):
        pipe(3.5)
    refused: list[dict[str, Any]] = [
        {"num_samples": 0}, {"pool": 0}, {"num_inference_steps": 0}, {"preview": True, "num_samples": 2},
        {"generator": [1, 2]}, {"temperature": -1.0},
    ]  # fmt: skip
    for options in refused:
        with pytest.raises(ValueError):
            pipe(photo(8, 8), **options)
    seeds: list[Any] = ["7", 1.5, True]
    for seed in seeds:
        with pytest.raises(TypeError, match="generator"):
            pipe(photo(8, 8), generator=seed)


def test_preview_needs_no_randomness(pipe):
    gray = photo(300, 300)
    first, second = (pipe(gray, preview=True) for _ in range(2))
    assert same(first.images, second.images)
    assert first.info[0].seed is None and first.info[0].candidate is None


def test_callback_and_steps(pipe):
    seen = []

    def step_end(called, step, sigma, tensors):
        assert called is pipe and tensors["x"].shape == tensors["x0"].shape and tensors["steps"] is None
        seen.append((tensors["stage"], step, sigma))

    pipe(photo(20, 20), pool=4, num_inference_steps=3, generator=1, callback_on_step_end=step_end)
    assert seen == [("stage1", 0, 1.0), ("stage1", 1, 1.0), ("stage1", 2, 1.0), ("stage3", 0, 0.5)]
    seen.clear()
    pipe(photo(20, 20), pool=4, num_inference_steps=(1, 2), generator=1, callback_on_step_end=step_end)
    assert [entry[:2] for entry in seen] == [("stage1", 0), ("stage3", 0), ("stage3", 1)]


def test_the_bar_counts_the_steps_of_each_stage():
    text = io.StringIO()
    bar, pipe = StepBar(text), standin_pipeline()
    for _ in range(2):  # two groups of candidates, row by row
        for row in range(64):
            bar(pipe, row, 1 - (row + 1) / 64, {"stage": "stage1", "steps": 64})
    for step, sigma in enumerate((0.9, 0.4, 0.1)):
        bar(pipe, step, sigma, {"stage": "stage3", "steps": None})
    bar.close()
    lines = [line.split("\r")[-1] for line in text.getvalue().split("\n")]
    assert len(lines) == 4 and all("64/64" in line and line.startswith("stage1: 100%") for line in lines[:2])
    assert lines[2].startswith("stage3: 3step") and lines[3] == ""


def test_the_bar_is_a_callback(pipe):
    text = io.StringIO()
    bar = StepBar(text)
    pipe(photo(20, 20), pool=2, num_inference_steps=(3, 2), generator=1, callback_on_step_end=bar)
    bar.close()
    assert "stage1: 3step" in text.getvalue() and "stage3: 2step" in text.getvalue()


def test_out_of_memory_is_said_and_the_picture_is_the_same(pipe, monkeypatch):
    gray = photo(300, 300)
    expected = pipe(gray, generator=1, output_type="np")
    assert expected.info[0].notes == ()
    real = fullres._strip
    failed: list[bool] = []

    def fails_once(*arguments):
        if not failed:
            failed.append(True)
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return real(*arguments)

    monkeypatch.setattr(fullres, "_strip", fails_once)
    with pytest.warns(RuntimeWarning, match="strips of 150 rows"):
        result = pipe(gray, generator=1, output_type="np")
    assert same(result.images, expected.images)
    assert "strips of 150 rows" in result.info[0].notes[0]


def test_out_of_memory_in_the_networks_takes_fewer_photos(pipe, monkeypatch):
    photos = [photo(30, 40, seed) for seed in range(3)]
    expected = pipe(photos, generator=1, pool=1).images
    stage3 = pipe.stages["stage3"]
    real = stage3.sample

    def small_card(gray256, *rest, **named):
        if len(gray256) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(gray256, *rest, **named)

    monkeypatch.setattr(stage3, "sample", small_card)
    monkeypatch.setattr(pipe, "batch_size", 8)
    with pytest.warns(RuntimeWarning, match="2 photos at a time instead of 8"):
        result = pipe(photos, generator=1, pool=1)
    difference = [np.abs(np.asarray(a, int) - np.asarray(b)).max()
                  for a, b in zip(result.images, expected, strict=True)]
    assert max(difference) <= 2

    monkeypatch.setattr(stage3, "sample", lambda *_, **__: small_card(torch.zeros(9)))
    with pytest.raises(torch.OutOfMemoryError):
        pipe(photos, generator=1, pool=1)


@pytest.mark.parametrize("options", [{}, {"preview": True}, {"preview": True, "uncertainty": True}], ids=str)
def test_colors_of_stage_1_that_are_not_finite_are_an_error(options):
    """Draws are rounded to symbols, which NaNs do not survive: what is looked at is the chroma before."""
    pipe, white = ColorPipeline(Poisoned(), StandIn2(), StandIn3()), np.full((20, 20), 255, np.uint8)
    with pytest.raises(RuntimeError, match="stage1 .* not finite; if this is float16, use float32"):
        pipe([photo(20, 20), white], generator=1, **options)
    assert len(pipe(photo(20, 20), generator=1, **options).images) == 1


@pytest.mark.parametrize("stage, name", [("stage2", "upsample"), ("stage3", "sample")])
def test_colors_that_are_not_finite_are_an_error(monkeypatch, stage, name):
    pipe = standin_pipeline()
    monkeypatch.setattr(pipe.stages[stage], name, lambda gray, *_, **__: gray.expand(-1, 3, -1, -1) / 0)
    with pytest.raises(RuntimeError, match=f"{stage} .* not finite"):
        pipe(photo(20, 20), generator=1)


def test_precision_only_where_the_hardware_has_it(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(placement, "hardware_has_bfloat16", lambda device: False)
    assert why_not(cpu, torch.float32) is None
    assert "avx512_bf16" in str(why_not(cpu, torch.bfloat16))
    assert "float32" in str(why_not(cpu, torch.float16))
    assert "float32, bfloat16 or float16" in str(why_not(cpu, torch.float64))
    with pytest.raises(ValueError, match="cpu with bfloat16"):
        standin_pipeline().to(dtype=torch.bfloat16)
    monkeypatch.setattr(placement, "hardware_has_bfloat16", lambda device: True)
    pipe = standin_pipeline().to(torch.bfloat16)
    assert pipe.dtype == torch.bfloat16
    gray = photo(30, 40)
    (levels,) = pipe(gray, generator=1, output_type="np").images
    assert np.abs(luma(levels) - gray).max() <= 0.5
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device"):
            pipe.to("cuda")


@pytest.fixture(scope="module")
def real_pipe() -> ColorPipeline:
    torch.manual_seed(0)
    pipe = ColorPipeline(
        DiffusionColorizer(DiffusionColorizerConfig(
            encoder_channels=(32, 32), denoiser_channels=(32, 32), encoder_blocks=1, denoiser_blocks=(1, 1),
            steps=2)),
        ColTranColorUpsampler(ColTranColorUpsamplerConfig(channels=32, feed_forward=32, layers=1)),
        DiffusionSuperResolver(DiffusionSuperResolverConfig(encoder_channels=(32, 32, 32), denoiser_channels=(32, 32))),
    )
    with torch.no_grad():  # the layers that start at zero would hide the others
        for stage in pipe.stages.values():
            for weights in stage.parameters():
                weights.add_(0.02 * torch.randn_like(weights))
    return pipe


def test_real_stages_save_load_and_order(real_pipe, tmp_path):
    photos = [photo(300, 200, 0), photo(23, 17, 1)]
    batch = real_pipe(photos, 2, generator=4)
    for gray, image in zip([photos[0]] * 2 + [photos[1]] * 2, batch.images, strict=True):
        assert np.abs(luma(np.asarray(image)) - gray).max() <= 0.5
        assert np.ptp(np.asarray(image), 2).max() > 0
    assert same(real_pipe(photos[::-1], 2, generator=4).images, batch.images[2:] + batch.images[:2])
    real_pipe.save_pretrained(tmp_path / "pipe")
    loaded = ColorPipeline.from_pretrained(tmp_path / "pipe")
    assert same(loaded(photos[1], 2, generator=4).images, batch.images[2:])
    loaded.save_pretrained(tmp_path / "half", dtype=torch.float16)
    half = ColorPipeline.from_pretrained(tmp_path / "half")
    half.save_pretrained(tmp_path / "again")
    again = ColorPipeline.from_pretrained(tmp_path / "again")
    assert same(half(photos[1], generator=4).images, again(photos[1], generator=4).images)
    assert same(loaded(photos[1], preview=True).images, real_pipe(photos[1], preview=True).images)


def test_a_photo_is_encoded_once_for_all_draws(real_pipe):
    gray, calls = photo(60, 40), []
    hook = real_pipe.coarse.encoder.register_forward_hook(lambda *_: calls.append(1))
    real_pipe(gray, 4, generator=1, uncertainty=True)
    assert len(calls) == 1
    real_pipe(gray, preview=True, uncertainty=True, generator=1)
    assert len(calls) == 2
    hook.remove()
    encoding = real_pipe.coarse.encode(view(gray))
    first, again = (real_pipe.coarse.sample(encoding, 2, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first.chroma, again.chroma), "drawing changes nothing of what is known"


def test_real_stages_are_called_from_several_threads(real_pipe):
    calls = [(photo(60 + 10 * i, 40, i), {"num_inference_steps": (1 + i, 1 + i % 2), "generator": i, "pool": 1 + i % 3,
                                          "temperature": 1 - 0.2 * i}) for i in range(4)]  # fmt: skip

    def call(which):
        gray, options = which
        return real_pipe(gray, 2, **options).images + real_pipe(gray, preview=True).images

    expected = [call(one) for one in calls]
    with ThreadPoolExecutor(4) as threads:
        for images, alone in zip(threads.map(call, calls), expected, strict=True):
            assert same(images, alone)


def test_real_stages_call_back_and_run_in_bfloat16(real_pipe, monkeypatch):
    gray, seen = photo(60, 40), []

    def step_end(_, step, sigma, tensors):
        seen.append((tensors["stage"], step, tensors["steps"]))

    real_pipe(gray, num_inference_steps=(3, 2), generator=1, pool=1, callback_on_step_end=step_end)
    assert seen == [*(("stage1", step, 3) for step in range(3)), ("stage3", 0, 2), ("stage3", 1, 2)]
    monkeypatch.setattr(placement, "hardware_has_bfloat16", lambda device: True)
    try:
        real_pipe.to(torch.bfloat16)
        for preview in (False, True):
            (exact,) = real_pipe(gray, generator=1, preview=preview, output_type="pt").images
            assert (gray_from_rgb(exact)[0] - torch.from_numpy(gray) / 255).abs().max() <= 1e-4
    finally:
        real_pipe.to(torch.float32)


def test_import_loads_nothing_heavy():
    code = ("import sys, pipeline; before = 'torch' in sys.modules; pipeline.ColorPipeline; "
            "heavy = {'xformers', 'datasets', 'fastapi', 'accelerate', 'diffusers', 'huggingface_hub'}; "
            "print(before, sorted(heavy & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False []"
