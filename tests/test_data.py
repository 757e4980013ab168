"""Photographs for training: what is kept, what is dropped, and in which order batches come."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageCms
from torch import Generator

from stages.checkpoint import CheckpointError
from stages.photographs import DataError, data_folder, is_one_tint, seed_of
from stages.training.augmentation import augmented
from stages.training.config import DataConfig
from stages.training.data import Pictures, batch_indices, load_pictures
from stages.training.launch import training_pictures


def colors(seed: int, width: int = 48, height: int = 40) -> Image.Image:
    """A smooth picture of many colors."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


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
    assert pictures.images.shape == (8, 32, 32, 3) and pictures.images.dtype == torch.uint8
    assert pictures.labels.tolist() == [-1] * 8
    rgb = pictures.rgb(slice(2, 5))
    assert rgb.shape == (3, 3, 32, 32) and 0 <= rgb.min() and rgb.max() <= 1


def test_pictures_are_cropped_to_the_middle(tmp_path):
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, :40], wide[:, 80:] = (255, 0, 0), (0, 0, 255)  # to be cut off
    stripes = [(0, 255, 0), (255, 0, 255), (255, 255, 0), (0, 128, 255)]
    for index, color in enumerate(stripes):
        wide[10 * index : 10 * (index + 1), 40:80] = color
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(wide.transpose(1, 0, 2)).save(tmp_path / "tall.png")
    images = load(tmp_path, 20).images
    expected = torch.tensor(stripes, dtype=torch.uint8).repeat_interleave(5, 0)[:, None].expand(20, 20, 3)
    found = {bytes(image.flatten().tolist()) for image in images}
    assert found == {bytes(e.flatten().tolist()) for e in (expected, expected.transpose(0, 1))}


