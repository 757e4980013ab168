"""The photographs of an evaluation, their noise, and the weights that are asked for."""

from __future__ import annotations

import hashlib
import json
import tomllib

import numpy as np
import pytest
import torch
from helpers import PHOTOS, encoded, photograph

from pipeline.images.read import load_photo
from pipeline.images.write import save_photo
from pipeline.sources import noise_sources, photo_from
from stages.color.resample import resize
from stages.evaluation.coarse import streams
from stages.evaluation.photos import SETS, EvaluationError, _picture, _square, load_photos
from stages.provenance import ROOT
from train_scripts import evaluate_pipeline, evaluate_stage1, evaluate_stage3
from train_scripts.weights import stage_weights


def test_photographs_keep_their_order_and_pixels(data):
    photos = load_photos(data, "photos64", "validation", 4)
    assert isinstance(photos.pictures, torch.Tensor)
    assert photos.pictures.shape == (4, 3, 64, 64) and photos.pictures.dtype == torch.uint8
    for seed, picture in enumerate(photos.pictures):
        assert np.array_equal(picture.permute(1, 2, 0).numpy(), np.asarray(photograph("photos64", seed)))
    assert photos.sha256 != load_photos(data, "photos64", "validation", 3).sha256
    assert photos.first(3).sha256 == load_photos(data, "photos64", "validation", 3).sha256


def test_of_photographs_that_are_not_square_the_center_is_taken(data):
    photos = load_photos(data, "photos128", "validation")
    assert isinstance(photos.pictures, torch.Tensor) and photos.pictures.shape == (PHOTOS["photos128"], 3, 128, 128)
    boxes = [(0, 11, 128, 139), (21, 0, 149, 128), (0, 0, 128, 128), (0, 32, 192, 224)]
    for seed, (picture, box) in enumerate(zip(photos.pictures, boxes, strict=True)):
        center = torch.from_numpy(np.array(photograph("photos128", seed).crop(box))).permute(2, 0, 1)
        expected = resize(center[None].float(), (128, 128))[0].round().byte()
        assert torch.equal(picture, expected)
    assert photos.digests == [hashlib.sha256(encoded("photos128", seed)).digest() for seed in range(4)]
    with pytest.raises(EvaluationError, match="photograph 3 is 130x127; both sides must be at least 128"):
        _square(torch.zeros(3, 127, 130, dtype=torch.uint8), 128, "photograph 3")


def test_reduced_photographs_are_area_averages(data):
    photos = load_photos(data, "photos256", "validation")
    reduced = photos.reduced(64).pictures
    assert isinstance(photos.pictures, torch.Tensor) and isinstance(reduced, torch.Tensor)
    blocks = photos.pictures.float().unflatten(2, (64, 4)).unflatten(4, (64, 4)).mean((3, 5))
    assert (reduced.float() - blocks).abs().max() <= 0.51
    assert photos.reduced(256) is photos and photos.reduced(64).digests == photos.digests


def test_what_is_missing_is_said(data):
    with pytest.raises(EvaluationError, match="no test-"):
        load_photos(data, "photos64", "test")
    with pytest.raises(EvaluationError, match="has 6 photographs, 7 were asked for"):
        load_photos(data, "photos64", "validation", 7)
    with pytest.raises(EvaluationError, match="one of photos64, photos128, photos256, lineart; got 'photos32'"):
        load_photos(data, "photos32", "validation")


@pytest.mark.parametrize("name", list(PHOTOS))
def test_noise_is_that_of_the_pipeline(name, data):
    photos = load_photos(data, name, "validation")
    seen = [photo_from(gray[0].numpy()) for gray in photos.gray()]
    assert photos.noise(5) == noise_sources(seen, [5] * len(seen), [None] * len(seen))
    assert len({one.key for one in photos.noise(5)}) == len(photos)


def test_streams_belong_to_photograph_and_candidate(data):
    photos = load_photos(data, "photos64", "validation")

    def draws(noise, candidates, **settings):
        made = streams(noise, candidates, **settings)
        return torch.stack([torch.randn(4, generator=one) for one in made]).unflatten(0, (-1, candidates))

    noise = photos.noise(5)
    many = draws(noise[:4], 3)
    assert torch.equal(draws(noise[2:4], 2), many[2:, :2])
    assert len({tuple(row.tolist()) for row in many.flatten(0, 1)}) == 12
    for other in (draws(photos.noise(6)[:4], 3), draws(noise[:4], 3, purpose="stage3")):
        assert not torch.isin(other, many).any()
    assert torch.equal(many[1, 2], torch.randn(4, generator=noise[1].generator(2, "stage1")))


def test_held_out_photographs_are_the_last_ones_of_the_training_split(held_out):
    photos = load_photos(held_out, "photos64", "held-out")
    assert photos.name == "photos64/held-out"
    assert photos.digests == [hashlib.sha256(encoded("photos64", seed)).digest() for seed in range(2, 6)]
    assert load_photos(held_out, "photos64", "held-out", 3).digests == photos.digests[:3]
    assert load_photos(held_out, "photos128", "held-out").digests == [
        hashlib.sha256(encoded("photos128", 3)).digest()]  # fmt: skip
    with pytest.raises(EvaluationError, match="no train-"):
        load_photos(held_out, "photos256", "held-out")
    with pytest.raises(EvaluationError, match="4 photographs, 5 were asked for"):
        load_photos(held_out, "photos64", "held-out", 5)


def test_an_incomplete_training_split_has_nothing_held_out(held_out, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(EvaluationError, match="the last 1000 photographs are held out of training, and there are 6"):
        load_photos(held_out, "photos64", "held-out")


def test_as_many_are_held_out_as_the_configs_say():
    configs = list((ROOT / "configs").glob("stage*.toml"))
    assert configs and {name: one.held_out for name, one in SETS.items()} == {
        "photos64": 1000, "photos128": 500, "photos256": 133, "lineart": 100}  # fmt: skip
    assert tomllib.loads((ROOT / "configs/gpic.toml").read_text())["data"]["sets"][0]["holdout"] == 100
    for path in configs:
        data = tomllib.loads(path.read_text()).get("data", {})
        assert data.get("holdout", 1000) == SETS[data.get("name", "photos64")].held_out, path
        if "also" in data:
            assert data.get("also_holdout", 133) == SETS[data["also"]].held_out, path


def test_what_can_not_be_scored_is_said_before_the_work(tmp_path, capsys):
    for module in (evaluate_stage1, evaluate_pipeline):
        for wrong in ("--best-photos=0", "--candidates=1"):
            with pytest.raises(SystemExit):
                module.parser().parse_args([wrong])
            assert "must be at least" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        evaluate_stage3.parser().parse_args(["--set=photos64"])
    assert "photos128" in capsys.readouterr().err
    folder = tmp_path / "stage2"
    folder.mkdir()
    description = {"format": 1, "stage": 2, "kind": "coltran", "config": {}}
    (folder / "config.json").write_text(json.dumps(description))
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(EvaluationError, match="holds weights of the family color; expected coarse"):
        stage_weights(folder, "coarse")
    with pytest.raises(EvaluationError, match="no coarse weights in"):
        stage_weights(tmp_path / "none", "coarse")
    pixels = np.full((8, 8, 3), 4660, np.uint16)
    for deep in (tmp_path / "deep.png", tmp_path / "deep.tif"):
        save_photo(deep, pixels, load_photo(pixels))
        with pytest.raises(EvaluationError, match="more than 8 bits"):
            _picture(deep, deep.name)
