"""Where one known color would tell most: places to ask a person about.

If the truth is draw n and its color were known at place p, `spread` would correct the picture's error e_n at x by
g_xp e_n(p), where g_xp = K_xp / (K_pp + noise) and K is the likeness of places, given the hints that are there already.
So what a hint at p is expected to take away of the squared error, over the whole picture and not at p alone, is

    fall_p = sum_x s_x (2 g_xp C_xp - g_xp^2 C_pp),    C_xp = E_n e_n(x) . e_n(p),

s_x: how visible chroma is at x, the mean of CIEDE2000^2 over that of |e_n(x)|^2. The place of the largest fall is
taken, e and K are brought to what they are once it is known, and the next one is looked for. As in `expected_error`,
the truth is gray with a share of its own. What is most uncertain pixel by pixel tells less than places drawn by lot: it
is often small, and like nothing else (docs/research/hints.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stages.color.difference import ciede2000
from stages.color.resample import resize
from stages.color.spaces import lab_from_rgb, merge
from stages.hints.spread import GRID, SpreadSettings, likeness

__all__ = ["Suggestion", "colors_at", "suggestions"]

MOST, LEAST_GAIN = 5, 0.01
SMALLEST, LARGEST = 1 / 64, 1 / 16  # radius, in longer sides
ALIKE = 0.5  # likeness of what lies within the radius of a place
APART = 5.0  # CIEDE2000 of a third and any further color from those before it


@dataclass(frozen=True)
class Suggestion:
    """A place whose color would tell most about the others.

    x, y, radius: in pixels of the upright photograph, as of a hint; within the radius it looks alike
    colors: two or three that draws have there, "#rrggbb", at the photograph's luma, the most typical first
    gain: by how much the mean CIEDE2000 of the picture is expected to fall once the color there is known, and those of
        the suggestions before it are
    """

    x: float
    y: float
    radius: float
    colors: tuple[str, ...]
    gain: float


def suggestions(
    gray: Tensor,
    chroma: Tensor,
    draws: Tensor,
    features: Tensor | None,
    hints: Tensor | None,
    size: tuple[int, int],
    gray_share: float,
) -> list[Suggestion]:
    """Up to five places, the one to ask about first at the front; none where draws and picture agree.

    gray: (1, 1, S, S) in [0, 1], chroma: (1, 2, S, S) of the picture, draws: chroma (N, 2, S, S) of what may be true
    features: (1, C, h, w), hints: (1, 3, S, S) that the picture obeys; as for `spread`
    size: (width, height) of the photograph; gray_share: probability that the truth is gray
    """
    gray, chroma, draws = gray.double(), chroma.double(), draws.double()
    settings = SpreadSettings()
    every = torch.arange(GRID * GRID)
    alike = likeness(gray, chroma, None if features is None else features.double(), every, settings)
    left = _given(alike, hints, settings.noise)
    luma, picture = resize(gray, (GRID, GRID)), resize(chroma, (GRID, GRID))
    truths = torch.cat([resize(draws, (GRID, GRID)), torch.zeros_like(picture)])
    odds = torch.full((len(truths),), (1 - gray_share) / len(draws)).to(gray)
    odds[-1] = gray_share
    errors = (truths - picture).flatten(2)  # (N + 1, 2, cells)
    apart = _apart(luma, truths, errors)
    visible = odds @ apart.square() / (odds @ errors.square().sum(1)).clamp_min(1e-8)

    found: list[Suggestion] = []
    for _ in range(MOST):
        gains = left / (left.diagonal() + settings.noise)
        both = (odds[:, None, None] * errors).flatten(0, 1).T @ errors.flatten(0, 1)
        fall = visible @ (2 * gains * both - gains.square() * both.diagonal())
        place = int(fall.argmax())
        told = gains[:, place]
        errors = errors - told * errors[:, :, place, None]
        left = left - told[:, None] * left[place]
        before, apart = apart, _apart(luma, truths, errors)
        gain = float((odds @ (before - apart)).mean())
        if gain < LEAST_GAIN:
            break
        center, away = _around(place, size)
        radius = _radius(alike[place], away, max(size))
        disk = (away <= max(radius, float(away.min()))).double()
        colors = _colors(luma, truths[:-1], disk / disk.sum())
        found.append(Suggestion(*center, radius, colors, gain))
    return found


def colors_at(
    gray: Tensor, draws: Tensor, place: tuple[float, float], radius: float, size: tuple[int, int], most: int = 5
) -> tuple[str, ...]:
    """Colors that draws have around a place, "#rrggbb" at the photograph's luma, the most typical first.

    gray, draws, size: as for `suggestions`; place: (x, y), radius: in pixels of the photograph
    """
    column, row = (min(GRID - 1, int(at * GRID / side)) for at, side in zip(place, size, strict=True))
    _, away = _around(row * GRID + column, size)
    disk = (away <= max(radius, float(away.min()))).double()
    luma, chroma = resize(gray.double(), (GRID, GRID)), resize(draws.double(), (GRID, GRID))
    return _colors(luma, chroma, disk / disk.sum(), most)


def _given(alike: Tensor, hints: Tensor | None, noise: float) -> Tensor:
    """The covariance that hints leave of `alike`, (cells, cells)."""
    weight = alike.new_zeros(len(alike)) if hints is None else resize(hints[:, :1].to(alike), (GRID, GRID)).flatten()
    at = weight.nonzero()[:, 0]
    told = torch.linalg.solve(alike[at][:, at] + torch.diag(noise / weight[at]), alike[at])
    return alike - alike[:, at] @ told


def _apart(luma: Tensor, truths: Tensor, errors: Tensor) -> Tensor:
    """CIEDE2000 between truths and what is `errors` away from them: (N, cells)."""
    wrong = truths - errors.unflatten(2, (GRID, GRID))
    return ciede2000(*(lab_from_rgb(merge(luma, one)) for one in (truths, wrong))).flatten(1)


def _around(place: int, size: tuple[int, int]) -> tuple[tuple[float, float], Tensor]:
    """The center of a cell, (x, y), and how far the centers of all cells are from it, (cells,), in pixels."""
    down, across = ((torch.arange(GRID).double() + 0.5) * side / GRID for side in reversed(size))
    row, column = divmod(place, GRID)
    away = torch.hypot((down - down[row])[:, None], across - across[column])
    return (float(across[column]), float(down[row])), away.flatten()


def _radius(alike: Tensor, away: Tensor, side: int) -> float:
    """Halfway to the nearest cell that does not look alike."""
    unlike = away[alike < ALIKE]
    halfway = float(unlike.min()) / 2 if len(unlike) else side
    return min(max(halfway, SMALLEST * side), LARGEST * side)


def _colors(luma: Tensor, draws: Tensor, disk: Tensor, most: int = 3) -> tuple[str, ...]:
    """Of draws (N, 2, GRID, GRID), the means over a disk (cells,), weights that sum to 1: the most typical, the one
    that stands for most of the others, and more up to `most` where they are other colors (k-medoids, greedy).
    """
    rgb = merge((luma.flatten() @ disk).reshape(1, 1, 1), (draws.flatten(2) @ disk)[..., None, None])
    lab = lab_from_rgb(rgb)
    apart = ciede2000(lab[:, None].expand(-1, len(lab), -1, -1, -1), lab[None].expand(len(lab), -1, -1, -1, -1))
    apart = apart.flatten(1).reshape(len(lab), len(lab))
    chosen = [int(apart.sum(0).argmin())]
    while len(chosen) < min(most, len(lab)):
        nearest = apart[chosen].amin(0)
        lowered = (nearest[:, None] - apart).clamp_min(0).sum(0)
        lowered[nearest < (APART if len(chosen) > 1 else 1e-9)] = -1
        if float(lowered.max()) < 0:
            break
        chosen.append(int(lowered.argmax()))
    levels = (rgb[chosen].flatten(1) * 255).round().long().tolist()
    return tuple(dict.fromkeys(f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in levels))
