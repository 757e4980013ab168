"""Photographs for training: what is kept, what is dropped, and in which order batches come."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageCms
from torch import Generator, Tensor

from stages.checkpoint import CheckpointError
from stages.color.resample import crop_resize, resize
from stages.photographs import DataError, data_folder, is_one_tint
from stages.seeds import seed_of
from stages.training import data
from stages.training.config import DataConfig, SetConfig
from stages.training.data import Mixture, Pictures, load_mixture, load_pictures


def colors(seed: int, width: int = 48, height: int = 40) -> Image.Image:
    """A smooth picture of many colors."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def pixels(picture: Image.Image) -> Tensor:
    """(3, H, W) uint8"""
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)


def same(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))


def tinted(seed: int, tint: tuple[float, float, float]) -> Image.Image:
    """Gray times one color: sepia and the like."""
    gray = np.asarray(colors(seed).convert("L"), dtype=np.float64)[..., None]
    return Image.fromarray((gray * tint).round().astype(np.uint8))


def load(folder: Path, side: int = 32, **options) -> Pictures:
    return load_pictures(folder, "photos64", "train", side, **options)


# ---------------------------------------------------------------------- own folders


@pytest.fixture
def folder(tmp_path) -> Path:
    """Eight usable pictures, and seven that are not."""
    own = tmp_path / "own"
    (own / "holiday [1]" / "test").mkdir(parents=True)
    for seed, name in enumerate(["a.png", "b_test.jpg", "c.webp", "d.tiff", "E.JPG"]):
        colors(seed).save(own / name)
    colors(5).save(own / "holiday [1]" / "f*?.png")
    colors(6).save(own / "holiday [1]" / "test" / "g.png")
    colors(7).convert("RGBA").save(own / "h.png")
    colors(8).convert("L").save(own / "gray.png")
    colors(9).convert("L").convert("RGB").save(own / "gray-rgb.jpg")
    tinted(10, (1.0, 0.8, 0.6)).save(own / "sepia.png")
    colors(11, 48, 31).save(own / "small.png")
    (own / "empty.jpg").touch()
    (own / "text.png").write_text("no picture")
    whole = io.BytesIO()
    colors(12, 200, 200).save(whole, "jpeg")
    (own / "truncated.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    (own / "notes.txt").write_text("not looked at")
    (own / ".hidden.png").write_text("not looked at")
    return own


def test_own_folder_is_sifted_and_counted(folder):
    pictures = load(folder)
    assert pictures.dropped == {"broken": 3, "too small": 1, "gray or one tint": 3}
    assert len(pictures) == 8 and {image.shape for image in pictures.images} == {(3, 40, 48)}
    assert all(image.dtype == torch.uint8 for image in pictures.images)
    assert pictures.labels.tolist() == [-1] * 8
    rgb = pictures.squares(slice(2, 5))
    assert rgb.shape == (3, 3, 32, 32) and 0 <= rgb.min() and rgb.max() <= 1


def test_pictures_are_held_out_and_reported_on_at_their_middle(tmp_path):
    """Of 3:1 the middle 3:2 are kept, and the square in the middle is shown."""
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, :40], wide[:, 80:] = (255, 0, 0), (0, 0, 255)  # to be cut off
    stripes = [(0, 255, 0), (255, 0, 255), (255, 255, 0), (0, 128, 255)]
    for index, color in enumerate(stripes):
        wide[10 * index : 10 * (index + 1), 40:80] = color
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(wide.transpose(1, 0, 2)).save(tmp_path / "tall.png")
    pictures = load(tmp_path, 20)
    assert {image.shape for image in pictures.images} == {(3, 40, 60), (3, 60, 40)}
    expected = torch.tensor(stripes).T.repeat_interleave(5, 1)[:, :, None].expand(3, 20, 20) / 255
    squares = pictures.squares()
    same = [[torch.allclose(square, turned, atol=1e-6) for turned in (expected, expected.mT)] for square in squares]
    assert sorted(same) == [[False, True], [True, False]]


