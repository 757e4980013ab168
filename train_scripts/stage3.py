"""Trains stage 3, the super-resolution of color: accelerate launch train_scripts/stage3.py [--config … --data …]"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from stages.color.difference import ciede2000, colorfulness
from stages.color.guided_filter import enlarge_chroma
from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, gray_from_rgb, lab_from_rgb, merge
from stages.corruptions.conditioning import disturbed_chroma
from stages.faces import SuperResolver
from stages.stage import Stage
from stages.training.grids import picture_grid
from stages.training.launch import main

DISTURBED = 0.03  # strength for the report, the same for all kinds and configs


def report(stage: Stage, rgb: Tensor, labels: Tensor) -> tuple[dict[str, float], Tensor]:
    """CIEDE2000 of bicubic and luma-guided enlargement and of the stage, from true and disturbed color at 64x64."""
    assert isinstance(stage, SuperResolver)
    rgb = rgb[:32]
    gray, low = gray_from_rgb(rgb), resize(rgb, (64, 64))
    gray_low, lab = gray_from_rgb(low), lab_from_rgb(rgb)
    torch.manual_seed(0)
    values: dict[str, float] = {}
    for name, strength in (("true", 0.0), ("disturbed", DISTURBED)):
        chroma = disturbed_chroma(chroma_from_rgb(low), strength, untouched=0.0)
        rgb64 = merge(gray_low, chroma)
        systems = {
            "bicubic": merge(gray, resize(chroma_from_rgb(rgb64), (rgb.shape[-2], rgb.shape[-1]))),
            "guided": merge(gray, enlarge_chroma(chroma_from_rgb(rgb64), gray_low, gray)),
            "stage": stage.sample(gray, rgb64, generator=torch.Generator().manual_seed(0)),
        }
        for system, picture in systems.items():
            values[f"ciede2000_{name}_{system}"] = ciede2000(lab_from_rgb(picture), lab).mean().item()
    values["colorfulness"] = (colorfulness(systems["stage"]).mean() / colorfulness(rgb).mean()).item()
    return {name: round(value, 3) for name, value in values.items()}, picture_grid([*systems.values(), rgb], 6)


if __name__ == "__main__":
    sys.exit(main("superres", "stage3", report))
