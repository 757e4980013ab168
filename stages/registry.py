"""The one table from (stage, kind) to its config and class, and the way to open any saved stage."""

from __future__ import annotations

from pathlib import Path

from stages.checkpoint import CheckpointError, local_folder, read_description
from stages.stage import Stage
from stages.stage1_coarse.coltran import ColTranColorizer, ColTranColorizerConfig
from stages.stage1_coarse.diffusion import DiffusionColorizer, DiffusionColorizerConfig
from stages.stage1_coarse.pic import PICColorizer, PICColorizerConfig
from stages.stage2_color.coltran import ColorUpsampler, ColorUpsamplerConfig
from stages.stage3_superres.coltran import SpatialUpsampler, SpatialUpsamplerConfig
from stages.stage3_superres.diffusion import SuperResolution, SuperResolutionConfig

KINDS: dict[int, dict[str, tuple[type, type[Stage]]]] = {
    1: {
        "diffusion": (DiffusionColorizerConfig, DiffusionColorizer),
        "coltran": (ColTranColorizerConfig, ColTranColorizer),
        "pic": (PICColorizerConfig, PICColorizer),
    },
    2: {"coltran": (ColorUpsamplerConfig, ColorUpsampler)},
    3: {
        "diffusion": (SuperResolutionConfig, SuperResolution),
        "coltran": (SpatialUpsamplerConfig, SpatialUpsampler),
    },
}


def kind_of(stage: int, kind: str) -> tuple[type, type[Stage]]:
    """(config class, stage class). Raises CheckpointError naming what there is."""
    if stage not in KINDS or kind not in KINDS[stage]:
        known = ", ".join(f"{number}: {'/'.join(kinds)}" for number, kinds in KINDS.items())
        raise CheckpointError(f"stage {stage} has no kind {kind!r}; there are {known}")
    return KINDS[stage][kind]


def load_stage(source: str | Path) -> Stage:
    """The stage saved in a folder or on the hub, of whatever kind it is, in evaluation mode."""
    folder = local_folder(source)
    description = read_description(folder)
    return kind_of(description["stage"], description["kind"])[1].from_pretrained(folder)
