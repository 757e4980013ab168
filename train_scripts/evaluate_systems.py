"""One table of all that colors: stages 1 of any kind, image-to-image networks, and the cascade's own default.

    python train_scripts/evaluate_systems.py --weights runs/palette/final runs/gan/final runs/stage1_pic_small/final

Rows, on the same photographs and noise: the originals, plain gray, preview and default output of the packaged stage 1,
one draw of each `--weights`, and best of K with its diversity for those that have several answers. Everything is at
64x64, at the luma of the gray picture: a stage 1 is scored by its chroma before it is cut to 3 bits, if it knows it.
`--steps` is of every network that is sampled in steps, by DPM-Solver++ where it is of the family image_to_image.

`parameters` are those of use: of a gan its generator's. `seconds` and `memory` are of a process of its own that colors
eight pictures one by one, after another: seconds for one, and the process's peak, in GB.

`--free FILE` also writes a sheet: two squares of each of six freely licensed photographs by every system, one draw.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from pipeline.demo import free_photos
from stages.checkpoint import read_description
from stages.color.spaces import chroma_from_rgb, merge
from stages.evaluation.coarse import central, forms, streams, view_of
from stages.evaluation.command import add_best_of, add_steps, arguments, batches, run
from stages.evaluation.conditions import Setting
from stages.evaluation.photos import SETS, EvaluationError, Photos, load_photos
from stages.evaluation.pixel import PictureList, picture_from_rgb
from stages.evaluation.provenance import weights_of
from stages.evaluation.report import Report
from stages.evaluation.tables import PREVIEW, save_sheet
from stages.faces import CoarseColorizer
from stages.image_to_image.face import ImageToImage, TranslateOptions
from stages.options import SampleOptions
from stages.photographs import data_folder
from stages.provenance import ROOT
from stages.registry import load_stage
from stages.seeds import NoiseSource
from stages.stage import Stage
from train_scripts.weights import coarse_colorizer, stage_weights

SIDE, SHEET_SIDE, BATCH, TIMED = 64, 128, 16, 8
SAMPLER = "dpmpp_2m"
DEFAULT = "default output"


@dataclass(frozen=True)
class System:
    """draw: photographs, which of them, their noise, K -> uint8 (B, K, 3, 64, 64); single: it has one answer

    sampling: the steps and the sampler that are used; None: it is not sampled in steps
    """

    name: str
    draw: Callable[[Photos, range, Sequence[NoiseSource], int], Tensor]
    parameters: int
    folder: Path
    sampling: dict[str, Any] | None
    single: bool = False


def parser() -> argparse.ArgumentParser:
    options = arguments("systems", "One table of all that colors.", "photos128", f"scored at {SIDE}x{SIDE}")
    options.add_argument("--weights", type=Path, nargs="+", default=[], metavar="FOLDER",
                         help="saved stages of the families coarse and image_to_image")  # fmt: skip
    add_steps(options, "every network that is sampled in steps, the packaged one excepted")
    add_best_of(options, photos=64)
    options.set_defaults(candidates=4)
    options.add_argument("--free", type=Path, metavar="FILE", help="also write a sheet of free photographs")
    options.add_argument("--time", metavar="NAME", help=argparse.SUPPRESS)  # in the process of its own
    return options


# Systems -------------------------------------------------------------------------------------------


def of_stage1(name: str, folder: Path, stage: CoarseColorizer[Any], steps: int | None) -> System:
    options = SampleOptions(steps=steps)
    stage.check_honored(options, SampleOptions.COARSE)

    def draw(photos: Photos, part: range, noise: Sequence[NoiseSource], count: int) -> Tensor:
        encoding = stage.encode(view_of(photos, part))
        draws = stage.sample(encoding, count, options, streams(noise, count))
        return picture_from_rgb(next(iter(forms(encoding.gray64, draws, None).values())))

    return System(name, draw, parameters(stage), folder, sampled(stage, steps))


def of_network(name: str, folder: Path, network: ImageToImage, steps: int | None) -> System:
    if "colorize" not in network.tasks or network.side != SIDE:
        raise EvaluationError(
            f"{folder}: networks that color at {SIDE}x{SIDE} are compared; this one has side {network.side} and the "
            f"tasks {', '.join(network.tasks)}"
        )
    options = TranslateOptions(steps, SAMPLER) if network.sampling else TranslateOptions()

    def draw(photos: Photos, part: range, noise: Sequence[NoiseSource], count: int) -> Tensor:
        some = photos.part(part.start, part.stop).reduced(SIDE)
        condition = Setting().condition("colorize", some.rgb(), noise)
        rgb = network.sample(condition, "colorize", count, options, streams(noise, count, "image_to_image"))
        return picture_from_rgb(merge(condition.source[:, None, :1], chroma_from_rgb(rgb)))

    sampling = sampled(network, steps)
    return System(name, draw, parameters(network), folder, sampling and sampling | {"sampler": SAMPLER}, not sampling)


def packaged(preview: bool) -> System:
    """The preview, or the default output: the most central of the pool; of several the first as they come."""
    folder = stage_weights(None, "coarse")
    stage = coarse_colorizer(folder)

    def draw(photos: Photos, part: range, noise: Sequence[NoiseSource], count: int) -> Tensor:
        encoding = stage.encode(view_of(photos, part))
        if preview:
            return picture_from_rgb(stage.preview(encoding)[:, None])
        pool = stage.pool if count == 1 else count
        draws = stage.sample(encoding, pool, SampleOptions(), streams(noise, pool))
        pictures = picture_from_rgb(next(iter(forms(encoding.gray64, draws, None).values())))
        if count > 1:
            return pictures
        return pictures[torch.arange(len(part)), central(encoding.gray64, draws.coarse64, pool)][:, None]

    sampling = None if preview else sampled(stage, None)
    return System(PREVIEW if preview else DEFAULT, draw, parameters(stage), folder, sampling, single=preview)


def sampled(stage: Stage, steps: int | None) -> dict[str, Any] | None:
    return stage.sampling and {"sampler": stage.sampling["sampler"], "steps": steps or stage.sampling["steps"]}


def parameters(stage: Stage) -> int:
    """Those that color: of a kind with players those of the last one, the generator, alone."""
    part: torch.nn.Module = getattr(stage, stage.players[-1]) if stage.players else stage
    return sum(one.numel() for one in part.parameters())


def named(folder: Path, steps: int | None) -> System:
    """By the family of the saved stage, and by the config it was trained with."""
    family = read_description(folder)["family"]
    stage = load_stage(stage_weights(folder, family))
    name = str((stage.trained or {}).get("config", folder))
    steps = steps if stage.sampling else None
    if isinstance(stage, ImageToImage):
        return of_network(name, folder, stage, steps)
    if isinstance(stage, CoarseColorizer):
        return of_stage1(name, folder, stage, steps)
    raise EvaluationError(f"{folder} holds weights of the family {family}; expected coarse or image_to_image")


# Scores --------------------------------------------------------------------------------------------


@torch.inference_mode()
def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    if args.time:
        print(json.dumps(timed(args.time, args.weights, args.steps)))
        return {}
    systems = [packaged(True), packaged(False), *(named(folder, args.steps) for folder in args.weights)]
    if len({system.name for system in systems}) < len(systems):
        raise EvaluationError(f"two of the --weights have one name: {[system.name for system in systems]}")
    photos = load_photos(data_folder(args.data), args.set, args.split, args.photos)
    report = Report(args, photos.reduced(SIDE))
    noise, best_photos = photos.noise(args.seed), min(args.best_photos, len(photos))
    for system in systems:
        report.record["weights"][system.name] = weights_of(system.folder)
        for key, value in (system.sampling or {}).items():
            report.record[key][system.name] = value
        first: list[Tensor] = []
        best: list[Tensor] = []
        for part in tqdm(batches(len(photos), BATCH), desc=system.name, unit="batch"):
            some = noise[part.start : part.stop]
            first.append(system.draw(photos, part, some, 1)[:, 0])
            if part.start < best_photos and not system.single:
                best.append(system.draw(photos, part, some, args.candidates)[: best_photos - part.start])
        report.add(system.name, torch.cat(first), sheet=system.name)
        report.rows[-1] |= {"parameters": system.parameters, **in_its_own_process(system, args.steps)}
        if best:
            report.add_candidates(f"{system.name}, best of {args.candidates}", torch.cat(best), sheet=False)
    if args.free:
        save_sheet(args.free, sheet_of(systems, args.seed))
    return report.finish()


def in_its_own_process(system: System, steps: int | None) -> dict[str, float]:
    """`seconds` for one picture and `memory`, the peak in GB, of a process that does nothing else."""
    command = [sys.executable, "-m", "train_scripts.evaluate_systems", "--time", system.name]
    if system.name not in (PREVIEW, DEFAULT):
        command += ["--weights", str(system.folder.resolve()), *(["--steps", str(steps)] if steps else [])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise EvaluationError(f"{system.name} could not be timed in a process of its own: {done.stderr[-300:]}")
    return json.loads(done.stdout.splitlines()[-1])


def timed(name: str, weights: Sequence[Path], steps: int | None) -> dict[str, float]:
    system = packaged(name == PREVIEW) if name in (PREVIEW, DEFAULT) else named(weights[0], steps)
    side = SETS["photos128"].side
    pictures = torch.randint(256, (TIMED + 1, 3, side, side), generator=torch.Generator().manual_seed(0))
    photos = Photos(name, pictures.byte(), [])
    noise = photos.noise(0)
    for place in range(TIMED + 1):
        if place == 1:  # the first call of all is not counted
            start = time.perf_counter()
        system.draw(photos, range(place, place + 1), noise[place : place + 1], 1)
    seconds = (time.perf_counter() - start) / TIMED
    return {"seconds": seconds, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}


def sheet_of(systems: Sequence[System], seed: int) -> list[tuple[str, PictureList]]:
    """Columns of a sheet: two squares, at both ends, of each of six free photographs."""
    squares = []
    for path in free_photos():
        with Image.open(path) as photo:
            for end in (0.0, 1.0):
                square = ImageOps.fit(photo.convert("RGB"), (SHEET_SIDE, SHEET_SIDE), centering=(end, end))
                squares.append(torch.from_numpy(np.array(square)).permute(2, 0, 1))
    photos = Photos("free photographs", torch.stack(squares), [])
    noise, every = photos.noise(seed), range(len(squares))
    small = photos.reduced(SIDE)
    columns: list[tuple[str, PictureList]] = [("original", small.pictures), ("gray", small.plain_gray())]
    return columns + [(system.name, system.draw(photos, every, noise, 1)[:, 0]) for system in systems]


def main(argv: list[str] | None = None) -> int:
    return run(evaluate, parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
