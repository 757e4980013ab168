"""The evaluation scripts on tiny random pictures, a random feature network and stand-in stages."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from dataclasses import dataclass
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from standins import standin_pipeline

from pipeline.full_resolution import sharpened
from pipeline.images.read import load_photo
from pipeline.images.write import save_photo
from pipeline.sources import photo_from
from stages.checkpoint import sha256_of
from stages.color.difference import ciede2000
from stages.color.guided_filter import enlarge_chroma
from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, coarse_from_rgb, gray_from_rgb, lab_from_rgb, merge, rgb_from_coarse
from stages.evaluation import command, pixel
from stages.evaluation import photos as photos_module
from stages.evaluation.command import ROOT, generators, stage_weights
from stages.evaluation.features import SqueezeNetFeatures
from stages.evaluation.photos import HELD_OUT_COUNTS, EvaluationError, _picture, load_photos
from stages.evaluation.pixel import picture_from_rgb
from stages.evaluation.report import Report
from stages.evaluation.scores import CandidateScores
from stages.evaluation.tables import GRAY, ORIGINALS, PREVIEW
from stages.registry import kind_of, load_stage
from stages.stage1_coarse.candidates import spread_order
from stages.training.config import Config
from train_scripts import (
    choose_candidate,
    evaluate_luma,
    evaluate_pipeline,
    evaluate_stage1,
    evaluate_stage2,
    evaluate_stage3,
    evaluate_steps,
    evaluate_uncertainty,
    tune_steps,
)

PHOTOS = {"photos64": 6, "photos256": 4}


@dataclass(frozen=True)
class StandInConfig:
    steps: int = 7
    sampler: str = "none"
    ema: bool = True


def tints(gray64, num_samples, generator):
    """Random flat chroma (B, K, 2, 64, 64) from each candidate's own generator."""
    assert len(generator) == len(gray64) * num_samples
    chroma = torch.stack([0.1 * torch.randn(2, 1, 1, generator=one) for one in generator])
    return chroma.expand(-1, -1, 64, 64).unflatten(0, (len(gray64), num_samples))


class CoarseOnly:
    """A stage 1 with the common face only; the last of its pool of 3 counts as the most central."""

    config, pool, stage, kind = StandInConfig(), 3, 1, "stand-in"

    def eval(self):
        return self

    def sample(self, gray64, num_samples, generator, num_inference_steps=None):
        return coarse_from_rgb(merge(gray64[:, None], tints(gray64, num_samples, generator)))

    def order(self, gray64, coarse, pool=None):
        return torch.arange(coarse.shape[1]).flip(0).expand(len(gray64), -1)

    def preview(self, gray64):
        return gray64.expand(-1, 3, -1, -1)


class StandIn1(CoarseOnly):
    def sample_chroma(self, gray64, num_samples, generator, num_inference_steps=None, temperature=1.0):
        return temperature * tints(gray64, num_samples, generator)


class StandIn2(StandIn1):
    stage = 2

    def sample(self, gray64, coarse64):
        return merge(gray64, chroma_from_rgb(rgb_from_coarse(coarse64)))


class StandIn3(StandIn1):
    stage = 3

    def sample(self, gray256, rgb64, generator, num_inference_steps=None):
        assert len(generator) == len(gray256)
        gray64 = resize(gray256, (64, 64))
        return merge(gray256, enlarge_chroma(chroma_from_rgb(rgb64), gray64, gray256))


class StandInPipeline:
    """Paints photo by photo with one tint per (seed, candidate); the last candidate drawn comes first."""

    stages = {"stage1": StandIn1(), "stage2": StandIn2(), "stage3": StandIn3()}
    sharpness = 0.25

    @classmethod
    def from_pretrained(cls, folder=None):
        return cls()

    def __call__(
        self, gray, num_samples=1, generator=None, preview=False, pool=None, output_type="pil", num_inference_steps=0
    ):
        assert output_type == "np" and len(generator) == len(gray)
        images, info = [], []
        for photo, seed in zip(gray, generator, strict=True):
            assert photo.ndim == 2 and photo.dtype == np.uint8
            for candidate in reversed(range(num_samples)):
                tint = np.array([0, 0, 0] if preview else [seed, num_inference_steps, 10 * candidate])
                images.append(np.clip(photo[..., None].astype(int) + tint, 0, 255).astype(np.uint8))
                info.append(SimpleNamespace(candidate=None if preview else candidate))
        return SimpleNamespace(images=images, info=info)


def random_picture(side: int, seed: int) -> Image.Image:
    """Smooth random colors, as photographs rather are than noise is."""
    values = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((side, side), Image.Resampling.BICUBIC)


