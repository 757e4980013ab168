"""Kind `gan`: spaces and the exact luma, what the losses make of two likely colors, tiny configs from end to end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Adam

from pipeline import ImageToImagePipeline
from stages.checkpoint import CheckpointError, sha256_of
from stages.color.spaces import chroma_from_rgb, gray_from_rgb, lab_from_rgb, merge
from stages.image_to_image.face import Condition, TranslateOptions
from stages.image_to_image.gan import GAN, GANConfig
from stages.nn.gan.content import VGG19, content_loss
from stages.nn.gan.discriminator import DiscriminatorConfig
from stages.nn.gan.losses import generator_loss, matching_loss
from stages.nn.gan.pix2pixhd import Pix2PixHDConfig
from stages.nn.gan.unet import GANUNetConfig
from stages.options import OptionError
from stages.registry import load_stage
from stages.training import launch
from stages.training.config import Config
from train_scripts import image_to_image

ROOT = Path(__file__).resolve().parent.parent
TINY = ROOT / "configs" / "tiny"
SMALL = GANConfig(
    16, unet=GANUNetConfig((8, 8), attention=(2,)),
    discriminator=DiscriminatorConfig(8, (2, 1), scales=2, attention=(1, 0)),
)  # fmt: skip
NAMES = ("gan", "pix2pix", "pix2pixhd_global", "pix2pixhd_enhancer", "pix2pixhd")


def gan(**changes: Any) -> GAN:
    torch.manual_seed(0)
    return GAN(replace(SMALL, **changes))


def pictures(count: int = 2, side: int = 16) -> Tensor:
    """Not too bright or dark, so that colors have room."""
    torch.manual_seed(1)
    return 0.2 + 0.6 * torch.rand(count, 3, side, side)


# ---------------------------------------------------------------------- spaces


@pytest.mark.parametrize("space", ["chroma", "lab", "lab128"])
def test_what_a_generator_should_say_gives_the_picture_back(space):
    """In chroma exactly; in Lab at the luma, which fixes L."""
    stage, rgb = gan(space=space), pictures()
    gray, colors = stage._encoded(rgb)
    again = merge(gray_from_rgb(rgb), stage._chroma(gray_from_rgb(rgb), colors))
    torch.testing.assert_close(again, rgb, atol=2e-5, rtol=0)
    plain = gray_from_rgb(rgb).expand(-1, 3, -1, -1)
    lightness = lab_from_rgb(plain)[:, :1]
    expected = {
        "chroma": (2 * plain[:, :1] - 1, 2 * chroma_from_rgb(rgb)),
        "lab": (lightness / 50 - 1, lab_from_rgb(rgb)[:, 1:] / 110),
        "lab128": (lightness / 100, lab_from_rgb(rgb)[:, 1:] / 128),
    }[space]
    torch.testing.assert_close((gray, colors), expected)


@pytest.mark.parametrize("space", ["chroma", "lab"])
def test_any_size_keeps_its_luma(space):
    stage = gan(space=space).eval()
    source = gray_from_rgb(torch.rand(2, 3, 13, 22)).expand(-1, 3, -1, -1)
    draws = stage.sample(Condition(source), "colorize", 3)
    assert draws.shape == (2, 3, 3, 13, 22) and torch.equal(draws[:, 0], draws[:, 2])  # it has one answer
    torch.testing.assert_close(gray_from_rgb(draws), source[:, None, :1].expand(-1, 3, -1, -1, -1), atol=1e-5, rtol=0)
    assert draws.std(2).max() > 1e-3, "it should have colors"
    alone = stage.sample(Condition(source[1:]), "colorize")
    torch.testing.assert_close(draws[1:, :1], alone)
    with pytest.raises(OptionError, match="steps can not be honored by kind 'gan'"):
        stage.sample(Condition(source), "colorize", options=TranslateOptions(steps=2))


@pytest.mark.parametrize("changes, lacking", [
    ({"unet": GANUNetConfig((8, 8, 8), attention=())}, [7, 0, 6, 7]),
    ({"unet": GANUNetConfig(), "pix2pixhd": Pix2PixHDConfig(8, 2, 1)}, [7, 0, 2, 3]),
    ({"unet": GANUNetConfig(), "pix2pixhd": Pix2PixHDConfig(8, 1, 1, enhancers=1), "side": 8}, [7, 0, 2, 3]),
])  # fmt: skip
def test_pictures_of_any_size(changes, lacking):
    """One pixel, a fitting side, and sides that lack some to the generator's own."""
    stage = gan(**changes).eval()
    assert [stage._lacking(side) for side in (1, 8, 10, 17)] == lacking
    for height, width in ((1, 1), (10, 12), (1, 40)):
        source = torch.rand(1, 1, height, width).expand(-1, 3, -1, -1)
        draws = stage.sample(Condition(source), "colorize")
        assert draws.shape == (1, 1, 3, height, width)
        torch.testing.assert_close(gray_from_rgb(draws)[0], source[:, :1], atol=1e-5, rtol=0)


