"""Pictures side by side."""

from __future__ import annotations

import torch
from torch import Tensor


def picture_grid(rows: list[Tensor], columns: int = 16) -> Tensor:
    """Systems as rows, the first `columns` pictures as columns: list of (B, 3, H, W) -> (3, rows * H, columns * W)."""
    return torch.cat([torch.cat(list(row[:columns]), dim=2) for row in rows], dim=1)
