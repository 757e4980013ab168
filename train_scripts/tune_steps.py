"""Learns what few steps of stage 1 get wrong, from many steps: the `gains` of its sampler.

    python train_scripts/tune_steps.py

Two draws of each of the first photographs held out of training, by `--reference` steps of the spectral
sampler and, from the same noise, by the few that the weights ask for. Factors on both parts of each few step, by
frequency (`SpectralDenoiser.sample`), are learned so that the draws end where those of many steps end, and with the
same energy in each band, for what is missing in single draws is missing in the colors of all. A quarter of the
photographs is not learned from; what is printed is of these. The last line is for `stage1` in configs/pipeline.toml.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from stages import color
from stages.data import data_folder
from stages.diffusion.noise import geometric_sigmas
from stages.diffusion.spectral import BANDS, SpectralDenoiser
from stages.kinds import load_stage
from train_scripts import evaluation

DRAWS = 2  # of each photograph
BATCH = 64  # draws
ENERGY = 0.5  # weight of the squared logarithms of energy ratios, beside the relative squared error


def parser() -> argparse.ArgumentParser:
    options = evaluation.arguments("gains", "Learn the gains of stage 1's few steps.")
    options.set_defaults(split=evaluation.HELD_OUT, photos=256)
    options.add_argument("--weights", type=Path, metavar="FOLDER", help="stage 1 (default: the packaged one)")
    options.add_argument("--set", default="photos64", help="photographs in --data (default: %(default)s)")
    options.add_argument("--reference", type=evaluation.positive, default=50, metavar="N", help="steps to learn from")
    options.add_argument("--passes", type=evaluation.positive, default=10, help="over all draws")
    options.add_argument("--learning-rate", type=float, default=0.02)
    return options


class Draws:
    """Noise, what the encoder says, and where `reference` steps end, of all draws."""

    def __init__(self, stage: Any, photos: evaluation.Photos, seed: int, reference: int) -> None:
        self.denoiser: SpectralDenoiser = stage.denoiser
        self.noise = torch.randn(len(photos) * DRAWS, *self.denoiser.spectrum.shape,
                                 generator=torch.Generator().manual_seed(seed))  # fmt: skip
        encoded = []
        for part in evaluation.batches(len(photos), 16):
            gray64, sharp = evaluation.seen_by_stage1(
                stage, color.gray_from_rgb(photos.rgb(slice(part.start, part.stop)))
            )
            encoded.append(stage.encode(gray64, **sharp).maps)
        self.maps = [torch.cat(one).repeat_interleave(DRAWS, 0) for one in zip(*encoded, strict=True)]
        sigmas = geometric_sigmas(reference, stage.config.sigma_min, stage.config.sigma_max)
        parts = tqdm(self.parts(0, len(photos)), desc="reference")
        self.target = torch.cat([self.sampled(part, sigmas) for part in parts])

    def parts(self, first: int, end: int) -> list[range]:
        """The draws of photographs from `first` to before `end`, in batches."""
        rows = range(first * DRAWS, end * DRAWS)
        return [rows[part.start : part.stop] for part in evaluation.batches(len(rows), BATCH)]

    def sampled(self, part: range, sigmas: Tensor, gains: Tensor | None = None) -> Tensor:
        rows = slice(part.start, part.stop)
        return self.denoiser.sample(self.noise[rows], sigmas, None, gains, context=[m[rows] for m in self.maps])

    def energies(self, x: Tensor) -> Tensor:
        """Mean energy of fields (N, C, H, W) by band."""
        each = self.denoiser.coefficients(x).square().mean((0, 1)).flatten()
        return torch.zeros(len(BANDS)).index_add(0, self.denoiser.band.flatten(), each)


def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    if args.steps is not None:
        raise evaluation.EvaluationError("the weights and --reference say how many steps; leave out --steps")
    folder = evaluation.stage_weights(args.weights, 1)
    stage: Any = load_stage(folder).eval().requires_grad_(False)
    if getattr(stage.config, "sampler", None) != "spectral" or not stage.config.levels:
        raise evaluation.EvaluationError(
            f"{folder}: gains are for the sampler `spectral` and its `levels`; package the run with these first"
        )
    photos = evaluation.load_photos(data_folder(args.data), args.set, args.split, args.photos)
    account = evaluation.Account(args, photos)
    account.use_weights("stage1", folder, stage)
    test = len(photos) // 4
    if test < 1:
        raise evaluation.EvaluationError(f"at least 4 photographs are needed; got {len(photos)}")
    sigmas = torch.tensor([*stage.config.levels, 0.0], dtype=torch.float64)
    with torch.no_grad():
        draws = Draws(stage, photos, args.seed, args.reference)
    learned, tested = draws.parts(0, len(photos) - test), draws.parts(len(photos) - test, len(photos))
    gains = torch.ones(len(sigmas) - 1, 2, len(BANDS), requires_grad=True)
    optimizer = torch.optim.Adam([gains], args.learning_rate)
    steps = args.passes * len(learned)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in tqdm(range(steps), desc="gains"):
        part = learned[step % len(learned)]
        found, target = draws.sampled(part, sigmas, gains), draws.target[part.start : part.stop]
        error = (found - target).square().mean() / target.square().mean()
        energy = (draws.energies(found) / draws.energies(target)).log().square().mean()
        optimizer.zero_grad()
        (error + ENERGY * energy).backward()
        optimizer.step()
        schedule.step()
    for name, used in (("without gains", None), ("with gains", gains.detach())):
        account.rows.append(row(name, draws, tested, sigmas, used))
        print("{name}: relative error {relative_error:.4f}, energy {energy:.3f}, ".format(**account.rows[-1])
              + "by band " + " ".join(f"{ratio:.3f}" for ratio in account.rows[-1]["energy_by_band"]))  # fmt: skip
    rounded = [[round(float(gain), 3) for gain in one.flatten()] for one in gains.detach()]
    account.record |= {"reference": args.reference, "passes": args.passes, "draws": DRAWS, "gains": rounded}
    results = account.write()
    print(f"written: {args.out / 'results.json'}\ngains = {rounded}")
    return results


@torch.no_grad()
def row(name: str, draws: Draws, tested: list[range], sigmas: Tensor, gains: Tensor | None) -> dict[str, Any]:
    found = torch.cat([draws.sampled(part, sigmas, gains) for part in tested])
    target = torch.cat([draws.target[part.start : part.stop] for part in tested])
    by_band = draws.energies(found) / draws.energies(target)
    return {
        "name": name, "relative_error": float((found - target).norm() / target.norm()),
        "energy": float(found.square().mean() / target.square().mean()), "energy_by_band": by_band.tolist(),
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    return evaluation.run(evaluate, parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
