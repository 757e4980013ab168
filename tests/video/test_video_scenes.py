"""Cuts."""

from __future__ import annotations

import clips
import numpy as np

from pipeline.video.scenes import distance, scenes, signature


def of(grays):
    return list(scenes(map(signature, grays)))


def test_the_distance_of_two_exposures_is_their_difference():
    gray = clips.texture(64, 64)
    assert np.isclose(distance(signature(gray), signature(gray + 0.05)), 0.05)
    assert distance(signature(gray), signature(np.roll(gray[::-1], 0, 1)[::-1])) == 0
    mixed = gray.copy()
    mixed[:16, :16] = np.random.default_rng(0).permutation(gray[:16, :16].ravel()).reshape(16, 16)
    assert distance(signature(gray), signature(mixed)) == 0, "where levels are inside a part does not count"


def test_cuts_are_found_and_pans_are_none():
    first, second, third = (clips.pan(12, (64, 64), 6, seed) for seed in (1, 2, 3))
    assert of(first) == [range(0, 12)]
    assert of([*first, *second, *third]) == [range(0, 12), range(12, 24), range(24, 36)]
    assert of(first[:1]) == [range(0, 1)] and of([]) == []
    assert of([first[0], second[0]]) == [range(0, 1), range(1, 2)]


def test_a_flash_a_flicker_and_a_fade_are_no_cuts():
    still = clips.texture(64, 64)
    flash = [still] * 5 + [np.ones_like(still)] + [still] * 5
    assert of(flash) == [range(0, 11)]
    flicker = [still + 0.05 * (-1) ** k for k in range(10)]
    assert of(flicker) == [range(0, 10)]
    fade = [still * k / 24 for k in range(25)]
    assert of(fade) == [range(0, 25)]


def test_a_scene_that_shakes_is_one():
    grays = [clips.texture(64, 64, seed) for seed in range(10)]
    assert len(of(grays)) > 5, "each is unlike the others"
    shaking = [0.5 * grays[0] + 0.5 * gray for gray in grays]
    steps = [distance(signature(a), signature(b)) for a, b in zip(shaking, shaking[1:], strict=False)]
    assert of(shaking) == [range(0, 10)] or min(steps) > 0.08
