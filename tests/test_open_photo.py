"""Open photos: the same bytes as without, whatever was asked before, and no network runs twice for one answer."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from PIL import Image
from standins import Featured, standin_pipeline

from pipeline import ColorPipeline, OpenPhoto
from pipeline.images import load_photo
from pipeline.open_photo import ENTRIES, Cache
from stages.color.resample import resize
from stages.hints.hints import Hints, Point
from stages.options import OptionError

RED = Hints((64, 48), [Point(20, 30, "#a03020")])
BLUE = Hints((64, 48), [Point(20, 30, "#2030a0", 9)])
REFERENCE = np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8)
CALLS: list[dict[str, Any]] = [
    {}, {"hints": RED}, {"num_samples": 3}, {"hints": BLUE}, {"temperature": 0.5}, {"candidate": 5}, {"generator": 1},
    {"candidate": 5, "hints": BLUE}, {"preview": True}, {"preview": True, "hints": RED}, {"uncertainty": True},
    {"uncertainty": True, "hints": RED}, {"palette": ["navy", "gray"]}, {"sharpness": 1.5}, {"noise_key": "film"},
    {"max_side": 32}, {"max_side": 31, "hints": RED, "uncertainty": True}, {"strength": 0.5, "hints": RED},
    {"reference": REFERENCE},
]  # fmt: skip


class Hinted(Featured):
    """Has learned hints."""

    takes_hints = True  # type: ignore[assignment]  # a property on the face

    def with_hints(self, encoding, hints, reach=None):
        gray64 = (encoding.gray64 + hints[:, 1:2].mean((2, 3), keepdim=True)).clamp(0, 1)
        return dataclasses.replace(encoding, gray64=gray64)


@pytest.fixture(params=[Featured, Hinted], ids=["spread", "learned"])
def pipe(request) -> ColorPipeline:
    plain = standin_pipeline()
    return ColorPipeline(request.param(), plain.color, plain.superres)


def gray(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (48, 64), np.uint8)


def test_the_bytes_are_those_of_the_photo_itself(pipe):
    opened = OpenPhoto.of(gray())
    for _ in range(2):  # the second time all is known
        for options in CALLS:
            call = {"generator": 0, "output_type": "pt"} | options
            plain, kept = pipe(gray(), **call), pipe(opened, **call)
            assert all(map(np.array_equal, plain.images, kept.images)), options
            assert len(plain.images) == len(kept.images)
            assert plain.info == kept.info, options
            assert (plain.uncertainty is None) or np.array_equal(plain.uncertainty[0], kept.uncertainty[0])


def test_what_a_hint_does_not_change_does_not_run_again(pipe):
    opened = OpenPhoto.of(gray())
    pipe(opened, generator=0)
    assert len(pipe.coarse.batches) == 2, "a pool of eight, four at a time"
    for hints in (BLUE, RED):
        chosen = pipe(opened, generator=0, hints=hints).info[0].candidate
    drawn = 2 if pipe.coarse.takes_hints else 0  # learned hints change the draws, of which the chosen one is wanted
    assert (len(pipe.coarse.batches), len(pipe.color.batches)) == (2 + drawn, 1 + drawn)
    pipe(opened, generator=0, candidate=chosen, hints=RED)
    assert len(pipe.coarse.batches) == 2 + drawn, "it is known"
    pipe(opened, generator=0, num_samples=2, hints=RED)
    assert len(pipe.coarse.batches) == 2 + drawn + drawn // 2, "the second picture is one draw more, if hints change it"


def test_a_hint_leaves_the_chosen_draw_alone(pipe):
    """Else one hint would change all of the picture."""
    plain = [pipe(gray(seed), generator=0, num_samples=2).info for seed in range(4)]
    for hints in (RED, BLUE):
        told = [pipe(gray(seed), generator=0, num_samples=2, hints=hints).info for seed in range(4)]
        assert [[one.candidate for one in info] for info in told] == [[one.candidate for one in info] for info in plain]


def test_other_stages_and_another_photo_start_anew(pipe):
    opened = OpenPhoto.of(gray())
    pipe(opened, generator=0)
    other = standin_pipeline()
    other.coarse.mix.weight.data *= -1  # type: ignore[union-attr, operator]
    assert np.array_equal(*(one.images[0] for one in (other(opened, generator=0), other(gray(), generator=0))))
    darker = dataclasses.replace(opened, gray=(opened.gray / 2).astype(np.float32))
    again = pipe(load_photo(darker.gray), generator=0, noise_key="a")
    assert np.array_equal(pipe(darker, generator=0, noise_key="a").images[0], again.images[0])


def test_opening_takes_what_loading_takes_and_keeps_what_is_open():
    photo = load_photo(gray())
    opened = OpenPhoto.of(photo)
    assert OpenPhoto.of(opened) is opened and np.array_equal(opened.gray, photo.gray)
    assert OpenPhoto.of(gray()).depth == 8


def test_the_cache_forgets_what_was_not_used_for_the_longest_time():
    once = (cache := Cache()).within("all")
    for name in range(ENTRIES):
        once(name, lambda: None)
    once(0, pytest.fail)
    once(ENTRIES, lambda: None)
    once(0, pytest.fail)
    assert once(1, lambda: "anew") == "anew"
    assert len(cache._values) == ENTRIES


@pytest.mark.parametrize("candidate", [0, 3, 6])
def test_a_candidate_by_its_number_is_that_draw(pipe, candidate):
    draws = pipe(gray(), generator=0, pool=1, num_samples=7)
    one = pipe(gray(), generator=0, candidate=candidate)
    assert np.array_equal(one.images[0], draws.images[candidate])
    assert one.info[0].candidate == candidate


@pytest.mark.parametrize("options, reason", [
    ({"candidate": -1}, "whole number from 0"), ({"candidate": 1.0}, "whole number"),
    ({"candidate": 0, "num_samples": 2}, "num_samples"), ({"candidate": 0, "pool": 4}, "pool"),
    ({"candidate": 0, "preview": True}, "preview"),
])  # fmt: skip
def test_a_candidate_that_can_not_be_is_refused(pipe, options, reason):
    with pytest.raises(OptionError, match=reason):
        pipe(gray(), **options)


def test_a_quick_look_is_the_picture_in_fewer_pixels(pipe, tmp_path):
    large = np.kron(gray(), np.ones((8, 8), np.uint8))
    output = pipe(large, generator=0, max_side=64, output_type="pt", uncertainty=True)
    whole = pipe(large, generator=0, output_type="pt").images[0]
    assert output.images[0].shape == (3, 48, 64) and output.uncertainty[0].shape == (48, 64)
    assert (resize(whole[None], (48, 64))[0] - output.images[0]).abs().mean() < 0.01
    output.save(tmp_path / "x.png")
    assert Image.open(tmp_path / "x.png").size == (512, 384), "what is saved has the size of the photo"
    assert pipe(large, generator=0, max_side=512).images[0].size == (512, 384)
    with pytest.raises(OptionError, match="max_side"):
        pipe(large, max_side=0)
