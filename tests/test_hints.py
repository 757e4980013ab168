"""Known colors: how they are read, laid on a plane and spread. Closed forms, and an independent sparse solver."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve

from stages.color.spaces import chroma_from_rgb, gray_from_rgb, rgb_from_gray_chroma
from stages.hints.hints import Hints, Point
from stages.hints.spread import SpreadSettings, likeness, luma_weights, reach, spread

# Likeness off: no two different places are alike, so that only the edges' system is left.
APART = SpreadSettings(place_length=1e-6, noise=1e6, smoothing=0, fade=0)


def picture(batch: int = 1, side: int = 32, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gray, chroma and features of smooth random pictures."""
    generator = torch.Generator().manual_seed(seed)

    def smooth(channels: int, size: int, cells: int) -> torch.Tensor:
        coarse = torch.rand(batch, channels, cells, cells, generator=generator)
        return torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)

    return smooth(1, side, 9), 0.4 * smooth(2, side, 5) - 0.2, smooth(6, 16, 6)


def hinted(side: int, *known: tuple[int, int, float, float, float]) -> torch.Tensor:
    """The tensor of hints (row, column, weight, Cb, Cr)."""
    hints = torch.zeros(1, 3, side, side)
    for y, x, weight, cb, cr in known:
        hints[0, :, y, x] = torch.tensor([weight, weight * cb, weight * cr])
    return hints


# Spreading -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [32, 64])
def test_without_hints_nothing_changes(side):
    gray, chroma, features = picture(2, side)
    assert torch.equal(spread(gray, torch.zeros(2, 3, side, side), chroma, features), chroma)


def test_a_vanishing_hint_changes_next_to_nothing():
    """The effect grows from 0 with the weight: no jump between no hint and a hint that hardly counts."""
    gray, chroma, features = picture()
    changes = [float((spread(gray, hinted(32, (9, 20, w, 0.3, -0.2)), chroma, features) - chroma).abs().max())
               for w in (1e-6, 1e-3, 1.0)]  # fmt: skip
    assert changes[0] < 1e-3 < changes[1] < changes[2]


def test_one_hint_on_constant_luma_without_fade_colors_everything_alike():
    flat, hints = torch.full((1, 1, 32, 32), 0.5), hinted(32, (5, 25, 1, 0.2, -0.1))
    expected = torch.tensor([0.2, -0.1]).view(1, 2, 1, 1).expand(-1, -1, 32, 32)
    torch.testing.assert_close(spread(flat, hints, torch.zeros(1, 2, 32, 32), None, APART), expected)
    # Of whatever picture: its differences from place to place stay, the hint's place is as given.
    _, chroma, _ = picture()
    moved = spread(flat, hints, chroma, None, APART) - chroma
    expected = (torch.tensor([0.2, -0.1]) - chroma[0, :, 5, 25]).view(1, 2, 1, 1).expand(-1, -1, 32, 32)
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)


def test_the_change_is_linear_in_the_colors():
    gray, chroma, features = picture()
    places = [(3, 4, 1.0), (20, 11, 0.5), (30, 30, 0.2)]
    first, second = ([(*p, 0.1 * k, -0.05 * k * k) for k, p in enumerate(places, start)] for start in (1, 2))
    mixed = [(*p, *(0.3 * np.array(a[3:]) + 0.7 * np.array(b[3:])))
             for p, a, b in zip(places, first, second, strict=True)]  # fmt: skip
    one, other, both = (spread(gray, hinted(32, *known), chroma, features) for known in (first, second, mixed))
    torch.testing.assert_close(both, 0.3 * one + 0.7 * other, atol=1e-6, rtol=0)


