"""Tables and picture sheets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps

from stages.evaluation.pixel import PictureList

ORIGINALS, GRAY, PREVIEW = "originals (other half)", "plain gray", "one-pass preview"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table; in parentheses the figure relative to plain gray's on the same photographs."""
    head = [
        "system",
        "photos",
        "squeezenet_kid [95 %]",
        "squeezenet_distance",
        "CIEDE2000",
        "PSNR",
        "colorfulness ratio",
        "diversity",
        "luma error",
    ]
    lines = [head]
    for row in rows:
        kid = _cell(row, "squeezenet_kid", ".0f")
        if "squeezenet_kid_95" in row:
            low, high = row["squeezenet_kid_95"]
            kid += f" [{low:.0f}, {high:.0f}]"
        lines.append(
            [
                row["name"],
                str(row["photos"]),
                kid,
                _cell(row, "squeezenet_distance", ".2f"),
                _cell(row, "ciede2000", ".2f"),
                _cell(row, "psnr", ".2f"),
                _cell(row, "colorfulness_ratio", ".2f"),
                _cell(row, "diversity", ".2f"),
                _cell(row, "luma_error_max", ".2f"),
            ]
        )
    return aligned(lines)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table of a head and lines; columns of nothing but "-" are left out."""
    kept = [i for i in range(len(lines[0])) if any(line[i] != "-" for line in lines[1:])]
    widths = {i: max(len(line[i]) for line in lines) for i in kept}
    text = ["| " + " | ".join(line[i].ljust(widths[i]) for i in kept) + " |" for line in lines]
    text.insert(1, "|" + "|".join("-" * (widths[i] + 2) for i in kept) + "|")
    return "\n".join(text)


def _cell(row: dict[str, Any], key: str, spec: str) -> str:
    if key not in row:
        return "-"
    relative = row.get("relative_to_gray", {}).get(key)
    share = f" ({relative:.2f})" if relative is not None and row["name"] not in (ORIGINALS, GRAY) else ""
    return format(row[key], spec) + share


def finite(value: Any) -> Any:  # Any: whatever JSON holds
    """JSON has no infinity: an infinite PSNR (equal pictures) becomes null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def save_sheet(path: Path, columns: Sequence[tuple[str, PictureList]]) -> None:
    """A row per photograph, a column per system, each picture fitted into its cell."""
    first = columns[0][1]
    largest = max(max(picture.shape[-2:]) for picture in first)
    cell = 128 if largest <= 64 else 192
    count, header, gap = len(first), 22, 4
    sheet = Image.new("RGB", (len(columns) * (cell + gap), header + count * (cell + gap)), "white")
    draw = ImageDraw.Draw(sheet)
    for x, (label, pictures) in enumerate(columns):
        sizes = (ImageFont.load_default(size) for size in range(14, 5, -1))
        font = next((one for one in sizes if draw.textlength(label, one) < cell), ImageFont.load_default(5))
        draw.text((x * (cell + gap) + 2, 2), label, fill="black", font=font)
        for y, picture in enumerate(pictures):
            image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
            image = ImageOps.contain(image, (cell, cell), Image.Resampling.BICUBIC)
            sheet.paste(image, (x * (cell + gap), header + y * (cell + gap)))
    sheet.save(path)