@pytest.mark.parametrize("width, height, kept", [
    (375, 500, (170, 128)), (500, 375, (128, 171)), (70, 64, (64, 70)), (128, 128, (128, 128)), (1000, 130, (128, 192)),
])  # fmt: skip
def test_large_pictures_are_reduced_by_the_area_that_pixels_cover(width, height, kept, tmp_path):
    """To twice the side, 64: each axis by exact shares, an independent integral of the picture."""
    colors(3, width, height).save(tmp_path / "a.png")
    image = load(tmp_path, 64).images[0]
    assert image.shape[1:] in (kept, (kept[0] + 1, kept[1]))
    whole = np.asarray(colors(3, width, height), np.float64)
    longest = int(1.5 * min(width, height))
    top, left = max(height - longest, 0) // 2, max(width - longest, 0) // 2
    part = whole[top : top + longest, left : left + longest]
    for axis, length in ((0, image.shape[1]), (1, image.shape[2])):
        total = np.cumsum(np.concatenate([np.zeros_like(part.take([0], axis)), part], axis), axis)
        borders = np.linspace(0, part.shape[axis], length + 1)
        below = np.minimum(borders.astype(int), part.shape[axis] - 1)
        shape = [-1 if i == axis else 1 for i in range(3)]
        share = (borders - below).reshape(shape)
        at = (1 - share) * total.take(below, axis) + share * total.take(below + 1, axis)
        part = np.diff(at, axis=axis) / (borders[1] - borders[0])
    assert np.abs(image.permute(1, 2, 0).numpy() - part).max() <= 0.51