def test_dropout_makes_draws_that_belong_to_their_generators():
    unet = GANUNetConfig((8, 8, 8), "transposed", "batch", False, 2, ())
    stage = gan(unet=unet).eval()
    condition = Condition(torch.rand(2, 1, 16, 16).expand(-1, 3, -1, -1))
    draws = stage.sample(condition, "colorize", 2, generator=[torch.Generator().manual_seed(n) for n in range(4)])
    assert not torch.equal(draws[:, 0], draws[:, 1])
    alone = stage.sample(Condition(condition.source[1:]), "colorize", 1, generator=[torch.Generator().manual_seed(3)])
    torch.testing.assert_close(draws[1, 1], alone[0, 0])


def test_colors_that_are_not_finite_are_an_error():
    stage = gan().eval()
    torch.nn.init.constant_(stage.get_parameter("generator.write.parametrizations.weight.original"), torch.nan)
    with pytest.raises(RuntimeError, match="the colors of gan are not finite"):
        stage.sample(Condition(torch.rand(1, 3, 16, 16)), "colorize")


# ---------------------------------------------------------------------- losses


@pytest.mark.parametrize("matching, which", [("layers", "after"), ("concatenated", "before")])
def test_the_generators_loss_is_the_sum_of_its_parts(matching, which, tmp_path):
    torch.manual_seed(0)
    save_file(VGG19().state_dict(), tmp_path / "vgg.safetensors")
    weights = {"adversarial_weight": 0.3, "l1_weight": 7.0, "matching_weight": 5.0, "content_weight": 2.0}
    stage = gan(adversarial="hinge", matching=matching, content_weights=str(tmp_path / "vgg.safetensors"), **weights)
    stage.eval()
    rgb = pictures()
    gray, colors = 2 * gray_from_rgb(rgb) - 1, 2 * chroma_from_rgb(rgb)
    drawn = stage.generator(gray)
    fake, real = (stage.discriminator(torch.cat([gray, one], 1)) for one in (drawn, colors))
    expected = 7 * (drawn - colors).abs().mean() + 0.3 * sum(generator_loss("hinge", one.logits) for one in fake)
    maps = [matching_loss(matching, getattr(a, which), getattr(b, which)) for a, b in zip(fake, real, strict=True)]
    offsets = drawn / 2
    blue, red = 1.772 * offsets[:, :1], 1.402 * offsets[:, 1:]
    shown = gray_from_rgb(rgb) + torch.cat([red, -(0.299 * red + 0.114 * blue) / 0.587, blue], 1)
    vgg = VGG19.from_file(tmp_path / "vgg.safetensors")
    expected = expected + 5 * sum(maps) / 2 + 2 * content_loss(vgg, 2 * shown - 1, 2 * rgb - 1)
    torch.testing.assert_close(stage(rgb), expected, atol=1e-4, rtol=1e-4)
    assert not any("vgg" in name or "features" in name for name in stage.state_dict())


