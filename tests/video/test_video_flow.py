"""Flow, trust, and colors along it."""

from __future__ import annotations

import clips
import numpy as np
import pytest
import torch

from pipeline.video.carrying import RENEWED, Colors, carried, continued, known, mixed
from pipeline.video.flow import SIDE, Flow, Link, sampled
from pipeline.video.intervals import LONGEST, SHORTEST, intervals


def square(gray):
    return torch.from_numpy(np.ascontiguousarray(gray))[None]


@pytest.fixture(scope="module")
def flow():
    return Flow()


def test_whole_steps_are_sampled_exactly():
    planes = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    there = torch.zeros(2, 8, 8)
    assert torch.allclose(sampled(planes, there), planes, atol=1e-6)
    there[0], there[1] = 2, -1
    moved = sampled(planes, there)
    assert torch.allclose(moved[:, 1:, :6], planes[:, :7, 2:], atol=1e-5)
    assert torch.allclose(moved[:, 0, 6], planes[:, 0, 7], atol=1e-5), "beyond the border lies what is at it"


def test_a_pan_has_the_flow_that_it_has(flow):
    step = 9
    here, key = clips.pan(2, (SIDE, SIDE), step)[::-1]
    link = flow.link(square(here), square(key))
    inside = link.displacement[:, 16:-16, 16 : -step - 16]
    assert (inside[0] - step).abs().mean() < 0.2 and inside[1].abs().mean() < 0.2
    assert link.trust[:, 16:-16, 16 : -step - 16].mean() > 0.95
    assert link.trust[:, :, -step + 2 :].mean() < 0.1, "what has come into view is in no key"
    again = flow.link(square(here), square(key), link)
    assert (again.displacement - link.displacement).abs().mean() < 0.1


def test_the_search_remembers_nothing(flow):
    pairs = [[square(gray) for gray in clips.pan(2, (SIDE, SIDE), 5, seed)] for seed in range(4)]
    alone = [Flow().link(*pair).displacement for pair in pairs]
    for pair, wanted in zip(pairs, alone, strict=True):
        flow.link(*pairs[3], near=flow.link(pairs[3][1], pairs[3][0]))
        assert torch.equal(flow.link(*pair).displacement, wanted)


def test_another_picture_is_not_trusted_and_grain_and_flicker_are(flow):
    gray, other = clips.texture(SIDE, SIDE, 1), clips.texture(SIDE, SIDE, 2)
    assert flow.link(square(gray), square(other)).trust.mean() < 0.35
    grain = np.random.default_rng(0).normal(0, 0.02, gray.shape).astype(np.float32)
    darker = flow.link(square(gray + grain), square(0.92 * gray))
    assert darker.trust.mean() > 0.7
    assert flow.link(square(gray), square(gray)).trust.mean() > 0.999


def test_what_lies_before_is_no_color_of_what_it_covers(flow):
    """A square moves over a texture: behind it there is no flow back."""
    ground = clips.texture(SIDE, SIDE, 1)
    here, key = ground.copy(), ground.copy()
    thing = clips.texture(64, 64, 5)
    key[96:160, 60:124] = thing
    here[96:160, 84:148] = thing
    link = flow.link(square(here), square(key))
    assert link.trust[0, 104:152, 62:80].mean() < 0.4, "it was covered in the key"
    assert link.trust[0, 104:152, 96:136].mean() > 0.8 and link.trust[0, 180:].mean() > 0.9
    assert (link.displacement[0, 104:152, 96:136] + 24).abs().mean() < 1


def colors(value, origin=0.5):
    return Colors(torch.full((2, 4, 4), value), torch.full((1, 4, 4), origin))


def link_of(trust, side=4):
    return Link(torch.zeros(2, side, side), torch.full((1, side, side), trust))


def test_trust_decides_between_carried_and_fresh():
    gray = torch.full((1, 4, 4), 0.5)
    told = carried(colors(0.2), link_of(1.0))
    assert torch.allclose(told.chroma, torch.tensor(0.2))
    trust = known(gray, told, link_of(1.0))
    assert torch.allclose(trust, torch.ones(()))
    stale = known(gray + 0.3, told, link_of(1.0))
    assert (stale < 0.02).all(), "a color of the dark is none in the light"
    for share in (0.0, 0.5, 1.0):
        mixture = continued(gray + 0.1, told, torch.full((1, 4, 4), share), torch.full((2, 4, 4), -0.1))
        kept, wanted = (1 - RENEWED) * share, -0.1 + 0.3 * share  # of what is fresh, with the means of what is carried
        assert torch.allclose(mixture.chroma, torch.tensor(kept * 0.2 + (1 - kept) * wanted))
        assert torch.allclose(mixture.origin, torch.tensor(0.6 - 0.1 * (1 - RENEWED) * share))


def test_between_key_frames_colors_change_evenly_and_by_trust():
    one, other = colors(0.0), colors(0.3)
    for share in (0.25, 0.5):
        even = mixed(one, link_of(1.0), other, link_of(1.0), share)
        assert torch.allclose(even, torch.tensor(0.3 * share))
    assert mixed(one, link_of(0.0), other, link_of(1.0), 0.1).mean() > 0.2
    assert torch.allclose(mixed(one, link_of(0.0), other, link_of(0.0), 0.5), torch.tensor(0.15)), "a color everywhere"


def test_key_frames_come_in_time_when_wanted_and_when_the_flow_is_lost(flow):
    still = clips.frames([clips.texture(48, 64)] * (LONGEST + 6))
    spans = [(part.frames[0].number, part.frames[-1].number) for part in intervals(still, flow, {3, LONGEST + 2})]
    assert spans == [(0, 3), (3, LONGEST + 2), (LONGEST + 2, LONGEST + 5)]
    parts = list(intervals(still, flow))
    assert [len(part.frames) for part in parts] == [LONGEST + 1, 6]
    assert all([x is None for x in part.back] == [True] + [False] * (len(part.frames) - 1) for part in parts)
    assert all([x is None for x in part.on] == [False] * (len(part.frames) - 1) + [True] for part in parts)
    assert list(intervals(still[:1], flow)) == []
    wild = clips.frames([clips.texture(48, 64, seed) for seed in range(SHORTEST + 2)])
    assert [len(part.frames) for part in intervals(wild, flow)] == [SHORTEST + 1, 2]