def test_pictures_are_turned_upright_and_converted_to_srgb(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees clockwise
    straight = colors(1, 40, 40)
    straight.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    assert torch.equal(load(tmp_path, 40).images[0], pixels(straight))

    (tmp_path / "turned.png").unlink()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain = pixels(colors(1)).int()
    for profile, ignored in ((None, 0), (srgb, 0), (b"nonsense", 1)):
        colors(1).save(tmp_path / "srgb.png", icc_profile=profile)
        pictures = load(tmp_path, 40)
        assert (pictures.images[0].int() - plain).abs().max() <= 1
        assert pictures.noted == {"profile ignored": ignored} and sum(pictures.dropped.values()) == 0
    colors(2).convert("CMYK").save(tmp_path / "cmyk.jpg", icc_profile=srgb)  # a profile of other channels
    assert load(tmp_path, 40).noted == {"profile ignored": 2}


def test_a_profile_changes_the_colors(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # The primaries of red and blue exchanged in the profile: what is stored as red is shown as blue.
    changed = srgb.replace(b"rXYZ", b"tmpX").replace(b"bXYZ", b"rXYZ").replace(b"tmpX", b"bXYZ")
    for mode in ("RGB", "RGBA", "P"):
        picture = colors(2, 40, 40).convert(mode)
        stored = pixels(picture).int()
        picture.save(tmp_path / "odd.png", icc_profile=changed)
        pictures = load(tmp_path, 40)
        image = pictures.images[0].int()
        assert pictures.noted == {"profile ignored": 0}
        assert (image - stored.flip(0)).abs().float().mean() < 3 < (image - stored).abs().float().mean()


def test_too_many_unusable_pictures_are_an_error(tmp_path):
    for seed in range(3):
        colors(seed).convert("L").save(tmp_path / f"gray{seed}.png")
    colors(3).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"3 of 4 pictures are unusable .*'gray or one tint': 3.*right folder"):
        load(tmp_path)
    colors(4).save(tmp_path / "b.png")
    colors(5).save(tmp_path / "c.png")
    assert len(load(tmp_path)) == 3  # half of them is not yet too many


def test_any_error_of_a_decoder_counts_as_broken(tmp_path, monkeypatch):
    for seed in range(4):
        colors(seed).save(tmp_path / f"{seed}.png")
    errors = iter([IndexError("bad table"), None, None, None])

    def opened(file, open=Image.open):
        if (error := next(errors)) is not None:
            raise error
        return open(file)

    monkeypatch.setattr(Image, "open", opened)
    pictures = load(tmp_path)
    assert len(pictures) == 3 and pictures.dropped["broken"] == 1


def test_folders_without_pictures(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="neither photos64/train-.*parquet nor any picture"):
        load(tmp_path)
    with pytest.raises(DataError, match="has no validation-"):
        load_pictures(tmp_path, "photos64", "validation", 32)
    (tmp_path / "photos256").mkdir()
    (tmp_path / "photos256" / "train-0.parquet").touch()
    with pytest.raises(DataError, match="holds no set 'photos64', but photos256"):
        load(tmp_path)  # and not whatever pictures lie around
    with pytest.raises(DataError, match="none is not a folder. Pass --data FOLDER, set TRICHROME_DATA, or link"):
        data_folder(tmp_path / "none")
    monkeypatch.setenv("TRICHROME_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    monkeypatch.delenv("TRICHROME_DATA")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="no photographs: data is not a folder"):
        data_folder()


def test_the_order_of_a_folder_is_shuffled_but_always_the_same(tmp_path):
    for part in "abcd":
        (tmp_path / part).mkdir()
        for seed in range(6):
            flat = np.asarray(colors(seed)).copy()
            flat[:, :, 0] = "abcd".index(part) * 60  # red says which subfolder
            Image.fromarray(flat).save(tmp_path / part / f"{seed}.png")
    pictures = load(tmp_path)
    parts = [int(image[0, 0, 0]) for image in pictures.images]
    assert sorted(parts) == [value for value in (0, 60, 120, 180) for _ in range(6)]
    assert len(set(parts[-8:])) > 2, "the held-out pictures are all from one subfolder"
    again = load(tmp_path)
    assert same(again.images, pictures.images) and again.digest == pictures.digest
    first = load(tmp_path, limit=5)
    assert same(first.images, pictures.images[:5]) and first.digest != pictures.digest
    colors(77).save(tmp_path / "a" / "0.png")
    assert load(tmp_path).digest != pictures.digest


@pytest.mark.parametrize("tint, unusable", [
    ((1.0, 1.0, 1.0), True), ((1.0, 0.85, 0.7), True), ((0.8, 0.9, 1.0), True), (None, False),
])  # fmt: skip
def test_one_tint(tint, unusable):
    for seed in range(5):
        picture = colors(seed) if tint is None else tinted(seed, tint)
        assert is_one_tint(pixels(picture)) == unusable


# ---------------------------------------------------------------------- Parquet sets


def write_set(path: Path, images: list[Image.Image], labels: list[int | None] | None = None) -> None:
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    columns: dict = {"image": images}
    features: dict = {"image": ImageFeature()}
    if labels is not None:
        columns["label"], features["label"] = labels, Value("int64")
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_dict(columns, features=Features(features)).to_parquet(path)


def test_parquet_sets_keep_their_order_and_labels(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    pictures = [colors(seed, 32, 32) for seed in range(6)]
    write_set(tmp_path / "photos64/train-00000-of-00002.parquet", pictures[:4], [5, 6, 7, 8])
    write_set(tmp_path / "photos64/train-00001-of-00002.parquet", [colors(9, 20, 20), *pictures[4:]], [1, 9, 3])
    write_set(tmp_path / "photos64/validation-00000-of-00001.parquet", pictures[:2])
    train = load(tmp_path)
    assert train.labels.tolist() == [5, 6, 7, 8, 9, 3] and train.dropped["too small"] == 1
    for image, picture in zip(train.images, pictures, strict=True):
        assert torch.equal(image, pixels(picture))
    validation = load_pictures(tmp_path, "photos64", "validation", 32)
    assert same(validation.images, train.images[:2]) and validation.labels.tolist() == [-1, -1]
    assert len(load(tmp_path, limit=3)) == 3
    write_set(tmp_path / "unknown/train-00000-of-00001.parquet", pictures[:2], [None, 4])
    assert load_pictures(tmp_path, "unknown", "train", 32).labels.tolist() == [-1, 4]


def test_sets_are_loaded_with_their_shares(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    write_set(tmp_path / "photos64/train-0.parquet", [colors(seed, 32, 32) for seed in range(6)], [5, 6, 7, 8, 9, 10])
    write_set(tmp_path / "photos128/train-0.parquet", [colors(seed, 64 + seed, 64) for seed in range(9, 14)])
    sets = (SetConfig("photos128", 0.75, 2), SetConfig("photos64", 0.25, 1, upsample2x=True))
    config = DataConfig(64, sets=sets)
    mixture = load_mixture(tmp_path, config)
    assert (mixture.names, mixture.shares, mixture.holdouts) == (("photos128", "photos64"), (0.75, 0.25), (2, 1))
    assert [len(one) for one in mixture.sets] == [5, 6] and len(mixture) == 11
    training, held_out = mixture.split()
    assert [len(one) for one in training.sets] == [3, 5] and same(held_out.images, mixture.sets[0].images[3:])
    assert same(training.sets[1].images, mixture.sets[1].images[:5]) and training.digest == mixture.digest
    assert training.labels([(0, 0), (1, 4), (1, 0)]).tolist() == [-1, 9, 5]
    assert [(one["name"], one["pictures"]) for one in training.account()] == [("photos128", 3), ("photos64", 5)]
    less = load_mixture(tmp_path, replace(config, limit=4))
    assert [len(one) for one in less.sets] == [4, 4] and less.digest != mixture.digest
    assert load_mixture(tmp_path, replace(config, sets=sets[:1])).digest != mixture.digest

    for wrong, error, message in (
        ((), CheckpointError, "a [[data.sets]] at least"),
        ((SetConfig("photos64", 0.0),), CheckpointError, "share of photos64 must be greater than 0; got 0"),
        ((SetConfig("photos64", holdout=-1),), CheckpointError, "holdout of photos64 must not be negative; got -1"),
        ((*sets, sets[0]), CheckpointError, "a name of its own; got photos128, photos64, photos128"),
        ((sets[0], SetConfig("photos64", 1e-4)), CheckpointError, "less than one in 1000"),
        ((SetConfig("photos7"),), DataError, "no set 'photos7', but photos128, photos64: set `name`"),
    ):  # fmt: skip
        with pytest.raises(error, match=re.escape(message)):
            load_mixture(tmp_path, replace(config, sets=wrong))

    own = tmp_path / "own"
    own.mkdir()
    for seed in range(4):
        colors(seed, 32 + seed, 32).save(own / f"{seed}.png")
    alone = load_mixture(own, config)  # it has no sets: all of it is taken for the first
    assert (alone.names, alone.holdouts, len(alone)) == (("photos128",), (2,), 4)


def test_pictures_of_half_the_size_are_enlarged(tmp_path):
    colors(1, 40, 32).point(lambda level: 64 + level // 2).save(tmp_path / "half.png")  # nothing to be cut off
    colors(2, 64, 64).save(tmp_path / "whole.png")
    colors(3, 31, 31).save(tmp_path / "small.png")
    colors(4, 140, 120).save(tmp_path / "large.png")
    colors(5, 50, 60).save(tmp_path / "between.png")
    colors(6, 70, 66).save(tmp_path / "enough.png")
    loaded = load_pictures(tmp_path, "photos64", "train", 64, upsample=True)
    plain = load_pictures(tmp_path, "photos64", "train", 64, upsample=False)
    assert len(loaded) == 5 and loaded.dropped["too small"] == 1 and len(plain) == 3 and loaded.digest == plain.digest
    sizes = {tuple(image.shape[1:]): index for index, image in enumerate(loaded.images)}
    assert sizes.keys() == {(32, 40), (64, 64), (120, 140), (66, 70), (38, 32)}  # the last, in between, reduced to half
    half = sizes[32, 40]
    assert loaded.size(half) == (64, 80) and loaded.size(sizes[64, 64]) == (64, 64)
    square = loaded.squares([half])
    expected = loaded.images[half][None, :, :, 4:36].float() / 255
    torch.testing.assert_close(F.avg_pool2d(square, 2), expected, atol=1e-5, rtol=0)


def test_split_holds_the_last_ones_out():
    images = [torch.full((3, 4, 4), level).byte() for level in range(10)]
    pictures = Pictures(images, torch.arange(10), 4, "x", {"broken": 2}, {"profile ignored": 1})
    train, held_out = pictures.split(3)
    assert train.labels.tolist() == list(range(7)) and held_out.labels.tolist() == [7, 8, 9]
    assert same(train.images, images[:7]) and same(held_out.images, images[7:]) and train.dropped == {"broken": 2}
    for wrong in (-1, 10):
        with pytest.raises(DataError, match=f"less than the 10 usable pictures; got {wrong}"):
            pictures.split(wrong)


def test_nothing_loads_datasets_before_it_is_needed():
    code = "import sys, stages.training, train_scripts.stage1; sys.exit('datasets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent).returncode == 0


# ---------------------------------------------------------------------- batches


def mixture_of(counts: tuple[int, ...], shares: tuple[float, ...], side: int = 4) -> Mixture:
    """Sets of flat pictures."""
    names = tuple(f"set{number}" for number in range(len(counts)))
    sets = tuple(
        Pictures([torch.full((3, side, side), 9).byte()] * count, torch.arange(count), side, name, {}, {})
        for name, count in zip(names, counts, strict=True)
    )
    return Mixture(names, sets, shares, (1,) * len(counts))


@pytest.mark.parametrize("counts, shares, batch", [
    ((24,), (1.0,), 4), ((25,), (1.0,), 7), ((70, 30), (0.5, 0.5), 8), ((340, 245, 51), (0.25, 0.5, 0.25), 32),
    ((50, 60, 70), (1.0, 1.0, 1.0), 10), ((40, 3), (0.997, 0.003), 5), ((5,), (2.0,), 8),
])  # fmt: skip
def test_sets_come_by_their_shares_and_their_pictures_in_turn(counts, shares, batch):
    mixture = mixture_of(counts, shares)
    seen = [pick for step in range(4000 // batch) for pick in mixture.batch(batch, 3, step)]
    exact = [1000 * share / sum(shares) for share in shares]
    for turn in range(len(seen) // 1000):
        numbers = [number for number, _ in seen[1000 * turn : 1000 * (turn + 1)]]
        assert all(abs(numbers.count(number) - exact[number]) < 1 for number in range(len(counts)))
    for begin in range(0, len(seen) - 100, 37):  # and nearly so in any hundred
        numbers = [number for number, _ in seen[begin : begin + 100]]
        assert all(abs(numbers.count(number) - exact[number] / 10) < 4 for number in range(len(counts)))
    for number, count in enumerate(counts):
        own = [index for which, index in seen if which == number]
        epochs = [own[begin : begin + count] for begin in range(0, len(own) - count + 1, count)]
        assert all(sorted(epoch) == list(range(count)) for epoch in epochs), "a picture twice, or never, in an epoch"
        assert len(epochs) < 2 or count < 10 or epochs[0] != epochs[1], "epochs have the same order"


def test_batches_depend_on_seed_and_step_alone():
    mixture = mixture_of((100, 60), (0.6, 0.4))
    batch = mixture.batch(8, 1, 300)
    torch.manual_seed(5)
    for cached in (data._turn, data._order):
        cached.cache_clear()
    assert mixture.batch(8, 1, 300) == batch != mixture.batch(8, 2, 300)
    assert mixture.batch(16, 1, 150)[:8] == batch  # by pictures seen
    halves = [mixture.batch(32, 1, 7)[rank::2] for rank in range(2)]
    numbers = [[number for number, _ in half].count(0) for half in halves]
    assert min(numbers) > 4  # neither process has one set alone


def test_seeds_are_fixed_for_good():
    assert seed_of(0, "noise", 1, 2) == seed_of(0, "noise", 1, 2) != seed_of(0, "noise", 12)
    assert seed_of("x") == 692767299097820413, "a run would not continue as it began"


# ---------------------------------------------------------------------- cuts


def ramps(height: int, width: int) -> Tensor:
    """A picture that says where each of its pixels is: red from left to right, green from top to bottom."""
    x, y = torch.arange(width).expand(height, width), torch.arange(height)[:, None].expand(height, width)
    return torch.stack([x, y, torch.zeros(height, width)]).byte()


def cut_ramps(height: int, width: int, side: int, count: int = 400) -> tuple[Tensor, Tensor, Tensor]:
    """(top, left, height, width) of cuts as their pixels tell, (N, 4), those mirrored (N,) bool, the cuts."""
    pictures = Pictures([ramps(height, width)], torch.zeros(1), side, "", {}, {})
    cuts = Mixture(("a",), (pictures,), (1.0,), (0,)).cuts([(0, 0)] * count, Generator().manual_seed(1))
    inner = slice(side // 4, -(side // 4))  # where no border is in the way
    x, y = 255 * cuts[:, 0].mean(1)[:, inner], 255 * cuts[:, 1].mean(2)[:, inner]
    x_step, y_step = x.diff(dim=1).mean(1), y.diff(dim=1).mean(1)
    wide, high = x_step.abs() * side, y_step * side
    return torch.stack([y.mean(1) + 0.5 - high / 2, x.mean(1) + 0.5 - wide / 2, high, wide], 1), x_step < 0, cuts


@pytest.mark.parametrize("height, width", [(64, 64), (96, 64), (64, 96), (64, 80)])
def test_cuts_have_random_places_and_aspects_inside_of_the_picture(height, width):
    box, mirrored, cuts = cut_ramps(height, width, 32)
    top, left, high, wide = box.T
    assert cuts.shape == (400, 3, 32, 32) and cuts.min() >= 0 and cuts.max() <= 1
    assert min(top.min(), left.min()) > -0.1 and (top + high).max() < height + 0.1 and (left + wide).max() < width + 0.1
    aspect, share = wide / high, wide * high / (height * width)
    assert 0.66 < aspect.min() < 0.75 and 1.3 < aspect.max() < 1.51
    assert 0.47 < share.min() < 0.6 and 0.9 < share.max() <= 1.01
    assert 150 < mirrored.sum() < 250 and (high > 0).all()
    for begin, length, whole in ((top, high, height), (left, wide, width)):  # every part of the picture is seen
        assert begin.min() < 0.05 * whole and (begin + length).max() > 0.95 * whole and begin.std() > 0.02 * whole


def test_pictures_of_exactly_the_side_are_seen_whole_half_of_the_time():
    box, mirrored, cuts = cut_ramps(64, 64, 64)
    whole = (box[:, 2:] > 63.9).all(1)
    assert 150 < whole.sum() < 250
    picture = ramps(64, 64) / 255
    for cut, mirror in zip(cuts[whole], mirrored[whole], strict=True):
        torch.testing.assert_close(cut, picture.flip(2) if mirror else picture)
    share = box[~whole, 2:].prod(1) / 64**2
    assert 0.58 < share.min() < 0.65 and share.max() > 0.85


def test_cuts_depend_on_the_generator_alone():
    mixture = Mixture(("a",), (Pictures([ramps(50, 70)], torch.zeros(1), 32, "", {}, {}),), (1.0,), (0,))
    first, again, other = (mixture.cuts([(0, 0)] * 3, Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other) and not torch.equal(first[0], first[1])


def test_a_cut_is_the_mean_of_what_its_pixels_cover():
    """Shrunk, the whole picture is `resize`d; a box of whole pixels is its own mean; enlarged, a ramp stays one."""
    x = torch.rand(3, 37, 50, generator=Generator().manual_seed(2), dtype=torch.float64)
    whole = crop_resize(x, (0.0, 0.0, 37.0, 50.0), (16, 24))
    torch.testing.assert_close(whole, resize(x[None], (16, 24))[0])
    torch.testing.assert_close(crop_resize(x, (5.0, 8.0, 30.0, 40.0), (10, 10)), F.avg_pool2d(x[:, 5:35, 8:48], (3, 4)))
    torch.testing.assert_close(crop_resize(x, (3.5, 0.25, 4.0, 2.0), (1, 1))[:, 0, 0], (
        torch.tensor([0.5, 1, 1, 1, 0.5], dtype=torch.float64)[:, None] * x[:, 3:8, :3]
        * torch.tensor([0.75, 1, 0.25], dtype=torch.float64)
    ).sum((1, 2)) / 8)  # fmt: skip
    ramp = torch.arange(20, dtype=torch.float64).expand(1, 20, 20)
    row = crop_resize(ramp, (2.0, 4.0, 10.0, 10.0), (40, 40))[0, 0]
    torch.testing.assert_close(row, 4 + 10 / 40 * (torch.arange(40, dtype=torch.float64) + 0.5) - 0.5)
    torch.testing.assert_close(crop_resize(x, (0.0, 0.0, 37.0, 50.0), (37, 50)), x)
