"""Suggested places: what a hint there takes away is what `spread` would, beside the same by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from photos import photo
from PIL import ImageColor
from standins import standin_pipeline
from torch import Tensor

from stages.color.difference import ciede2000
from stages.color.spaces import gray_from_rgb, lab_from_rgb, merge
from stages.hints.spread import spread_alike
from stages.hints.suggestions import LARGEST, SMALLEST, suggestions

SIZE = (640, 320)


def scene(seed: int = 0, draws: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gray, chroma of a picture, of draws, and features, all smooth: 32x32, which is the grid of the suggestions."""
    generator = torch.Generator().manual_seed(seed)

    def smooth(count: int, channels: int) -> Tensor:
        coarse = torch.rand(count, channels, 5, 5, generator=generator)
        return torch.nn.functional.interpolate(coarse, (32, 32), mode="bilinear")

    return 0.2 + 0.6 * smooth(1, 1), 0.1 * smooth(1, 2), 0.3 * smooth(draws, 2) - 0.1, smooth(1, 4)


def told(gray: Tensor, picture: Tensor, features: Tensor, cells: list[int], truth: Tensor) -> Tensor:
    """The picture after the true chroma of some cells, by the code that spreads hints."""
    hints = torch.zeros(1, 3, 32, 32)
    for cell in cells:
        y, x = divmod(cell, 32)
        hints[0, :, y, x] = torch.tensor([1.0, *truth[0, :, y, x].tolist()])
    return spread_alike(gray, hints, picture, picture, features)


def wrong(gray: Tensor, picture: Tensor, truth: Tensor) -> Tensor:
    return ciede2000(lab_from_rgb(merge(gray, picture)), lab_from_rgb(merge(gray, truth)))


def cell_of(x: float, y: float) -> int:
    return int(y * 32 / SIZE[1]) * 32 + int(x * 32 / SIZE[0])


def test_the_first_place_takes_away_most_and_gains_are_what_is_taken_away():
    gray, picture, draws, features = scene()
    found = suggestions(gray, picture, draws, features, None, SIZE, 0.0)
    cells = [cell_of(one.x, one.y) for one in found]
    errors = torch.cat([wrong(gray, picture, draw[None]) for draw in draws])
    visible = errors.square().mean(0) / (draws - picture).square().sum(1).mean(0)

    def left(places: list[int]) -> tuple[float, float]:
        """Expected squared error, by how visible it is, and expected CIEDE2000."""
        after = [told(gray, picture, features, places, draw[None]) for draw in draws]
        square = torch.stack([(one[0] - draw).square().sum(0) for one, draw in zip(after, draws, strict=True)])
        apart = [wrong(gray, one, draw[None]).mean() for one, draw in zip(after, draws, strict=True)]
        return float((visible * square.mean(0)).sum()), float(torch.stack(apart).mean())

    others = torch.randperm(1024, generator=torch.Generator().manual_seed(1))[:40].tolist()
    assert all(left([cells[0]])[0] <= left([other])[0] for other in others)
    assert all(left(cells[:2])[0] <= left([cells[0], other])[0] for other in others)
    before = float(errors.mean())
    for count, one in enumerate(found, 1):
        after = left(cells[:count])[1]
        assert one.gain == pytest.approx(before - after, abs=0.02)
        before = after


