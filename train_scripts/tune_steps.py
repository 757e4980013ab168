"""Learns what few steps of stage 1 get wrong, from many steps: its `FewSteps`.

    python train_scripts/tune_steps.py

One draw of each photograph held out of training, by `--reference` steps of the spectral sampler and, from
the same noise, by few, at `--levels`. Factors on both parts of each few step, by frequency, and the modulations of the
network at each (`FewSteps`) are learned so that the draws end where those of many steps end: the mean over frequency
bands of the squared error relative to the band's energy, so that fine detail, which has little energy, counts as much
as the tint; and with the same energy in each band, for what is missing in single draws is missing in the colors of all.
Nothing else of the weights changes. A quarter of the photographs is not learned from; what is printed is of these.
Where the weights have learned hints, half of the photographs come with some, drawn as in training.

Written: the stage with its tuned steps, for train_scripts/package.py; and results.json in `--out`.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from stages.checkpoint import CONFIG_NAME, WEIGHTS_NAME, read_description, sha256_of
from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb
from stages.corruptions.hints import drawn_hints
from stages.diffusion import FewSteps, sample_exponential
from stages.diffusion.noise import draw_noise, geometric_sigmas
from stages.diffusion.wiener import BANDS
from stages.evaluation.coarse import streams, view_of
from stages.evaluation.command import arguments, batches, positive, run
from stages.evaluation.few_steps import diffusion_colorizer, with_levels
from stages.evaluation.photos import HELD_OUT, EvaluationError, Photos, load_photos
from stages.evaluation.report import Account
from stages.photographs import data_folder
from stages.seeds import seed_of
from stages.stage1_coarse.diffusion import DiffusionColorizer
from stages.stage1_coarse.diffusion_networks import CHROMA_SIDE
from train_scripts.weights import coarse_colorizer, stage_weights

LEVELS = [95.0, 18.0, 5.5, 1.5, 0.37, 0.06]
BATCH = 25  # draws
HINTED = 0.5  # share of the photographs that come with hints
GAIN_RATE, MODULATION_RATE = 0.01, 0.005  # of learning
ENERGY = 0.5  # weight of the squared logarithms of energy ratios, beside the relative squared error


def parser() -> argparse.ArgumentParser:
    options = arguments("tuned", "Learn what stage 1's few steps get wrong.", "photos64", "as stage 1 sees them")
    options.set_defaults(split=HELD_OUT)
    options.add_argument("--weights", type=Path, metavar="FOLDER", default=Path("runs/stage1/final"),
                         help="stage 1 (default: %(default)s)")  # fmt: skip
    options.add_argument("--tuned", type=Path, metavar="FOLDER",
                         help="where to write it with its tuned steps (default: `tuned` beside --weights)")  # fmt: skip
    options.add_argument("--levels", type=float, nargs="+", default=LEVELS, metavar="SIGMA",
                         help="of the noise where the few steps begin (default: %(default)s)")  # fmt: skip
    options.add_argument("--reference", type=positive, default=50, metavar="N", help="steps to learn from")
    options.add_argument("--passes", type=positive, default=8, help="over all draws")
    return options


class LongDraws:
    """Noise, what the encoder says, and where `reference` steps end, of one draw of each photograph."""

    def __init__(self, stage: DiffusionColorizer, photos: Photos, seed: int, reference: int) -> None:
        self.denoiser = stage.denoiser
        sigmas = geometric_sigmas(reference, stage.config.sigma_min, stage.config.sigma_max)
        sources, noise, maps, target = photos.noise(seed), [], [], []
        for part in tqdm(batches(len(photos), BATCH), desc="reference", unit="batch"):
            encoding = stage.encode(view_of(photos, part))
            if stage.takes_hints:
                torch.manual_seed(seed_of(seed, "hints", part.start))
                chroma = resize(chroma_from_rgb(photos.rgb(part)), (CHROMA_SIDE, CHROMA_SIDE))
                encoding = stage.with_hints(encoding, drawn_hints(chroma, HINTED, stage.config.chroma_std))
            maps.append(encoding.maps)
            shape = (len(part), *self.denoiser.spectrum.shape)
            noise.append(draw_noise(shape, streams(sources[part.start : part.stop], 1)))
            target.append(sample_exponential(self.denoiser, noise[-1], sigmas, context=maps[-1]))
        self.noise, self.target = torch.cat(noise), torch.cat(target)
        self.maps = [torch.cat(one) for one in zip(*maps, strict=True)]

    def sampled(self, rows: Tensor, sigmas: FewSteps | list[float]) -> Tensor:
        return sample_exponential(self.denoiser, self.noise[rows], sigmas, context=[m[rows] for m in self.maps])

    def compared(self, drawn: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """By band: squared error relative to the target's energy, and energy relative to it, (len(BANDS),) each."""
        drawn, target = self.denoiser.coefficients(drawn), self.denoiser.coefficients(target)
        error, energy, whole = (self._by_band(x.square()) for x in (drawn - target, drawn, target))
        return error / whole, energy / whole

    def _by_band(self, squares: Tensor) -> Tensor:
        return torch.zeros(len(BANDS)).index_add(0, self.denoiser.band.flatten(), squares.mean((0, 1)).flatten())


