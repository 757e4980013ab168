"""Hints in a call of the pipeline: obeyed, the luma kept, the same bytes alone and in a batch, wrong ones refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import ColorPipeline
from pipeline.known_colors import KnownColors
from stages.color.difference import ciede2000
from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, gray_from_rgb, lab_from_rgb, merge
from stages.hints.hints import Hints, Point


@pytest.fixture(scope="module")
def pipe() -> ColorPipeline:
    return ColorPipeline.from_pretrained()


def photo(height: int = 96, width: int = 128, seed: int = 0) -> np.ndarray:
    """Two surfaces with a soft gradient and some grain, 8 bits."""
    random = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    gray = np.where(x < 0.5, 0.35 + 0.1 * y, 0.65 - 0.1 * y) + random.normal(0, 0.01, (height, width))
    return (gray.clip(0, 1) * 255).round().astype(np.uint8)


RED, BLUE = (170, 60, 50), (60, 70, 150)
HINTS = [(20, 40, RED, 8), (100.5, 50, BLUE, 8)]


def test_a_hint_is_obeyed_and_the_luma_kept(pipe):
    gray, hints = photo(), [(20, 40, BLUE, 8), (100.5, 50, RED, 8)]  # far from what the weights give
    plain = pipe(gray, generator=0, output_type="pt").images[0]
    for options in ({}, {"preview": True}, {"chroma_gain": 2.0}, {"temperature": 0.0}):
        rgb = pipe(gray, generator=0, output_type="pt", hints=hints, **options).images[0]
        luma = torch.from_numpy(gray).float()[None] / 255
        assert (gray_from_rgb(rgb) - luma).abs().max() < 1e-4
        for x, y, color, _ in hints:
            part = (slice(None), slice(int(y) - 4, int(y) + 4), slice(int(x) - 4, int(x) + 4))
            mean = resize(rgb[part][None], (1, 1))[0]
            wanted = merge(gray_from_rgb(mean), chroma_from_rgb(torch.tensor(color)[:, None, None] / 255))
            assert float(ciede2000(lab_from_rgb(mean), lab_from_rgb(wanted))) < 4, options
            before = resize(plain[part][None], (1, 1))[0]
            assert float(ciede2000(lab_from_rgb(before), lab_from_rgb(wanted))) > 8, "the hint had something to say"


def test_points_strokes_and_hints_say_the_same(pipe, tmp_path):
    gray = photo()
    points = pipe(gray, preview=True, output_type="np", hints=HINTS).images[0]
    hints = Hints((128, 96), [Point(*point) for point in HINTS])
    assert np.array_equal(pipe(gray, preview=True, output_type="np", hints=hints).images[0], points)
    hints.save(tmp_path / "photo.png.hints.json")
    loaded = Hints.load(tmp_path / "photo.png.hints.json")
    assert np.array_equal(pipe(gray, preview=True, output_type="np", hints=loaded).images[0], points)
    strokes = Image.new("RGBA", (128, 96))
    strokes.paste((*RED, 255), (12, 32, 28, 48))
    strokes.paste((*BLUE, 255), (92, 42, 108, 58))
    drawn = pipe(gray, preview=True, output_type="np", hints=strokes).images[0]
    assert np.abs(drawn.astype(int) - points).mean() < 6


def test_nothing_known_changes_nothing(pipe):
    gray = photo()
    plain = pipe(gray, generator=0, output_type="np").images[0]
    empty: list[Any] = [[], Hints((128, 96)), Image.new("RGBA", (128, 96))]
    for nothing in empty:
        assert np.array_equal(pipe(gray, generator=0, output_type="np", hints=nothing).images[0], plain)


def test_same_bytes_alone_in_a_batch_and_in_another_order(pipe):
    photos, hints = [photo(), photo(70, 60, seed=1), photo(seed=2)], [HINTS, [(5, 60, "teal")], None]
    alone = [pipe(one, 2, generator=3, output_type="np", hints=known).images
             for one, known in zip(photos, hints, strict=True)]  # fmt: skip
    together = pipe(photos, 2, generator=3, output_type="np", hints=hints).images
    backwards = pipe(photos[::-1], 2, generator=3, output_type="np", hints=hints[::-1]).images
    for number, (one, other) in enumerate(alone):
        for which, picture in enumerate((one, other)):
            assert np.array_equal(picture, together[2 * number + which])
            assert np.array_equal(picture, backwards[2 * (2 - number) + which])


def test_uncertainty_falls_at_a_hint(pipe):
    gray = photo()
    plain = pipe(gray, generator=0, output_type="np", uncertainty=True).uncertainty[0]
    hinted = pipe(gray, generator=0, output_type="np", uncertainty=True, hints=HINTS).uncertainty[0]
    at = (slice(36, 44), slice(16, 24))
    assert hinted[at].mean() < 0.7 * plain[at].mean()


@pytest.mark.parametrize("hints, message", [
    ([(128, 4, "red")], "x of a point must be a number from 0 to below 128"),
    ([(4, 4, "reddish")], "color must be a name or code"),
    ([(4, 4)], r"a hint must be \(x, y, color\) or \(x, y, color, radius\); got \(4, 4\)"),
    (["red"], r"a hint must be \(x, y, color\)"),
    (Image.new("RGB", (128, 96)), "strokes must be an RGBA picture of 128x96 pixels"),
    (Hints((96, 128)), "hints are for a photo of 96x128 pixels; got one of 128x96"),
])  # fmt: skip
def test_wrong_hints_are_refused(pipe, hints, message):
    with pytest.raises(ValueError, match=message):
        pipe(photo(), preview=True, hints=hints)


def test_several_photos_take_a_list_with_one_entry_each(pipe):
    with pytest.raises(ValueError, match="hints of several photos must be a list of 2, one entry for each or None"):
        pipe([photo(), photo()], preview=True, hints=[None, None, None])


def test_a_palette_is_what_pictures_lean_to(pipe):
    gray, palette = photo(), ["#804020", (40, 80, 130)]
    wanted = torch.stack([chroma_from_rgb(torch.tensor(rgb)[:, None, None] / 255)[:, 0, 0]
                          for rgb in ((128, 64, 32), (40, 80, 130))])  # fmt: skip

    def far(rgb: torch.Tensor) -> float:
        return float(torch.cdist(chroma_from_rgb(rgb).flatten(1).T, wanted).amin(1).mean())

    for options in ({}, {"preview": True}):
        plain = pipe(gray, generator=0, output_type="pt", **options).images[0]
        leaning = pipe(gray, generator=0, output_type="pt", palette=palette, **options).images[0]
        luma = torch.from_numpy(gray).float()[None] / 255
        assert (gray_from_rgb(leaning) - luma).abs().max() < 1e-4
        assert far(leaning) < 0.6 * far(plain)
    hinted = pipe(gray, generator=0, output_type="pt", palette=palette, hints=[(20, 40, "green", 8)]).images[0]
    mean = resize(hinted[:, 36:44, 16:24][None], (1, 1))[0]
    assert chroma_from_rgb(mean).flatten().max() < 0, "a hint counts more than the palette"


@pytest.mark.parametrize("palette", [[], "red", ["reddish"], [(1, 2)], [(1, 2, 300)], [None]])
def test_what_is_no_palette_is_refused(pipe, palette):
    with pytest.raises(ValueError, match="a palette must be a list of colors|color must be a name or code"):
        pipe(photo(), preview=True, palette=palette)


def test_a_palette_and_its_uncertainty_in_half_precision(pipe):
    """Color is float32 whatever the networks compute in; draws of the map lean to the palette too."""
    from contextlib import nullcontext

    from stages.hints.palette import leaning, palette_chroma

    chroma, palette = torch.randn(2, 2, 8, 8) / 10, palette_chroma(["navy", "#c08040", "gray"])
    plain = leaning(chroma, palette)
    with torch.autocast("cpu", torch.bfloat16) if torch.backends.mkldnn.is_available() else nullcontext():
        assert torch.equal(leaning(chroma, palette), plain)
    gray = photo()
    before = pipe(gray, generator=0, output_type="np", uncertainty=True).uncertainty[0].mean()
    after = pipe(gray, generator=0, output_type="np", uncertainty=True, palette=["#d02020"]).uncertainty[0].mean()
    assert after < before, "all draws lean to one color, so they differ less"


def test_what_is_known_of_nearly_all_goes_to_what_is_alike_and_not_over_the_rest():
    """A flat gray picture whose colors are known but for its last quarter, which has other features."""
    side = 64
    gray, features = torch.full((1, 1, side, side), 0.5), torch.zeros(1, 2, 16, 16)
    features[:, 0, :, :12], features[:, 1, :, 12:] = 1, 1
    known = torch.zeros(1, 3, side, side)
    known[:, 0, :, :48], known[:, 2, :, :48] = 1, 0.1
    rgb = gray.expand(1, 3, side, side)
    change = {}
    for alike in (False, True):
        colors = KnownColors(resize(known, (32, 32)), known, gray, features, alike)
        change[alike] = chroma_from_rgb(colors.obeyed(rgb, gray, torch.zeros(1).long()))[0, 1]
        assert (change[alike][:, 4:44] - 0.1).abs().max() < 0.01, "where it is known it is obeyed"
    assert change[True][:, -8:].abs().mean() < change[False][:, -8:].mean() / 2
    few = torch.zeros(1, 3, side, side)
    same = KnownColors(few[..., :32, :32], few, gray, None, True).obeyed(rgb, gray, torch.zeros(1).long())
    assert torch.equal(same, rgb)
