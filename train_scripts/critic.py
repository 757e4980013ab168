"""Trains a critic of stage 1's draws: accelerate launch train_scripts/critic.py --data FOLDER [--config …]

The folder is one that train_scripts/draw_candidates.py has written.
"""

from __future__ import annotations

import sys

from torch import Tensor

from stages.color.spaces import coarse_from_rgb, gray_from_rgb
from stages.faces import Critic
from stages.stage import Stage
from stages.training.grids import picture_grid
from stages.training.launch import main


def report(stage: Stage, rgb: Tensor, labels: Tensor) -> tuple[dict[str, float], Tensor]:
    """How often a photograph has a higher score than a draw, of all pairs and of those with the same gray.

    The grid shows the pictures from the lowest to the highest score, the photographs above.
    """
    assert isinstance(stage, Critic)
    gray = gray_from_rgb(rgb)
    scores = stage.score(gray, coarse_from_rgb(rgb))
    real, drawn = labels == 1, labels == 0
    higher = (scores[real][:, None] > scores[drawn]).float()
    same = (gray[real][:, None] - gray[drawn]).abs().amax((-3, -2, -1)) < 1 / 128  # the draws' luma is rounded
    values = {}
    if higher.numel():
        values["pairs_right"] = higher.mean().item()
    if bool(same.any()):
        values["pairs_right_same_gray"] = higher[same].mean().item()
    rows = [part[scores[which].argsort()] for which, part in ((real, rgb[real]), (drawn, rgb[drawn])) if len(part)]
    width = min(len(row) for row in rows)
    return {name: round(value, 4) for name, value in values.items()}, picture_grid(rows, width)


if __name__ == "__main__":
    sys.exit(main("critic", "critic", report))
