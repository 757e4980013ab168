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
    assert distance(signature(gray), signature(gray.copy())) == 0
    mixed = gray.copy()
    mixed[:16, :16] = np.random.default_rng(0).permutation(gray[:16, :16].ravel()).reshape(16, 16)
    assert distance(signature(gray), signature(mixed)) == 0, "where levels are inside a part does not count"


def test_cuts_are_found_and_pans_are_none():
    first, second, third = (clips.pan(12, (64, 64), 3, seed) for seed in (1, 2, 3))
    assert of(first) == [range(0, 12)]
    assert of([*first, *second, *third]) == [range(0, 12), range(12, 24), range(24, 36)]
    assert of(first[:1]) == [range(0, 1)] and of([]) == []
    assert of([*first[:3], *second[:3]]) == [range(0, 3), range(3, 6)]
    assert of([first[0], second[0]]) == [range(0, 2)], "three frames at least"


def test_a_flash_a_flicker_and_a_fade_are_no_cuts():
    still = clips.texture(64, 64)
    flash = [still] * 5 + [np.ones_like(still)] + [still] * 5
    assert of(flash) == [range(0, 11)]
    flicker = [still + 0.05 * (-1) ** k for k in range(10)]
    assert of(flicker) == [range(0, 10)]
    fade = [still * k / 24 for k in range(25)]
    assert of(fade) == [range(0, 25)]


def test_what_is_usual_is_no_cut():
    """Every frame is far from the one before; the first of them begins a scene, the others go on like this."""
    still = clips.texture(64, 64)
    wild = [still + 0.1 * k for k in range(7)]
    assert of([still] * 5 + wild) == [range(0, 6), range(6, 12)]
    assert of(wild + [wild[-1] + 0.5] * 2) == [range(0, 7), range(7, 9)]
