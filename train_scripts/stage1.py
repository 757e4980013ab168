"""Trains stage 1, the coarse colorizer: accelerate launch train_scripts/stage1.py [--config … --data …]"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from stages.color.difference import ciede2000, colorfulness
from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, gray_from_rgb, lab_from_rgb, merge, rgb_from_coarse
from stages.stage import Stage
from stages.training.grids import picture_grid
from stages.training.launch import main


def report(stage: Stage, rgb: Tensor) -> tuple[dict[str, float], Tensor]:
    """CIEDE2000 of preview and one random sample, and the colorfulness of both against the originals'."""
    options = {"sharp": gray_from_rgb(rgb)} if rgb.shape[-1] > 64 else {}
    rgb = resize(rgb, (64, 64))
    gray = gray_from_rgb(rgb)
    generator = torch.Generator().manual_seed(0)
    preview = stage.preview(gray, **options)
    if hasattr(stage, "sample_chroma"):
        chroma = stage.sample_chroma(gray, 1, generator, **options)[:, 0]
    else:
        chroma = chroma_from_rgb(rgb_from_coarse(stage.sample(gray, 1, generator)[:, 0]))
    sample = merge(gray, chroma)
    lab, plain = lab_from_rgb(rgb), gray.expand_as(rgb)

    def error(picture: Tensor) -> float:
        return ciede2000(lab_from_rgb(picture), lab).mean().item()

    def lively(picture: Tensor) -> float:
        return (colorfulness(picture).mean() / colorfulness(rgb).mean()).item()

    values = {
        "ciede2000_gray": error(plain), "ciede2000_preview": error(preview), "ciede2000_sample": error(sample),
        "colorfulness_preview": lively(preview), "colorfulness_sample": lively(sample),
    }  # fmt: skip
    return {name: round(value, 3) for name, value in values.items()}, picture_grid([plain, preview, sample, rgb])


if __name__ == "__main__":
    sys.exit(main(1, "stage1", report))