def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    folder = stage_weights(args.weights, "coarse")
    if args.tuned is None and (folder.parent / "model_index.json").exists():
        raise EvaluationError(f"{folder} is a pipeline's: --tuned must say where its tuned steps are to go")
    target = args.tuned or folder.parent / "tuned"
    if target.resolve() == folder.resolve() or not is_free(target):  # said before the work, not after it
        raise EvaluationError(
            f"--tuned {target}: name a folder that is new, or holds an earlier tuned stage 1, beside {folder}"
        )
    stage = with_levels(diffusion_colorizer(coarse_colorizer(folder)), args.levels)
    photos = load_photos(data_folder(args.data), args.set, args.split, args.photos)
    account = Account(args, photos)
    account.use_weights("stage1", folder, stage)
    test = len(photos) // 4
    if test < 1:
        raise EvaluationError(f"at least 4 photographs are needed; got {len(photos)}")
    tuned = stage.tuned
    assert tuned is not None
    with torch.no_grad():
        draws = LongDraws(stage, photos, args.seed, args.reference)
    tested = torch.arange(len(photos) - test, len(photos))
    account.rows.append(row("as they are", draws, tested, tuned.sigmas))
    losses = learn(tuned, draws, len(photos) - test, args.seed, args.passes)
    account.rows.append(row("tuned", draws, tested, tuned))
    for one in account.rows:
        print("{name}: relative error {relative_error:.4f}".format(**one))
        for key in ("relative_error_by_band", "energy_by_band"):
            print(f"    {key}: " + " ".join(f"{value:.3f}" for value in one[key]))
    stage.save_pretrained(target)
    account.record |= {
        "reference": args.reference, "levels": args.levels, "passes": args.passes,
        "hinted": HINTED if stage.takes_hints else 0.0, "learned_from": len(photos) - test,
        "loss_by_pass": losses, "tuned": {"sha256": sha256_of(target / "model.safetensors")},
    }  # fmt: skip
    results = account.write()
    print(f"written: {target}, {args.out / 'results.json'}")
    return results


def is_free(folder: Path) -> bool:
    """Whether a stage can be saved there without anything being lost but an earlier tuning."""
    if not folder.exists():
        return True
    if not folder.is_dir() or {path.name for path in folder.iterdir()} != {CONFIG_NAME, WEIGHTS_NAME}:
        return False
    description = read_description(folder)
    return description["family"] == "coarse" and bool(description["config"].get("tuned"))


def learn(tuned: FewSteps, draws: LongDraws, count: int, seed: int, passes: int) -> list[float]:
    """Learns the tuned steps from the first `count` draws; the mean loss of each pass. Raises EvaluationError where it
    is no longer finite.
    """
    rates = ((tuned.gains, GAIN_RATE), (tuned.modulation, MODULATION_RATE))
    optimizer = torch.optim.Adam([{"params": [one.requires_grad_(True)], "lr": rate} for one, rate in rates])
    generator = torch.Generator().manual_seed(seed)
    per_pass = -(-count // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, passes * per_pass)
    losses = []
    for number in range(passes):
        order, total = torch.randperm(count, generator=generator), 0.0
        for rows in tqdm(order.split(BATCH), desc=f"pass {number + 1}", unit="batch"):
            error, energy = draws.compared(draws.sampled(rows, tuned), draws.target[rows])
            loss = error.mean() + ENERGY * energy.log().square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() / per_pass
        if not math.isfinite(total):
            raise EvaluationError(f"the loss of pass {number + 1} is {total}; try other --levels")
        losses.append(total)
        tqdm.write(f"pass {number + 1}: loss {total:.5f}")
    for one, _ in rates:
        one.requires_grad_(False)
    return losses


@torch.no_grad()
def row(name: str, draws: LongDraws, tested: Tensor, sigmas: FewSteps | list[float]) -> dict[str, Any]:
    drawn = torch.cat([draws.sampled(rows, sigmas) for rows in tested.split(BATCH)])
    target = draws.target[tested]
    error, energy = draws.compared(drawn, target)
    return {
        "name": name, "relative_error": float((drawn - target).norm() / target.norm()),
        "relative_error_by_band": error.sqrt().tolist(), "energy_by_band": energy.tolist(),
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    return run(evaluate, parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
