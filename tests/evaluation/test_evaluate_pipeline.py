"""train_scripts/evaluate_pipeline.py: the cascade, and anybody's outputs."""

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import by_name, check_complete, random_picture, scores
from PIL import Image, ImageCms

from pipeline import ColorPipeline
from stages.evaluation import pixel
from stages.evaluation.photos import load_photos
from stages.evaluation.scores import CandidateScores
from stages.evaluation.tables import GRAY, PREVIEW
from train_scripts import evaluate_pipeline
from train_scripts.evaluate_pipeline import colorized


class Painting:
    """Paints photo by photo with one tint per (seed, steps, candidate); the last candidate drawn comes first."""

    def __call__(self, gray, num_samples=1, num_inference_steps=None, generator=None, preview=False, pool=None,
                 output_type="pil"):  # fmt: skip
        assert output_type == "np" and type(generator) is int  # one seed for all photographs
        images, info = [], []
        for photo in gray:
            assert photo.ndim == 2 and photo.dtype == np.uint8
            for candidate in reversed(range(num_samples)):
                tint = np.array([0, 0, 0] if preview else [generator, num_inference_steps or 0, 10 * candidate])
                images.append(np.clip(photo[..., None].astype(int) + tint, 0, 255).astype(np.uint8))
                info.append(SimpleNamespace(candidate=None if preview else candidate))
        return SimpleNamespace(images=images, info=info)


@pytest.fixture
def painting(weights, monkeypatch):
    monkeypatch.setattr(ColorPipeline, "__call__", Painting.__call__)


def test_rows(data, painting, tmp_path):
    options = ("--candidates", "3", "--best-photos", "3")
    results = scores(evaluate_pipeline, data, tmp_path / "out", *options)
    check_complete(results, "photos256", {"stage1", "stage2", "stage3"})
    assert results["sharpness"] == 0.25 and results["pool"] == 3
    rows = by_name(results)
    assert rows["best of 3"]["photos"] == 3 and rows["best of 3, chosen"]["diversity"] > 0
    assert rows[PREVIEW]["luma_error_max"] < 0.01
    seeded = by_name(scores(evaluate_pipeline, data, tmp_path / "out", *options, "--seed", "3"))
    assert seeded["default output"]["luma_error_max"] == pytest.approx(3 * 0.299)  # the seed, added to red


@pytest.mark.parametrize("name", ["photos128", "photos256"])
def test_default_output_is_what_the_pipeline_makes_of_the_gray(name, data, weights, tmp_path):
    options = ("--set", name, "--seed", "5", "--candidates", "2", "--best-photos", "1")
    rows = by_name(scores(evaluate_pipeline, data, tmp_path / "out", *options))
    photos = load_photos(data, name, "validation")
    for row, pool in (("default output", None), ("one plain sample", 1)):
        images = [ColorPipeline.from_pretrained()(gray[0].numpy(), generator=5, pool=pool).images[0]
                  for gray in photos.gray()]  # fmt: skip
        pictures = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
        assert rows[row]["ciede2000"] == float(pixel.ciede2000(pictures, photos.pictures).mean())
        assert 0 < rows[row]["luma_error_max"] <= 0.51
    assert rows["default output"]["ciede2000"] != rows["one plain sample"]["ciede2000"]


def test_candidates_in_more_steps_are_compared_photo_by_photo(data, painting, tmp_path):
    options = ("--candidates", "2", "--best-photos", "3", "--more-steps", "9")
    rows = by_name(scores(evaluate_pipeline, data, tmp_path / "out", *options))
    few, many = rows["best of 2, chosen"], rows["best of 2, chosen, in 9 steps"]
    for key in ("ciede2000", "squeezenet_distance", "diversity"):
        more = few["minus_more_steps"][key]
        assert more["value"] == pytest.approx(few[key] - many[key], abs=1e-9) != 0
        assert more["interval_95"][0] < more["value"] < more["interval_95"][1]
    a = CandidateScores(*torch.tensor([[1.0, 2, 6], [0, 0, 0], [1, 1, 1]]).double())
    b = CandidateScores(*torch.zeros(3, 3).double())
    # Standard deviation of 1, 2, 6: sqrt(7).
    assert a.minus(b)["ciede2000"] == pytest.approx((3, 3 - 1.96 * (7 / 3) ** 0.5, 3 + 1.96 * (7 / 3) ** 0.5))
    assert a.minus(b)["diversity"] == (1, 1, 1)


def test_candidates_come_in_drawing_order(painting):
    gray = [torch.full((1, 8, 8), 50 * i, dtype=torch.uint8) for i in range(5)]
    pictures = colorized(ColorPipeline.from_pretrained(), gray, 7, name="test", num_samples=3, steps=2)
    tints = [[picture[:, 0, 0].tolist() for picture in candidates] for candidates in pictures]
    assert tints == [[[50 * i + 7, 50 * i + 2, 50 * i + 10 * k] for k in range(3)] for i in range(5)]


# Anybody's outputs


