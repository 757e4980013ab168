"""What can not be honored is an error with a sentence; what has another name now says it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from photos import photo, same
from standins import StandIn1, StandIn2, StandIn3, standin_pipeline
from test_pipeline_candidates import Judge
from tiny_stages import small

from pipeline import ColorPipeline
from pipeline.request import Request, reranker
from stages.options import OptionError, SampleOptions

GRAY = photo(20, 30)
ASKED: dict[str, dict[str, Any]] = {
    "num_inference_steps": {"num_inference_steps": 3}, "superres_steps": {"num_inference_steps": (None, 2)},
    "pool": {"pool": 2}, "temperature": {"temperature": 0.5}, "chroma_gain": {"chroma_gain": 1.2},
    "sharpness": {"sharpness": 0.5}, "rank_with": {"rank_with": Judge().eval()},
}  # fmt: skip


@pytest.fixture(scope="module")
def pipe() -> ColorPipeline:
    return standin_pipeline()


@pytest.mark.parametrize("name", ASKED)
def test_a_preview_honors_no_option(pipe, name):
    named = {"num_inference_steps": "steps"}.get(name, name)
    with pytest.raises(OptionError, match=f"a preview .* can not honor {named}. Leave them out, or leave out preview"):
        pipe(GRAY, preview=True, **ASKED[name])
    assert pipe(GRAY, generator=1, **ASKED[name]).images, "a call that draws does"


def test_a_preview_is_one_picture(pipe):
    with pytest.raises(OptionError, match="a preview is one picture per photo; got num_samples=2"):
        pipe(GRAY, preview=True, num_samples=2)
    with pytest.raises(OptionError, match="can not honor temperature, pool, rank_with"):
        pipe(GRAY, preview=True, temperature=0.5, pool=2, rank_with=Judge().eval())


def test_the_map_beside_a_preview_is_drawn_in_the_steps_asked_for(pipe):
    seen: list[int] = []

    class Counted(StandIn1):
        def sample(self, encoding, num_samples=1, options=None, generator=None, callback=None):
            seen.append(options.steps)
            return super().sample(encoding, num_samples, options, generator, callback)

    counted = ColorPipeline(Counted(), StandIn2(), StandIn3())
    counted(GRAY, preview=True, uncertainty=True, num_inference_steps=3)
    assert seen == [3] * 8  # 32 draws in calls of four
    with pytest.raises(OptionError, match="can not honor temperature"):
        counted(GRAY, preview=True, uncertainty=True, temperature=1.0)


@pytest.mark.parametrize("kind", ["coltran", "pic"])
@pytest.mark.parametrize("name", ["num_inference_steps", "chroma_gain"])
def test_stages_that_draw_pixel_by_pixel_have_no_steps_and_no_gain(kind, name):
    pipe = ColorPipeline(small("coarse", kind), StandIn2(), StandIn3())
    named = {"num_inference_steps": "steps"}.get(name, name)
    with pytest.raises(OptionError, match=f"^{named} can not be honored by kind '{kind}' of the family coarse"):
        pipe(GRAY, generator=1, **ASKED[name])


def test_stage_3_without_steps(pipe):
    still = ColorPipeline(StandIn1(), StandIn2(), small("superres", "coltran"))
    with pytest.raises(OptionError, match="superres_steps can not be honored by kind 'coltran' of the family superres"):
        still(GRAY, generator=1, num_inference_steps=(3, 2))


def test_there_must_be_something_to_rank(pipe):
    for options in ({"pool": 1}, {"pool": 1, "num_samples": 1}):
        with pytest.raises(OptionError, match="rank_with has nothing to rank: one candidate is drawn. Ask for"):
            pipe(GRAY, generator=1, rank_with=Judge().eval(), **options)
    assert len(pipe(GRAY, 2, generator=1, rank_with=Judge().eval(), pool=1).images) == 2


def test_what_ranks_must_be_able_to_score(pipe):
    for wrong, words in (
        (StandIn1(), "kind 'standin' of the family coarse"), ("a folder", "'a folder'"),
        (small("color", "coltran"), "kind 'coltran' of the family color"),
    ):  # fmt: skip
        with pytest.raises(OptionError, match=f"must be able to score them .*; got {words}"):
            pipe(GRAY, generator=1, rank_with=wrong)
    judge = Judge().eval()
    cpu = torch.device("cpu")
    assert reranker(judge, cpu) is judge
    with pytest.raises(OptionError, match="must be in evaluation mode, on cpu"):
        reranker(Judge(), cpu)


def test_nothing_is_drawn_before_it_is_known_that_all_can_be_honored(pipe):
    pipe.coarse.batches.clear()
    for wrong in ({"num_samples": 0}, {"pool": 0}, {"num_inference_steps": 0}, {"num_inference_steps": (2, 0)},
                  {"num_inference_steps": 2.0}, {"temperature": -1.0}, {"chroma_gain": float("nan")},
                  {"sharpness": 2.5}, {"rank_with": StandIn1()}, {"rank_with": Judge().eval(), "pool": 1}):  # fmt: skip
        with pytest.raises(OptionError):
            pipe([GRAY, GRAY], generator=1, **wrong)
    assert pipe.coarse.batches == []


@pytest.mark.parametrize("old, new", [("doubt", "uncertainty"), ("vividness", "chroma_gain")])
def test_old_names_are_refused_with_the_new_one(pipe, old, new):
    with pytest.raises(TypeError, match=f"takes no argument '{old}'; it is called {new} now"):
        pipe(GRAY, **{old: 1})
    with pytest.raises(TypeError, match="takes no argument 'vivid'$"):
        pipe(GRAY, vivid=1)


def test_options_reach_the_stages_and_change_the_picture(pipe):
    plain = pipe(GRAY, generator=1, output_type="pt", pool=1).images
    assert same(plain, pipe(GRAY, generator=1, output_type="pt", pool=1, temperature=1.0, chroma_gain=1.0).images)
    for options in ({"temperature": 0.5}, {"chroma_gain": 3.0}, {"sharpness": 1.0}):
        changed = pipe(GRAY, generator=1, output_type="pt", pool=1, **options).images
        assert not torch.equal(changed[0], plain[0]), options


def test_a_request_is_checked_as_a_whole():
    assert Request(options=SampleOptions(steps=2)).checked_for(StandIn1(), StandIn3()).options.steps == 2
    with pytest.raises(OptionError, match="num_samples must be a whole number from 1; got True"):
        Request(num_samples=True)