def test_what_is_known_is_not_asked_again():
    gray, picture, draws, features = scene(3)
    first = suggestions(gray, picture, draws, features, None, SIZE, 0.0)[0]
    cell = cell_of(first.x, first.y)
    hints = torch.zeros(1, 3, 32, 32)
    hints[0, :, cell // 32, cell % 32] = torch.tensor([1.0, *picture[0, :, cell // 32, cell % 32].tolist()])
    after = spread_alike(gray, hints, picture, draws, features)
    again = suggestions(gray, picture, after, features, hints, SIZE, 0.0)
    assert all(cell_of(one.x, one.y) != cell for one in again) and again[0].gain < first.gain
    other = cell_of(again[0].x, again[0].y)
    fall = []
    for draw in after:  # both hints at once, by the code that spreads them
        hints[0, :, other // 32, other % 32] = torch.tensor([1.0, *draw[:, other // 32, other % 32].tolist()])
        both = spread_alike(gray, hints, picture, picture, features)
        fall.append(wrong(gray, picture, draw[None]).mean() - wrong(gray, both, draw[None]).mean())
    assert again[0].gain == pytest.approx(float(torch.stack(fall).mean()), abs=1e-3)


def test_a_second_hint_on_one_surface_tells_little():
    gray, picture = torch.full((1, 1, 32, 32), 0.5), torch.zeros(1, 2, 32, 32)
    draws = torch.tensor([0.1, -0.1])[:, None, None, None].expand(2, 2, 32, 32)
    hints = torch.zeros(1, 3, 32, 32)
    hints[0, 0, 16, 16] = 1
    without, beside = (suggestions(gray, picture, draws, None, given, SIZE, 0.0) for given in (None, hints))
    assert beside[0].gain < 0.75 * without[0].gain


def test_where_all_agree_nobody_is_asked():
    gray, picture, _, features = scene()
    assert suggestions(gray, picture, picture.expand(8, -1, -1, -1), features, None, SIZE, 0.0) == []
    assert suggestions(gray, picture, picture.expand(8, -1, -1, -1), features, None, SIZE, 0.15), "it may be gray"


def test_the_place_is_asked_where_draws_differ_and_its_colors_are_those_of_the_draws():
    """The right half is uncertain, of two hues, one more often: both are offered, the frequent one first."""
    gray = torch.full((1, 1, 32, 32), 0.3)
    gray[..., 16:] = 0.7
    hues = torch.tensor([[-0.15, 0.15], [0.15, -0.1], [-0.15, 0.15], [-0.15, 0.15], [0.15, -0.1], [-0.15, 0.15]])
    draws = torch.zeros(6, 2, 32, 32)
    draws[..., 16:] = hues[..., None, None]
    found = suggestions(gray, torch.zeros(1, 2, 32, 32), draws, None, None, SIZE, 0.0)
    assert found[0].x > 320 and 2 <= len(found[0].colors) <= 3
    rgb = merge(torch.full((2, 1, 1, 1), 0.7), hues[:2, :, None, None]).flatten(1)
    levels = [ImageColor.getrgb(color) for color in found[0].colors]
    assert np.abs(np.array(levels[:2]) - 255 * rgb.numpy()).max() <= 2
    assert all(SMALLEST * 640 <= one.radius <= LARGEST * 640 for one in found)
    light = gray_from_rgb(torch.tensor(levels[:2])[..., None, None] / 255)
    assert (light - 0.7).abs().max() < 0.01


def test_suggestions_of_a_call():
    pipe, photos = standin_pipeline(), [photo(60, 90), photo(50, 40, seed=1)]
    plain = pipe(photos, generator=1, pool=1)
    assert plain.suggestions is None
    output = pipe(photos, generator=1, pool=1, uncertainty=True)
    assert output.suggestions is not None and len(output.suggestions) == 2
    for gray, found in zip(photos, output.suggestions, strict=True):
        assert 1 <= len(found) <= 5
        for one in found:
            assert 0 <= one.x < gray.shape[1] and 0 <= one.y < gray.shape[0] and 2 <= len(one.colors) <= 3
        alone = pipe(gray, generator=1, pool=1, uncertainty=True)
        assert alone.suggestions == [found], "alone and in a list"
        first = found[0]
        hints = [(first.x, first.y, first.colors[0], first.radius)]
        after = pipe(gray, generator=1, pool=1, uncertainty=True, hints=hints)
        assert after.suggestions is not None
        assert all((one.x, one.y) != (first.x, first.y) for one in after.suggestions[0])
    assert pipe(photos[0], preview=True, uncertainty=True, generator=1).suggestions is not None