@pytest.fixture
def folders(tmp_path):
    """Originals of two sizes, and the same pictures as outputs under another suffix."""
    originals, outputs = tmp_path / "originals", tmp_path / "outputs"
    originals.mkdir(), outputs.mkdir()
    for seed in range(5):
        side = 40 + 10 * (seed % 2)
        picture = random_picture((side, side), seed)
        picture.save(originals / f"photo{seed}.png")
        picture.save(outputs / f"photo{seed}.webp", lossless=True)
    (outputs / "readme.txt").write_text("not a picture")
    return originals, outputs


def outputs_options(folders, data):
    features = data / "features" / "squeezenet1_1.safetensors"
    return ["--originals", str(folders[0]), "--outputs", str(folders[1]), "--features", str(features)]


def test_outputs_are_scored_by_file_stem(folders, data, weights, tmp_path):
    options = outputs_options(folders, data)
    results = scores(evaluate_pipeline, data, tmp_path / "out", *options)
    rows = by_name(results)
    assert rows[str(folders[1])]["ciede2000"] == 0 and rows[GRAY]["ciede2000"] > 5
    assert PREVIEW in rows
    digests = [hashlib.sha256((folders[0] / f"photo{i}.png").read_bytes()).digest() for i in range(5)]
    assert results["photos"]["sha256"] == hashlib.sha256(b"".join(digests)).hexdigest()
    results = scores(evaluate_pipeline, data, tmp_path / "out", *options, "--no-preview", "--photos", "4")
    assert results["photos"]["sha256"] == hashlib.sha256(b"".join(digests[:4])).hexdigest()
    assert results["weights"] == {} and "--no-preview" in results["notes"][0]


def test_outputs_need_no_data_folder_and_no_feature_network(folders, weights, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRICHROME_DATA", raising=False)
    options = ["--originals", str(folders[0]), "--outputs", str(folders[1]), "--out", str(tmp_path / "out")]
    assert evaluate_pipeline.main(options) == 0
    printed = capsys.readouterr().out
    assert "SqueezeNet 1.1 trained on ImageNet" in printed and "--features FILE" in printed
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    rows = by_name(results)
    assert rows[str(folders[1])]["ciede2000"] == 0 and rows[PREVIEW]["relative_to_gray"].keys() == {"ciede2000"}
    assert not any(key.startswith("squeezenet") for row in results["rows"] for key in row)
    assert results["features"] is None
    assert evaluate_pipeline.main([*options, "--features", str(tmp_path / "none.safetensors")]) == 2


def test_outputs_with_a_color_profile_are_scored_as_they_are_seen(folders, data, weights, tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # The primaries of red and blue exchanged in the profile: what is stored as red is seen as blue.
    exchanged = srgb.replace(b"rXYZ", b"tmpX").replace(b"bXYZ", b"rXYZ").replace(b"tmpX", b"bXYZ")
    for seed in range(5):
        red, green, blue = random_picture((40 + 10 * (seed % 2),) * 2, seed).split()
        (folders[1] / f"photo{seed}.webp").unlink()
        Image.merge("RGB", (blue, green, red)).save(folders[1] / f"photo{seed}.png", icc_profile=exchanged)
    rows = by_name(scores(evaluate_pipeline, data, tmp_path / "out", *outputs_options(folders, data)))
    assert rows[str(folders[1])]["ciede2000"] < 1


def spoil_missing(originals, outputs):
    (outputs / "photo3.webp").unlink()


def spoil_extra(originals, outputs):
    random_picture((40, 40), 0).save(outputs / "other.png")


def spoil_size(originals, outputs):
    random_picture((44, 44), 2).save(outputs / "photo2.webp")


def spoil_twin(originals, outputs):
    random_picture((40, 40), 2).save(outputs / "photo2.png")


def spoil_file(originals, outputs):
    (outputs / "photo2.webp").write_bytes(b"RIFF")


def spoil_depth(originals, outputs):
    (outputs / "photo2.webp").unlink()
    Image.fromarray(np.zeros((40, 40), dtype=np.uint16)).save(outputs / "photo2.png")


@pytest.mark.parametrize(
    "spoil, message",
    [
        (spoil_missing, "no output for 1 file stem(s): photo3"),
        (spoil_extra, "no original for 1 file stem(s): other"),
        (spoil_size, "photo2.webp is 44x44, its original 40x40"),
        (spoil_twin, "have one stem"),
        (spoil_file, "photo2.webp is not a readable picture"),
        (spoil_depth, "only 8-bit pictures"),
    ],
)
def test_outputs_that_do_not_fit_are_errors(folders, data, weights, tmp_path, capsys, spoil, message):
    spoil(*folders)
    out = tmp_path / "out"
    assert evaluate_pipeline.main(["--out", str(out), *outputs_options(folders, data)]) == 2
    assert message in capsys.readouterr().err and not out.exists()


def test_outputs_need_originals(tmp_path, capsys):
    assert evaluate_pipeline.main(["--outputs", str(tmp_path)]) == 2
    assert "belong together" in capsys.readouterr().err
    both = ["--outputs", str(tmp_path), "--originals", str(tmp_path)]
    assert evaluate_pipeline.main([*both, "--more-steps", "9"]) == 2
    assert "leave out --more-steps" in capsys.readouterr().err
