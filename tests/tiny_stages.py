"""Every kind of every family, small enough for a second, and what their tests share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from stages.color.resample import resize
from stages.color.spaces import coarse_from_rgb, gray_from_rgb
from stages.corruptions.line_art import line_art
from stages.faces import CoarseColorizer, ColorUpsampler, Encoding, GrayView, SuperResolver
from stages.image_to_image.face import Condition, ImageToImage
from stages.options import SampleOptions
from stages.registry import kind_of, kinds_of
from stages.stage import Stage
from stages.stage1_coarse.coltran import ColTranColorizerConfig
from stages.stage1_coarse.diffusion import DiffusionColorizerConfig
from stages.stage1_coarse.pic import PICColorizerConfig
from stages.stage2_color.coltran import ColTranColorUpsamplerConfig
from stages.stage3_superres.coltran import ColTranSuperResolverConfig
from stages.stage3_superres.diffusion import DiffusionSuperResolverConfig
from stages.training.config import Config

ROOT = Path(__file__).resolve().parent.parent
SMALL: dict[tuple[str, str], Any] = {
    ("coarse", "diffusion"): DiffusionColorizerConfig(
        backbone="lite0", backbone_side=32, encoder_channels=(16, 32), encoder_blocks=1, denoiser_channels=(16, 32),
        denoiser_blocks=(1, 2), heads=2, classes=5, noise_levels=2, steps=3, pool=3,
    ),
    ("coarse", "coltran"): ColTranColorizerConfig(
        channels=16, feed_forward=24, heads=2, encoder_layers=1, outer_layers=1, inner_layers=1, one_plus=True
    ),
    ("coarse", "pic"): PICColorizerConfig(
        embedding_channels=(8, 8, 8), embedding_strides=(2, 2, 2), embedding_blocks=(0, 1, 1), embedding_width=24,
        embedding_dilations=(1, 1, 2), channels=8, blocks=1, components=3,
    ),
    ("color", "coltran"): ColTranColorUpsamplerConfig(channels=16, feed_forward=24, heads=2, layers=1),
    ("superres", "coltran"): ColTranSuperResolverConfig(channels=8, feed_forward=8, heads=2, layers=1),
    ("superres", "diffusion"): DiffusionSuperResolverConfig(
        encoder_channels=(16, 16, 32), denoiser_channels=(16, 32), heads=2
    ),
}  # fmt: skip
SMALL["superres", "sr3"] = Config.read(ROOT / "configs/tiny/stage3_sr3.toml").network
for _kind in ("palette", "unconditional", "gpic"):
    SMALL["image_to_image", _kind] = Config.read(ROOT / f"configs/tiny/{_kind}.toml").network
SIDES = {"coarse": 64, "color": 64, "superres": 256, "image_to_image": 32}
KINDS = [(family, kind) for family in SIDES for kind in kinds_of(family)]


def small(family: str, kind: str, seed: int = 0, **changes: object) -> Any:
    """The stage as it starts its training; changes: to its config."""
    torch.manual_seed(seed)
    return kind_of(family, kind)[1](replace(SMALL[family, kind], **changes)).eval()


def lively(family: str, kind: str, seed: int = 0, **changes: object) -> Any:
    """The stage with every weight away from zero, as after some training: branches that start silent speak."""
    stage = small(family, kind, seed, **changes)
    with torch.no_grad():
        for parameter in stage.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)
    return stage


def network_of(config: str) -> Any:
    """The [network] of a file in configs/."""
    return Config.read(ROOT / "configs" / config).network


def picture(side: int, batch: int = 2, seed: int = 0) -> Tensor:
    """Smooth colors with edges, saturated and black and white parts included: rgb (B, 3, side, side)."""
    generator = Generator().manual_seed(seed)
    blobs = torch.rand(batch, 3, 5, 5, generator=generator)
    rgb = F.interpolate(2 * blobs - 0.5, (side, side), mode="bilinear", align_corners=False)
    return (rgb + 0.3 * (rgb[:, :1] > 0.5)).clamp(0, 1)


def generators(*seeds: int) -> list[Generator]:
    return [Generator().manual_seed(seed) for seed in seeds]


def encoded(stage: CoarseColorizer[Any], gray: Tensor) -> Encoding:
    """Of gray (B, 1, H, W) of any size."""
    return stage.encode(GrayView.of(gray))


def drawn(stage: Stage, rgb: Tensor, generator=None, options: SampleOptions = SampleOptions(), callback=None) -> Tensor:  # noqa: B008
    """What a stage makes of the inputs that belong to rgb (B, 3, S, S): chroma or rgb, one picture each. Of a family
    without the cascade the first task counts, and its own options.
    """
    gray = gray_from_rgb(rgb)
    if isinstance(stage, ImageToImage):
        task = stage.tasks[0]
        source = line_art(rgb).expand(-1, 3, -1, -1) if task == "line_art" else stage.condition(rgb, task).source
        return stage.sample(Condition(source), task, generator=generator, callback=callback)[:, 0]
    if isinstance(stage, CoarseColorizer):
        return stage.sample(encoded(stage, gray), 1, options, generator, callback).chroma[:, 0]
    if isinstance(stage, ColorUpsampler):
        return stage.upsample(gray, coarse_from_rgb(rgb))
    assert isinstance(stage, SuperResolver)
    return stage.sample(gray, resize(rgb, (64, 64)), options, generator, callback)


def calls_of(module: nn.Module) -> list[int]:
    """Grows by the batch size of each call of `module`."""
    sizes: list[int] = []
    module.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    return sizes


def answering(stage: Any, **config: object) -> dict[str, Tensor]:
    """The stage with other values in its config and a denoiser that returns what it gets, kept in the dictionary."""
    seen: dict[str, Tensor] = {}

    def answer(x: Tensor, sigma: Tensor, context: list[Tensor]) -> Tensor:
        seen["sigma"], seen["noisy"] = sigma, x
        return x

    stage.denoiser.forward = answer
    stage.config = replace(stage.config, **config)
    return seen