def test_pictures_are_turned_upright_and_converted_to_srgb(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees clockwise
    straight = colors(1, 40, 40)
    straight.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    assert torch.equal(load(tmp_path, 40).images[0], torch.from_numpy(np.asarray(straight).copy()))

    (tmp_path / "turned.png").unlink()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    colors(1).save(tmp_path / "srgb.png", icc_profile=srgb)
    plain = np.asarray(colors(1).crop((4, 0, 44, 40)), np.int32)
    assert np.abs(load(tmp_path, 40).images[0].numpy() - plain).max() <= 1
    colors(1).save(tmp_path / "srgb.png", icc_profile=b"nonsense")
    assert len(load(tmp_path, 40)) == 1


def test_a_profile_changes_the_colors(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # The primaries of red and blue exchanged in the profile: what is stored as red is shown as blue.
    changed = srgb.replace(b"rXYZ", b"tmpX").replace(b"bXYZ", b"rXYZ").replace(b"tmpX", b"bXYZ")
    colors(2, 40, 40).save(tmp_path / "odd.png", icc_profile=changed)
    image, stored = load(tmp_path, 40).images[0].int(), np.asarray(colors(2, 40, 40)).astype(np.int32)
    assert np.abs(image.numpy() - stored[..., ::-1]).mean() < 3 < np.abs(image.numpy() - stored).mean()


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
    parts = pictures.images[:, 0, 0, 0].tolist()
    assert sorted(parts) == [value for value in (0, 60, 120, 180) for _ in range(6)]
    assert len(set(parts[-8:])) > 2, "the held-out pictures are all from one subfolder"
    again = load(tmp_path)
    assert torch.equal(again.images, pictures.images) and again.digest == pictures.digest
    first = load(tmp_path, limit=5)
    assert torch.equal(first.images, pictures.images[:5]) and first.digest != pictures.digest
    colors(77).save(tmp_path / "a" / "0.png")
    assert load(tmp_path).digest != pictures.digest


@pytest.mark.parametrize("tint, unusable", [
    ((1.0, 1.0, 1.0), True), ((1.0, 0.85, 0.7), True), ((0.8, 0.9, 1.0), True), (None, False),
])  # fmt: skip
def test_one_tint(tint, unusable):
    for seed in range(5):
        picture = colors(seed) if tint is None else tinted(seed, tint)
        assert is_one_tint(np.asarray(picture)) == unusable


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
        assert np.array_equal(image.numpy(), np.asarray(picture))
    validation = load_pictures(tmp_path, "photos64", "validation", 32)
    assert torch.equal(validation.images, train.images[:2]) and validation.labels.tolist() == [-1, -1]
    assert len(load(tmp_path, limit=3)) == 3
    write_set(tmp_path / "unknown/train-00000-of-00001.parquet", pictures[:2], [None, 4])
    assert load_pictures(tmp_path, "unknown", "train", 32).labels.tolist() == [-1, 4]


def test_a_second_set_joins_the_first_but_for_what_it_holds_out(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    write_set(tmp_path / "photos64/train-0.parquet", [colors(seed, 32, 32) for seed in range(4)], [5, 6, 7, 8])
    write_set(tmp_path / "photos256/train-0.parquet", [colors(seed, 64, 64) for seed in range(9, 14)])
    config = DataConfig(side=32, also="photos256", also_holdout=2, also_copies=3)
    both = training_pictures(tmp_path, config)
    first, second = load(tmp_path), load_pictures(tmp_path, "photos256", "train", 32)
    everything = torch.cat([second.rgb(slice(3))] * 3 + [first.rgb(slice(None))])
    assert len(both) == 13 and len(both.images) == 7 and torch.equal(both.rgb(torch.arange(13)), everything)
    for part, expected in zip(both.split(2), (everything[:-2], everything[-2:]), strict=True):
        assert torch.equal(part.rgb(slice(None)), expected) and len(part.labels) == len(part) == len(expected)
    assert both.labels.tolist() == [-1] * 9 + [5, 6, 7, 8]
    again = [training_pictures(tmp_path, replace(config, **other)).digest for other in
             ({}, {"also": ""}, {"also_copies": 2}, {"also_holdout": 1})]  # fmt: skip
    assert again[0] == both.digest and len(set(again)) == 4 and again[1] == first.digest

    cropped = training_pictures(tmp_path, replace(config, also_crops=2))
    large = load_pictures(tmp_path, "photos256", "train", 64).split(2)[0].halved(2)
    assert len(cropped) == 3 * 9 + 4 and torch.equal(cropped.rgb(torch.arange(9)), large.rgb(slice(None)))
    assert cropped.digest != both.digest
    with pytest.raises(CheckpointError, match="also_crops must not be negative; got -1"):
        training_pictures(tmp_path, replace(config, also_crops=-1))

    own = tmp_path / "own"
    own.mkdir()
    for seed in range(4):
        colors(seed, 32, 32).save(own / f"{seed}.png")
    assert len(training_pictures(own, config)) == 4  # it has no second set
    with pytest.raises(CheckpointError, match="also_copies must be at least 1; got 0"):
        training_pictures(tmp_path, replace(config, also_copies=0))


def test_pictures_are_halved_whole_and_in_parts():
    """A picture of ramps: a square cut from it shows its place and side."""
    x = torch.arange(64.0)
    ramps = torch.stack([4 * x.expand(64, 64), 4 * x[:, None].expand(64, 64), torch.zeros(64, 64)], dim=-1)
    pictures = Pictures(ramps.byte().expand(5, -1, -1, -1), torch.arange(5), "digest", {"broken": 1})
    halved = pictures.halved(3)
    assert halved.images.shape == (20, 32, 32, 3) and halved.labels.tolist() == [i for i in range(5) for _ in range(4)]
    whole = F.avg_pool2d(pictures.rgb(slice(5)), 2)
    assert (halved.rgb(torch.arange(0, 20, 4)) - whole).abs().max() <= 0.5 / 255 + 1e-6
    found = set()
    for image in halved.images.float().unflatten(0, (5, 4))[:, 1:].flatten(0, 1):
        left, right = image[0, 0, 0].item() / 4, image[0, -1, 0].item() / 4
        top, bottom = image[0, 0, 1].item() / 4, image[-1, 0, 1].item() / 4
        cut = (right - left) * 32 / 31
        assert 31 < cut < 64 and abs(cut - (bottom - top) * 32 / 31) < 1 and 0 <= left and right <= 63 and top >= 0
        found.add((round(left), round(top), round(cut)))
    assert len(found) > 10
    again = pictures.halved(3)
    assert torch.equal(again.images, halved.images) and again.digest == halved.digest
    assert len({pictures.digest, halved.digest, pictures.halved(2).digest}) == 3


def test_pictures_of_half_the_size_are_doubled(tmp_path):
    colors(1, 40, 32).point(lambda level: 64 + level // 2).save(tmp_path / "half.png")  # nothing to be cut off
    colors(2, 64, 64).save(tmp_path / "whole.png")
    colors(3, 31, 31).save(tmp_path / "small.png")
    colors(4, 80, 80).save(tmp_path / "large.png")
    loaded = load_pictures(tmp_path, "photos64", "train", 64, upsample2x=True)
    plain, half = (load_pictures(tmp_path, "photos64", "train", side) for side in (64, 32))
    assert len(loaded) == 3 and loaded.dropped["too small"] == 1 and len(plain) == 2 and loaded.digest == plain.digest
    whole = [any(torch.equal(image, other) for other in plain.images) for image in loaded.images]
    assert sorted(whole) == [False, True, True]
    image = loaded.images[whole.index(False)].permute(2, 0, 1)[None].float()
    small = [F.avg_pool2d(image, 2)[0].permute(1, 2, 0) - other for other in half.images.float()]
    assert min(difference.abs().max() for difference in small) <= 0.5  # but for the rounding


def test_split_holds_the_last_ones_out(tmp_path):
    pictures = Pictures(torch.arange(10).view(10, 1, 1, 1).byte(), torch.arange(10), "x", {"broken": 2})
    train, held_out = pictures.split(3)
    assert train.labels.tolist() == list(range(7)) and held_out.labels.tolist() == [7, 8, 9]
    assert torch.equal(train.images.flatten(), torch.arange(7).byte())
    for wrong in (0, -1, 10):
        with pytest.raises(DataError, match=f"at least 1 and less than the 10 usable pictures; got {wrong}"):
            pictures.split(wrong)


def test_nothing_loads_datasets_before_it_is_needed():
    code = "import sys, stages.training, train_scripts.stage1; sys.exit('datasets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent).returncode == 0


# ---------------------------------------------------------------------- batches


@pytest.mark.parametrize("count, batch", [(24, 4), (25, 4), (7, 7), (10, 3)])
def test_an_epoch_visits_every_picture_once(count, batch):
    per_epoch, orders = count // batch, []
    for epoch in range(4):
        steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
        seen = torch.cat([batch_indices(count, batch, seed=3, step=step) for step in steps]).tolist()
        assert len(set(seen)) == len(seen) == per_epoch * batch and set(seen) <= set(range(count))
        orders.append(seen)
    assert len({tuple(order) for order in orders}) == 4, "every epoch has the same order"
    if count % batch:  # what an epoch leaves out comes in another one
        assert set().union(*orders) == set(range(count))


def test_batches_depend_on_seed_and_step_alone():
    batch = batch_indices(100, 8, 1, 30)
    torch.manual_seed(5)
    assert torch.equal(batch_indices(100, 8, 1, 30), batch)
    assert not torch.equal(batch_indices(100, 8, 2, 30), batch)
    assert len(batch_indices(5, 8, 1, 2)) == 8  # fewer pictures than a batch: some come twice


def test_seeds_are_fixed_for_good():
    assert seed_of(0, "noise", 1, 2) == seed_of(0, "noise", 1, 2) != seed_of(0, "noise", 12)
    assert seed_of("x") == 692767299097820413, "a run would not continue as it began"


# ---------------------------------------------------------------------- augmentation


def rgb_batch(count: int = 6, side: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=Generator().manual_seed(0))


def test_without_crops_pictures_are_only_mirrored():
    rgb = rgb_batch(32)
    result = augmented(rgb, Generator().manual_seed(1), crop_share=0)
    same = (result - rgb).abs().amax((1, 2, 3)) < 1e-5
    mirrored = (result - rgb.flip(3)).abs().amax((1, 2, 3)) < 1e-5
    assert (same ^ mirrored).all() and 8 < mirrored.sum() < 24


def test_crops_stay_inside_and_keep_shape_and_range():
    rgb = rgb_batch(64)
    result = augmented(rgb, Generator().manual_seed(1), crop_share=1)
    assert result.shape == rgb.shape and 0 <= result.min() and result.max() <= 1
    assert torch.equal(result, augmented(rgb, Generator().manual_seed(1), crop_share=1))
    assert not torch.equal(result, augmented(rgb, Generator().manual_seed(2), crop_share=1))
    # On a ramp each crop shows its own place and size.
    ramp = torch.linspace(0, 1, 64).expand(64, 1, 64, 64)
    both = torch.cat([ramp, ramp.transpose(2, 3), ramp * 0], dim=1)
    crops = augmented(both, Generator().manual_seed(3), crop_share=1)
    width = (crops[:, 0, :, -1] - crops[:, 0, :, 0]).mean(1).abs()
    height = (crops[:, 1, -1] - crops[:, 1, 0]).mean(1)
    assert (height > 0).all(), "upside down"
    assert (0.58 < width * height).all() and (width * height < 1.01).all() and (width * height < 0.8).any()
    aspect = width / height
    assert 0.65 < aspect.min() < 0.8 and 1.25 < aspect.max() < 1.55


def test_half_of_the_pictures_are_cropped():
    rgb = rgb_batch(200, 8)
    result = augmented(rgb, Generator().manual_seed(4))
    whole = torch.minimum((result - rgb).abs().amax((1, 2, 3)), (result - rgb.flip(3)).abs().amax((1, 2, 3))) < 1e-5
    assert 70 < whole.sum() < 130
