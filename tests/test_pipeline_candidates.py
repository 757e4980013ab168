"""Which draw a picture is made of: pools, orders, reranking, and the map of how uncertain its colors are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from photos import maps, noise_of, photo, plane, same, streams, view
from standins import StandIn1, StandIn2, StandIn3, StandInConfig, standin_pipeline
from tiny_stages import network_of

from pipeline import ColorPipeline
from pipeline.full_resolution import UNCERTAINTY_WHITE
from pipeline.request import Request
from pipeline.sources import photo_from
from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, rgb_from_coarse
from stages.faces import CoarseColorizer, Draws, Scores
from stages.options import OptionError
from stages.registry import kind_of
from stages.stage1_coarse.candidates import spread_order
from stages.stage1_coarse.uncertainty import expected_error


@pytest.fixture(scope="module")
def pipe() -> ColorPipeline:
    return standin_pipeline()


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
    assert stage1.seeds == [one.initial_seed() for one in streams(gray, 3, 12)]
    pipe(gray, 10, generator=3, pool=1)
    assert stage1.batches[3:] == [4, 4, 4], "also where fewer are wanted"


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
    encoding = pipe.coarse.encode(view(gray))
    symbols = pipe.coarse.sample(encoding, 12, generator=streams(gray, 3, 12)).coarse64
    order = spread_order(encoding.gray64, symbols)
    assert [info.candidate for info in large.info] == order[0, :2].tolist()


class Judge(StandIn1, Scores):
    """Finds bright colors good."""

    def score(self, gray64, coarse64):
        assert gray64.shape == (len(coarse64), 1, 64, 64)
        return coarse64.float().mean((1, 2)) / 64


def test_candidates_are_ranked_by_their_scores():
    pipe, judge = standin_pipeline(), Judge().eval()
    grays = [photo(70, 50, seed) for seed in range(3)]
    drawn = pipe(grays, num_samples=8, generator=5, pool=1)
    ranked = pipe(grays, num_samples=8, generator=5, rank_with=judge)
    for i in range(3):
        rows = slice(8 * i, 8 * i + 8)
        scores = [info.score for info in ranked.info[rows]]
        assert scores == sorted(scores, reverse=True) and len(set(scores)) == 8
        before = {info.candidate: image for info, image in zip(drawn.info[rows], drawn.images[rows], strict=True)}
        for info, image in zip(ranked.info[rows], ranked.images[rows], strict=True):
            assert np.array_equal(image, before[info.candidate])  # another order, not other pictures
    assert [info.candidate for info in ranked.info] != [info.candidate for info in drawn.info]
    assert {info.score for info in drawn.info} == {None}
    (first,) = pipe(grays[0], generator=5, rank_with=judge).info
    assert first.score == ranked.info[0].score, "the best of the stage's own pool of eight"
    assert pipe.fingerprint(judge).keys() - pipe.fingerprint().keys() == {"rank_with"}
    alone = ColorPipeline(StandIn1(StandInConfig(pool=1)), StandIn2(), StandIn3())
    for pool in (None, 1):
        info = alone(grays[0], num_samples=8, generator=5, pool=pool, rank_with=judge).info
        assert [entry.score for entry in info] == [entry.score for entry in ranked.info[:8]]
    assert pipe(grays[0], generator=5, rank_with=judge, pool=8).info[0] == first


def test_scores_that_are_not_finite_are_an_error(pipe):
    class Mad(Judge):
        def score(self, gray64, coarse64):
            return super().score(gray64, coarse64) / 0

    with pytest.raises(RuntimeError, match="the scores of the model that ranks are not finite"):
        pipe(photo(20, 20), generator=5, rank_with=Mad().eval())


@pytest.mark.parametrize("kind", ["coltran", "pic"])
def test_real_kinds_draw_and_judge(kind):
    torch.manual_seed(0)
    stage: Any = kind_of("coarse", kind)[1](network_of(f"tiny/stage1_{kind}.toml")).eval()
    assert isinstance(stage, CoarseColorizer) and isinstance(stage, Scores)
    seen = []

    class Watched(StandIn2):
        def upsample(self, gray64, coarse64):
            seen.append((gray64, coarse64))
            return super().upsample(gray64, coarse64)

    pipe = ColorPipeline(stage, Watched(), StandIn3())
    info = pipe(photo(70, 50), num_samples=3, generator=5, rank_with=stage).info
    scores = [entry.score for entry in info if entry.score is not None]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == 3
    expected = [stage.score(gray[:1], coarse[:1]).item() for gray, coarse in seen]
    assert scores == pytest.approx(expected, rel=1e-5)
    with pytest.raises(OptionError, match="rank_with has nothing to rank: one candidate is drawn"):
        pipe(photo(70, 50), generator=5, rank_with=stage)
    assert pipe(photo(70, 50), preview=True).info[0].notes == ()


class Unsure(StandIn1):
    """At temperature 1 draws of one hue each: where the photograph is black all look alike, and by coin toss where it
    is not.
    """

    def sample(self, encoding, num_samples=1, options=None, generator=None, callback=None):
        if options.temperature != 1.0:
            return super().sample(encoding, num_samples, options, generator, callback)
        coin = torch.stack([torch.rand(2, 1, 1, generator=one) for one in generator])
        chroma = 0.2 * (coin - 0.5).unflatten(0, (len(encoding), num_samples)) * encoding.gray64[:, None]
        return Draws.of(encoding.gray64, chroma)


def test_an_uncertainty_map_per_photo(pipe):
    photos = [photo(256, 256), photo(90, 70, 1), photo(20, 200, 2)]
    assert pipe(photos[0], generator=1).uncertainty is None
    unsure = ColorPipeline(Unsure(), StandIn2(), StandIn3())
    exact = unsure(photos, num_samples=2, generator=1, output_type="pt", uncertainty=True)
    assert [tuple(one.shape) for one in maps(exact)] == [gray.shape for gray in photos] and len(exact.images) == 6
    gray = plane(photos[0])[0]
    coins = torch.stack([torch.rand(2, 1, 1, generator=one) for one in streams(photos[0], 1, 32, "uncertainty")])
    draws = 0.2 * (coins - 0.5) * resize(gray[None], (64, 64))
    expected = expected_error(gray, draws, chroma_from_rgb(exact.images[0])[None])[0]
    torch.testing.assert_close(maps(exact)[0], expected, rtol=0, atol=1e-3)
    averaged = unsure(photos[0], generator=1, output_type="pt", preview=True, uncertainty=True)
    small = unsure.coarse.preview(unsure.coarse.encode(view(photos[0])))[0]
    expected = expected_error(gray, draws, chroma_from_rgb(small)[None])[0]
    torch.testing.assert_close(maps(averaged)[0], expected, rtol=0, atol=1e-3)
    arrays = maps(unsure(photos, generator=1, output_type="np", uncertainty=True))
    images = maps(unsure(photos, generator=1, uncertainty=True))
    for one, array, image, picture in zip(maps(exact), arrays, images, photos, strict=True):
        assert array.dtype == np.float32 and np.array_equal(one.numpy(), array)
        assert image.mode == "L" and image.size == picture.shape[::-1]
        levels = np.clip(array * 255 / UNCERTAINTY_WHITE, 0, 255)
        np.testing.assert_allclose(np.asarray(image), levels, rtol=0, atol=0.51)
    assert not same(maps(unsure(photos[1], generator=9, output_type="np", uncertainty=True)), arrays[1:2])
    assert same(maps(unsure(photos[1], generator=1, output_type="np", uncertainty=True)), arrays[1:2])
    cold = unsure(photos[0], generator=1, output_type="pt", uncertainty=True, temperature=0.0, chroma_gain=0.5)
    expected = expected_error(gray, draws, chroma_from_rgb(cold.images[0])[None])[0]
    torch.testing.assert_close(maps(cold)[0], expected, rtol=0, atol=1e-3)  # the model's own, whatever is asked for
    assert same(maps(unsure(photos[1], 3, generator=1, output_type="np", uncertainty=True)), arrays[1:2])
    previews = [unsure(photos[1], preview=True, output_type="np", uncertainty=True) for _ in range(2)]
    assert not same(maps(previews[0]), maps(previews[1]))
    again = unsure(photos[1], preview=True, output_type="np", uncertainty=True, generator=previews[0].info[0].seed)
    assert same(maps(previews[0]), maps(again))
    with pytest.raises(ValueError, match="num_samples"):
        unsure(photos[1], num_samples=0, uncertainty=True)
    plain = unsure(photos, generator=1, output_type="pt", num_samples=2).images
    assert all(torch.equal(a, b) for a, b in zip(plain, exact.images, strict=True))
    unsure.batch_size = 2
    together = maps(unsure(photos, generator=1, output_type="np", uncertainty=True))
    for one, array in zip(together, arrays, strict=True):
        np.testing.assert_allclose(one, array, rtol=0, atol=1e-4)


def test_uncertainty_of_a_stage_that_knows_coarse_colors_alone(pipe):
    gray = photo(64, 64)
    output = pipe(gray, generator=1, output_type="pt", num_inference_steps=(3, 1), uncertainty=True)
    noise = streams(gray, 1, 32, "uncertainty")
    symbols = pipe.coarse.sample(pipe.coarse.encode(view(gray)), 32, generator=noise).coarse64[0]
    (small,) = pipe.small_photos([photo_from(gray)], [noise_of(gray, 1)], Request())[0].pictures
    large = resize(plane(gray), (256, 256))[0]
    expected = expected_error(large, chroma_from_rgb(rgb_from_coarse(symbols)), chroma_from_rgb(small.rgb)[None])
    torch.testing.assert_close(maps(output)[0], resize(expected[None], (64, 64))[0, 0], rtol=0, atol=1e-3)
