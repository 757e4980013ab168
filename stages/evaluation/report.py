"""Rows of a table and results.json beside all that is needed to get them again."""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages.checkpoint import sha256_of
from stages.evaluation.features import SqueezeNetFeatures
from stages.evaluation.photos import Photos, features_file
from stages.evaluation.pixel import PictureList, luma_error
from stages.evaluation.provenance import versions, weights_of
from stages.evaluation.scores import CandidateScores, Reference, Scores
from stages.evaluation.statistics import Estimate
from stages.evaluation.tables import GRAY, ORIGINALS, PREVIEW, finite, save_sheet, table
from stages.provenance import commit
from stages.stage import Stage

SPLIT_SEED = 0  # half-splits and bootstrap draws: fixed, so that two runs on one list compare
FEATURES_HELP = (
    "Give a safetensors file of SqueezeNet 1.1 trained on ImageNet (torchvision's squeezenet1_1, or a conversion with "
    "its names) by --features FILE, or put it at features/squeezenet1_1.safetensors in the data folder"
)
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
            "commit": commit(),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "versions": versions(),
            "threads": torch.get_num_threads(),
            "photos": {"name": photos.name, "count": len(photos), "sha256": photos.sha256},
            "seed": args.seed,
            "steps": {},
            "sampler": {},
            "weights": {},
        }

    def use_weights(self, name: str, folder: Path, stage: Stage, steps: int | None = None) -> None:
        """Record weights in use and, where the stage samples in steps, its sampler and steps (None: its own number)."""
        self.record["weights"][name] = weights_of(folder)
        if (sampling := stage.sampling) is not None:
            self.record["sampler"][name] = sampling["sampler"]
            self.record["steps"][name] = steps or sampling["steps"]

    def note(self, text: str) -> None:
        """Something the reader of the figures must know; printed and stored."""
        self.notes.append(text)

    def write(self) -> dict[str, Any]:
        """results.json in the folder `--out`; returns what was written."""
        out: Path = self.args.out
        out.mkdir(parents=True, exist_ok=True)
        results = self.record | {"notes": self.notes, "rows": self.rows}
        (out / "results.json").write_text(json.dumps(finite(results), indent=1, allow_nan=False) + "\n")
        return results

    def publish(self, text: str, columns: Sequence[tuple[str, PictureList]]) -> dict[str, Any]:
        """Writes results.json and sheet.png, prints the table and the notes; returns what was written as JSON."""
        out: Path = self.args.out
        results = self.write()
        save_sheet(out / "sheet.png", columns)
        print(f"{self.photos.name}, {len(self.photos)} photographs, list {self.photos.sha256[:12]}\n")
        print(text)
        for note in self.notes:
            print(f"note: {note}")
        print(f"\nwritten: {out / 'results.json'}, {out / 'sheet.png'}")
        return results


class Report(Account):
    """One table of pictures; begins with the originals and plain gray.

    args: of `arguments`; photos: the originals; gray: the 8-bit gray that was colored, to report the largest
    luma error of each row (None: not reported)
    """

    def __init__(self, args: argparse.Namespace, photos: Photos, *, gray: PictureList | None = None):
        path = features_file(args)
        network = None if path is None else SqueezeNetFeatures.from_file(path)
        super().__init__(args, photos)
        if path is None:
            self.note("no feature network: squeezenet_kid, squeezenet_distance and diversity are left out. "
                      + FEATURES_HELP)  # fmt: skip
        self.gray = gray
        self.reference = Reference(photos.pictures, network, seed=SPLIT_SEED)
        self.scores: dict[str, Scores] = {}
        self.candidates: dict[str, CandidateScores] = {}
        self.columns: list[tuple[str, PictureList]] = []
        splits = self.reference.splits
        self.record |= {
            "features": path and {"sha256": sha256_of(path), "used": self.reference.used},
            "half_splits": {"splits": splits.splits, "bootstrap": splits.replicates, "seed": splits.seed},
        }
        self.add(ORIGINALS, photos.pictures, sheet="original")
        self.add(GRAY, photos.plain_gray(), sheet="gray")

    def add(self, name: str, outputs: PictureList, *, sheet: str | None = None) -> None:
        """A row of one output per photograph (uint8); `sheet` names its column on the picture sheet."""
        scores = self.reference.score(outputs)
        self.scores[name] = scores
        row: dict[str, Any] = {"name": name, "photos": len(self.photos), **scores.means()}
        if (kid := scores.kid) is not None:
            row["squeezenet_kid"] = kid.value
            row["squeezenet_kid_95"] = [kid.low, kid.high]
            if name not in (ORIGINALS, GRAY, PREVIEW) and PREVIEW in self.scores:
                self.compare(row, "preview", PREVIEW)
        if self.gray is not None:
            row["luma_error_max"] = float(luma_error(outputs, self.gray).max())
        self._append(row)
        if sheet:
            self.columns.append((sheet, outputs[: self.args.sheet_photos]))

    def compare(self, row: dict[str, Any], what: str, other: str) -> Estimate:
        """The paired difference of a row's `squeezenet_kid` to that of the row called `other`, also kept in the row as
        `squeezenet_kid_minus_<what>`.
        """
        ours, theirs = self.scores[row["name"]].kid, self.scores[other].kid
        assert ours is not None and theirs is not None
        more = ours.minus(theirs)
        row[f"squeezenet_kid_minus_{what}"] = {"value": more.value, "interval_95": [more.low, more.high]}
        return more

    def compare_candidates(self, row: dict[str, Any], what: str, other: str) -> None:
        """Paired differences of a row of candidates to that called `other`, noted and kept as `minus_<what>`."""
        differences = row[f"minus_{what}"] = {}
        for key, (value, low, high) in self.candidates[row["name"]].minus(self.candidates[other]).items():
            differences[key] = {"value": value, "interval_95": [low, high]}
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
            if (kid := self.scores[GRAY].kid) is not None:
                gray["squeezenet_kid"] = kid.value
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
        return self.publish(table(self.rows), self.columns)