def encoded(side: int, seed: int) -> bytes:
    buffer = BytesIO()
    random_picture(side, seed).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data folder: photos64 and photos256 of a few pictures, and a feature network with random weights."""
    import pyarrow
    import pyarrow.parquet

    folder = tmp_path_factory.mktemp("data")
    for name, side in (("photos64", 64), ("photos256", 256)):
        (folder / name).mkdir()
        rows = [{"image": {"bytes": encoded(side, seed), "path": None}} for seed in range(PHOTOS[name])]
        table = pyarrow.Table.from_pylist(rows)
        pyarrow.parquet.write_table(table, folder / name / "validation-00000-of-00001.parquet")
    (folder / "features").mkdir()
    torch.manual_seed(0)
    save_file(SqueezeNetFeatures().state_dict(), folder / "features" / "squeezenet1_1.safetensors")
    return folder


@pytest.fixture(autouse=True)
def light_features(monkeypatch):
    """512 random mixtures of an 8x8 reduction: the scripts are tested here, the network in test_metrics."""
    mixture = torch.randn(192, 512, generator=torch.Generator().manual_seed(0))

    def forward(self, pictures):
        return F.adaptive_avg_pool2d(pictures.float(), 8).flatten(1) @ mixture

    monkeypatch.setattr(SqueezeNetFeatures, "forward", forward)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """Folders that look like saved stages; loading them gives the stand-ins."""
    stand_ins = {"stage1": StandIn1, "stage2": StandIn2, "stage3": StandIn3}
    for number, (name, stage) in enumerate(stand_ins.items(), start=1):
        (tmp_path / "weights" / name).mkdir(parents=True)
        config = {"format": 1, "stage": number, "kind": stage.kind, "config": {}, "trained": {"ema": True}}
        (tmp_path / "weights" / name / "config.json").write_text(json.dumps(config))
        save_file({"x": torch.tensor([float(number)])}, tmp_path / "weights" / name / "model.safetensors")
    for script in (evaluate_stage1, evaluate_stage2, evaluate_stage3):
        monkeypatch.setattr(script, "load_stage", lambda folder: stand_ins[folder.name]())
    monkeypatch.setattr(evaluate_pipeline, "ColorPipeline", StandInPipeline)
    monkeypatch.setattr(command, "DEFAULT_WEIGHTS", tmp_path / "weights")
    return tmp_path / "weights"


def scores(script, data, out, *options):
    assert script.main(["--data", str(data), "--out", str(out), "--sheet-photos", "2", *options]) == 0
    return json.loads((out / "results.json").read_text(), parse_constant=lambda name: pytest.fail(name))


def by_name(results):
    return {row["name"]: row for row in results["rows"]}


def check_complete(results, data, name, stages):
    """Every number with what is needed to get it again."""
    row = data / name / "validation-00000-of-00001.parquet"
    assert row.is_file()
    side = int(name.removeprefix("photos"))
    digests = b"".join(hashlib.sha256(encoded(side, seed)).digest() for seed in range(PHOTOS[name]))
    expected = hashlib.sha256(digests).hexdigest()
    assert results["photos"] == {"name": f"{name}/validation", "count": PHOTOS[name], "sha256": expected}
    assert results["command"].startswith("python ") and results["seed"] == 0
    assert set(results["git"]) == {"commit", "dirty"} and results["date"] and results["threads"] >= 1
    assert {"python", "trichrome", "torch", "numpy", "pillow", "datasets"} <= set(results["versions"])
    assert results["half_splits"]["splits"] == 20 and len(results["features"]["sha256"]) == 64
    assert set(results["weights"]) == stages
    assert results["steps"] == {stage: 7 for stage in stages}
    assert results["sampler"] == {stage: "none" for stage in stages}
    for entry in results["weights"].values():
        assert len(entry["sha256"]) == 64 and entry["ema"] is True and entry["kind"] == "stand-in"
    rows = [row["name"] for row in results["rows"]]
    assert rows[:3] == [ORIGINALS, GRAY, PREVIEW]
    for row in results["rows"]:
        assert {"ciede2000", "squeezenet_distance"} <= set(row)
        if "candidates" not in row:
            assert {"psnr", "colorfulness_ratio", "squeezenet_kid", "squeezenet_kid_95"} <= set(row)


# The scripts


def test_stage1(data, weights, tmp_path, capsys):
    results = scores(evaluate_stage1, data, tmp_path / "out", "--best-photos", "4")
    check_complete(results, data, "photos64", {"stage1"})
    rows = by_name(results)
    originals, gray, preview = (
        rows[name] for name in (ORIGINALS, GRAY, PREVIEW)
    )
    assert originals["ciede2000"] == 0 and originals["psnr"] is None and originals["colorfulness_ratio"] == 1
    assert gray["ciede2000"] > 5 and preview["ciede2000"] == pytest.approx(gray["ciede2000"], abs=0.2)
    assert rows["best of 8, continuous"]["photos"] == 4 and rows["best of 8, continuous"]["diversity"] > 0
    assert rows["default output, continuous"]["squeezenet_kid_minus_preview"]["interval_95"]
    # The stand-in puts the last of the pool of 3 first; candidate 0 is the plain sample.
    assert (
        rows["default output, continuous"]["ciede2000"] != rows["one plain sample, continuous"]["ciede2000"]
    )
    best = rows["best of 8, coarse (3 bit)"]
    photos = load_photos(data, "photos64", "validation")
    gray_of_4 = rows["best of 8, coarse (3 bit)"]["ciede2000"] / best["relative_to_gray"]["ciede2000"]

    assert gray_of_4 == pytest.approx(
        float(pixel.ciede2000(photos.plain_gray(), photos.pictures)[:4].mean())
    )
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:  # 3 + 2 defaults + 3 candidates, 2 photographs
        assert sheet.size == (8 * 132, 22 + 2 * 132)
    printed = capsys.readouterr().out
    assert "default output, continuous" in printed and "CIEDE2000" in printed


def test_scores_do_not_depend_on_batches_or_on_other_photographs(data, weights, tmp_path, monkeypatch):
    once = scores(evaluate_stage1, data, tmp_path / "a")
    monkeypatch.setattr(evaluate_stage1, "BATCH", 4)
    again = scores(evaluate_stage1, data, tmp_path / "b", "--best-photos", "4")
    for name in ("one plain sample, continuous", "default output, coarse (3 bit)"):
        assert by_name(once)[name] == by_name(again)[name]
    reseeded = scores(evaluate_stage1, data, tmp_path / "c", "--seed", "1")
    name = "one plain sample, continuous"
    assert by_name(once)[name] != by_name(reseeded)[name]


def test_stage1_without_continuous_chroma(data, weights, tmp_path, monkeypatch):
    with_chroma = by_name(scores(evaluate_stage1, data, tmp_path / "a"))
    monkeypatch.setattr(evaluate_stage1, "load_stage", lambda folder: CoarseOnly())
    results = scores(evaluate_stage1, data, tmp_path / "b")
    assert not any("continuous" in name for name in by_name(results))
    assert any("3-bit rows only" in note for note in results["notes"])
    for name, row in by_name(results).items():  # both ways to the same coarse colors
        assert row == with_chroma[name]


@pytest.mark.parametrize("kind, unit", [("coltran", "symbol"), ("pic", "dimension")])
def test_stage1_of_kinds_that_know_likelihoods(kind, unit, data, tmp_path):
    """No stand-in: from a saved stage to the table, by the code that scores every kind."""
    torch.manual_seed(0)
    config = Config.read(f"configs/tiny/stage1_{kind}.toml")
    stage = kind_of(1, kind)[1](config.network).eval()
    stage.save_pretrained(tmp_path / "stage")
    options = ("--weights", str(tmp_path / "stage"), "--best-photos", "2", "--candidates", "2")
    results = scores(evaluate_stage1, data, tmp_path / "out", *options)
    photos = load_photos(data, "photos64", "validation")
    assert results[f"bits_per_{unit}"] == pytest.approx(stage.bits(photos.rgb()).mean().item(), rel=1e-4)
    assert results["weights"]["stage1"]["kind"] == kind
    rows = by_name(results)
    assert rows["best of 2, coarse (3 bit)"]["diversity"] > 0 and PREVIEW in rows


def test_stage1_on_larger_photographs(data, weights, tmp_path, monkeypatch):
    seen: list[torch.Tensor] = []

    class Sharp(StandIn1):
        gray_side = 128

        def preview(self, gray64, sharp):
            seen.append(sharp)
            return super().preview(gray64)

        def sample_chroma(self, *args, sharp, **options):
            seen.append(sharp)
            return super().sample_chroma(*args, **options)

    monkeypatch.setattr(evaluate_stage1, "load_stage", lambda folder: Sharp())
    results = scores(evaluate_stage1, data, tmp_path / "all", "--set", "photos256")
    check_complete(results, data, "photos256", {"stage1"})
    large = load_photos(data, "photos256", "validation")
    expected = resize(gray_from_rgb(large.rgb()), (128, 128))
    for sharp in seen:
        torch.testing.assert_close(sharp, expected[: len(sharp)], rtol=0, atol=1e-6)
    small = resize(large.rgb(), (64, 64))
    gray = picture_from_rgb(gray_from_rgb(small).expand(-1, 3, -1, -1))
    preview = by_name(results)[PREVIEW]
    assert preview["ciede2000"] == pytest.approx(float(pixel.ciede2000(gray, picture_from_rgb(small)).mean()), abs=0.05)

    seen.clear()
    only = scores(evaluate_stage1, data, tmp_path / "preview", "--set", "photos256", "--preview-only")
    assert [row["name"] for row in only["rows"]] == [ORIGINALS, GRAY, PREVIEW]
    assert by_name(only)[PREVIEW] == preview and len(seen) == 1


def test_stage1_after_stage2(data, weights, tmp_path):
    results = scores(evaluate_stage1, data, tmp_path / "out", "--stage2", str(tmp_path / "weights" / "stage2"))
    check_complete(results, data, "photos64", {"stage1", "stage2"})
    rows = by_name(results)
    for name in ("default output", "one plain sample", "best of 8"):  # the stand-in's stage 2 writes bin centers
        ours, coarse = rows[f"{name}, after stage 2"], rows[f"{name}, coarse (3 bit)"]
        assert {**ours, "name": ""} == {**coarse, "name": ""} != {**rows[f"{name}, continuous"], "name": ""}
    assert results["seconds_per_candidate"] > 0


def test_stage2(data, weights, tmp_path):
    results = scores(evaluate_stage2, data, tmp_path / "out")
    check_complete(results, data, "photos64", {"stage1", "stage2"})
    rows = by_name(results)
    for name in ("true coarse", "disturbed coarse"):  # the stand-in is the bin centers
        assert rows[f"stage 2, {name}"]["ciede2000"] == rows[f"bin centers, {name}"]["ciede2000"]
    assert rows["stage 2, true coarse"]["ciede2000"] < rows["stage 2, disturbed coarse"]["ciede2000"]


def test_stage3(data, weights, tmp_path):
    results = scores(evaluate_stage3, data, tmp_path / "out", "--stage1", str(weights / "stage1"))
    check_complete(results, data, "photos256", {"stage1", "stage2", "stage3"})
    rows = by_name(results)
    for name in ("true", "sampled"):  # the stand-in is the luma-guided enlargement
        guided, stage3 = rows[f"luma-guided, {name} rgb64"], rows[f"stage 3, {name} rgb64"]
        assert guided["ciede2000"] == stage3["ciede2000"] and f"bicubic, {name} rgb64" in rows
    assert rows["bicubic, true rgb64"]["ciede2000"] < 3 < rows["bicubic, sampled rgb64"]["ciede2000"]


def test_stage3_in_other_numbers_of_steps(data, weights, tmp_path, monkeypatch):
    torch.manual_seed(0)
    network = Config.read("configs/tiny/stage3.toml").network
    stage = kind_of(3, "diffusion")[1](dataclasses.replace(network, residual_spread=0.3))  # to be seen in 8 bits
    for weight in stage.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    stage.save_pretrained(tmp_path / "stage3")
    others = evaluate_stage3.load_stage
    monkeypatch.setattr(evaluate_stage3, "load_stage",
                        lambda folder: load_stage(folder) if folder == tmp_path / "stage3" else others(folder))
    for wrong in (["--sharpness", "-1"], ["--sharpness", "3"]):
        assert evaluate_stage3.main(["--data", str(data), "--out", str(tmp_path / "no"), *wrong]) == 2
    assert evaluate_stage3.main(["--data", str(data), "--out", str(tmp_path / "no"), "--more-steps", "2"]) == 2  # none
    options = ["--weights", str(tmp_path / "stage3"), "--more-steps", "5", "2", "--steps", "2"]
    rows = by_name(scores(evaluate_stage3, data, tmp_path / "out", *options))
    for name in ("true", "sampled"):
        two, same, most = (rows[f"stage 3{way}, {name} rgb64"] for way in ("", " in 2 steps", " in 5 steps"))
        key = "squeezenet_kid_minus_most_steps"
        assert {**two, "name": ""} == {**same, "name": ""} and two["ciede2000"] != most["ciede2000"]
        assert most[key]["value"] == 0
        assert two[key]["value"] == pytest.approx(two["squeezenet_kid"] - most["squeezenet_kid"], abs=1e-6)
        assert f"stage 3, sharpened, {name} rgb64" not in rows
    seen: list[float] = []
    monkeypatch.setattr(evaluate_stage3, "sharpened",
                        lambda gray, rgb, sharpness: seen.append(sharpness) or sharpened(gray, rgb, sharpness))
    sharper = by_name(scores(evaluate_stage3, data, tmp_path / "out", *options, "--sharpness", "0.7"))
    assert set(seen) == {0, 0.7}
    for name in ("true", "sampled"):
        row, plain = (sharper[f"stage 3{form}, {name} rgb64"] for form in (", sharpened", ""))
        assert plain["ciede2000"] == rows[f"stage 3, {name} rgb64"]["ciede2000"] != row["ciede2000"]
        assert row["colorfulness_ratio"] > plain["colorfulness_ratio"]
        for what in ("", ", sharpened"):
            most = sharper[f"stage 3 in 5 steps{what}, {name} rgb64"]
            more = row[f"squeezenet_kid_minus_most_steps{what.replace(', ', '_')}"]["value"]
            assert more == pytest.approx(row["squeezenet_kid"] - most["squeezenet_kid"], abs=1e-6)


def test_missing_stage1_is_said(data, weights, tmp_path):
    (weights / "stage1" / "config.json").unlink()
    results = scores(evaluate_stage2, data, tmp_path / "out")
    assert PREVIEW not in by_name(results) and "--stage1" in results["notes"][0]
    assert evaluate_stage1.main(["--data", str(data), "--out", str(tmp_path / "out")]) == 2


def test_pipeline(data, weights, tmp_path):
    results = scores(evaluate_pipeline, data, tmp_path / "out", "--candidates", "3", "--best-photos", "3")
    check_complete(results, data, "photos256", {"stage1", "stage2", "stage3"})
    assert results["sharpness"] == 0.25
    rows = by_name(results)
    assert rows["best of 3"]["photos"] == 3 and rows["best of 3, chosen"]["diversity"] > 0
    assert rows[PREVIEW]["luma_error_max"] < 0.01
    assert rows["default output"]["luma_error_max"] == pytest.approx(3 * 0.299)  # the seed, added to red


def test_candidates_in_more_steps_are_compared_photo_by_photo(data, tmp_path):
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


def test_pipeline_candidates_come_in_drawing_order():
    gray = [torch.zeros(1, 8, 8, dtype=torch.uint8) for _ in range(5)]
    made = evaluate_pipeline.colorize(StandInPipeline(), gray, 20, name="test", num_samples=3)
    tints = [[picture[:, 0, 0].tolist() for picture in candidates] for candidates in made]
    assert tints == [[[20 + i, 0, 10 * k] for k in range(3)] for i in range(5)]


# Anybody's outputs


@pytest.fixture
def folders(tmp_path):
    """Originals of two sizes, and the same pictures as outputs under another suffix."""
    originals, outputs = tmp_path / "originals", tmp_path / "outputs"
    originals.mkdir(), outputs.mkdir()
    for seed in range(5):
        picture = random_picture(40 + 10 * (seed % 2), seed)
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


def spoil_missing(originals, outputs):
    (outputs / "photo3.webp").unlink()


def spoil_extra(originals, outputs):
    random_picture(40, 0).save(outputs / "other.png")


def spoil_size(originals, outputs):
    random_picture(44, 2).save(outputs / "photo2.webp")


def spoil_twin(originals, outputs):
    random_picture(40, 2).save(outputs / "photo2.png")


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
    both = ["--outputs", str(tmp_path), "--originals", str(tmp_path)]
    assert evaluate_pipeline.main([*both, "--more-steps", "9"]) == 2
    assert "belong together" in capsys.readouterr().err


# Loading


def test_photographs_keep_their_order_and_pixels(data):
    photos = load_photos(data, "photos64", "validation", 4)
    assert photos.pictures.shape == (4, 3, 64, 64) and photos.pictures.dtype == torch.uint8
    for seed, picture in enumerate(photos.pictures):
        assert np.array_equal(picture.permute(1, 2, 0).numpy(), np.asarray(random_picture(64, seed)))
    assert photos.sha256 != load_photos(data, "photos64", "validation", 3).sha256
    assert photos.first(3).sha256 == load_photos(data, "photos64", "validation", 3).sha256


def test_what_is_missing_is_said(data, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("TRICHROME_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert evaluate_stage2.main([]) == 2 and "TRICHROME_DATA" in capsys.readouterr().err
    with pytest.raises(EvaluationError, match="no test-"):
        load_photos(data, "photos64", "test")
    with pytest.raises(EvaluationError, match="has 6 photographs, 7 were asked for"):
        load_photos(data, "photos64", "validation", 7)


def test_generators_belong_to_photograph_and_candidate():
    def draws(photos, candidates, seed=5, **settings):
        made = generators(seed, photos, candidates, **settings)
        return torch.stack([torch.randn(4, generator=one) for one in made]).unflatten(0, (-1, candidates))

    many = draws(range(4), 3)
    assert torch.equal(draws(range(2, 4), 2), many[2:, :2])
    assert torch.equal(draws(range(1), 3, seed=7), many[2:3])
    assert len({tuple(row.tolist()) for row in many.flatten(0, 1)}) == 12
    assert not torch.equal(draws(range(4), 3, purpose="stage 3"), many)


# Choices and luma


@pytest.fixture
def held_out(data, tmp_path, monkeypatch):
    """The data folder with a training split, the last four of its six pictures held out."""
    folder = tmp_path / "with-train"
    shutil.copytree(data, folder)
    shard = folder / "photos64" / "validation-00000-of-00001.parquet"
    shard.rename(folder / "photos64" / "train-00000-of-00001.parquet")
    monkeypatch.setattr(photos_module, "HELD_OUT_COUNTS", {"photos64": 4})
    return folder


def test_held_out_photographs_are_the_last_ones_of_the_training_split(held_out):
    photos = load_photos(held_out, "photos64", "held-out")
    assert photos.name == "photos64/held-out"
    assert photos.digests == [hashlib.sha256(encoded(64, seed)).digest() for seed in range(2, 6)]
    assert load_photos(held_out, "photos64", "held-out", 3).digests == photos.digests[:3]
    with pytest.raises(EvaluationError, match="no train-"):
        load_photos(held_out, "photos256", "held-out")
    with pytest.raises(EvaluationError, match="4 photographs, 5 were asked for"):
        load_photos(held_out, "photos64", "held-out", 5)


def test_as_many_are_held_out_as_the_configs_say():
    configs = list((ROOT / "configs").glob("stage*.toml"))
    assert configs
    for path in configs:
        data = Config.read(path).data
        assert HELD_OUT_COUNTS[data.name] == data.holdout


def test_choosing_a_candidate(held_out, weights, tmp_path):
    asked = ["--temperatures", "0.5", "1", "--chroma_gain", "1.5", "--pools", "1", "3", "--candidates", "2",
             "--evened", "0", "1"]  # fmt: skip
    results = scores(choose_candidate, held_out, tmp_path / "out", *asked, "--best-photos", "3")
    assert results["photos"]["name"] == "photos64/held-out" and results["photos"]["count"] == 4
    names = [row["name"] for row in results["rows"][3:]]
    assert len(names) == 12 and names[2:6] == [
        f"{head}temperature 0.5, chroma_gain 1.5, central of 3, exponent {evened}"
        for evened in (0.0, 1.0) for head in ("", "best of 2, ")]  # fmt: skip
    assert names[6] == "temperature 1.0, chroma_gain 1.5, one sample"
    # rows again, by hand
    photos = load_photos(held_out, "photos64", "held-out")
    gray64 = gray_from_rgb(photos.rgb())
    for row, pool, temperature, evened in ((-2, 3, 1.0, 1), (-4, 3, 1.0, 0), (-6, 1, 1.0, 0), (-8, 3, 0.5, 1)):
        drawn = 1.5 * temperature * tints(gray64, 6, generators(0, range(4), 6))
        order = spread_order(gray64, coarse_from_rgb(merge(gray64[:, None], drawn)), pool, evened)
        order = torch.arange(6).expand(4, -1) if pool == 1 else order
        pictures = picture_from_rgb(merge(gray64[:, None], drawn))[torch.arange(4)[:, None], order[:, :2]]
        first = pixel.ciede2000(pictures[:, 0], photos.pictures)
        assert results["rows"][row]["ciede2000"] == pytest.approx(float(first.mean()))
        both = torch.stack([first, pixel.ciede2000(pictures[:, 1], photos.pictures)])
        assert results["rows"][row + 1]["ciede2000"] == pytest.approx(float(both.min(0).values[:3].mean()))
        of = SqueezeNetFeatures.from_file(held_out / "features" / "squeezenet1_1.safetensors").of
        deviation = of(photos.pictures).double().std(0)
        one, other = (of(pictures[:3, k].contiguous()).double() for k in (0, 1))
        steps = torch.where(deviation > 0, (one - other) / deviation, 0).norm(dim=1)
        assert results["rows"][row + 1]["diversity"] == pytest.approx(float(steps.mean()), rel=1e-4)


def test_steps(data, tmp_path, monkeypatch):
    """A real, small stage 1: how often its denoiser is asked is counted, not believed."""
    torch.manual_seed(0)
    stage = kind_of(1, "diffusion")[1](Config.read("configs/tiny/stage1.toml").network).eval()
    monkeypatch.setattr(evaluate_steps, "opened", lambda args, side: opened_with(stage, args))

    def opened_with(stage, args):
        photos = load_photos(data, "photos64", "validation")
        return photos, Report(args, photos), stage

    options = ("--reference", "6", "--evaluations", "2", "3", "4", "6", "--samplers", "dpmpp_2m", "heun", "spectral")
    results = scores(evaluate_steps, data, tmp_path / "out", *options)
    rows = results["rows"][2:]
    assert [(row["sampler"], row["evaluations"]) for row in rows] == [
        ("dpmpp_2m", 6), ("dpmpp_2m", 2), ("dpmpp_2m", 3), ("dpmpp_2m", 4), ("heun", 1), ("heun", 3), ("heun", 5),
        ("spectral", 2), ("spectral", 3), ("spectral", 4), ("spectral", 6),
    ]  # fmt: skip
    assert all(row["seconds_per_draw"] > 0 for row in rows) and "squeezenet_kid_minus_reference" not in rows[0]
    more = rows[1]["squeezenet_kid_minus_reference"]["value"]
    assert more == pytest.approx(rows[1]["squeezenet_kid"] - rows[0]["squeezenet_kid"], abs=1e-6)
    assert evaluate_steps.main(["--data", str(data), "--steps", "3", "--out", str(tmp_path / "no")]) == 2
    stage = kind_of(1, "diffusion")[1](dataclasses.replace(stage.config, sampler="spectral", steps=3, tuned=3)).eval()
    torch.nn.init.normal_(stage.network.write.weight, std=0.1)
    stage.tuned.gains.fill_(0.5)
    options = ("--reference", "3", "--evaluations", "2", "3", "--samplers", "spectral")
    other = kind_of(1, "diffusion")[1](dataclasses.replace(stage.config, steps=2, tuned=2)).eval()
    more = ["--tuned", str(tmp_path / "two")]
    for weights, status in ((other.state_dict(), 2), (stage.state_dict() | other.tuned.state_dict(prefix="tuned."), 0)):
        weights["tuned.gains"] = torch.full_like(weights["tuned.gains"], 0.7)
        other.load_state_dict(weights)
        other.save_pretrained(tmp_path / "two", dtype=torch.float16)
        arguments = ["--data", str(data), "--out", str(tmp_path / "out"), *options, *more]
        assert evaluate_steps.main(arguments) == status
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"][2:]
    assert [(row["evaluations"], row["tuned"]) for row in rows] == [(3, False), (2, False), (2, True), (3, True)]
    assert len({row["ciede2000"] for row in rows}) == 4, [(row["name"], row["ciede2000"]) for row in rows]
    assert json.loads((tmp_path / "out" / "results.json").read_text())["tuned"] == {
        more[1]: sha256_of(tmp_path / "two" / "model.safetensors")}  # fmt: skip
    smaller = dataclasses.replace(stage.config, steps=4, tuned=4, encoder_channels=(32, 32))
    untuned, copy = dataclasses.replace(stage.config, tuned=0), stage.config
    for config in (untuned, copy, smaller):
        kind_of(1, "diffusion")[1](config).save_pretrained(tmp_path / "other")
        assert evaluate_steps.main([*arguments[:-1], str(tmp_path / "other")]) == 2


def test_uncertainty(data, weights, tmp_path, monkeypatch):
    pipe = standin_pipeline()

    def load(args, report):
        report.record["sharpness"] = pipe.sharpness
        return pipe

    monkeypatch.setattr(evaluate_uncertainty, "load_pipeline", load)
    assert evaluate_uncertainty.main(["--data", str(data), "--photos", "1", "--out", str(tmp_path / "no")]) == 2
    results = scores(evaluate_uncertainty, data, tmp_path / "out", "--samples", "3", "--seed", "5")
    rows = {(row["errors_of"], row["name"]): row for row in results["rows"]}
    assert results["photos"]["name"] == "photos256/validation" and results["samples"] == 3
    names = ("uncertainty map", "saturation", "saturation of the preview", "contrast of gray", "gray")
    assert set(rows) == {*((judged, name) for judged in ("mean sample", "default output") for name in names),
                         ("mean sample", "spread of 3 samples")}  # fmt: skip
    found: dict[tuple, list] = {}
    for i, rgb in enumerate(load_photos(data, "photos256", "validation").rgb()):
        gray, settings = gray_from_rgb(rgb), {"generator": 5 + i, "output_type": "pt"}
        samples = torch.stack(pipe(gray, 3, pool=1, **settings).images)
        mean = merge(gray, chroma_from_rgb(samples).mean(0))
        default = pipe(gray, uncertainty=True, **settings)
        ab = lab_from_rgb(samples)[:, 1:].numpy()
        ((of_mean,),) = pipe.uncertainty_maps([photo_from(gray)], [5 + i], [mean[None]])
        for key, one in {
            ("mean sample", "uncertainty map"): of_mean, ("mean sample", "spread of 3 samples"): np.sqrt(ab.var(0).sum(0)),
            ("mean sample", "error"): ciede2000(lab_from_rgb(mean), lab_from_rgb(rgb)),
            ("mean sample", "gray"): gray, ("default output", "uncertainty map"): default.uncertainty[0],
            ("default output", "saturation"): np.hypot(*lab_from_rgb(default.images[0])[1:].numpy()),
            ("default output", "error"): ciede2000(
                lab_from_rgb(default.images[0]), lab_from_rgb(rgb)),
        }.items():  # fmt: skip
            found.setdefault(key, []).append(np.asarray(one).flatten())
    for key in found:
        if key[1] == "error":
            continue
        errors = found[key[0], "error"]
        within = [scipy.stats.spearmanr(*pair).statistic for pair in zip(found[key], errors, strict=True)]
        whole = scipy.stats.spearmanr(np.concatenate(found[key]), np.concatenate(errors)).statistic
        assert rows[key]["spearman_within"] == pytest.approx(np.mean(within), abs=1e-3)
        assert rows[key]["spearman"] == pytest.approx(whole, abs=1e-3)
    assert np.allclose(
        evaluate_uncertainty.contrast(torch.ones(1, 20, 30)).numpy(), 0
    ) and evaluate_uncertainty.contrast(torch.eye(20)[None])[10, 10] == pytest.approx(np.std(np.eye(9)), rel=1e-4)


def test_tuning_brings_few_steps_nearer_to_many(held_out, tmp_path, monkeypatch):
    torch.manual_seed(0)
    config = Config.read("configs/tiny/stage1.toml").network
    stage = kind_of(1, "diffusion")[1](config)
    for weights in stage.denoiser.parameters():
        weights.data += 0.05 * torch.randn_like(weights)
    stage.save_pretrained(tmp_path / "stage1")
    monkeypatch.setattr(tune_steps, "BATCH", 2)
    options = ["--photos", "4", "--passes", "8", "--reference", "12", "--weights", str(tmp_path / "stage1"),
               "--tuned", str(tmp_path / "tuned"), "--levels", "40", "2", "0.3"]  # fmt: skip
    results = scores(tune_steps, held_out, tmp_path / "out", *options)
    before, after = results["rows"]
    assert after["relative_error"] < before["relative_error"] and results["learned_from"] == 3
    assert len(results["loss_by_pass"]) == 8 and results["loss_by_pass"][-1] < results["loss_by_pass"][0]
    assert results["tuned"]["sha256"] == sha256_of(tmp_path / "tuned" / "model.safetensors")
    tuned = load_stage(tmp_path / "tuned")
    assert (tuned.config.sampler, tuned.config.steps, tuned.config.tuned) == ("spectral", 3, 3)
    assert tuned.tuned.levels.tolist() == pytest.approx([40, 2, 0.3])
    assert all((value != 0).any() for value in (tuned.tuned.gains - 1, tuned.tuned.modulation))
    kept = stage.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in tuned.state_dict().items() if name in kept)
    arguments = ["--data", str(held_out), "--out", str(tmp_path / "no")]
    again = [*options, "--weights", str(tmp_path / "tuned"), "--tuned", str(tmp_path / "again")]
    assert scores(tune_steps, held_out, tmp_path / "out", *again)["rows"] == results["rows"]  # from the beginning
    own = ["--tuned", str(tmp_path / "stage1")]
    for wrong in (["--steps", "3"], ["--photos", "2"], ["--levels", "1", "2"], own,
                  ["--levels", "1e20", "1", "--tuned", str(tmp_path / "no")]):  # fmt: skip
        assert tune_steps.main([*arguments, *options, *wrong]) == 2
    assert not (tmp_path / "no").exists()
    other = kind_of(1, "coltran")[1](Config.read("configs/tiny/stage1_coltran.toml").network)
    other.save_pretrained(tmp_path / "other")
    assert tune_steps.main([*arguments, "--photos", "4", "--weights", str(tmp_path / "other")]) == 2

    # Where it would go is looked at before the work.
    monkeypatch.setattr(tune_steps, "Draws", None)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").write_text("kept")
    shutil.copytree(tmp_path / "stage1", tmp_path / "copy")
    for taken in ("run", "copy", "other"):
        assert tune_steps.main([*arguments, *options, "--tuned", str(tmp_path / taken)]) == 2
    with pytest.raises(TypeError):  # that `Draws` is none: an earlier tuning may be replaced
        tune_steps.main([*arguments, *options])
    (tmp_path / "model_index.json").write_text("{}")
    assert tune_steps.main([*arguments, "--photos", "4", "--weights", str(tmp_path / "stage1")]) == 2
    assert tune_steps.is_free(tmp_path / "new") and tune_steps.is_free(tmp_path / "again")


def test_choosing_on_photographs_of_another_size(data, weights, tmp_path, monkeypatch):
    seen: list[torch.Size] = []

    class Sharp(StandIn1):
        gray_side = 128

        def sample_chroma(self, *args, sharp, temperature):
            seen.append(sharp.shape)
            return super().sample_chroma(*args, temperature=temperature)

        def preview(self, gray64, sharp):
            return super().preview(gray64)

    monkeypatch.setattr(evaluate_stage1, "load_stage", lambda folder: Sharp())
    results = scores(choose_candidate, data, tmp_path / "out", "--set", "photos256", "--split", "validation",
                     "--temperatures", "1")
    assert results["photos"]["name"] == "photos256/validation"
    assert {shape[1:] for shape in seen} == {(1, 128, 128)} and sum(shape[0] for shape in seen) == PHOTOS["photos256"]
    monkeypatch.setattr(evaluate_stage1, "load_stage", lambda folder: CoarseOnly())
    options = ["--data", str(data), "--out", str(tmp_path / "out"), "--split", "validation"]
    assert choose_candidate.main(options) == 2


def test_luma_of_the_files(data, tmp_path, monkeypatch, capsys):
    from tests.standins import known_standins, standin_pipeline

    known_standins(monkeypatch)
    folder = tmp_path / "pipeline"
    standin_pipeline().save_pretrained(folder)
    (tmp_path / "own" / "deeper").mkdir(parents=True)
    for number, name in enumerate(("own.tiff", "own.jpg", "deeper/own.PNG")):
        random_picture(40 + number, number).save(tmp_path / "own" / name)
    options = ["--data", str(data), "--photos", "2", "--samples", str(tmp_path / "own"),
               "--json", str(tmp_path / "luma.json"), "--", "--weights", str(folder)]  # fmt: skip
    assert evaluate_luma.main(options) == 0
    record = json.loads((tmp_path / "luma.json").read_text())
    rows = record["rows"]
    assert record["photos_sha256"]["photos64"] == load_photos(data, "photos64", "validation", 2).sha256
    assert record["weights"] == json.loads((folder / "model_index.json").read_text())
    assert [(row["set"], row["format"], row["bits"], row["files"]) for row in rows] == [
        *((name, kind, bits, 2) for name in ("photos64", "photos256") for kind in ("png", "tiff") for bits in (8, 16)),
        ("samples", "png", 8, 3), ("samples", "tiff", 8, 3),
    ]  # fmt: skip
    assert all(0 < row["worst"] <= 0.501 for row in rows)

    real = evaluate_luma.load_photo

    def brighter(path):  # one output pixel is two levels off
        photo = real(path)
        if "-out" in str(path):
            photo.gray[0, 0] += 2 / 255
        return photo

    monkeypatch.setattr(evaluate_luma, "load_photo", brighter)
    assert evaluate_luma.main(options) == 1
    assert "NOT KEPT" in capsys.readouterr().out


def test_what_can_not_be_scored_is_said_before_the_work(data, tmp_path, capsys):
    for module in (evaluate_stage1, evaluate_pipeline):
        for wrong in ("--best-photos=0", "--candidates=1"):
            with pytest.raises(SystemExit):
                module.parser().parse_args([wrong])
            assert "must be at least" in capsys.readouterr().err
    folder = tmp_path / "stage2"
    folder.mkdir()
    description = {"format": 1, "stage": 2, "kind": "coltran", "config": {}}
    (folder / "config.json").write_text(json.dumps(description))
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(EvaluationError, match="holds weights of stage 2; expected stage 1"):
        stage_weights(folder, 1)
    pixels = np.full((8, 8, 3), 4660, np.uint16)
    for deep in (tmp_path / "deep.png", tmp_path / "deep.tif"):
        save_photo(deep, pixels, load_photo(pixels))
        with pytest.raises(EvaluationError, match="more than 8 bits"):
            _picture(deep, deep.name)
