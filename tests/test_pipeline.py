"""ColorPipeline with stand-in stages: luma, determinism, inputs, outputs, files, errors."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from standins import StandIn1, StandIn2, StandIn3, StandInConfig, known_standins, standin_pipeline

from pipeline import ColorPipeline, StepBar, placement
from pipeline import full_resolution as fullres
from pipeline.folder import DEFAULT_WEIGHTS
from pipeline.full_resolution import UNCERTAINTY_WHITE, sharpened
from pipeline.placement import why_not
from pipeline.sources import candidate_generator, photo_from
from stages.checkpoint import CheckpointError
from stages.color.resample import resize, upsample2x
from stages.color.spaces import chroma_from_rgb, gray_from_rgb, rgb_from_coarse
from stages.diffusion import draw_noise, sample_exponential
from stages.registry import kind_of
from stages.stage1_coarse.candidates import spread_order
from stages.stage1_coarse.coltran import ColTranColorizer, ColTranColorizerConfig
from stages.stage1_coarse.diffusion import DiffusionColorizer, DiffusionColorizerConfig
from stages.stage1_coarse.uncertainty import expected_error
from stages.stage2_color.coltran import ColTranColorUpsampler, ColTranColorUpsamplerConfig
from stages.stage3_superres.diffusion import DiffusionSuperResolver, DiffusionSuperResolverConfig
from stages.training.config import Config


@pytest.fixture(scope="module")
def pipe() -> ColorPipeline:
    return standin_pipeline()


def photo(height: int, width: int, seed: int = 0, dtype=np.uint8) -> np.ndarray:
    peak = np.iinfo(dtype).max
    ramp = np.linspace(0, peak, width)[None] * np.linspace(1, 0.2, height)[:, None]
    noise = np.random.default_rng(seed).normal(0, peak / 16, (height, width))
    return np.clip(ramp + noise, 0, peak).astype(dtype)


def luma(rgb: np.ndarray) -> np.ndarray:
    return rgb.astype(np.float64) @ np.array([0.299, 0.587, 0.114])


def same(a, b) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


# ---------------------------------------------------------------------- luma and outputs


@pytest.mark.parametrize("size", [(300, 420), (23, 17), (40, 320), (90, 1)])
@pytest.mark.parametrize("preview", [False, True])
def test_luma_contract_through_the_whole_pipeline(pipe, size, preview):
    for dtype, peak in ((np.uint8, 255), (np.uint16, 65535)):
        gray = photo(*size, dtype=dtype)
        (levels,) = pipe(gray, generator=1, pool=1, preview=preview, output_type="np").images
        assert levels.shape == (*size, 3) and levels.dtype == dtype
        assert (levels.max(2) != levels.min(2)).any(), "the picture is gray"
        error = np.abs(luma(levels) - gray)
        assert error.max() <= 0.5 + 0.003 * (peak > 255) and error.mean() <= 0.3
        (exact,) = pipe(gray, generator=1, pool=1, preview=preview, output_type="pt").images
        assert exact.shape == (3, *size) and exact.dtype == torch.float32
        assert (gray_from_rgb(exact)[0].numpy() - gray / peak).__abs__().max() <= 1e-4


def test_a_stage_that_can_use_more_pixels_gets_them():
    seen: list[torch.Tensor] = []

    class Sharp(StandIn1):
        gray_side = 128

        def sample(self, *args, sharp, **options):
            seen.append(sharp)
            return super().sample(*args, **options)

        def preview(self, gray64, sharp):
            seen.append(sharp)
            return super().preview(gray64)

    pipe, grays = ColorPipeline(Sharp(), StandIn2(), StandIn3()), [photo(256, 384), photo(90, 70)]
    pipe.batch_size = 2
    pipe(grays, generator=1)
    pipe(grays[1], preview=True)
    large, small = (torch.from_numpy(gray / 255).float()[None, None] for gray in grays)
    expected = [resize(large, (128, 128)), upsample2x(resize(small, (64, 64))).clamp(0, 1)]
    torch.testing.assert_close(seen[0][:2], torch.cat(expected), rtol=0, atol=1e-6)
    torch.testing.assert_close(seen[-1][:1], expected[1], rtol=0, atol=1e-6)


class Judge(StandIn1):
    """Finds dark colors likely."""

    def likelihood(self, gray64, coarse):
        assert gray64.shape == (len(coarse), 1, 64, 64)
        return coarse.float().mean((1, 2)) / 64


def test_candidates_are_ranked_by_likelihood():
    plain, judged = standin_pipeline(), standin_pipeline().rank_with(Judge())
    grays = [photo(70, 50, seed) for seed in range(3)]
    drawn = plain(grays, num_samples=8, generator=5, pool=1)
    ranked = judged(grays, num_samples=8, generator=5)
    for i in range(3):
        rows = slice(8 * i, 8 * i + 8)
        bits = [info.bits for info in ranked.info[rows]]
        assert bits == sorted(bits) and len(set(bits)) == 8
        before = {info.candidate: image for info, image in zip(drawn.info[rows], drawn.images[rows], strict=True)}
        for info, image in zip(ranked.info[rows], ranked.images[rows], strict=True):
            assert np.array_equal(image, before[info.candidate])  # another order, not other pictures
    assert [info.candidate for info in ranked.info] != [info.candidate for info in drawn.info]
    assert {info.bits for info in drawn.info} == {None}
    (first,) = judged(grays[0], generator=5, pool=1).info
    assert first.candidate == 0 and first.bits in [info.bits for info in ranked.info[:8]]
    assert judged.fingerprint().keys() - plain.fingerprint().keys() == {"judge"}
    assert judged.rank_with(None).fingerprint() == plain.fingerprint()
    alone = ColorPipeline(StandIn1(StandInConfig(pool=1)), StandIn2(), StandIn3()).rank_with(Judge())
    assert [info.bits for info in alone(grays[0], num_samples=8, generator=5).info] == [i.bits for i in ranked.info[:8]]
    plainly = alone(grays[0], num_samples=8, generator=5, pool=1).info
    assert [info.candidate for info in plainly] == list(range(8))
    with pytest.raises(ValueError, match="must know likelihoods .* got a stage 1 of kind 'standin'"):
        plain.rank_with(StandIn1())


@pytest.mark.parametrize("kind", ["coltran", "pic"])
def test_real_kinds_draw_and_judge(kind, tmp_path):
    torch.manual_seed(0)
    stage = kind_of(1, kind)[1](Config.read(f"configs/tiny/stage1_{kind}.toml").network).eval()
    stage.save_pretrained(tmp_path / "judge")
    seen = []

    class Watched(StandIn2):
        def sample(self, gray64, coarse64, **options):
            seen.append((gray64, coarse64))
            return super().sample(gray64, coarse64, **options)

    pipe = ColorPipeline(stage, Watched(), StandIn3()).rank_with(tmp_path / "judge")
    info = pipe(photo(70, 50), num_samples=3, generator=5).info
    bits = [entry.bits for entry in info]
    assert bits == sorted(bits) and len(set(bits)) == 3
    expected = [stage.likelihood(gray[:1], coarse[:1]).item() for gray, coarse in seen]
    assert bits == pytest.approx(expected, rel=1e-5)
    with pytest.warns(RuntimeWarning, match="nothing to rank"):
        assert "nothing to rank" in pipe(photo(70, 50), generator=5).info[0].notes[0]
    assert pipe(photo(70, 50), preview=True).info[0].notes == ()


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
        np.stack([gray] * 3, 2), Image.fromarray(gray).convert("RGB"), tensor / 255.0, (tensor / 255.0)[None],
    ]
    images = pipe(sources, generator=5, pool=1).images
    assert len(images) == len(sources)
    assert same(images, [images[0]] * len(images))
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
    for wrong in ({"num_samples": 0}, {"pool": 0}, {"num_inference_steps": 0},
                  {"preview": True, "num_samples": 2}, {"generator": [1, 2]}, {"temperature": -1.0}):
        with pytest.raises(ValueError):
            pipe(photo(8, 8), **wrong)
    for wrong in ("7", 1.5, True):
        with pytest.raises(TypeError, match="generator"):
            pipe(photo(8, 8), generator=wrong)


# ---------------------------------------------------------------------- randomness


def test_same_seed_same_bytes_alone_in_a_batch_and_in_another_order(pipe):
    photos = [photo(30, 40, 0), photo(50, 20, 1), photo(30, 40, 2)]
    alone = [pipe(one, 2, generator=7).images for one in photos]
    batch = pipe(photos, 2, generator=7).images
    assert same(batch, [image for images in alone for image in images])
    backwards = pipe(photos[::-1], 2, generator=7).images
    assert same(backwards, [image for images in alone[::-1] for image in images])
    per_photo = pipe(photos, 2, generator=[7, 8, 7]).images
    assert same(per_photo[:2], alone[0]) and same(per_photo[4:], alone[2])
    assert not same(per_photo[2:4], alone[1])


def test_a_padded_batch_of_eight_is_order_free_too(pipe):
    photos = [photo(30, 40, seed) for seed in range(3)]
    try:
        pipe.batch_size = 8
        for stage in pipe.stages.values():
            stage.batches.clear()
        batch = pipe(photos, 3, generator=7, pool=5).images
        assert [stage.batches for stage in pipe.stages.values()] == [[32, 32, 32], [8, 8], [8, 8]]  # of nine draws
        alone = [image for one in photos for image in pipe(one, 3, generator=7, pool=5).images]
        assert same(batch, alone)
        many = pipe([*photos, *photos[:2]] * 2, generator=7, pool=1).images  # ten photos: two batches
        assert same(many[:5], many[5:])
    finally:
        pipe.batch_size = 1


def test_candidates_belong_to_their_number(pipe):
    gray = photo(30, 40)
    many = pipe(gray, 12, generator=3, pool=1)
    few = pipe(gray, 2, generator=3, pool=1)
    assert [info.candidate for info in many.info] == list(range(12))
    assert same(many.images[:2], few.images)
    assert len({image.tobytes() for image in many.images}) == 12
    for stage in pipe.stages.values():
        stage.batches.clear()
    stage1 = pipe.stages["stage1"]
    stage1.seeds.clear()
    pipe(gray, 12, generator=3, pool=1)
    assert stage1.batches == [4, 4, 4], "stage 1 must always see four candidates"
    assert stage1.seeds == [candidate_generator(3, k).initial_seed() for k in range(12)]
    pipe(gray, 10, generator=3, pool=1)
    assert stage1.batches[3:] == [4, 4, 4], "also where fewer are wanted"


def test_temperature_reaches_stage1(pipe, monkeypatch):
    seen: list[torch.Tensor] = []
    sample = pipe.stages["stage2"].sample
    monkeypatch.setattr(pipe.stages["stage2"], "sample", lambda gray64, coarse, **options: (
        seen.append(coarse), sample(gray64, coarse, **options))[1])
    pipe(photo(30, 40), 3, generator=3, pool=1)
    pipe(photo(30, 40), 3, generator=3, pool=1, temperature=0.0)
    warm, cold = seen[:3], seen[3:]
    assert not torch.equal(warm[0], warm[1]) and torch.equal(cold[0], cold[1]) and torch.equal(cold[0], cold[2])


def test_the_first_picture_is_the_most_central_of_the_pool(pipe):
    gray = photo(30, 40)
    drawn = pipe(gray, 24, generator=3, pool=1)
    assert [info.candidate for info in drawn.info] == list(range(24))
    default = pipe(gray, generator=3)  # the stage's own pool is eight
    several = pipe(gray, 8, generator=3)
    few = pipe(gray, 3, generator=3)  # of nine draws
    large = pipe(gray, 2, generator=3, pool=12)
    for output in (default, several, few, large):
        numbers = [info.candidate for info in output.info]
        assert same(output.images, [drawn.images[k] for k in numbers]) and len(set(numbers)) == len(numbers)
    first = default.info[0].candidate
    assert first < 8 and [several.info[0].candidate, few.info[0].candidate] == [first, first]
    assert max(info.candidate for info in several.info) >= 8, "they are chosen among three times as many"
    symbols = pipe.stages["stage1"].sample(
        resize(torch.from_numpy(gray / 255).float()[None, None], (64, 64)), 12,
        [candidate_generator(3, k) for k in range(12)],
    )  # fmt: skip
    order = spread_order(resize(torch.from_numpy(gray / 255).float()[None, None], (64, 64)), symbols)
    assert [info.candidate for info in large.info] == order[0, :2].tolist()


class Unsure(StandIn1):
    """Draws of one hue each: where the photograph is black all look alike, and by coin toss where it is not."""

    def sample_chroma(self, gray64, num_samples=1, generator=None, num_inference_steps=None, temperature=None):
        assert temperature == 1.0, "the model's own uncertainty, whatever is asked for"
        coin = torch.stack([torch.rand(2, 1, 1, generator=one) for one in generator])
        return (0.2 * (coin - 0.5) * gray64).unflatten(0, (1, -1))


def test_an_uncertainty_map_per_photo(pipe):
    photos = [photo(256, 256), photo(90, 70, 1), photo(20, 200, 2)]
    assert pipe(photos[0], generator=1).uncertainty is None
    unsure = ColorPipeline(Unsure(), StandIn2(), StandIn3())
    exact = unsure(photos, num_samples=2, generator=1, output_type="pt", uncertainty=True)
    assert [tuple(one.shape) for one in exact.uncertainty] == [gray.shape for gray in photos] and len(exact.images) == 6
    gray = torch.from_numpy(photos[0] / 255).float()[None]
    coins = torch.stack([torch.rand(2, 1, 1, generator=candidate_generator(1, k, "uncertainty")) for k in range(32)])
    draws = 0.2 * (coins - 0.5) * resize(gray[None], (64, 64))
    expected = expected_error(gray, draws, chroma_from_rgb(exact.images[0])[None])[0]
    torch.testing.assert_close(exact.uncertainty[0], expected, rtol=0, atol=1e-3)
    averaged = unsure(photos[0], generator=1, output_type="pt", preview=True, uncertainty=True)
    small = unsure.stages["stage1"].preview(resize(gray[None], (64, 64)))[0]
    expected = expected_error(gray, draws, chroma_from_rgb(small)[None])[0]
    torch.testing.assert_close(averaged.uncertainty[0], expected, rtol=0, atol=1e-3)
    arrays = unsure(photos, generator=1, output_type="np", uncertainty=True).uncertainty
    images = unsure(photos, generator=1, uncertainty=True).uncertainty
    for one, array, image, picture in zip(exact.uncertainty, arrays, images, photos, strict=True):
        assert array.dtype == np.float32 and np.array_equal(one.numpy(), array)
        assert image.mode == "L" and image.size == picture.shape[::-1]
        np.testing.assert_allclose(np.asarray(image), np.clip(array * 255 / UNCERTAINTY_WHITE, 0, 255), rtol=0, atol=0.51)
    assert not same(unsure(photos[1], generator=9, output_type="np", uncertainty=True).uncertainty, arrays[1:2])
    assert same(unsure(photos[1], generator=1, output_type="np", uncertainty=True).uncertainty, arrays[1:2])
    assert same(unsure(photos[1], 3, generator=1, output_type="np", uncertainty=True).uncertainty, arrays[1:2])
    previews = [unsure(photos[1], preview=True, output_type="np", uncertainty=True) for _ in range(2)]
    assert not same(previews[0].uncertainty, previews[1].uncertainty)
    again = unsure(photos[1], preview=True, output_type="np", uncertainty=True, generator=previews[0].info[0].seed)
    assert same(previews[0].uncertainty, again.uncertainty)
    with pytest.raises(ValueError, match="num_samples"):
        unsure(photos[1], num_samples=0, uncertainty=True)
    plain = unsure(photos, generator=1, output_type="pt", num_samples=2).images
    assert all(torch.equal(a, b) for a, b in zip(plain, exact.images, strict=True))
    unsure.batch_size = 2
    for one, array in zip(unsure(photos, generator=1, output_type="np", uncertainty=True).uncertainty, arrays, strict=True):
        np.testing.assert_allclose(one, array, rtol=0, atol=1e-4)


def test_uncertainty_of_a_stage_that_knows_coarse_colors_alone(pipe):
    gray = photo(64, 64)
    output = pipe(gray, generator=1, output_type="pt", num_inference_steps=(3, 1), uncertainty=True)
    plane = torch.from_numpy(gray / 255).float()[None, None]
    noise = [candidate_generator(1, k, "uncertainty") for k in range(32)]
    symbols = pipe.stages["stage1"].sample(plane, 32, noise)[0]
    (small,) = pipe.small_pictures([photo_from(gray)], [1])[0]
    large = resize(plane, (256, 256))[0]
    expected = expected_error(large, chroma_from_rgb(rgb_from_coarse(symbols)), chroma_from_rgb(small.rgb)[None])
    torch.testing.assert_close(output.uncertainty[0], resize(expected[None], (64, 64))[0, 0], rtol=0, atol=1e-3)


def test_seeds(pipe):
    gray = photo(20, 20)
    fresh = pipe([gray, gray], pool=1)
    seeds = [info.seed for info in fresh.info]
    assert seeds[0] != seeds[1] and not same(fresh.images[:1], fresh.images[1:])
    again = pipe([gray, gray], generator=seeds, pool=1)
    assert same(again.images, fresh.images)

    generator = torch.Generator().manual_seed(5)
    first, second = (pipe([gray, gray], generator=generator, pool=1) for _ in range(2))
    assert same(first.images[:1], first.images[1:])
    assert first.info[0].seed != second.info[0].seed
    third = pipe(gray, generator=torch.Generator().manual_seed(5), pool=1)
    assert same(third.images, first.images[:1])
    numbers = {candidate_generator(s, k, stage).initial_seed()
               for s in (-1, 0, 1, 10**30) for k in range(20) for stage in ("stage1", "stage3")}
    assert len(numbers) == 160


def test_preview_needs_no_randomness(pipe):
    gray = photo(300, 300)
    first, second = (pipe(gray, preview=True) for _ in range(2))
    assert same(first.images, second.images)
    assert first.info[0].seed is None and first.info[0].candidate is None


def test_callback_and_steps(pipe):
    seen = []

    def step_end(called, step, sigma, tensors):
        assert called is pipe and tensors["x"].shape == tensors["x0"].shape
        seen.append((tensors["stage"], step, sigma))

    pipe(photo(20, 20), pool=4, num_inference_steps=3, generator=1, callback_on_step_end=step_end)
    assert seen == [("stage1", 0, 1.0), ("stage1", 1, 1.0), ("stage1", 2, 1.0), ("stage3", 0, 0.5)]
    seen.clear()
    pipe(photo(20, 20), pool=4, num_inference_steps=(1, 2), generator=1, callback_on_step_end=step_end)
    assert [entry[:2] for entry in seen] == [("stage1", 0), ("stage3", 0), ("stage3", 1)]


def test_the_bar_counts_the_steps_of_each_stage():
    text = io.StringIO()
    bar = StepBar(text)
    pipe = SimpleNamespace(stages={"stage1": ColTranColorizer(ColTranColorizerConfig(8, 8, 2)), "stage3": StandIn3()})
    for _ in range(2):  # two groups of candidates, row by row
        for row in range(64):
            bar(pipe, row, 1 - (row + 1) / 64, {"stage": "stage1"})
    for step, sigma in enumerate((0.9, 0.4, 0.1)):
        bar(pipe, step, sigma, {"stage": "stage3"})
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


# ---------------------------------------------------------------------- memory, precision


def test_out_of_memory_is_said_and_the_picture_is_the_same(pipe, monkeypatch):
    gray = photo(300, 300)
    expected = pipe(gray, generator=1, output_type="np")
    assert expected.info[0].notes == ()
    real, failed = fullres._strip, []

    def fails_once(*arguments):
        if not failed:
            failed.append(1)
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


def test_colors_that_are_not_finite_are_an_error(pipe, monkeypatch):
    monkeypatch.setattr(pipe.stages["stage2"], "sample", lambda gray, *_, **__: gray.expand(-1, 3, -1, -1) / 0)
    with pytest.raises(RuntimeError, match="stage2 .* not finite"):
        pipe(photo(20, 20), generator=1)


def test_precision_only_where_the_hardware_has_it(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(placement, "hardware_has_bfloat16", lambda device: False)
    assert why_not(cpu, torch.float32) is None
    assert "avx512_bf16" in why_not(cpu, torch.bfloat16)
    assert "float32" in why_not(cpu, torch.float16)
    assert "float32, bfloat16 or float16" in why_not(cpu, torch.float64)
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


# ---------------------------------------------------------------------- the real stages, small and untrained


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


def test_a_photo_is_encoded_once_for_all_draws(real_pipe, monkeypatch):
    gray, calls = photo(60, 40), []
    hook = real_pipe.stages["stage1"].encoder.register_forward_hook(lambda *_: calls.append(1))
    drawn = real_pipe(gray, 4, generator=1)
    assert len(calls) == 1
    real_pipe(gray, preview=True, uncertainty=True, generator=1)
    assert len(calls) == 3
    hook.remove()
    monkeypatch.setattr(ColorPipeline, "_seen", lambda self, gray64, photos, size: self._sharp(photos, size))
    assert same(real_pipe(gray, 4, generator=1).images, drawn.images)


def test_real_stages_call_back_and_run_in_bfloat16(real_pipe, monkeypatch):
    gray, seen = photo(60, 40), []
    real_pipe(gray, num_inference_steps=(3, 2), generator=1, pool=1,
              callback_on_step_end=lambda _, step, sigma, tensors: seen.append((tensors["stage"], step)))
    assert seen == [("stage1", 0), ("stage1", 1), ("stage1", 2), ("stage3", 0), ("stage3", 1)]
    monkeypatch.setattr(placement, "hardware_has_bfloat16", lambda device: True)
    try:
        real_pipe.to(torch.bfloat16)
        for preview in (False, True):
            (exact,) = real_pipe(gray, generator=1, preview=preview, output_type="pt").images
            assert (gray_from_rgb(exact)[0] - torch.from_numpy(gray) / 255).abs().max() <= 1e-4
    finally:
        real_pipe.to(torch.float32)


def test_the_default_weights(tmp_path):
    """They fit into 40 MB, color, keep the luma, and give the same bytes alone, in a batch, and saved again."""
    assert sum(path.stat().st_size for path in DEFAULT_WEIGHTS.rglob("*.safetensors")) <= 40e6
    gray, other = photo(300, 200), photo(90, 130)
    pipe = ColorPipeline.from_pretrained()
    alone = pipe(gray, generator=3).images[0]
    assert np.ptp(np.asarray(alone), 2).max() > 5
    stage1 = pipe.stages["stage1"]
    assert stage1.config.tuned == stage1.config.steps and (stage1.tuned.gains != 1).any(), "its few steps are tuned"
    luma = np.asarray(alone) @ np.array([0.299, 0.587, 0.114])
    assert np.abs(luma - gray).max() <= 0.5
    assert same(pipe([other, gray], generator=[5, 3]).images[1:], [alone])
    pipe.save_pretrained(tmp_path / "again")
    assert same(ColorPipeline.from_pretrained(tmp_path / "again")(gray, generator=3).images, [alone])


def test_the_tuned_steps_of_the_default_weights_end_near_many():
    """They were learned for these weights: draws end nearer to those of 50 steps than by the same levels untuned."""
    stage1 = ColorPipeline.from_pretrained().stages["stage1"]
    gray = torch.from_numpy(photo(128, 128) / 255).float()[None, None]
    encoded = stage1.encode(resize(gray, (64, 64)), gray)
    noise = draw_noise((4, 2, 32, 32), torch.Generator().manual_seed(0))
    with torch.no_grad():
        many, tuned, untuned = (
            sample_exponential(stage1.denoiser, noise, sigmas, context=[m.expand(4, -1, -1, -1) for m in encoded.maps])
            for sigmas in (stage1._sigmas(50), stage1.tuned, stage1.tuned.sigmas)
        )
    assert (tuned - many).norm() < 0.5 * (untuned - many).norm() < 0.1 * many.norm()


# ---------------------------------------------------------------------- files


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    known_standins(monkeypatch)
    standin_pipeline().save_pretrained(tmp_path / "pipe")
    return tmp_path / "pipe"


def test_save_and_load_give_the_same_picture(folder, tmp_path):
    gray = photo(30, 40)
    images = standin_pipeline()(gray, 2, generator=4).images
    once = ColorPipeline.from_pretrained(folder)
    assert same(once(gray, 2, generator=4).images, images)
    once.save_pretrained(tmp_path / "again")
    twice = ColorPipeline.from_pretrained(str(tmp_path / "again"))
    assert same(twice(gray, 2, generator=4).images, images)
    assert twice.fingerprint() == once.fingerprint()
    with torch.no_grad():
        twice.stages["stage2"].mix.bias[0] += 1e-3
    changed = {name for name, value in twice.fingerprint().items() if value != once.fingerprint()[name]}
    assert changed == {"stage2"}


def test_sharpness_is_part_of_the_pipeline(folder, tmp_path):
    gray = photo(256, 256)
    plain = ColorPipeline.from_pretrained(folder)
    sharp = ColorPipeline(*plain.stages.values(), sharpness=0.5)
    sharp.save_pretrained(tmp_path / "sharp")
    loaded = ColorPipeline.from_pretrained(tmp_path / "sharp")
    assert loaded.fingerprint() == sharp.fingerprint() and loaded.sharpness == 0.5
    assert {name for name, value in sharp.fingerprint().items() if value != plain.fingerprint()[name]} == {"sharpness"}
    without, with_it = (pipe(gray, generator=1, output_type="pt").images[0] for pipe in (plain, loaded))
    low = torch.from_numpy(gray)[None, None] / 255
    torch.testing.assert_close(with_it[None], sharpened(low, without[None], 0.5), rtol=0, atol=1e-5)
    assert (with_it - without).abs().max() > 1e-3
    for wrong in (-1, 3, float("nan")):
        with pytest.raises(ValueError, match=r"sharpness must be in \[0, 2.0\]"):
            loaded.sharpness = wrong
    loaded.sharpness = 0
    assert loaded.fingerprint() == plain.fingerprint()


def test_saving_replaces_a_pipeline_and_nothing_else(folder, tmp_path, monkeypatch):
    pipe = standin_pipeline()
    before = (folder / "model_index.json").read_bytes()
    pipe.save_pretrained(folder)
    assert (folder / "model_index.json").read_bytes() == before

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep me")
    with pytest.raises(FileExistsError, match="letter.txt"):
        pipe.save_pretrained(tmp_path / "mine")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "keep me"

    def fails(folder, dtype=None):
        raise OSError("disk full")

    monkeypatch.setattr(pipe.stages["stage3"], "save_pretrained", fails)
    for target in (folder, tmp_path / "new"):
        with pytest.raises(OSError, match="disk full"):
            pipe.save_pretrained(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "pipe"]
    ColorPipeline.from_pretrained(folder)


def _edit(folder: Path, change) -> None:
    path = folder / "model_index.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


DAMAGES = {
    "no index": (lambda f: (f / "model_index.json").unlink(), "no model_index.json"),
    "not JSON": (lambda f: (f / "model_index.json").write_text("{"), "can not be read"),
    "a list": (lambda f: (f / "model_index.json").write_text("[]"), "format None"),
    "newer format": (lambda f: _edit(f, lambda i: i.update(format=2)), "format 2; this version reads"),
    "stage left out": (lambda f: _edit(f, lambda i: i["stages"].pop("stage2")), "must name exactly"),
    "unknown kind": (
        lambda f: _edit(f, lambda i: i["stages"]["stage1"].update(kind="magic")), "'magic'; known"),
    "no hash": (lambda f: _edit(f, lambda i: i["stages"]["stage1"].pop("sha256")), "a kind and a sha256"),
    "sharpness in words": (lambda f: _edit(f, lambda i: i.update(sharpness="0.5")), "sharpness must be a number"),
    "too sharp": (lambda f: _edit(f, lambda i: i.update(sharpness=9)), "sharpness must be a number in"),
    "folder missing": (lambda f: shutil.rmtree(f / "stage3"), "stage3 is missing"),
    "weights missing": (
        lambda f: (f / "stage2" / "model.safetensors").unlink(), "model.safetensors is missing"),
    "other weights": (
        lambda f: shutil.copy(f / "stage1/model.safetensors", f / "stage2/model.safetensors"), "SHA-256"),
    "pickle": (lambda f: (f / "stage1" / "pytorch_model.bin").write_bytes(b"\x80"), "pickle"),
    "stages exchanged": (
        lambda f: (shutil.rmtree(f / "stage2"), shutil.copytree(f / "stage1", f / "stage2"),
                   _edit(f, lambda i: i["stages"].update(stage2=i["stages"]["stage1"]))), "holds stage 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_folder_is_an_error(folder, name):
    damage, message = DAMAGES[name]
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        ColorPipeline.from_pretrained(folder)


@pytest.mark.skipif(not hasattr(os, "symlink") or sys.platform == "win32", reason="needs symbolic links")
def test_links_out_of_the_folder_are_refused(folder, tmp_path):
    shutil.move(folder / "stage2", tmp_path / "elsewhere")
    (folder / "stage2").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="link that leaves"):
        ColorPipeline.from_pretrained(folder)
    (folder / "stage2").unlink()
    shutil.copytree(tmp_path / "elsewhere", folder / "stage2")
    (folder / "stage2" / "model.safetensors").unlink()
    (folder / "stage2" / "model.safetensors").symlink_to(tmp_path / "elsewhere" / "model.safetensors")
    with pytest.raises(CheckpointError, match="link that leaves"):
        ColorPipeline.from_pretrained(folder)


def test_hub_cache_links_are_followed(folder, tmp_path, monkeypatch):
    """The hub's cache: snapshots/<revision>/… are links into blobs/ of the same repository."""
    repository = tmp_path / "models--someone--colors"
    snapshot = repository / "snapshots" / "abc"
    (repository / "blobs").mkdir(parents=True)
    for number, file in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        blob, link = repository / "blobs" / str(number), snapshot / file.relative_to(folder)
        shutil.copy(file, blob)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    asked = {}

    def fake(name, revision=None, allow_patterns=None):
        asked.update(name=name, revision=revision, allow_patterns=allow_patterns)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    pipe = ColorPipeline.from_pretrained("someone/colors", revision="v1")
    assert pipe.fingerprint() == ColorPipeline.from_pretrained(folder).fingerprint()
    patterns = ["*.json", "*.safetensors"]
    assert asked == {"name": "someone/colors", "revision": "v1", "allow_patterns": patterns}


def test_names_that_lead_nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    for name in ("./no/where", "/no/where", "nowhere", "a/b/c", Path("no/where"), "~/no_where_at_all"):
        with pytest.raises(CheckpointError, match="there is no folder"):
            ColorPipeline.from_pretrained(name)
    with pytest.raises(CheckpointError, match="is a file"):
        ColorPipeline.from_pretrained("file")

    def offline(*_, **__):
        raise ConnectionError("no network here\nsecond line")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(CheckpointError) as caught:
        ColorPipeline.from_pretrained("owner/name")
    message = str(caught.value)
    assert "no folder in" in message and "on the hub" in message and "no network here" in message
    assert "\n" not in message
    monkeypatch.setattr("pipeline.folder.DEFAULT_WEIGHTS", tmp_path)
    with pytest.raises(CheckpointError, match="default weights are missing"):
        ColorPipeline.from_pretrained()


def test_import_loads_nothing_heavy():
    code = ("import sys, pipeline; before = 'torch' in sys.modules; pipeline.ColorPipeline; "
            "heavy = {'xformers', 'datasets', 'gradio', 'accelerate', 'diffusers', 'huggingface_hub'}; "
            "print(before, sorted(heavy & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False []"
