"""Trains stage 1, the coarse colorizer: accelerate launch train_scripts/stage1.py [--config … --data …]"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from stages.color.difference import ciede2000, colorfulness
from stages.color.resample import resize
from stages.color.spaces import gray_from_rgb, lab_from_rgb, merge
from stages.faces import CoarseColorizer, GrayView
from stages.stage import Stage
from stages.training.grids import picture_grid
from stages.training.launch import main


def report(stage: Stage, rgb: Tensor, labels: Tensor) -> tuple[dict[str, float], Tensor]:
    """CIEDE2000 of preview and one random sample, and the colorfulness of both against the originals'."""
    assert isinstance(stage, CoarseColorizer)
    view = GrayView.of(gray_from_rgb(rgb))
    encoding = stage.encode(view)
    chroma = stage.sample(encoding, generator=torch.Generator().manual_seed(0)).chroma[:, 0]
    gray, rgb = view.gray64, resize(rgb, (64, 64))
    preview, sample = stage.preview(encoding), merge(gray, chroma)
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
    sys.exit(main("coarse", "stage1", report))
