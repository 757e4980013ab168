"""Holes: their laws against the published ranges."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.ndimage import label

from stages.corruptions import masks
from stages.corruptions.masks import (
    SIDES,
    free_form_hole,
    inpainting_holes,
    rectangular_hole,
    uncropping_hole,
    uncropping_holes,
)


def test_area_of_rectangles_of_two_thousand_masks():
    torch.manual_seed(0)
    holes = torch.stack([rectangular_hole(64) for _ in range(2000)])
    area = holes.float().mean((1, 2))
    assert area.min() >= 0.1 and area.max() <= 0.4
    counts = torch.histc(area, 3, 0.1, 0.4) / 2000
    assert (counts > 0.15).all(), counts  # all of the range is used
    parts = [label(one)[1] for one in holes[:500].numpy()]
    assert max(parts) <= 5 and {1, 2, 3} <= set(parts)


def test_free_form_masks_cover_what_they_are_evaluated_with():
    """Palette evaluates on 10-20, 20-30 and 30-40 % of the area: the law gives all three."""
    torch.manual_seed(0)
    area = torch.stack([free_form_hole(64) for _ in range(2000)]).float().mean((1, 2))
    assert 0.1 < area.median() < 0.2 and area.max() < 0.6
    assert all(share > 0.03 for share in (torch.histc(area, 3, 0.1, 0.4) / 2000).tolist())


def test_the_shares_of_both(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(masks, "free_form_hole", lambda side: torch.ones(side, side, dtype=torch.bool))
    monkeypatch.setattr(masks, "rectangular_hole", lambda side: torch.zeros(side, side, dtype=torch.bool))
    holes = inpainting_holes(2000, 4)
    assert holes.shape == (2000, 1, 4, 4)
    assert float(holes.float().mean()) == pytest.approx(0.6, abs=3 * math.sqrt(0.24 / 2000))


def test_a_stroke_is_all_within_half_its_width():
    hole = masks._stroke(torch.tensor([[8.0, 4.0], [8.0, 28.0]]), 6.0, 32)
    y, x = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(32) + 0.5, indexing="ij")
    distance = torch.hypot(y - 8, x - x.clamp(4, 28))
    assert torch.equal(hole, distance <= 3)  # round at both ends


def test_free_form_strokes_go_with_the_side():
    torch.manual_seed(3)
    small = free_form_hole(64)
    torch.manual_seed(3)
    large = free_form_hole(256)
    assert (large[2::4, 2::4] != small).float().mean() < 0.03


@pytest.mark.parametrize("side", SIDES)
def test_uncropping_takes_exactly_half(side):
    for height, width in ((64, 64), (48, 64), (2, 2), (63, 64)):
        assert int(uncropping_hole(height, width, side).sum()) == height * width // 2
    hole = uncropping_hole(64, 64, side)
    if side != "all":
        known = {"left": hole[:, 32:], "right": hole[:, :32], "top": hole[32:], "bottom": hole[:32]}[side]
        assert not known.any()
    else:
        border = hole.clone()
        border[9:-9, 9:-9] = True
        assert border.all() and not hole[10:-10, 10:-10].all()
        rows, columns = (~hole).any(1).sum(), (~hole).any(0).sum()
        assert abs(int(rows) - int(columns)) <= 1


def test_sides_are_uniform():
    torch.manual_seed(0)
    holes = uncropping_holes(2000, 16)
    counts = [int((holes[:, 0] == uncropping_hole(16, 16, side)).all(-1).all(-1).sum()) for side in SIDES]
    assert sum(counts) == 2000
    assert all(abs(count - 400) < 4 * math.sqrt(2000 * 0.2 * 0.8) for count in counts)


def test_an_unknown_side():
    with pytest.raises(ValueError, match="side must be one of left, right, top, bottom, all; got 'up'"):
        uncropping_hole(4, 4, "up")  # type: ignore[arg-type]
