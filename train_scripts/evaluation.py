"""What the evaluation scripts share: photographs, rows of a table, results.json and the picture sheet.

A script loads the photographs (`load_photos`), opens a `Report` on them, adds one row per system and finishes
it: the table is printed, and every number is written to results.json beside all that is needed to get it
again.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib.metadata
import json
import math
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from stages import color, metrics
from stages.checkpoint import CheckpointError, read_description, sha256_of
from stages.conditioning import sharp_gray
from stages.data import DataError, data_folder
from stages.resize import resize

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_WEIGHTS = ROOT / "pipeline" / "weights"
PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}
HELD_OUT = "held-out"
HELD_OUT_COUNTS = {"photos64": 1000, "photos256": 133}  # the `holdout` of the configs in configs/
SPLIT_SEED = 0  # half-splits and bootstrap draws: fixed, so that two runs on one list compare


class EvaluationError(ValueError):
    """What the user asked for cannot be evaluated; the message says what to change."""


# Command line --------------------------------------------------------------------------------------


def arguments(name: str, description: str) -> argparse.ArgumentParser:
    """The options every evaluation script has; `name` is also the default folder of its results."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="folder of the photographs (default: $TRICHROME_DATA, else data/)",
    )
    parser.add_argument(
        "--features",
        type=Path,
        metavar="FILE",
        help="SqueezeNet 1.1, safetensors (default: features/squeezenet1_1.safetensors in --data)",
    )
    parser.add_argument(
        "--split",
        default="validation",
        help='split of the photographs; "held-out" is the part of train that training leaves out, for choices '
        "(default: %(default)s)",
    )
    parser.add_argument("--photos", type=positive, metavar="N", help="only the first N photographs of the split")
    parser.add_argument("--seed", type=int, default=0, help="photograph i is sampled with seed + i (default: 0)")
    parser.add_argument("--steps", type=positive, help="sampling steps (default: what the weights ask for)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/eval") / name,
        metavar="FOLDER",
        help="where results.json and sheet.png go (default: %(default)s)",
    )
    parser.add_argument(
        "--sheet-photos",
        type=positive,
        default=8,
        metavar="N",
        help="photographs on the sheet: the first N of the list (default: %(default)s)",
    )
    return parser


def positive(text: str, least: int = 1) -> int:
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}, got {value}")
    return value


def several(text: str) -> int:
    return positive(text, 2)


