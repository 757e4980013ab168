"""Spreading known colors over a photograph: what a hint teaches about one place holds for places like it.

A picture at hand (a preview, a draw) is off by an error at a hint. Two steps carry the error to where nothing is known.

**Likeness.** At 32x32 the error is taken for a Gaussian process of variance 1: cells i and j err alike by

    k(i, j) = exp(-|f_i - f_j|^2 / 2 F^2 - (y_i - y_j)^2 / 2 Y^2 - |c_i - c_j|^2 / 2 C^2 - |x_i - x_j|^2 / 2 X^2),

where f are features of the encoder, y the luma, c the chroma of the picture, x the place. Given the hints h, the mean
is k_xh (K_hh + noise / weight)^-1 error_h: a hint on one flank of a coat reaches the other flank. `certainty`, the
share of the variance that the hints explain, is 0 where they say nothing.

**Edges.** At full side the corrected chroma p is then drawn to the hints along the luma, with the weights w of Levin,
Lischinski and Weiss 2004 (8 neighbors, normalized). For every pixel r

    strength weight_r (c_r - hint_r) + fade (c_r - p_r) + sum_s w_rs ((c_r - c_s) - kept_rs (p_r - p_s)) = 0,

kept_rs = 1 - smoothing (certainty_r + certainty_s) / 2: where hints tell the color, the luma's own edges replace those
of p. Without hints c is p. Pixels are joined to neighboring rows only, so the system is solved exactly, row by row.

Sources: Levin, Lischinski, Weiss, "Colorization using Optimization", SIGGRAPH 2004; Rasmussen and Williams, "Gaussian
Processes for Machine Learning", 2006, algorithm 2.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.color.resample import resize

__all__ = ["SpreadSettings", "likeness", "luma_weights", "reach", "spread", "spread_alike"]

GRID = 32  # side at which cells are compared
FULL_REACH = 0.25  # certainty from which on `reach` is 1
NEIGHBORS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]


@dataclass(frozen=True)
class SpreadSettings:
    """Fitted on half of the photographs of photos256 that training leaves out, chosen on the other half.

    Lengths are those at which likeness falls to exp(-1/2): of features in units of their root mean square distance from
    their mean over the picture, of luma and chroma in their own units, of places in sides of the picture.
    """

    feature_length: float = 1.26
    luma_length: float = 0.17
    chroma_length: float = 0.05
    place_length: float = 1.2
    noise: float = 0.05  # variance of a hint of weight 1, beside 1 of the error
    strength: float = 100.0
    fade: float = 3e-4
    smoothing: float = 0.75
    contrast: float = 0.15  # the variance of luma weights, as a share of the variance of luma around a pixel


def spread(
    gray: Tensor,
    hints: Tensor,
    chroma: Tensor,
    features: Tensor | None = None,
    settings: SpreadSettings | None = None,
) -> Tensor:
    """The chroma of a picture after its hints: obeyed where they are, spread where they belong.

    gray: (B, 1, S, S) in [0, 1], S a multiple of 32; hints: (B, 3, S, S), weight in [0, 1], then chroma * weight
    chroma: (B, 2, S, S) of the picture at hand; features: (B, C, h, w) of its places; None: likeness is told by luma,
        chroma and place alone
    returns: (B, 2, S, S) float32, `chroma` itself for a picture without hints. Out-of-gamut colors are left to `merge`.
    Each picture is computed by itself in float64: a batch gives the same bits as its pictures one by one.
    Raises ValueError for other shapes and for weights outside [0, 1].
    """
    _check(gray, hints, chroma, features)
    settings = settings or SpreadSettings()
    spreads = []
    for i in range(len(gray)):
        one = slice(i, i + 1)
        seen = None if features is None else features[one].double()
        spreads.append(_spread_one(gray[one].double(), hints[one].double(), chroma[one].double(), seen, settings))
    return torch.cat(spreads).float() if spreads else chroma.float()


def spread_alike(
    gray: Tensor,
    hints: Tensor,
    chroma: Tensor,
    draws: Tensor,
    features: Tensor | None = None,
    settings: SpreadSettings | None = None,
) -> Tensor:
    """Many pictures of one photograph after its hints, by likeness alone: the first step of `spread`, for all at once.

    gray: (1, 1, S, S), hints: (1, 3, S, S), chroma: (1, 2, S, S) of the picture whose colors tell what is alike,
    features: (1, C, h, w) or None; draws: (N, 2, S, S) -> (N, 2, S, S) float32, `draws` themselves without hints
    """
    _check(gray, hints, chroma, features)
    if not hints[:, 0].any():
        return draws
    weight, wanted = hints[:, :1].double(), hints[:, 1:].double()
    wrong = (wanted - weight * draws.double()).flatten(0, 1)[None]  # both channels of all draws, by weight
    seen = None if features is None else features.double()
    errors = torch.cat([weight, wrong], dim=1)
    correction, _ = _regression(gray.double(), errors, chroma.double(), seen, settings or SpreadSettings())
    size = (draws.shape[-2], draws.shape[-1])
    enlarged = F.interpolate(correction, size, mode="bilinear", align_corners=False)
    return draws + enlarged[0].unflatten(0, (-1, 2)).float()


def reach(gray: Tensor, hints: Tensor, chroma: Tensor, features: Tensor | None = None) -> Tensor:
    """How far what hints say may go: (B, 1, 32, 32) in [0, 1], 1 where cells are like a known one, 0 where none is.

    It is the certainty of `spread`, divided by FULL_REACH, at most 1. A stage that is told of a hint takes it for the
    true color, and a true color says much of the light on the whole scene; a person's often is of that thing alone.
    Arguments: as of `spread`.
    """
    _check(gray, hints, chroma, features)
    rows = []
    for i in range(len(gray)):
        one = slice(i, i + 1)
        weight = hints[one, :1].double()
        seen = None if features is None else features[one].double()
        far = torch.zeros(1, 1, GRID, GRID, dtype=torch.float64)
        if weight.any():
            _, certainty = _regression(gray[one].double(), weight, chroma[one].double(), seen, SpreadSettings())
            far = (certainty / FULL_REACH).clamp(max=1)
        rows.append(far)
    return torch.cat(rows).float()


def _check(gray: Tensor, hints: Tensor, chroma: Tensor, features: Tensor | None) -> None:
    batch, side = len(gray), gray.shape[-1]
    shapes = ((gray, 1), (hints, 3), (chroma, 2))
    if side % GRID or any(x.shape != (batch, channels, side, side) for x, channels in shapes):
        raise ValueError(
            f"gray, hints and chroma must be (B, 1, S, S), (B, 3, S, S) and (B, 2, S, S), S a multiple of {GRID}; got "
            f"{', '.join(str(tuple(x.shape)) for x, _ in shapes)}. Resize them to one square."
        )
    if features is not None and (features.ndim != 4 or len(features) != batch):
        raise ValueError(f"features must be ({batch}, C, h, w), one map per picture; got {tuple(features.shape)}")
    if not ((hints[:, 0] >= 0) & (hints[:, 0] <= 1)).all():
        raise ValueError(
            f"weights of hints must be in [0, 1]; got {float(hints[:, 0].min()):.3g} to {float(hints[:, 0].max()):.3g}"
        )


def _spread_one(gray: Tensor, hints: Tensor, chroma: Tensor, features: Tensor | None, s: SpreadSettings) -> Tensor:
    if not hints[:, 0].any():
        return chroma
    weight, side = hints[:, :1], gray.shape[-1]
    errors = torch.cat([weight, hints[:, 1:] - weight * chroma], 1)
    correction, certainty = _regression(gray, errors, chroma, features, s)
    enlarged = F.interpolate(torch.cat([correction, certainty], 1), (side, side), mode="bilinear", align_corners=False)
    corrected, certainty = chroma + enlarged[:, :2], enlarged[:, 2:]
    weights = luma_weights(gray, s.contrast)
    # The factor belongs to pairs: one per pixel would be a source of color, which a small fade carries far.
    kept = 1 - s.smoothing * (certainty[:, :, None] + _neighbors(certainty)) / 2
    slopes = (weights[:, None] * kept * (corrected[:, :, None] - _neighbors(corrected))).sum(2)
    known = s.strength * hints[:, 1:] + s.fade * corrected + slopes
    return _solve_rows(weights[0], (1 + s.fade + s.strength * weight)[0, 0], known[0])[None]


def _regression(
    gray: Tensor, errors: Tensor, chroma: Tensor, features: Tensor | None, s: SpreadSettings
) -> tuple[Tensor, Tensor]:
    """Mean of the error at every cell, (1, C, 32, 32), and the share of its variance that is explained, (1, 1, 32, 32).

    errors: (1, 1 + C, S, S), weight, then error * weight
    """
    cells = resize(errors, (GRID, GRID))[0].flatten(1)
    at = cells[0].nonzero()[:, 0]
    alike = likeness(gray, chroma, features, at, s)
    noise = torch.diag(s.noise / cells[0, at])
    root = torch.linalg.cholesky(alike[at] + noise)
    whitened = torch.linalg.solve_triangular(root, alike.T, upper=False)
    error = torch.linalg.solve_triangular(root, (cells[1:, at] / cells[0, at]).T, upper=False)
    mean, explained = whitened.T @ error, whitened.square().sum(0).clamp(max=1)
    return mean.T.reshape(1, -1, GRID, GRID), explained.reshape(1, 1, GRID, GRID)


def likeness(gray: Tensor, chroma: Tensor, features: Tensor | None, at: Tensor, s: SpreadSettings) -> Tensor:
    """k of every cell of the 32x32 grid (rows) and the cells `at` (columns): (1024, n) in [0, 1].

    gray: (1, 1, S, S), chroma: (1, 2, S, S), features: (1, C, h, w) or None, of one picture; at: (n,) int64
    """
    place = (torch.arange(GRID).to(gray) + 0.5) / GRID
    maps = [
        resize(gray, (GRID, GRID)) / s.luma_length,
        resize(chroma, (GRID, GRID)) / s.chroma_length,
        torch.stack(torch.meshgrid(place, place, indexing="ij"))[None] / s.place_length,
    ]
    if features is not None:
        centered = features - features.mean((2, 3), keepdim=True)
        size = centered.square().sum(1).mean().sqrt().clamp_min(1e-12)  # 0 where all places look the same
        enlarged = F.interpolate(centered / size, (GRID, GRID), mode="bilinear", align_corners=False)
        maps.append(enlarged / s.feature_length)
    x = torch.cat(maps, 1)[0].flatten(1).T
    half = x.square().sum(1) / 2
    return torch.exp(x @ x[at].T - half[:, None] - half[at]).clamp(max=1)  # -|x_i - x_j|^2 / 2, by one matrix product


def luma_weights(gray: Tensor, contrast: float) -> Tensor:
    """How much of a pixel's color its neighbors tell: (B, 1, H, W) -> (B, 8, H, W), sums 1, 0 outside the picture.

    exp(-(difference of luma)^2 / 2 variance), normalized; the variance is that of the 3x3 pixels around, times
    `contrast`, and at least so large that the most similar neighbor keeps a hundredth.
    """
    inside = _neighbors(torch.ones_like(gray))[:, 0]
    difference = (_neighbors(gray)[:, 0] - gray) * inside
    square = difference.square()
    count = inside.sum(1, keepdim=True) + 1  # the pixel itself is one of the window
    variance = square.sum(1, keepdim=True) / count - (difference.sum(1, keepdim=True) / count).square()
    nearest = torch.where(inside > 0, square, torch.inf).amin(1, keepdim=True)
    twice = torch.maximum(2 * contrast * variance, nearest / math.log(100)).clamp_min(2e-6)
    weights = torch.exp(-square / twice) * inside
    return weights / weights.sum(1, keepdim=True)


def _neighbors(x: Tensor) -> Tensor:
    """The 8 neighbors of every pixel, 0 outside: (B, C, H, W) -> (B, C, 8, H, W)."""
    height, width = x.shape[-2:]
    padded = F.pad(x, (1, 1, 1, 1))
    return torch.stack(
        [padded[..., 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width] for dy, dx in NEIGHBORS], dim=2
    )


def _solve_rows(weights: Tensor, diagonal: Tensor, known: Tensor) -> Tensor:
    """x of (diagonal - weights) x = known, where `weights` join each pixel to its 8 neighbors.

    Block elimination: with the unknowns of a row as one block the matrix is tridiagonal. It is diagonally dominant, so
    the order of the rows needs no pivoting.
    weights: (8, H, W), 0 outside the picture; diagonal: (H, W); known: (C, H, W) -> (C, H, W)
    """
    height, width = diagonal.shape
    blocks = {dy: weights.new_zeros(height, width, width) for dy in (-1, 0, 1)}
    for (dy, dx), weight in zip(NEIGHBORS, weights, strict=True):
        first, last = max(0, -dx), width - max(0, dx)
        blocks[dy].diagonal(dx, 1, 2).sub_(weight[:, first:last])
    blocks[0].diagonal(0, 1, 2).add_(diagonal)
    right = torch.cat([blocks[1], known.permute(1, 2, 0)], dim=2)  # the row below, and what is known
    eliminated: list[Tensor] = []
    for row in range(height):
        block, known_row = blocks[0][row], right[row]
        if row:
            above = blocks[-1][row] @ eliminated[-1]
            block = block - above[:, :width]
            known_row = torch.cat([known_row[:, :width], known_row[:, width:] - above[:, width:]], dim=1)
        eliminated.append(torch.linalg.solve(block, known_row))
    x = [eliminated[-1][:, width:]]
    for upper in reversed(eliminated[:-1]):
        x.append(upper[:, width:] - upper[:, :width] @ x[-1])
    return torch.stack(x[::-1]).permute(2, 0, 1)