def test_likeness_and_regression_by_hand():
    """Every number of the Gaussian process from a loop over pairs; a flat luma leaves edges nothing to change."""
    gray, chroma, features = picture(seed=3)
    s = SpreadSettings(strength=0, fade=1e6, smoothing=0)  # what is left is the corrected chroma
    known = [(3, 4, 1.0, 0.2, 0.1), (20, 11, 0.5, -0.2, 0.0), (21, 13, 0.25, 0.0, 0.3)]
    f = features - features.mean((2, 3), keepdim=True)
    f = f / f.square().sum(1).mean().sqrt()
    f = torch.nn.functional.interpolate(f, (32, 32), mode="bilinear")

    def k(a, b):
        near = sum((u - v) ** 2 for u, v in zip(a, b, strict=True)) / 32**2 / s.place_length**2
        luma = float(gray[0, 0][a] - gray[0, 0][b]) ** 2 / s.luma_length**2
        hue = float((chroma[0][:, *a] - chroma[0][:, *b]).square().sum()) / s.chroma_length**2
        seen = float((f[0][:, *a] - f[0][:, *b]).square().sum()) / s.feature_length**2
        return math.exp(-(near + luma + hue + seen) / 2)

    at = [(y, x) for y, x, *_ in known]
    gram = np.array([[k(a, b) for b in at] for a in at]) + np.diag([s.noise / w for _, _, w, *_ in known])
    error = np.array([[cb, cr] for *_, cb, cr in known]) - np.array([chroma[0][:, *a].tolist() for a in at])
    solved = np.linalg.solve(gram, error)
    out = spread(gray, hinted(32, *known), chroma, features, s)
    for place in [(0, 0), (3, 4), (19, 12), (31, 2)]:
        expected = chroma[0][:, *place].numpy() + np.array([k(place, a) for a in at]) @ solved
        np.testing.assert_allclose(out[0][:, *place], expected, atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.75])
def test_edges_agree_with_a_sparse_solver(smoothing):
    """Levin's weights and the system by loops over pixels, solved by scipy; likeness cut off, so certainty is known."""
    gray, chroma, _ = picture(seed=1)
    known = [(3, 4, 1.0, 0.2, 0.1), (20, 11, 0.5, -0.2, 0.0), (30, 30, 0.1, 0.0, 0.3)]
    s = replace(APART, fade=1e-2, smoothing=smoothing, noise=1.0)
    hints, y = hinted(32, *known)[0].double().numpy(), gray[0, 0].double().numpy()
    corrected, certainty = chroma[0].double().numpy().copy(), np.zeros((32, 32))
    for row, column, weight, *color in known:
        certainty[row, column] = 1 / (1 + s.noise / weight)
        corrected[:, row, column] += certainty[row, column] * (np.array(color) - corrected[:, row, column])
    matrix, right = lil_matrix((1024, 1024)), np.zeros((1024, 2))
    for i in range(32):
        for j in range(32):
            window = [(a, b) for a in range(i - 1, i + 2) for b in range(j - 1, j + 2) if 0 <= a < 32 and 0 <= b < 32]
            others = [p for p in window if p != (i, j)]
            nearest = min((y[p] - y[i, j]) ** 2 for p in others)
            twice = max(2 * s.contrast * np.var([y[p] for p in window]), nearest / math.log(100), 2e-6)
            weights = np.array([math.exp(-((y[p] - y[i, j]) ** 2) / twice) for p in others])
            weights /= weights.sum()
            me = 32 * i + j
            matrix[me, me] = 1 + s.fade + s.strength * hints[0, i, j]
            right[me] = s.strength * hints[1:, i, j] + s.fade * corrected[:, i, j]
            for p, w in zip(others, weights, strict=True):
                matrix[me, 32 * p[0] + p[1]] = -w
                kept = 1 - smoothing * (certainty[i, j] + certainty[p]) / 2
                right[me] += w * kept * (corrected[:, i, j] - corrected[:, *p])
    expected = spsolve(matrix.tocsc(), right).T.reshape(2, 32, 32)
    out = spread(gray, torch.from_numpy(hints)[None].float(), chroma, None, s)
    np.testing.assert_allclose(out[0], expected, atol=1e-6)


