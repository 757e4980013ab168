"""Whose noise a picture is made of: seeds, noise keys, and calls that do not know of each other."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from photos import photo, same, streams
from PIL import Image
from standins import standin_pipeline

from pipeline import ColorPipeline
from pipeline.sources import photo_from
from stages.seeds import NoiseSource, noise_key, seed_of


@pytest.fixture
def pipe() -> ColorPipeline:
    return standin_pipeline()


# --- closed forms


def test_a_seed_is_the_start_of_a_sha256():
    digest = hashlib.sha256(b"(7, 'key', 3, 'stage1')").digest()
    assert seed_of(7, "key", 3, "stage1") == int.from_bytes(digest[:8], "big") >> 1
    assert NoiseSource(7, "key").generator(3).initial_seed() == seed_of(7, "key", 3, "stage1")


def test_no_two_candidates_photographs_seeds_or_purposes_share_a_stream():
    numbers = {
        NoiseSource(seed, key).generator(k, purpose).initial_seed()
        for seed in (-1, 0, 1, 10**30) for key in ("", "0", "a") for k in range(20) for purpose in ("stage1", "stage3")
    }  # fmt: skip
    assert len(numbers) == 4 * 3 * 20 * 2


@pytest.mark.parametrize("size", [(30, 40), (1500, 1200)])  # the second is hashed in strips
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_noise_key_is_the_sha256_of_shape_depth_and_levels(size, dtype):
    levels = photo(*size, dtype=dtype)
    depth = 8 * levels.itemsize
    said = hashlib.sha256(f"{size[0]} {size[1]} {depth}\n".encode() + levels.astype(f"<u{levels.itemsize}").tobytes())
    one = photo_from(levels)
    assert noise_key(one.gray, one.depth) == said.hexdigest()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_level_is_hashed_as_it_was_read(dtype):
    peak = np.iinfo(dtype).max
    levels = np.arange(peak + 1, dtype=dtype)[None]
    said = hashlib.sha256(f"1 {peak + 1} {8 * levels.itemsize}\n".encode())
    said.update(levels.astype(f"<u{levels.itemsize}").tobytes())
    one = photo_from(levels)
    assert noise_key(one.gray, one.depth) == said.hexdigest()


def test_floats_are_keyed_as_sixteen_bits():
    levels = photo(30, 40, dtype=np.uint16)
    expected = noise_key((levels / 65535).astype(np.float32), 16)
    floats = levels.astype(np.float32) / np.float32(65535)
    near = [np.clip((levels + off) / 65535, 0, 1).astype(np.float32) for off in (-0.4, 0.4)]  # the nearest level counts
    for source in (levels, floats, torch.from_numpy(floats), floats[..., None], *near):
        one = photo_from(source)
        assert noise_key(one.gray, one.depth) == expected
    eight = photo_from(photo(30, 40))
    assert noise_key(eight.gray, 8) != noise_key(eight.gray, 16), "the depth is hashed too"
    assert noise_key(eight.gray, 8) != noise_key(eight.gray.reshape(40, 30), 8), "and the shape"


# --- what the pipeline makes of them


def test_a_file_and_an_array_of_one_picture_share_their_noise(pipe, tmp_path):
    for name, dtype in (("a.png", np.uint8), ("b.png", np.uint16), ("c.tif", np.uint8)):
        gray, path = photo(30, 40, dtype=dtype), tmp_path / name
        Image.fromarray(gray).save(path)
        output = pipe([gray, path, str(path), Image.open(path)], generator=5, pool=1)
        one = photo_from(gray)
        assert {info.noise_key for info in output.info} == {noise_key(one.gray, one.depth)}
        assert same(output.images, [output.images[0]] * 4)


def test_two_photographs_share_no_noise(pipe):
    photos = [photo(30, 40, seed) for seed in range(2)]
    photos.append(photos[0].copy())
    photos[2][0, 0] ^= 1  # of one level in one pixel
    pipe(photos, 4, generator=7, pool=1)
    seeds = pipe.coarse.seeds
    assert len(seeds) == 12 and len(set(seeds)) == 12
    assert seeds == [one.initial_seed() for gray in photos for one in streams(gray, 7, 4)]


def test_a_photograph_has_its_own_noise_in_stage_3_and_in_the_map(pipe, monkeypatch):
    gray = photo(30, 40)
    seen: list[Any] = []
    real = pipe.superres.sample

    def watched(gray256, rgb64, options, generator, callback):
        seen.extend(one.initial_seed() for one in generator)
        return real(gray256, rgb64, options, generator, callback)

    monkeypatch.setattr(pipe.superres, "sample", watched)
    info = pipe(gray, 2, generator=7, uncertainty=True).info
    streams3 = streams(gray, 7, 24, "stage3")
    assert seen == [streams3[one.candidate].initial_seed() for one in info]
    assert pipe.coarse.seeds[-32:] == [one.initial_seed() for one in streams(gray, 7, 32, "uncertainty")]


@pytest.mark.parametrize("batch_size", [1, 8])
def test_batch_equals_singles_in_any_order(pipe, batch_size):
    pipe.batch_size = batch_size
    photos = [photo(30, 40, 0), photo(50, 20, 1), photo(30, 40, 2)]
    alone = [pipe(one, 2, generator=7, pool=5).images for one in photos]
    for order in ([0, 1, 2], [2, 1, 0], [1, 1, 2, 0, 0, 2, 1, 0, 2, 1]):  # the last: two batches of eight
        batch = pipe([photos[i] for i in order], 2, generator=7, pool=5).images
        assert same(batch, [image for i in order for image in alone[i]])
    per_photo = pipe(photos, 2, generator=[7, 8, 7], pool=5).images
    assert same(per_photo[:2], alone[0]) and same(per_photo[4:], alone[2])
    assert not same(per_photo[2:4], alone[1])


def test_a_noise_key_gives_a_photograph_anothers_noise(pipe):
    first, second = photo(30, 40, 0), photo(30, 40, 1)
    own = [info.noise_key for info in pipe([first, second], generator=7).info]
    pipe.coarse.seeds.clear()
    output = pipe([second, second], generator=7, noise_key=[own[0], None], pool=1)
    assert [info.noise_key for info in output.info] == own
    assert pipe.coarse.seeds[:4] == [one.initial_seed() for one in streams(first, 7, 4)]
    assert same(output.images[1:], pipe(second, generator=7, pool=1).images)
    assert not same(output.images[:1], output.images[1:])
    film = pipe([first, second], generator=7, noise_key="film", pool=1)
    assert {info.noise_key for info in film.info} == {"film"}
    assert pipe.coarse.seeds[-8:-4] == pipe.coarse.seeds[-4:]
    assert pipe(first, preview=True, noise_key="film").info[0].noise_key == "film"
    for wrong in (["a"], ["a", "b", "c"], ["a", 1], 5):
        with pytest.raises(ValueError, match="noise_key must be text, None, or a list of these for 2 photos"):
            pipe([first, second], noise_key=wrong)


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


def test_a_padded_batch_of_eight_is_order_free_too(pipe):
    photos = [photo(30, 40, seed) for seed in range(3)]
    pipe.batch_size = 8
    batch = pipe(photos, 3, generator=7, pool=5).images
    assert [stage.batches for stage in pipe.stages.values()] == [[32, 32, 32], [8, 8], [8, 8]]  # of nine draws
    alone = [image for one in photos for image in pipe(one, 3, generator=7, pool=5).images]
    assert same(batch, alone)
    many = pipe([*photos, *photos[:2]] * 2, generator=7, pool=1).images  # ten photos: two batches
    assert same(many[:5], many[5:])


def test_temperature_reaches_stage1(pipe, monkeypatch):
    seen: list[torch.Tensor] = []
    sample = pipe.color.upsample

    def noted(gray64: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        seen.append(coarse)
        return sample(gray64, coarse)

    monkeypatch.setattr(pipe.color, "upsample", noted)
    pipe(photo(30, 40), 3, generator=3, pool=1)
    pipe(photo(30, 40), 3, generator=3, pool=1, temperature=0.0)
    warm, cold = seen[:3], seen[3:]
    assert not torch.equal(warm[0], warm[1]) and torch.equal(cold[0], cold[1]) and torch.equal(cold[0], cold[2])


# --- calls that do not know of each other


def test_calls_from_several_threads_give_the_bytes_of_calls_one_by_one(pipe):
    """Nothing that changes a picture is state of the pipeline: not the options, the seed, the order, the callback."""
    grays = [photo(40 + 3 * i, 50, i) for i in range(4)]
    seen: dict[int, list[int]] = {}
    calls = [
        {"preview": True, "noise_key": f"{i}"} if i % 5 == 0 else
        {"generator": i, "pool": 1 + i % 3, "temperature": 0.2 * i, "sharpness": 0.3 * (i % 4),
         "num_samples": 1 + i % 2, "chroma_gain": 1 + 0.1 * i, "num_inference_steps": (1 + i % 3, 1 + i % 2),
         "noise_key": "film" if i % 2 else None, "uncertainty": i % 4 == 0}
        for i in range(10)
    ]  # fmt: skip

    def call(i: int):
        steps = seen[i] = []
        output = pipe(
            grays[i % 4], **calls[i], output_type="np",
            callback_on_step_end=None if calls[i].get("preview") else
            lambda _, step, sigma, tensors: steps.append(tensors["stage"]),
        )  # fmt: skip
        return output.images, output.info, output.uncertainty or [], list(steps)

    expected = [call(i) for i in range(len(calls))]
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(call, range(len(calls))))
    for (images, info, maps, steps), (images2, info2, maps2, steps2) in zip(expected, found, strict=True):
        assert same(images, images2) and info == info2 and same(maps, maps2) and steps == steps2


def test_one_seed_drawn_from_a_generator_moves_it_once_per_call():
    generator = torch.Generator().manual_seed(5)
    standin_pipeline()([photo(20, 20, seed) for seed in range(3)], generator=generator, preview=True)
    other = torch.Generator().manual_seed(5)
    torch.randint(2**48, (), generator=other)
    assert torch.equal(generator.get_state(), other.get_state())
