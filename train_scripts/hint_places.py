"""Where are hints worth most? True colors at suggested places, at random ones, and at the most uncertain ones.

Each photograph is colored without hints; its first N suggestions, N random places and the N most uncertain pixels (the
map's highest, a tenth of the side apart) are then given the mean of the true colors within a radius: for all three the
radii of the suggestions, in their order, so that only the places differ. Where a photograph has fewer suggestions than
N, fewer are given.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from pipeline import ColorPipeline
from pipeline.output import Suggestion
from stages.color.resample import resize
from stages.evaluation.photos import Photos
from stages.evaluation.pixel import ciede2000, picture_from_rgb
from stages.evaluation.report import Account
from stages.evaluation.statistics import paired_difference
from stages.hints.hints import Hints, Point
from stages.seeds import seed_of

__all__ = ["COUNTS", "PLACES", "evaluate_places", "places_table"]

PLACES = ("suggested", "random", "uncertain")
COUNTS = (1, 3, 5)
SIDE, SCORED = 256, 64
RADIUS = SIDE / 64  # where there is no suggestion to take it from
EXCLUDED = SIDE // 10  # around an uncertain pixel that is taken

Place = tuple[float, float]


def evaluate_places(
    pipe: ColorPipeline, photos: Photos, account: Account, seed: int, names: list[str], preview: bool
) -> None:
    """A row for the pictures without hints, and for every kind of places and N; "minus_random": the paired difference.

    preview: score the preview, else the default output
    """
    differences: dict[tuple[str, int], list[Tensor]] = {}
    originals = photos.reduced(SCORED).pictures
    for row, gray in enumerate(tqdm(photos.gray(), desc="photographs")):
        levels, rgb = gray[0].numpy(), photos.rgb(slice(row, row + 1))[0]
        plain = pipe(levels, generator=seed, preview=preview, uncertainty=True, output_type="pt")
        assert plain.uncertainty is not None and plain.suggestions is not None
        suggested = plain.suggestions[0]
        radii = [one.radius for one in suggested] + [RADIUS] * (COUNTS[-1] - len(suggested))
        runs = {("none", 0): plain.images[0]}
        for name in names:
            places = _places(name, suggested, plain.uncertainty[0], seed_of(seed, "places", row))
            points = [Point(x, y, _color(rgb, x, y, r), r) for (x, y), r in zip(places, radii, strict=False)]
            for count in COUNTS:
                hints = Hints((SIDE, SIDE), points[:count])
                output = pipe(levels, generator=seed, preview=preview, hints=hints, output_type="pt")
                runs[name, count] = output.images[0]
        for key, picture in runs.items():
            small = picture_from_rgb(resize(picture[None], (SCORED, SCORED)))
            differences.setdefault(key, []).append(ciede2000(small, originals[row : row + 1]))
    scores = {key: torch.cat(values) for key, values in differences.items()}
    for (name, count), values in scores.items():
        result: dict[str, Any] = {"name": name, "hints": count, "ciede2000": float(values.mean())}
        if name not in ("none", "random") and ("random", count) in scores:
            result["minus_random"] = paired_difference(values, scores["random", count])
        account.rows.append(result)


def places_table(rows: list[dict[str, Any]]) -> str:
    lines = ["| places | hints | CIEDE2000 | minus random [95 %] |", "|---|---|---|---|"]
    for row in rows:
        apart = "-"
        if "minus_random" in row:
            low, high = row["minus_random"]["interval_95"]
            apart = f"{row['minus_random']['value']:+.2f} [{low:+.2f}, {high:+.2f}]"
        lines.append(f"| {row['name']} | {row['hints']} | {row['ciede2000']:.2f} | {apart} |")
    return "\n".join(lines)


def _places(name: str, suggested: list[Suggestion], uncertainty: Tensor, seed: int) -> list[Place]:
    if name == "suggested":
        return [(one.x, one.y) for one in suggested]
    if name == "random":
        x, y = (SIDE * torch.rand(2, COUNTS[-1], generator=torch.Generator().manual_seed(seed))).tolist()
        return list(zip(x, y, strict=True))
    left, places = uncertainty.clone(), []
    for _ in range(COUNTS[-1]):
        y, x = divmod(int(left.argmax()), SIDE)
        left[max(0, y - EXCLUDED) : y + EXCLUDED + 1, max(0, x - EXCLUDED) : x + EXCLUDED + 1] = -1
        places.append((x + 0.5, y + 0.5))
    return places


def _color(rgb: Tensor, x: float, y: float, radius: float) -> list[int]:
    """The mean of the true colors within a radius: rgb (3, SIDE, SIDE) -> levels of 0..255."""
    pixel = torch.arange(SIDE) + 0.5
    disk = torch.hypot((pixel - y)[:, None], pixel - x) <= max(radius, 1)
    return picture_from_rgb(rgb[:, disk].mean(1)[None, :, None, None])[0, :, 0, 0].tolist()
