"""Trains stage 2, the color upsampler: accelerate launch train_scripts/stage2.py [--config … --data …]"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from stages.color.difference import ciede2000, colorfulness
from stages.color.spaces import chroma_from_rgb, coarse_from_rgb, gray_from_rgb, lab_from_rgb, merge, rgb_from_coarse
from stages.corruptions.conditioning import disturbed_chroma
from stages.faces import ColorUpsampler
from stages.stage import Stage
from stages.training.grids import picture_grid
from stages.training.launch import main


def report(stage: Stage, rgb: Tensor, labels: Tensor) -> tuple[dict[str, float], Tensor]:
    """CIEDE2000 of bin centers and of the stage, from exact and from disturbed coarse colors, and colorfulness."""
    assert isinstance(stage, ColorUpsampler)
    gray, lab = gray_from_rgb(rgb), lab_from_rgb(rgb)
    torch.manual_seed(0)
    values: dict[str, float] = {}
    for name, strength in (("exact", 0.0), ("disturbed", 0.04)):
        coarse = coarse_from_rgb(merge(gray, disturbed_chroma(chroma_from_rgb(rgb), strength)))
        centers, refined = merge(gray, chroma_from_rgb(rgb_from_coarse(coarse))), stage.upsample(gray, coarse)
        values[f"ciede2000_{name}_centers"] = ciede2000(lab_from_rgb(centers), lab).mean().item()
        values[f"ciede2000_{name}"] = ciede2000(lab_from_rgb(refined), lab).mean().item()
    values["colorfulness"] = (colorfulness(refined).mean() / colorfulness(rgb).mean()).item()
    grid = picture_grid([gray.expand_as(rgb), centers, refined, rgb])
    return {name: round(value, 3) for name, value in values.items()}, grid


if __name__ == "__main__":
    sys.exit(main("color", "stage2", report))