def test_a_missing_content_network_stops_the_training():
    stage = gan(content_weight=1.0, content_weights="nowhere.safetensors")
    with pytest.raises(CheckpointError, match="content_weights: nowhere.safetensors does not hold"):
        stage.fit_to([])  # before the first step
    stage(pictures(), None, "discriminator")
    with pytest.raises(CheckpointError, match="content_weights: nowhere.safetensors does not hold"):
        stage(pictures(), None, "generator")


@pytest.mark.parametrize("changes, message", [
    ({"space": "rgb"}, "space must be one of chroma, lab, lab128; got 'rgb'"),
    ({"adversarial": "wgan"}, "adversarial must be one of vanilla, lsgan, hinge; got 'wgan'"),
    ({"matching": "sum"}, "matching must be one of layers, concatenated"),
    ({"l1_weight": -1.0}, "must not be negative"), ({"content_weight": 1.0}, "need each other"),
    ({"pix2pixhd": Pix2PixHDConfig()}, "leave out one of them"), ({"side": 18}, "side must be a multiple of 4"),
    ({"unet": GANUNetConfig(), "pix2pixhd": Pix2PixHDConfig(8, 4, 1)}, "multiple of 16 .* and at least 32; got 16"),
])  # fmt: skip
def test_configs_that_make_no_sense(changes, message):
    with pytest.raises(ValueError, match=message):
        gan(**changes)


def test_pictures_and_players_that_do_not_fit():
    with pytest.raises(ValueError, match=r"rgb must be \(B, 3, 16, 16\)"):
        gan()(torch.rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match="player must be one of discriminator, generator; got 'judge'"):
        gan()(pictures(), None, "judge")


def answers_to_two(l1: float, adversarial: float, steps: int = 300) -> tuple[float, float]:
    """A generator learns one gray level with two equally likely colors, (Cb, Cr) of (0.24, 0.06) and (0.06, 0.24).

    Of its last answers: the sum of the absolute differences to both, which is at least 1 and is 1 where each of Cb and
    Cr lies between those of the colors; and the distance from the nearer one, where the middle has a distance of 1.
    """
    network = GANConfig(
        4, unet=GANUNetConfig((8, 8), attention=()), adversarial="lsgan", adversarial_weight=adversarial, l1_weight=l1,
        matching_weight=0.0, discriminator=DiscriminatorConfig(16, (2,), scales=1, attention=()),
    )  # fmt: skip
    torch.manual_seed(0)
    stage = GAN(network).train()
    gray = torch.full((1, 1, 4, 4), 0.5)
    colors = torch.tensor([[0.24, 0.06], [0.06, 0.24]]).view(2, 2, 1, 1)
    rgb = merge(gray.expand(2, -1, -1, -1), colors.expand(-1, -1, 4, 4)).repeat(2, 1, 1, 1)
    optimizers = {one: Adam(getattr(stage, one).parameters(), 2e-3, betas=(0.5, 0.999)) for one in stage.players}
    apart = (colors[0] - colors[1]).flatten()
    between, nearest = [], []
    for step in range(max(steps, 1)):
        for player, optimizer in optimizers.items():
            for name, value in stage.named_parameters():
                value.requires_grad_(name.startswith(player))
            stage(rgb, None, player).backward()
            if steps:
                optimizer.step()
            optimizer.zero_grad()
        if step >= steps - 60:
            with torch.no_grad():
                answer = stage.generator(2 * gray - 1) / 2
            off = answer - colors
            between.append(float(off.abs().sum((0, 1)).mean() / apart.abs().sum()))
            nearest.append(float(off.norm(dim=1).mean((1, 2)).min() / (apart.norm() / 2)))
    return sum(between) / len(between), sum(nearest) / len(nearest)


def test_l1_stays_between_two_colors_and_a_discriminator_takes_one_of_them():
    untrained, _ = answers_to_two(l1=1.0, adversarial=0.0, steps=0)
    assert untrained > 1.4
    between, nearest = answers_to_two(l1=1.0, adversarial=0.0)
    assert between < 1.15 and nearest > 0.8
    _, nearest = answers_to_two(l1=0.0, adversarial=1.0)
    assert nearest < 0.4


