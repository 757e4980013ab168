"""Trains a network that takes pictures to pictures: accelerate launch train_scripts/image_to_image.py [--config …]"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from stages.color.difference import ciede2000, colorfulness
from stages.color.spaces import lab_from_rgb
from stages.image_to_image.face import ImageToImage
from stages.stage import Stage
from stages.training.grids import picture_grid
from stages.training.launch import main

PICTURES = 8  # each is drawn in many steps


def report(stage: Stage, rgb: Tensor, labels: Tensor) -> tuple[dict[str, float], Tensor]:
    """For each task CIEDE2000 of a draw and of what was shown, colorfulness, and how much two draws differ."""
    assert isinstance(stage, ImageToImage)
    rgb = rgb[:PICTURES]
    lab, values, rows = lab_from_rgb(rgb), dict[str, float](), [rgb]
    for task in stage.tasks:
        torch.manual_seed(0)  # of the corruptions
        condition = stage.condition(rgb, task)
        shown = condition.source if condition.hole is None else condition.source.masked_fill(condition.hole, 0.5)
        rows_of_noise = [torch.Generator().manual_seed(seed) for seed in range(2 * len(rgb))]
        first, second = stage.sample(condition, task, 2, generator=rows_of_noise).unbind(1)
        values[f"ciede2000_{task}_shown"] = ciede2000(lab_from_rgb(shown), lab).mean().item()
        values[f"ciede2000_{task}"] = ciede2000(lab_from_rgb(first), lab).mean().item()
        values[f"colorfulness_{task}"] = (colorfulness(first).mean() / colorfulness(rgb).mean()).item()
        values[f"diversity_{task}"] = ciede2000(lab_from_rgb(first), lab_from_rgb(second)).mean().item()
        rows += [shown, first, second]
    return {name: round(value, 3) for name, value in values.items()}, picture_grid(rows, PICTURES)


if __name__ == "__main__":
    sys.exit(main("image_to_image", "palette", report))
