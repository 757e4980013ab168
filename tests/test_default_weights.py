"""The weights that ship: their size, their form on disk, and what they were tuned for."""

from __future__ import annotations

import json
import shutil

import numpy as np
import torch
from photos import luma, photo, same, view

from pipeline import ColorPipeline
from pipeline.folder import DEFAULT_WEIGHTS
from stages.checkpoint import sha256_of
from stages.diffusion import draw_noise, sample_exponential
from stages.diffusion.wiener import WienerDenoiser
from stages.stage1_coarse.diffusion import DiffusionColorizer


def test_the_default_weights(tmp_path):
    """They fit into 40 MB, color, keep the luma, and give the same bytes alone, in a batch, and saved again."""
    assert sum(path.stat().st_size for path in DEFAULT_WEIGHTS.rglob("*.safetensors")) <= 40e6
    gray, other = photo(300, 200), photo(90, 130)
    pipe = ColorPipeline.from_pretrained()
    alone = pipe(gray, generator=3).images[0]
    assert np.ptp(np.asarray(alone), 2).max() > 5
    stage1 = pipe.coarse
    assert isinstance(stage1, DiffusionColorizer) and stage1.tuned is not None
    assert stage1.config.tuned == stage1.config.steps and (stage1.tuned.gains != 1).any(), "its few steps are tuned"
    assert np.abs(luma(np.asarray(alone)) - gray).max() <= 0.5
    assert same(pipe([other, gray], generator=[5, 3]).images[1:], [alone])
    pipe.save_pretrained(tmp_path / "again")
    assert same(ColorPipeline.from_pretrained(tmp_path / "again")(gray, generator=3).images, [alone])


def test_the_tuned_steps_of_the_default_weights_end_near_many():
    """They were learned for these weights: draws end nearer to those of 50 steps than by the same levels untuned."""
    stage1 = ColorPipeline.from_pretrained().coarse
    assert isinstance(stage1, DiffusionColorizer) and isinstance(stage1.denoiser, WienerDenoiser)
    assert stage1.tuned is not None
    encoding = stage1.encode(view(photo(128, 128)))
    noise = draw_noise((4, 2, 32, 32), torch.Generator().manual_seed(0))
    with torch.no_grad():
        many, tuned, untuned = (
            sample_exponential(stage1.denoiser, noise, sigmas, context=[m.expand(4, -1, -1, -1) for m in encoding.maps])
            for sigmas in (stage1._sigmas(50), stage1.tuned, stage1.tuned.sigmas)
        )
    assert (tuned - many).norm() < 0.5 * (untuned - many).norm() < 0.1 * many.norm()


def test_they_are_of_format_2():
    index = json.loads((DEFAULT_WEIGHTS / "model_index.json").read_text())
    assert index["format"] == 2 and index["sharpness"] == 0.8
    for name, family in (("stage1", "coarse"), ("stage2", "color"), ("stage3", "superres")):
        description = json.loads((DEFAULT_WEIGHTS / name / "config.json").read_text())
        assert (description["format"], description["family"]) == (2, family)
        entry = {"family": family, "kind": description["kind"]}
        assert index["stages"][name] == entry | {"sha256": sha256_of(DEFAULT_WEIGHTS / name / "model.safetensors")}


def test_saved_again_they_are_described_in_the_same_words(tmp_path):
    ColorPipeline.from_pretrained().save_pretrained(tmp_path / "again")
    for name in ("stage1", "stage2", "stage3"):
        shipped, again = (folder / name / "config.json" for folder in (DEFAULT_WEIGHTS, tmp_path / "again"))
        assert json.loads(again.read_text()) == json.loads(shipped.read_text())


def test_as_earlier_versions_stored_them_they_are_the_same_weights(tmp_path):
    """Format 1: families by number, `vividness` and `prints`, no families in the index."""
    old = tmp_path / "old"
    shutil.copytree(DEFAULT_WEIGHTS, old)
    names = {
        "chroma_gain": "vividness", "film": "prints", "chroma_std": "chroma_spread", "residual_std": "residual_spread"
    }  # fmt: skip
    for number, name in enumerate(("stage1", "stage2", "stage3"), 1):
        new = json.loads((old / name / "config.json").read_text())
        config = {names.get(key, key): value for key, value in new["config"].items()}
        description = {"format": 1, "stage": number, "kind": new["kind"], "config": config, "trained": new["trained"]}
        (old / name / "config.json").write_text(json.dumps(description))
    index = json.loads((old / "model_index.json").read_text()) | {"format": 1}
    for entry in index["stages"].values():
        del entry["family"]
    (old / "model_index.json").write_text(json.dumps(index))
    assert "vividness" in (old / "stage1/config.json").read_text()
    loaded, shipped = ColorPipeline.from_pretrained(old), ColorPipeline.from_pretrained()
    assert loaded.fingerprint() == shipped.fingerprint()
    gray = photo(64, 48)
    assert same(loaded(gray, generator=3).images, shipped(gray, generator=3).images)
