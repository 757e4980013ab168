"""The table of an evaluation of image-to-image networks, by Palette's protocol."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stages.checkpoint import sha256_of
from stages.evaluation.features import SqueezeNetFeatures
from stages.evaluation.generative import best_of, frechet_distance
from stages.evaluation.judges import Judge, Judgement, score_splits
from stages.evaluation.photos import EvaluationError, Photos, features_file
from stages.evaluation.pixel import PictureList, ciede2000, psnr, ssim
from stages.evaluation.report import FEATURES_HELP, SPLIT_SEED, Account
from stages.evaluation.scores import Reference
from stages.evaluation.tables import aligned

__all__ = ["TranslationReport", "translation_table"]

# By the end of a figure's name.
SPECS = {"frechet": ".1f", "fid": ".2f", "kid": ".0f", "ssim": ".3f", "accuracy": ".3f"}
UNSHOWN = ("name", "photos", "candidates", "squeezenet_kid_95", "deviation")  # which have other places, or none


class TranslationReport(Account):
    """Rows of figures, of which each names its network; the first is that of the originals.

    photos: the originals; real: other photographs of the same kind, to which Fréchet distances are measured, so that
    no picture meets its own truth; both at the size that is scored
    classes: of the originals, for accuracies, see `Judgement`
    """

    def __init__(
        self, args: argparse.Namespace, photos: Photos, real: Photos, judges: Sequence[Judge],
        classes: Tensor | None = None,
    ) -> None:  # fmt: skip
        path = features_file(args)
        if path is None:
            raise EvaluationError(f"no feature network. {FEATURES_HELP}")
        network = SqueezeNetFeatures.from_file(path)
        super().__init__(args, photos)
        assert isinstance(photos.pictures, Tensor)
        self.originals = photos.pictures
        self.reference = Reference(photos.pictures, network, seed=SPLIT_SEED)
        self.real = self.reference.features_of(real.pictures)
        self.judgements = [Judgement(judge, photos.pictures, real.pictures, classes) for judge in judges]
        self.columns: list[tuple[str, PictureList]] = []
        self.record |= {
            "real": {"name": real.name, "first": len(photos), "count": len(real), "sha256": real.sha256},
            "pictures": {
                "crop": "center square", "resize": "area", "side": self.originals.shape[-1],
                "format": "8-bit RGB pixels, as a PNG file holds them",
            },
            "networks": {
                "squeezenet": {"sha256": sha256_of(path), "used": self.reference.used},
                **{judge.name: judge.about for judge in judges},
            },
            "score_splits": score_splits(len(photos)),
        }  # fmt: skip
        if min(len(photos), len(real)) < self.real.shape[1]:
            self.note(f"squeezenet_frechet: {len(photos)} pictures for {self.real.shape[1]} features; it compares rows "
                      "of this table, and nothing else")  # fmt: skip
        for judgement in self.judgements:
            features = judgement.real.features
            if features is not None and min(len(photos), len(real)) < features.shape[1]:
                self.note(f"{judgement.judge.frechet}: {len(photos)} pictures for {features.shape[1]} features; it "
                          "compares rows of this table, and nothing else")  # fmt: skip
        self.add("originals", self.originals, sheet="original")

    def add(self, name: str, outputs: Tensor, *, sheet: str | None = None, **more: float) -> dict[str, Any]:
        """A row of one output per photograph, uint8; `sheet` names its column on the picture sheet."""
        scores = self.reference.score(outputs)
        assert scores.features is not None and scores.kid is not None  # the network is there
        row: dict[str, Any] = {"name": name, "photos": len(outputs)}
        for judgement in self.judgements:
            row |= judgement.of(outputs)
        row |= {
            "squeezenet_frechet": frechet_distance(scores.features, self.real),
            "squeezenet_kid": scores.kid.value, "squeezenet_kid_95": [scores.kid.low, scores.kid.high],
            **scores.means(), "ssim": float(ssim(outputs, self.originals).mean()), **more,
        }  # fmt: skip
        self.rows.append(row)
        if sheet:
            self.columns.append((sheet, outputs[: self.args.sheet_photos]))
        return row

    def add_draws(self, name: str, draws: Tensor) -> dict[str, Any]:
        """A row of best of K and diversity of the first n photographs' draws, uint8 (n, K, 3, H, W)."""
        count, several = draws.shape[:2]
        originals = self.originals[:count]
        candidates = self.reference.candidates(draws)
        assert candidates.squeezenet_distance is not None and candidates.diversity is not None
        row: dict[str, Any] = {"name": name, "photos": count, "candidates": several}
        for judgement in self.judgements:
            row |= judgement.of_draws(draws)

        def best(measure: Any, largest: bool) -> float:  # Any: a function of pictures and their originals
            return best_of(torch.stack([measure(draws[:, k], originals) for k in range(several)], dim=1), largest)

        row |= {
            "squeezenet_distance": float(candidates.squeezenet_distance.mean()),
            "squeezenet_diversity": float(candidates.diversity.mean()),
            "ciede2000": best(ciede2000, False), "psnr": best(psnr, True), "ssim": best(ssim, True),
        }  # fmt: skip
        self.rows.append(row)
        return row

    def finish(self) -> dict[str, Any]:
        """Print the table, write results.json and sheet.png; returns what was written as JSON."""
        return self.publish(translation_table(self.rows), self.columns)


def translation_table(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table; its columns are the figures that any row has, in the order in which they come."""
    keys = list(dict.fromkeys(key for row in rows for key in row if not key.endswith(UNSHOWN)))
    body = [[row["name"], str(row["photos"]), *(_cell(row, key) for key in keys)] for row in rows]
    return aligned([["system", "photos", *keys], *body])


def _cell(row: dict[str, Any], key: str) -> str:
    if row.get(key) is None:
        return "-"
    text = format(row[key], next((spec for end, spec in SPECS.items() if key.endswith(end)), ".2f"))
    if f"{key}_95" in row:
        text += " [{:.0f}, {:.0f}]".format(*row[f"{key}_95"])
    return text
