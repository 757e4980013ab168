"""Strength, colors that are kept, and references in a call: what they promise, and that they change nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from photos import luma, photo, same
from PIL import Image
from standins import StandIn1, StandIn2, StandIn3, standin_pipeline
from tiny_stages import lively

from pipeline import ColorPipeline
from pipeline import steering as command_line
from pipeline.cascade import _told
from pipeline.guides import kept_for
from pipeline.images import load_photo
from pipeline.kept import Kept
from pipeline.known_colors import Guide, KnownColors
from pipeline.request import MOST_STRENGTH
from stages.color.spaces import chroma_from_rgb, gray_from_rgb, merge
from stages.faces import Encoding
from stages.hints.hints import Hints, Point
from stages.hints.reference import drawn_to, matched
from stages.options import OptionError


class Featured(StandIn1):
    """A stand-in that knows places by their luma."""

    def features(self, encoding: Encoding) -> torch.Tensor:
        return torch.cat([encoding.gray64, encoding.gray64.square(), 1 - encoding.gray64], dim=1)


@pytest.fixture(scope="module")
def pipe() -> ColorPipeline:
    return ColorPipeline(Featured(), StandIn2(), StandIn3())


def hinted_pipeline() -> ColorPipeline:
    """Tiny stages of which the first has learned hints, as far as a stage without training can."""
    return ColorPipeline(lively("coarse", "diffusion", hints=0.5), StandIn2(), StandIn3())


def colored(height: int = 60, width: int = 80, seed: int = 0, dtype: Any = np.uint8) -> np.ndarray:
    """A picture in color: (height, width, 3)."""
    gray = photo(height, width, seed).astype(np.float64) / 255
    wave = np.sin(np.linspace(0, 6, width) + seed)[None, :, None] * np.array([0.2, -0.05, -0.15])
    return (np.clip(gray[..., None] * 0.6 + 0.2 + wave, 0, 1) * np.iinfo(dtype).max).round().astype(dtype)


def mask(height: int = 60, width: int = 80) -> np.ndarray:
    """White on the left, then gray, then black."""
    levels = np.zeros((height, width), np.uint8)
    levels[:, : width // 2], levels[:, width // 2 : 5 * width // 8] = 255, 100
    return levels


# strength


@pytest.mark.parametrize("options", [{"generator": 1, "pool": 1}, {"preview": True}])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_without_strength_the_picture_is_the_gray_one(pipe, tmp_path, options, dtype):
    gray = photo(60, 80, dtype=dtype)
    output = pipe(gray, output_type="np", strength=0, **options)
    assert (output.images[0] == gray[..., None]).all()
    output.save(tmp_path / "gray.png")
    written = load_photo(tmp_path / "gray.png", keep_rgb=True)
    assert written.rgb is not None and (written.rgb == written.rgb[..., :1]).all() and not written.is_color
    exact = pipe(gray, output_type="pt", strength=0.0, **options).images[0]
    assert (exact.numpy() == (gray / np.iinfo(dtype).max).astype(np.float32)).all()


def test_strength_is_a_factor_on_the_finished_chroma(pipe):
    gray = photo(60, 80)
    call = {"generator": 1, "pool": 1, "output_type": "pt"}
    plain = pipe(gray, **call).images[0]
    assert same(pipe(gray, strength=1, **call).images, [plain])
    light = torch.from_numpy(gray / 255).float()[None]
    for strength in (0.3, 2):
        strong = pipe(gray, strength=strength, **call).images[0]
        torch.testing.assert_close(strong, merge(light, strength * chroma_from_rgb(plain)), atol=1e-5, rtol=0)
        assert (gray_from_rgb(strong) - light).abs().max() < 1e-4
    assert (chroma_from_rgb(strong).abs() > 1.5 * chroma_from_rgb(plain).abs()).float().mean() > 0.5


@pytest.mark.parametrize("strength", [-0.1, 2.1, True, "1", float("nan"), None])
def test_strength_out_of_range(pipe, strength):
    with pytest.raises(OptionError, match="strength must be a number from 0 to 2; got"):
        pipe(photo(8, 8), preview=True, strength=strength)
    assert MOST_STRENGTH == command_line.MOST_STRENGTH


def test_the_map_is_of_the_picture_as_it_is_given(pipe):
    gray = photo(60, 80)
    strong, weak = (pipe(gray, generator=1, pool=1, uncertainty=True, output_type="np", strength=s).uncertainty[0]
                    for s in (2, 0.5))  # fmt: skip
    assert not np.array_equal(strong, weak)


# colors that are kept


@pytest.mark.parametrize("options", [{"generator": 1, "pool": 1}, {"preview": True}, {"preview": True, "strength": 2}])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_is_kept_is_kept_to_the_bit(pipe, tmp_path, options, dtype):
    rgb, levels = colored(dtype=dtype), mask()
    output = pipe(rgb, keep=levels, output_type="np", **options)
    white, black = levels == 255, levels == 0
    picture = output.images[0]
    assert (picture[white] == rgb[white]).all() and (picture[black] != rgb[black]).any(1).mean() > 0.5
    gray = rgb.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    assert np.abs(luma(picture) - gray).max() <= 0.5 + 0.003 * (dtype == np.uint16)
    for name in ("kept.png", "kept.tif"):
        output.save(tmp_path / name)
        written = load_photo(tmp_path / name, keep_rgb=True)
        assert written.rgb is not None
        assert (np.rint(written.rgb * np.iinfo(dtype).max)[white] == rgb[white]).all(), name


def test_grays_of_the_mask_mix_the_chroma(pipe):
    """With strength 0 what is made is gray, so the mixture has a closed form."""
    rgb, levels = colored(), mask()
    exact = pipe(rgb, keep=Image.fromarray(levels), preview=True, output_type="pt", strength=0).images[0]
    own = torch.from_numpy(rgb / 255).float().permute(2, 0, 1)
    share = torch.from_numpy(levels / 255).float()
    torch.testing.assert_close(exact, merge(gray_from_rgb(own), share * chroma_from_rgb(own)), atol=1e-6, rtol=0)


def test_what_is_kept_is_a_hint_for_the_rest():
    """One surface, its left half kept in orange: the right half follows, in weights that ship and in learned ones."""
    gray = np.clip(np.random.default_rng(0).normal(0.5, 0.01, (64, 64)), 0, 1).astype(np.float32)
    chroma = torch.tensor([-0.15, 0.15])[:, None, None].expand(2, 64, 64)
    orange = merge(torch.from_numpy(gray)[None], chroma).permute(1, 2, 0).numpy()
    left = np.where(np.arange(64) < 32, 255, 0)[None].repeat(64, 0).astype(np.uint8)
    for one in (ColorPipeline.from_pretrained(), hinted_pipeline()):
        far = [
            (chroma_from_rgb(one(orange, preview=True, output_type="pt", keep=keep).images[0]) - chroma)[..., 40:]
            for keep in (None, left)
        ]
        assert far[1].abs().mean() < 0.5 * far[0].abs().mean()


def test_kept_colors_as_hints():
    rgb = np.full((8, 8, 3), (0.6, 0.4, 0.2), np.float32)
    levels = np.zeros((8, 8), np.float32)
    levels[:, :4], levels[0, 4] = 1, 0.5
    hints = Kept(levels, rgb).rasterized(4)
    chroma = chroma_from_rgb(torch.from_numpy(rgb).permute(2, 0, 1))[:, 0, 0]
    assert hints[0].tolist() == [[1, 1, 0.125, 0], *[[1, 1, 0, 0]] * 3]
    torch.testing.assert_close(hints[1:], hints[:1] * chroma[:, None, None])


def test_what_is_kept_counts_before_hints():
    own = load_photo(colored(), keep_rgb=True)
    hints = Hints((80, 60), [Point(20, 30, "red", 9), Point(75, 30, "red", 9)])
    kept = kept_for(own, mask())
    both = KnownColors.rasterized([own, own], [Guide(hints, kept), Guide(None, kept)], 32)
    assert torch.equal(both[0][..., :16], both[1][..., :16]), "where the mask is white"
    alone = hints.rasterized(torch.from_numpy(own.gray)[None], 32)
    assert torch.equal(both[0][..., 20:], alone[..., 20:]), "where it is black"


@pytest.mark.parametrize("source, keep, message", [
    (colored(), np.zeros((80, 60), np.uint8), "a mask of the photo's 80x60 pixels, upright; got 60x80"),
    (photo(60, 80), mask(), "this one is gray all over"),
    (np.stack([photo(60, 80)] * 3, 2), mask(), "this one is gray all over"),
    ([colored()], mask(), "keep of several photos must be a list of 1, one entry for each or None; got ndarray"),
    ([colored(), colored()], [mask()], "keep of several photos must be a list of 2"),
])  # fmt: skip
def test_what_can_not_be_kept(pipe, source, keep, message):
    with pytest.raises(ValueError, match=message):
        pipe(source, preview=True, keep=keep)


def test_a_photo_must_have_its_colors():
    with pytest.raises(ValueError, match=r"load_photo\(…, keep_rgb=True\) reads them"):
        kept_for(load_photo(colored()), mask())
    assert kept_for(load_photo(colored(), keep_rgb=True), mask()).mask[0, 0] == 1


# references


def test_places_that_are_alike_take_the_colors_of_a_reference():
    """Each place is like one of the reference, and like no other: half of its weight is doubt."""
    features = torch.eye(1024).reshape(1, 1024, 32, 32)
    chroma = torch.rand(1, 2, 32, 32) - 0.5
    gray = torch.full((1, 1, 32, 32), 0.5)
    moved = [torch.roll(one, (5, 7), (2, 3)) for one in (features, chroma)]
    match = matched(gray, features, gray, moved[0], moved[1])
    torch.testing.assert_close(match[:, :1], torch.full((1, 1, 32, 32), 0.5), atol=0.01, rtol=0)
    torch.testing.assert_close(match[:, 1:], chroma / 2, atol=0.01, rtol=0)
    assert matched(gray, features, gray - 0.5, moved[0], moved[1])[:, 0].max() < 1e-4, "dark is not like light"
    torch.testing.assert_close(drawn_to(torch.zeros_like(chroma), match), match[:, 1:])
    assert torch.equal(drawn_to(chroma, torch.zeros_like(match)), chroma)


@pytest.mark.parametrize("options", [{"generator": 1, "pool": 1}, {"preview": True}])
def test_a_reference_of_the_same_photo_brings_its_colors(options):
    pipe, rgb = ColorPipeline.from_pretrained(), colored(64, 64)
    wanted = chroma_from_rgb(torch.from_numpy(rgb / 255).float().permute(2, 0, 1))
    gray = Image.fromarray(rgb).convert("L")
    far = [
        float((chroma_from_rgb(pipe(gray, output_type="pt", reference=one, **options).images[0]) - wanted).abs().mean())
        for one in (None, rgb, Image.fromarray(rgb).transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    ]
    assert far[1] < 0.7 * far[0] and far[2] < 0.8 * far[0]


def test_a_stage_that_has_learned_hints_is_told_of_the_reference(monkeypatch):
    pipe, told = hinted_pipeline(), []
    real = pipe.coarse.with_hints

    def heard(encoding: Encoding, hints: torch.Tensor, reach: torch.Tensor) -> Encoding:
        told.append(hints)
        assert ((reach >= 0) & (reach <= 1)).all() and reach.max() > 0.9
        return real(encoding, hints, reach)

    monkeypatch.setattr(pipe.coarse, "with_hints", heard)
    pipe(photo(60, 80), preview=True, reference=colored())
    pipe(photo(60, 80), preview=True, reference=colored(), hints=[(40, 30, "red", 8)])
    assert len(told) == 2 and (told[0][:, 0] > 0).any() and (told[0][:, 0] < 1).all()
    assert torch.equal(told[1][..., 0], told[0][..., 0]) and not torch.equal(told[0], told[1])
    assert told[1][0, 0, 16, 16] == 1, "what is known counts before what a reference says"
    assert _told(None, None) is None


@pytest.mark.parametrize("reference, message", [
    (photo(60, 80), "a reference must be a picture in color; got one that is gray or of a single tint"),
    ([colored()], "a tensor|a picture is a path, bytes"),
])  # fmt: skip
def test_what_is_no_reference(pipe, reference, message):
    with pytest.raises((ValueError, TypeError), match=message):
        pipe(photo(60, 80), preview=True, reference=reference)


def test_a_reference_needs_features():
    with pytest.raises(OptionError, match="reference can not be honored by kind 'standin' of the family coarse"):
        standin_pipeline()(photo(60, 80), preview=True, reference=colored())


# all together


@pytest.mark.parametrize("make", [lambda: ColorPipeline(Featured(), StandIn2(), StandIn3()), hinted_pipeline])
@pytest.mark.parametrize("size", [1, 2])
def test_same_bytes_alone_in_a_batch_and_in_another_order(make, size):
    pipe = make()
    pipe.batch_size = size
    photos = [colored(), photo(70, 50, seed=1), colored(50, 60, seed=2)]
    keep: list[Any] = [mask(), None, None]
    reference: list[Any] = [None, colored(seed=3), colored(seed=4)]
    hints: list[Any] = [[(60, 10, "teal")], None, [(9, 9, "navy")]]
    call = {"generator": 3, "output_type": "np", "strength": 1.3}
    alone = [pipe(one, keep=k, reference=r, hints=h, **call).images[0]
             for one, k, r, h in zip(photos, keep, reference, hints, strict=True)]  # fmt: skip
    assert same(pipe(photos, keep=keep, reference=reference, hints=hints, **call).images, alone)
    backwards = pipe(photos[::-1], keep=keep[::-1], reference=reference[::-1], hints=hints[::-1], **call).images
    assert same(backwards[::-1], alone)
    plain = pipe(photos[1], generator=3, output_type="pt").images
    beside = pipe([photos[1], photos[2]], generator=3, output_type="pt", reference=[None, colored()]).images
    assert same(beside[:1], plain), "a reference is of its own photo alone"