def test_luma_weights_sum_to_one_and_stay_inside():
    weights = luma_weights(torch.rand(2, 1, 7, 9, generator=torch.Generator().manual_seed(0)), 0.15)
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 7, 9))
    assert (weights[:, :3, 0] == 0).all() and (weights[:, [0, 3, 5], :, 0] == 0).all()


def test_an_edge_stops_a_color():
    gray = torch.full((1, 1, 32, 32), 0.2)
    gray[..., 16:] = 0.8
    out = spread(gray, hinted(32, (16, 4, 1, 0.0, 0.3)), torch.zeros(1, 2, 32, 32))
    assert out[0, 1, :, :15].min() > 0.25 and out[0, 1, :, 17:].abs().max() < 0.01


def test_like_things_share_a_hint_across_a_gap():
    """Two patches of one kind, far apart, by the features alone: luma and chroma are the same everywhere."""
    features = torch.zeros(1, 2, 16, 16)
    features[0, 0], features[0, 1, :4, :4], features[0, 1, 12:, 12:] = 1, 3, 3
    flat = torch.full((1, 1, 32, 32), 0.5)
    s = SpreadSettings(fade=0.1)  # along a flat luma a hint would reach everything
    moved = spread(flat, hinted(32, (3, 3, 1, 0.3, 0)), torch.zeros(1, 2, 32, 32), features, s)[0, 0]
    assert moved[28, 28] > 5 * moved[16, 16].abs()


def test_hints_are_obeyed():
    gray, chroma, features = picture(side=64)
    known = [(5, 5, 1, 0.2, 0.0), (6, 50, 1, -0.2, 0.1), (60, 33, 1, 0.0, -0.3)]
    out = spread(gray, hinted(64, *known), chroma, features)
    for y, x, _, cb, cr in known:
        assert (out[0, :, y, x] - torch.tensor([cb, cr])).abs().max() < 0.01


def test_a_batch_is_its_pictures_one_by_one():
    gray, chroma, features = picture(3, 64)
    hints = torch.cat([hinted(64, (5, 9, 1, 0.2, 0.1)), torch.zeros(1, 3, 64, 64),
                       hinted(64, *[(7 * i, 60 - 5 * i, 0.1 * i, 0.1, 0.02 * i) for i in range(1, 9)])])  # fmt: skip
    batch = spread(gray, hints, chroma, features)
    for i in range(3):
        one = slice(i, i + 1)
        assert torch.equal(batch[one], spread(gray[one], hints[one], chroma[one], features[one]))
    assert torch.equal(batch, spread(gray, hints, chroma, features))


def test_everything_known_gives_what_is_known():
    gray, chroma, features = picture(side=64)
    known = torch.cat([torch.ones(1, 1, 64, 64), picture(side=64, seed=5)[1]], 1)
    assert (spread(gray, known, chroma, features) - known[:, 1:]).abs().max() < 0.02


def test_likeness_is_one_with_itself_and_survives_equal_features():
    gray, chroma, _ = picture()
    features, at = torch.ones(1, 3, 16, 16).double(), torch.tensor([0, 500])
    k = likeness(gray.double(), chroma.double(), features, at, SpreadSettings())
    assert k.shape == (1024, 2) and k.max() <= 1
    torch.testing.assert_close(k[[0, 500], [0, 1]], torch.ones(2).double())
    assert k[0, 1] == k[500, 0] < 0.999


def test_reach_is_one_at_a_hint_and_falls_where_nothing_is_like_it():
    gray = torch.cat([torch.full((1, 1, 32, 16), 0.2), torch.full((1, 1, 32, 16), 0.8)], 3).expand(2, -1, -1, -1)
    hints = torch.zeros(2, 3, 32, 32)
    hints[0, :, 8, 4] = torch.tensor([1.0, 0.1, 0.1])
    chroma = torch.zeros(2, 2, 32, 32)
    far = reach(gray, hints, chroma)
    assert far.shape == (2, 1, 32, 32) and (far[1] == 0).all(), "without hints nothing is told"
    assert far[0, 0, 8, 4] == 1 and far[0, 0, 8, 15] == 1, "of one tone with the hint"
    assert (far[0, 0, :, 16:] < 0.05).all()
    assert torch.equal(reach(gray[:1], hints[:1], chroma[:1]), far[:1])


