"""The one table from (family, kind) to its config and class, and the way to open any saved stage."""

from __future__ import annotations

from pathlib import Path

from stages.checkpoint import CheckpointError, local_folder, read_description
from stages.faces import CoarseColorizer, ColorUpsampler, Critic, SuperResolver
from stages.image_to_image.face import ImageToImage
from stages.image_to_image.gan import GAN, GANConfig
from stages.image_to_image.gpic import GPIC, GPICConfig
from stages.image_to_image.palette import Palette, PaletteConfig
from stages.image_to_image.unconditional import Unconditional, UnconditionalConfig
from stages.stage import Stage
from stages.stage1_coarse.coltran import ColTranColorizer, ColTranColorizerConfig
from stages.stage1_coarse.critic import PatchCritic, PatchCriticConfig
from stages.stage1_coarse.diffusion import DiffusionColorizer, DiffusionColorizerConfig
from stages.stage1_coarse.pic import PICColorizer, PICColorizerConfig
from stages.stage2_color.coltran import ColTranColorUpsampler, ColTranColorUpsamplerConfig
from stages.stage3_superres.coltran import ColTranSuperResolver, ColTranSuperResolverConfig
from stages.stage3_superres.diffusion import DiffusionSuperResolver, DiffusionSuperResolverConfig
from stages.stage3_superres.sr3 import SR3SuperResolver, SR3SuperResolverConfig

__all__ = ["FACES", "kind_of", "kinds_of", "load_stage", "register"]

FACES: dict[str, type[Stage]] = {
    "coarse": CoarseColorizer, "color": ColorUpsampler, "superres": SuperResolver, "image_to_image": ImageToImage,
    "critic": Critic,
}  # fmt: skip
_KINDS: dict[tuple[str, str], tuple[type, type[Stage]]] = {}


def register(family: str, kind: str, config_class: type, stage_class: type[Stage]) -> None:
    """Adds a kind, or replaces the one of this name. Raises ValueError where the class does not have the face."""
    if family not in FACES:
        raise ValueError(f"family must be one of {', '.join(FACES)}; got {family!r}")
    if not issubclass(stage_class, FACES[family]):
        raise ValueError(f"a kind of the family {family} must be a {FACES[family].__name__}; got {stage_class}")
    if (stage_class.family, stage_class.kind, stage_class.config_class) != (family, kind, config_class):
        raise ValueError(
            f"{stage_class.__name__} says that it is kind {stage_class.kind!r} of the family {stage_class.family} with "
            f"the config {stage_class.config_class.__name__}; it is registered as {kind!r} of {family}"
        )
    _KINDS[family, kind] = config_class, stage_class


def kinds_of(family: str) -> list[str]:
    """The names of all kinds of a family."""
    return [kind for one, kind in _KINDS if one == family]


def kind_of(family: str, kind: str) -> tuple[type, type[Stage]]:
    """(config class, stage class). Raises CheckpointError naming what there is."""
    if (family, kind) not in _KINDS:
        known = "; ".join(f"{name}: {', '.join(kinds_of(name))}" for name in FACES)
        raise CheckpointError(f"the family {family!r} has no kind {kind!r}; there are {known}")
    return _KINDS[family, kind]


def load_stage(source: str | Path) -> Stage:
    """The stage saved in a folder or on the hub, of whatever kind it is, in evaluation mode."""
    folder = local_folder(source)
    description = read_description(folder)
    return kind_of(description["family"], description["kind"])[1].from_pretrained(folder)


register("coarse", "diffusion", DiffusionColorizerConfig, DiffusionColorizer)
register("coarse", "coltran", ColTranColorizerConfig, ColTranColorizer)
register("coarse", "pic", PICColorizerConfig, PICColorizer)
register("color", "coltran", ColTranColorUpsamplerConfig, ColTranColorUpsampler)
register("superres", "diffusion", DiffusionSuperResolverConfig, DiffusionSuperResolver)
register("superres", "coltran", ColTranSuperResolverConfig, ColTranSuperResolver)
register("image_to_image", "palette", PaletteConfig, Palette)
register("superres", "sr3", SR3SuperResolverConfig, SR3SuperResolver)
register("image_to_image", "unconditional", UnconditionalConfig, Unconditional)
register("image_to_image", "gpic", GPICConfig, GPIC)
register("image_to_image", "gan", GANConfig, GAN)
register("critic", "patches", PatchCriticConfig, PatchCritic)