# ---------------------------------------------------------------------- the tiny configs, from end to end


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(12):
        small = np.random.default_rng(number).integers(0, 256, (4, 6, 3), dtype=np.uint8)
        Image.fromarray(small).resize((96, 64 + number), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def configs(tmp_path_factory) -> Path:
    """The tiny configs of this kind, cut to four steps."""
    folder = tmp_path_factory.mktemp("configs")
    for name in NAMES:
        text = (TINY / f"{name}.toml").read_text()
        text = re.sub(r"^(samples|report_every) = \d+", r"\1 = 16", text, flags=re.M)
        text = re.sub(r"^(save_every|decay|decay_from) = \d+", r"\1 = 8", text, flags=re.M)
        (folder / f"{name}.toml").write_text(text)
    return folder


def trained(config: Path, photographs: Path, runs: Path, *more: str) -> Path:
    options = ["--config", str(config), "--data", str(photographs), "--runs", str(runs), *more]
    assert launch.main("image_to_image", "palette", image_to_image.report, options) == 0
    return runs / config.stem / "final"


@pytest.mark.parametrize("name", ["gan", "pix2pix"])
def test_tiny_configs_train_and_resume(name, configs, photographs, tmp_path):
    final = trained(configs / f"{name}.toml", photographs, tmp_path / "whole")
    trained(configs / f"{name}.toml", photographs, tmp_path / "parts", "--stop-after", "3")
    assert not (tmp_path / "parts" / name / "final").exists()
    again = trained(configs / f"{name}.toml", photographs, tmp_path / "parts")
    assert sha256_of(final / "model.safetensors") == sha256_of(again / "model.safetensors")
    report = [json.loads(line) for line in (final.parent / "log.jsonl").read_text().splitlines()][-2]
    assert report["loss_discriminator"] > 0 and report["loss_generator"] > 0 and report["ciede2000_colorize"] > 0
    assert (report["diversity_colorize"] > 0) == (name == "pix2pix")
    assert load_stage(final).config == Config.read(configs / f"{name}.toml").network


def test_pix2pixhd_is_trained_in_the_published_order(configs, photographs, tmp_path):
    """One command: the global generator alone, the enhancer around the frozen one, all together."""
    trained(configs / "pix2pixhd.toml", photographs, tmp_path)
    first, second, third = (load_file(tmp_path / name / "final/model.safetensors") for name in NAMES[2:])
    coarse = [name for name in first if name.startswith("generator.coarse.")]
    assert coarse and all(torch.equal(first[name], second[name]) for name in coarse)
    assert any(not torch.equal(second[name], third[name]) for name in coarse)
    assert {name for name in first if name not in second} == {"generator.write.8.1.weight", "generator.write.8.1.bias"}
    added = {name for name in second if name not in first}
    assert added and all(name.startswith(("generator.enhancers.", "generator.write.4.")) for name in added)
    assert second.keys() == third.keys() and first.keys() & {"discriminator.scales.1.answer.weight"}
    with pytest.raises(CheckpointError, match="does not fit its config"):  # the other way round
        config = Config.read(configs / "pix2pixhd_global.toml")
        launch.first_stage(config, configs / "pix2pixhd_global.toml", tmp_path / "pix2pixhd" / "final")


def test_accelerate_launch_trains_what_the_pipeline_colors_with(photographs, tmp_path):
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "train_scripts/image_to_image.py",
               "--config", "configs/tiny/gan.toml", "--data", str(photographs), "--runs", str(tmp_path)]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300,
                          env=os.environ | {"ACCELERATE_USE_CPU": "true"})  # fmt: skip
    assert done.returncode == 0 and "final weights:" in done.stdout, done.stderr
    pipe = ImageToImagePipeline.from_pretrained(tmp_path / "gan/final")
    gray = np.random.default_rng(0).integers(0, 256, (50, 70), dtype=np.uint8)
    colored = np.asarray(pipe(Image.fromarray(gray), generator=0).images[0])
    luma = colored.astype(np.float64) @ (0.299, 0.587, 0.114)
    assert colored.shape == (50, 70, 3) and np.abs(luma - gray).max() <= 0.501 and np.ptp(colored, 2).max() > 0