@pytest.mark.parametrize("change, message", [
    (lambda g, h, c, f: (g, h, c[..., :31], f), "Resize them to one square"),
    (lambda g, h, c, f: (g[..., :30, :30], h[..., :30, :30], c[..., :30, :30], f), "multiple of 32"),
    (lambda g, h, c, f: (g, h[:, :2], c, f), "Resize them to one square"),
    (lambda g, h, c, f: (g, h, c, f[:1]), "one map per picture"),
    (lambda g, h, c, f: (g, h + 1.5, c, f), "must be in"),
    (lambda g, h, c, f: (g, h * float("nan"), c, f), "must be in"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(change, message):
    gray, chroma, features = picture(2)
    with pytest.raises(ValueError, match=message):
        spread(*change(gray, torch.zeros(2, 3, 32, 32), chroma, features))


# The tensor ----------------------------------------------------------------------------------------


def chroma_of(*rgb: int) -> torch.Tensor:
    return chroma_from_rgb(torch.tensor(rgb, dtype=torch.float64).view(3, 1, 1) / 255).flatten().float()


def test_a_disk_covers_its_area_and_its_own_cell():
    """Radius 32 of 256 pixels is 8 of 64 cells: 64 pi cells. A tiny one still fills the cell it is in."""
    gray = torch.full((1, 256, 256), 0.5)
    large = Hints((256, 256), [Point(128, 128, (130, 128, 120), 32)]).rasterized(gray, 64)
    assert abs(float(large[0].sum()) - 64 * math.pi) < 1
    tiny = Hints((256, 256), [Point(101.5, 7.5, (130, 128, 120), 0.4)]).rasterized(gray, 64)
    assert tiny[0].nonzero().tolist() == [[1, 25]] and tiny[0, 1, 25] == 1
    torch.testing.assert_close(tiny[1:, 1, 25], chroma_of(130, 128, 120))


def test_the_default_radius_is_a_64th_of_the_longer_side():
    gray = torch.full((1, 100, 640), 0.5)
    assert torch.equal(Hints((640, 100), [Point(300, 50, "teal")]).rasterized(gray, 32),
                       Hints((640, 100), [Point(300, 50, "teal", 10)]).rasterized(gray, 32))  # fmt: skip


def test_strokes_are_averaged_by_area():
    """A stroke over 3 of 8 rows of a cell and half transparent; where two colors meet, their mean by alpha."""
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[8:11, 16:24] = [140, 120, 130, 128]
    rgba[40:48, 0:6], rgba[40:48, 6:8] = [140, 120, 130, 255], [120, 130, 120, 255]
    hints = Hints((64, 64), strokes=Image.fromarray(rgba)).rasterized(torch.full((1, 64, 64), 0.5), 8)
    weight = 3 / 8 * 128 / 255
    assert hints[0, 1, 2] == pytest.approx(weight) and hints[0].count_nonzero() == 2
    torch.testing.assert_close(hints[1:, 1, 2], weight * chroma_of(140, 120, 130))
    torch.testing.assert_close(hints[1:, 5, 0], 0.75 * chroma_of(140, 120, 130) + 0.25 * chroma_of(120, 130, 120))


@pytest.mark.parametrize("size, side", [((37, 90), 32), ((23, 17), 64), ((1, 1), 32), ((300, 7), 64)])
def test_any_size_is_laid_on_the_square_by_area(size, side):
    """An opaque layer covers everything, of whatever size and aspect."""
    layer = Image.new("RGBA", size, (150, 120, 120, 255))
    hints = Hints(size, [Point(size[0] - 0.01, size[1] - 0.01, (150, 120, 120))], layer)
    out = hints.rasterized(torch.full((1, size[1], size[0]), 0.5), side)
    torch.testing.assert_close(out[0], torch.ones(side, side))
    torch.testing.assert_close(out[1:], chroma_of(150, 120, 120).view(2, 1, 1).expand(-1, side, side))


def test_a_large_stroke_picture_is_averaged_in_bands(monkeypatch):
    rgba = np.random.default_rng(0).integers(0, 256, (97, 83, 4), dtype=np.uint8)
    hints, gray = Hints((83, 97), strokes=Image.fromarray(rgba)), torch.full((1, 97, 83), 0.5)
    whole = hints.rasterized(gray, 32)
    monkeypatch.setattr("stages.hints.hints.BAND_PIXELS", 83 * 10)
    torch.testing.assert_close(hints.rasterized(gray, 32), whole)


def test_overlapping_points_share_a_cell():
    points = [Point(10, 10, (140, 120, 130), 2), Point(10, 10, (120, 130, 120), 2)]
    hints = Hints((64, 64), points).rasterized(torch.full((1, 64, 64), 0.5), 32)
    assert hints[0].max() == 1
    torch.testing.assert_close(hints[1:, 5, 5], (chroma_of(140, 120, 130) + chroma_of(120, 130, 120)) / 2)


@pytest.mark.parametrize("luma", [0.02, 0.5, 0.97])
def test_a_color_too_vivid_for_its_luma_keeps_its_hue(luma):
    hints = Hints((32, 32), [Point(16, 16, "red")]).rasterized(torch.full((1, 32, 32), luma), 32)
    chroma = hints[1:, 16, 16] / hints[0, 16, 16]
    rgb = rgb_from_gray_chroma(torch.full((1, 1, 1), luma), chroma.view(2, 1, 1))
    assert rgb.min() > -1e-6 and rgb.max() < 1 + 1e-6 and min(rgb.min(), 1 - rgb.max()) < 1e-5
    assert gray_from_rgb(rgb).item() == pytest.approx(luma, abs=1e-6)
    red = chroma_of(255, 0, 0)
    assert (chroma @ red / chroma.norm() / red.norm()).item() == pytest.approx(1)


def test_hints_of_another_photograph_are_refused():
    with pytest.raises(ValueError, match=r"20x10 pixels.*turn it upright"):
        Hints((20, 10)).rasterized(torch.zeros(1, 20, 10), 32)


# The file ------------------------------------------------------------------------------------------


def test_what_is_saved_is_loaded(tmp_path):
    strokes = Image.new("RGBA", (40, 30))
    strokes.paste((200, 10, 20, 99), (3, 4, 15, 16))
    points = [Point(0, 29.5, "#a1b2c3"), Point(39.9, 0, "hsl(20, 60%, 40%)", 2.5), Point(7, 7, [1, 2, 3])]
    hints = Hints((40, 30), points, strokes)
    hints.save(tmp_path / "photo.jpg.hints.json")
    names = ["photo.jpg.hints.json", "photo.jpg.hints.json.strokes.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    loaded = Hints.load(tmp_path / "photo.jpg.hints.json")
    assert loaded == hints and loaded.points[0].color == (0xA1, 0xB2, 0xC3) and loaded.strokes is not None
    record = json.loads((tmp_path / "photo.jpg.hints.json").read_text())
    assert record["format"] == 1 and record["size"] == [40, 30] and "radius" not in record["points"][0]


POINT = {"x": 1, "y": 2, "color": "red"}
GOOD = {"format": 1, "size": [40, 30], "points": [POINT]}


@pytest.mark.parametrize("record, message", [
    ([], "must be an object"),
    ({"format": 1, "size": [40, 30]}, "points is missing"),
    (GOOD | {"point": []}, "got also point"),
    (GOOD | {"format": 2}, "format must be 1; got 2"),
    (GOOD | {"format": True}, "format must be 1; got True"),
    (GOOD | {"size": [40]}, "size must be"),
    (GOOD | {"size": [40, 0]}, "size must be"),
    (GOOD | {"size": [40, 30.0]}, "size must be"),
    (GOOD | {"size": 40}, "size must be"),
    (GOOD | {"points": {}}, "points must be a list"),
    (GOOD | {"points": [[1, 2, "red"]]}, "a point must be an object"),
    (GOOD | {"points": [{"x": 1, "y": 2}]}, "color is missing"),
    (GOOD | {"points": [POINT | {"size": 3}]}, "got also size"),
    (GOOD | {"points": [POINT | {"x": 40}]}, "x of a point must be a number from 0 to below 40"),
    (GOOD | {"points": [POINT | {"y": -0.1}]}, "y of a point"),
    (GOOD | {"points": [POINT | {"y": "1"}]}, "y of a point"),
    (GOOD | {"points": [POINT | {"y": True}]}, "y of a point"),
    (GOOD | {"points": [POINT | {"x": float("nan")}]}, "x of a point"),
    (GOOD | {"points": [POINT | {"x": 10**400}]}, "x of a point"),
    (GOOD | {"points": [POINT | {"radius": 0}]}, "radius of a point"),
    (GOOD | {"points": [POINT | {"radius": float("inf")}]}, "radius of a point"),
    (GOOD | {"points": [POINT | {"color": "reddish"}]}, "color must be"),
    (GOOD | {"points": [POINT | {"color": "#ff000080"}]}, "color must be"),
    (GOOD | {"points": [POINT | {"color": [1, 2, 256]}]}, "color must be"),
    (GOOD | {"points": [POINT | {"color": [1, 2, True]}]}, "color must be"),
    (GOOD | {"points": [POINT | {"color": [0.5, 0.5, 0.5]}]}, "color must be"),
    (GOOD | {"points": [POINT | {"color": 7}]}, "color must be"),
    (GOOD | {"strokes": 7}, "name of a picture file"),
    (GOOD | {"strokes": "missing.png"}, "can not be read"),
    (GOOD | {"strokes": "text.png"}, "can not be read"),
    (GOOD | {"strokes": "small.png"}, "40x30 pixels; got 8x8"),
    (GOOD | {"strokes": "opaque.png"}, "RGBA"),
    (GOOD | {"strokes": "../outside.png"}, "must lie in the folder"),
    (GOOD | {"strokes": "link.png"}, "must lie in the folder"),
])  # fmt: skip
def test_a_wrong_file_is_refused(tmp_path, record, message):
    folder = tmp_path / "folder"
    folder.mkdir()
    Image.new("RGBA", (40, 30)).save(tmp_path / "outside.png")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    Image.new("RGBA", (8, 8)).save(folder / "small.png")
    Image.new("RGB", (40, 30)).save(folder / "opaque.png")
    (folder / "text.png").write_text("no picture")
    file = folder / "photo.jpg.hints.json"
    file.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=message) as refused:
        Hints.load(file)
    assert str(refused.value).startswith(f"{file}: ")


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe\xfa", b"[" * 100_000])
def test_what_is_not_json_is_refused(tmp_path, text):
    file = tmp_path / "hints.json"
    file.write_bytes(text)
    with pytest.raises(ValueError, match=r"hints\.json: "):
        Hints.load(file)


def test_strokes_in_a_folder_below_are_read(tmp_path):
    (tmp_path / "layers").mkdir()
    Image.new("RGBA", (40, 30), "red").save(tmp_path / "layers" / "one.png")
    (tmp_path / "hints.json").write_text(json.dumps(GOOD | {"strokes": "layers/one.png"}))
    strokes = Hints.load(tmp_path / "hints.json").strokes
    assert strokes is not None and strokes.getpixel((0, 0)) == (255, 0, 0, 255)


# The evaluation ------------------------------------------------------------------------------------


def test_the_classic_with_soft_hints_is_spread_from_gray():
    """The evaluation's own solver against the stages', in the case they share: no picture at hand, nothing alike."""
    from train_scripts.evaluate_hints import LEVIN_CONTRAST, levin

    gray, _, _ = picture(seed=2)
    hints = hinted(32, (3, 4, 1, 0.2, 0.1), (20, 11, 1, -0.2, 0.0))
    hard = levin(gray[0].double(), hints[0].double())
    settings = replace(APART, contrast=LEVIN_CONTRAST, strength=1e9)
    soft = spread(gray, hints, torch.zeros(1, 2, 32, 32), None, settings)
    torch.testing.assert_close(soft[0], hard.float(), atol=1e-5, rtol=0)


def test_outlined_regions_lie_apart_inside_their_photographs():
    from train_scripts.evaluate_hints import REGIONS, outline

    record = json.loads(REGIONS.read_text())
    assert (record["set"], record["split"], record["side"]) == ("photos256", "validation", 256)
    assert len({photo["sha256"] for photo in record["photos"]}) == 20
    for photo in record["photos"]:
        first, second = (outline(region["polygon"]) for region in photo["regions"])
        assert min(first.sum(), second.sum()) > 400 and not (first * second).any()
        assert all(0 <= v < 256 for region in photo["regions"] for xy in region["polygon"] for v in xy)


def test_cells_are_nested_and_a_perfect_output_obeys():
    from train_scripts.evaluate_hints import obedience, random_cells, rasterized, strokes_over

    few, many = (random_cells(count, 7) for count in (5, 20))
    assert few.sum() == 5 and many.sum() == 20 and (many >= few).all()
    true = torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.1
    colors = rgb_from_gray_chroma(torch.full((1, 32, 32), 0.5), true)
    gray = torch.full((1, 1, 256, 256), 0.5)
    for side in (32, 64):
        weight, chroma = rasterized(gray, [strokes_over(many, colors)], side)[0].tensor_split([1])
        enlarged = torch.nn.functional.interpolate(torch.cat([many[None], true])[None], (side, side))[0]
        assert torch.equal(weight, enlarged[:1])
        torch.testing.assert_close(chroma, enlarged[1:] * weight, atol=0.005, rtol=0)  # in 8 bits
    rgb = torch.nn.functional.interpolate(colors[None], (256, 256))
    cells = rasterized(gray, [strokes_over(many, colors)], 32)
    assert obedience(rgb, gray, cells) == pytest.approx(0, abs=0.5)
    assert obedience(gray.expand(-1, 3, -1, -1), gray, cells) > 1


def test_a_hint_that_colors_all_moves_both_regions_and_one_ignored_none():
    from stages.color.spaces import merge
    from train_scripts.evaluate_hints import moved, outline, rasterized

    masks = [outline([[10, 10], [100, 10], [100, 100], [10, 100]]), outline([[150, 150], [200, 150], [180, 220]])]
    gray, before = torch.full((1, 1, 256, 256), 0.5), torch.tensor([0.02, -0.05]).view(1, 2, 1, 1)

    def everywhere(gray: torch.Tensor, given: Sequence[Hints], reach: float = 1.0) -> torch.Tensor:
        hints = rasterized(gray, given, 64)
        weight = hints[:, :1].amax((2, 3), keepdim=True) * reach
        color = hints[:, 1:].sum((2, 3), keepdim=True) / hints[:, :1].sum((2, 3), keepdim=True).clamp_min(1e-9)
        chroma = before + weight * (color - before)
        return merge(gray, chroma.expand(-1, -1, 256, 256))

    for turn in (90, 180):
        assert moved(everywhere, gray, masks, turn) == pytest.approx((1, 1), abs=1e-4)
        assert moved(lambda g, h: everywhere(g, h, 0.3), gray, masks, turn) == pytest.approx((0.3, 0.3), abs=1e-4)
        assert moved(lambda g, h: everywhere(g, h, 0), gray, masks, turn) == pytest.approx((0, 0), abs=1e-4)