def run(evaluate: Callable[[argparse.Namespace], Any], parser: argparse.ArgumentParser, argv=None) -> int:
    """Parse, evaluate, and turn what a user can cause into one line and exit status 2."""
    args = parser.parse_args(argv)
    try:
        evaluate(args)
    except (EvaluationError, DataError, metrics.MetricsError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def seen_by_stage1(stage: Any, gray: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """gray (B, 1, H, W) as the pipeline shows it to stage 1: gray64, and `sharp` where the stage can use it."""
    side = getattr(stage, "gray_side", 64)
    return resize(gray, (64, 64)), {"sharp": sharp_gray(gray, side)} if side > 64 else {}


# Photographs ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Photos:
    """The originals of one evaluation, in a fixed order.

    pictures: uint8 (N, 3, H, W), or a list of uint8 (3, H, W) where sizes differ
    digests: SHA-256 of each encoded image file, 32 bytes
    stems: file names without suffix, where the photographs are files
    """

    name: str
    pictures: metrics.Pictures
    digests: list[bytes]
    stems: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def sha256(self) -> str:
        """Hash of the list: SHA-256 over the digests of its files, in order."""
        return hashlib.sha256(b"".join(self.digests)).hexdigest()

    def reduced(self, side: int) -> Photos:
        """The same photographs at side x side, from one size only; themselves where that is theirs."""
        assert isinstance(self.pictures, Tensor)
        if self.pictures.shape[-2:] == (side, side):
            return self
        small = torch.cat([resize(picture[None].float(), (side, side)) for picture in self.pictures])
        return replace(self, pictures=small.round().clamp(0, 255).byte())

    def first(self, count: int) -> Photos:
        if count > len(self):
            raise EvaluationError(f"{self.name} has {len(self)} photographs, {count} were asked for")
        return Photos(self.name, self.pictures[:count], self.digests[:count], self.stems[:count])

    def rgb(self, part: slice = slice(None)) -> Tensor:
        """float32 (n, 3, H, W) in [0, 1]; photographs of one size only."""
        assert isinstance(self.pictures, Tensor)
        return self.pictures[part].float() / 255

    def gray(self) -> list[Tensor]:
        """8-bit luma, each (1, H, W) uint8: what a colorizer is given."""
        return [metrics.picture_from_rgb(color.gray_from_rgb(picture.float() / 255)) for picture in self.pictures]

    def plain_gray(self) -> list[Tensor]:
        """The 8-bit luma as a picture, each (3, H, W) uint8."""
        return [gray.expand(3, -1, -1) for gray in self.gray()]


def features_file(args: argparse.Namespace) -> Path:
    """The feature network: --features, else features/squeezenet1_1.safetensors in the data folder."""
    if args.features:
        return args.features
    return data_folder(args.data) / "features" / "squeezenet1_1.safetensors"


def load_photos(folder: Path, name: str, split: str, count: int | None = None) -> Photos:
    """The first `count` photographs of one Parquet split, decoded once; they must have one size.

    split: as the files are named, or "held-out" for the last photographs of `train`, which training leaves out
    folder/name/split-*.parquet with a column `image` of {bytes, path}; raises EvaluationError.
    """
    from datasets import Image as ImageColumn
    from datasets import load_dataset  # 1.4 s to import: only where it is used

    stored = "train" if split == HELD_OUT else split
    files = sorted(str(path) for path in (folder / name).glob(f"{stored}-*.parquet"))
    if not files:
        raise EvaluationError(f"no {stored}-*.parquet in {folder / name}: is --data the folder that holds {name}/?")
    rows = load_dataset("parquet", data_files=files, split="train").cast_column("image", ImageColumn(decode=False))
    if split == HELD_OUT:
        if name not in HELD_OUT_COUNTS or HELD_OUT_COUNTS[name] >= len(rows):
            raise EvaluationError(f"{name} has no photographs held out of training; known: {HELD_OUT_COUNTS}")
        rows = rows.select(range(len(rows) - HELD_OUT_COUNTS[name], len(rows)))
    if count is not None and count > len(rows):
        raise EvaluationError(f"{name}/{split} has {len(rows)} photographs, {count} were asked for")
    digests: list[bytes] = []
    pictures: list[Tensor] = []
    for row in rows.select(range(count or len(rows))):
        encoded = row["image"]["bytes"]
        digests.append(hashlib.sha256(encoded).digest())
        pictures.append(_picture(BytesIO(encoded), f"photograph {len(pictures)} of {name}/{split}"))
    sizes = {tuple(picture.shape) for picture in pictures}
    if len(sizes) > 1:
        raise EvaluationError(f"{name}/{split} mixes sizes {sorted(sizes)}; use --originals for such a list")
    return Photos(f"{name}/{split}", torch.stack(pictures), digests)


def load_folder(folder: Path) -> Photos:
    """Every picture of a folder, in the order of the file stems; sizes may differ; raises EvaluationError."""
    files = _by_stem(folder)
    digests = [hashlib.sha256(path.read_bytes()).digest() for path in files.values()]
    pictures = [_picture(path, str(path)) for path in files.values()]
    return Photos(str(folder), pictures, digests, list(files))


def load_outputs(folder: Path, photos: Photos) -> list[Tensor]:
    """A colorizer's pictures, matched to the originals by file stem: as many uint8 (3, H, W), in their order.

    Raises EvaluationError for a missing or an extra picture and for another size: all or nothing, since a
    score over the pictures that happen to be there would compare with no other.
    """
    files = _by_stem(folder)
    wanted = set(photos.stems)
    for what, stems in (("no output for", wanted - set(files)), ("no original for", set(files) - wanted)):
        if stems:
            some = ", ".join(sorted(stems)[:5]) + (", …" if len(stems) > 5 else "")
            raise EvaluationError(f"{folder}: {what} {len(stems)} file stem(s): {some}")
    outputs = []
    for stem, original in zip(photos.stems, photos.pictures, strict=True):
        output = _picture(files[stem], str(files[stem]))
        if output.shape != original.shape:
            raise EvaluationError(
                f"{files[stem]} is {output.shape[2]}x{output.shape[1]}, its original "
                f"{original.shape[2]}x{original.shape[1]}: score outputs at the size of the originals"
            )
        outputs.append(output)
    return outputs


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise EvaluationError(f"no folder {folder}")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda path: (path.stem, path.name)):
        if path.suffix.lower() not in PICTURE_SUFFIXES:
            continue
        if path.stem in files:
            raise EvaluationError(f"{files[path.stem]} and {path.name} have one stem: which one is meant?")
        files[path.stem] = path
    if not files:
        raise EvaluationError(f"no pictures ({' '.join(sorted(PICTURE_SUFFIXES))}) in {folder}")
    return files


def _picture(source: Path | BytesIO, name: str) -> Tensor:
    """8-bit sRGB pixels, upright: uint8 (3, H, W)."""
    try:
        with Image.open(source) as image:
            # Pillow reads 16-bit RGB as 8 bits and calls it RGB; only what it decodes from tells.
            deep = any(";16" in str(tile) for tile in getattr(image, "tile", ()))
            upright = ImageOps.exif_transpose(image)
            if deep or upright.mode.startswith(("I", "F")):
                raise EvaluationError(f"{name} has more than 8 bits per channel; only 8-bit pictures are scored")
            pixels = np.array(upright.convert("RGB"))
    except OSError as error:
        raise EvaluationError(f"{name} is not a readable picture: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


# Sampling ------------------------------------------------------------------------------------------


def generators(seed: int, photos: range, candidates: int, purpose: str = "colors") -> list[torch.Generator]:
    """One generator per (photograph, candidate), photo-major: photograph i has the seed `seed + i`.

    Candidate k is drawn from SHA-256 of "purpose,seed + i,k", so that no number of candidates, photographs or
    batches changes any of them, and two stages never share their noise.
    """
    made = []
    for photo in photos:
        for candidate in range(candidates):
            digest = hashlib.sha256(f"{purpose},{seed + photo},{candidate}".encode()).digest()
            made.append(torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1))
    return made


def batches(count: int, size: int) -> list[range]:
    """0 .. count - 1 in ranges of at most `size`."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def weights_of(folder: Path | str) -> dict[str, Any]:
    """Where weights came from, their hash and settings, and whether they are averaged (EMA; None: not known)."""
    folder = Path(folder)
    description = read_description(folder)
    averaged = (description.get("trained") or {}).get("ema")
    sha256 = sha256_of(folder / "model.safetensors")
    own = folder.resolve()
    shown = own.relative_to(ROOT) if own.is_relative_to(ROOT) else folder
    config = description["config"]
    return {"folder": str(shown), "kind": description["kind"], "sha256": sha256, "ema": averaged, "config": config}


def stage_weights(named: Path | None, number: int) -> Path:
    """Folder of a stage's weights, the named or the packaged one; raises EvaluationError."""
    folder = named or DEFAULT_WEIGHTS / f"stage{number}"
    if not (folder / "config.json").is_file():
        raise EvaluationError(f"no stage-{number} weights in {folder}: give a folder written by save_pretrained")
    if (found := read_description(folder)["stage"]) != number:
        raise EvaluationError(f"{folder} holds weights of stage {found}; expected stage {number}")
    return folder


def optional_weights(named: Path | None, number: int) -> Path | None:
    """As `stage_weights`, but None where none was named and none is packaged."""
    if named is None and not (DEFAULT_WEIGHTS / f"stage{number}" / "config.json").is_file():
        return None
    return stage_weights(named, number)


# Report --------------------------------------------------------------------------------------------

ORIGINALS, GRAY, PREVIEW = "originals (other half)", "plain gray", "one-pass preview"
METRICS = ("squeezenet_kid", "squeezenet_distance", "ciede2000")  # also given relative to plain gray's


class Account:
    """Figures on one list of photographs, and what is needed to get them again.

    args: of `arguments`; photos: the originals
    """

    def __init__(self, args: argparse.Namespace, photos: Photos):
        self.args, self.photos = args, photos
        self.rows: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.record: dict[str, Any] = {
            "command": shlex.join(["python", *sys.argv]),
            "git": git_state(ROOT),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "versions": versions(),
            "threads": torch.get_num_threads(),
            "photos": {"name": photos.name, "count": len(photos), "sha256": photos.sha256},
            "seed": args.seed,
            "steps": {},
            "sampler": {},
            "weights": {},
        }

    def use_weights(self, name: str, folder: Path, stage: Any, steps: int | None = None) -> None:
        """Record weights in use and, where the stage samples, its sampler and steps (None: its own
        number).
        """
        self.record["weights"][name] = weights_of(folder)
        if (sampler := getattr(stage.config, "sampler", None)) is not None:
            self.record["sampler"][name] = sampler
            self.record["steps"][name] = steps or stage.config.steps

    def note(self, text: str) -> None:
        """Something the reader of the figures must know; printed and stored."""
        self.notes.append(text)

    def write(self) -> dict[str, Any]:
        """results.json in the folder `--out`; returns what was written."""
        out: Path = self.args.out
        out.mkdir(parents=True, exist_ok=True)
        results = self.record | {"notes": self.notes, "rows": self.rows}
        (out / "results.json").write_text(json.dumps(_finite(results), indent=1, allow_nan=False) + "\n")
        return results


class Report(Account):
    """One table of pictures; begins with the originals and plain gray.

    args: of `arguments`; photos: the originals; gray: the 8-bit gray that was colored, to report the largest
    luma error of each row (None: not reported)
    """

    def __init__(self, args: argparse.Namespace, photos: Photos, *, gray: metrics.Pictures | None = None):
        path = features_file(args)
        network = metrics.SqueezeNetFeatures.from_file(path)
        super().__init__(args, photos)
        self.gray = gray
        self.reference = metrics.Reference(photos.pictures, network, seed=SPLIT_SEED)
        self.scores: dict[str, metrics.Scores] = {}
        self.candidates: dict[str, metrics.CandidateScores] = {}
        self.columns: list[tuple[str, metrics.Pictures]] = []
        splits = self.reference.splits
        self.record |= {
            "features": {"sha256": sha256_of(path), "used": self.reference.used},
            "half_splits": {"splits": splits.splits, "bootstrap": splits.replicates, "seed": splits.seed},
        }
        self.add(ORIGINALS, photos.pictures, sheet="original")
        self.add(GRAY, photos.plain_gray(), sheet="gray")

    def add(self, name: str, outputs: metrics.Pictures, *, sheet: str | None = None) -> None:
        """A row of one output per photograph (uint8); `sheet` names its column on the picture sheet."""
        scores = self.reference.score(outputs)
        self.scores[name] = scores
        kid = scores.kid
        row: dict[str, Any] = {"name": name, "photos": len(self.photos), **scores.means()}
        row["squeezenet_kid"] = kid.value
        row["squeezenet_kid_95"] = [kid.low, kid.high]
        if name not in (ORIGINALS, GRAY, PREVIEW) and PREVIEW in self.scores:
            self.compare(row, "preview", PREVIEW)
        if self.gray is not None:
            row["luma_error_max"] = float(metrics.luma_error(outputs, self.gray).max())
        self._append(row)
        if sheet:
            self.columns.append((sheet, outputs[: self.args.sheet_photos]))

    def compare(self, row: dict[str, Any], what: str, other: str) -> metrics.Estimate:
        """The paired difference of a row's `squeezenet_kid` to that of the row called `other`, also kept in the row as
        `squeezenet_kid_minus_<what>`.
        """
        more = self.scores[row["name"]].kid.minus(self.scores[other].kid)
        row[f"squeezenet_kid_minus_{what}"] = {"value": more.value, "interval_95": [more.low, more.high]}
        return more

    def compare_candidates(self, row: dict[str, Any], what: str, other: str) -> None:
        """Paired differences of a row of candidates to that called `other`, noted and kept as `minus_<what>`."""
        found = row[f"minus_{what}"] = {}
        for key, (value, low, high) in self.candidates[row["name"]].minus(self.candidates[other]).items():
            found[key] = {"value": value, "interval_95": [low, high]}
            self.note(f"{row['name']}: {key} {value:+.2f} [{low:+.2f}, {high:+.2f}] against {other}")

    def add_candidates(self, name: str, candidates: Sequence[Sequence[Tensor]] | Tensor, *, sheet: bool) -> None:
        """A row of best of K and diversity over the first n photographs: uint8 (n, K, 3, H, W), drawing
        order.

        sheet: show the first three candidates on the picture sheet
        """
        row = {"name": name, "photos": len(candidates), "candidates": len(candidates[0])}
        self.candidates[name] = self.reference.candidates(candidates)
        self._append(row | self.candidates[name].means())
        if sheet:
            shown = candidates[: self.args.sheet_photos]
            for k in range(min(3, len(candidates[0]))):
                self.columns.append((f"candidate {k + 1}", [drawn[k] for drawn in shown]))

    def _append(self, row: dict[str, Any]) -> None:
        """Add the figures relative to plain gray on the same photographs."""
        if GRAY in self.scores:
            gray = self.scores[GRAY].means(row["photos"])
            gray["squeezenet_kid"] = self.scores[GRAY].kid.value
            row["relative_to_gray"] = {key: row[key] / gray[key] for key in METRICS if key in row and gray[key]}
        self.rows.append(row)

    def add_bits(self, bits: Sequence[Tensor], unit: str, remark: str) -> None:
        """The mean of what the originals cost a stage that knows likelihoods, batches of (B,); none: nothing."""
        if bits:
            mean = torch.cat(list(bits)).mean().item()
            self.record[f"bits_per_{unit}"] = mean
            self.note(f"{mean:.4f} bits per {unit}{remark}")

    def finish(self) -> dict[str, Any]:
        """Print the table, write results.json and sheet.png; returns what was written as JSON."""
        out: Path = self.args.out
        results = self.write()
        save_sheet(out / "sheet.png", self.columns)
        print(f"{self.photos.name}, {len(self.photos)} photographs, list {self.photos.sha256[:12]}\n")
        print(table(self.rows))
        for text in self.notes:
            print(f"note: {text}")
        print(f"\nwritten: {out / 'results.json'}, {out / 'sheet.png'}")
        return results


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
    kept = [i for i in range(len(head)) if any(line[i] != "-" for line in lines[1:])]
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


def _finite(value: Any) -> Any:
    """JSON has no infinity: an infinite PSNR (equal pictures) becomes null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def save_sheet(path: Path, columns: Sequence[tuple[str, metrics.Pictures]]) -> None:
    """A row per photograph, a column per system, each picture fitted into its cell."""
    first = columns[0][1]
    largest = max(max(picture.shape[-2:]) for picture in first)
    cell = 128 if largest <= 64 else 192
    count, header, gap = len(first), 22, 4
    sheet = Image.new("RGB", (len(columns) * (cell + gap), header + count * (cell + gap)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for x, (label, pictures) in enumerate(columns):
        draw.text((x * (cell + gap) + 2, 2), label, fill="black", font=font)
        for y, picture in enumerate(pictures):
            image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
            image = ImageOps.contain(image, (cell, cell), Image.Resampling.BICUBIC)
            sheet.paste(image, (x * (cell + gap), header + y * (cell + gap)))
    sheet.save(path)


# Where numbers come from ---------------------------------------------------------------------------


def git_state(folder: Path) -> dict[str, Any]:
    """Commit of the working copy and whether tracked files differ from it; both None outside a repository."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changed is None else bool(changed)}


def versions() -> dict[str, str]:
    """Versions of what a figure can depend on."""
    found = {"python": platform.python_version(), "cpu": platform.machine()}
    for name in ("trichrome", "torch", "numpy", "pillow", "datasets", "safetensors"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
