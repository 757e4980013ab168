"""One table of all that colors: stages 1 of any kind, image-to-image networks, and the cascade's own default.

    python train_scripts/evaluate_systems.py --weights runs/palette/final runs/gan/final runs/stage1_pic_small/final

Rows, on the same photographs and noise: the originals, plain gray, preview and default output of the packaged stage 1,
one draw of each `--weights`, and best of K with its diversity for those whose draws differ. Everything is at the luma
of the gray picture: a stage 1 is scored by its chroma before it is cut to 3 bits, if it knows it. `--steps` is of every
network that is sampled in steps, by DPM-Solver++ where it is of the family image_to_image. `--dtype` is of the insides
of the networks of that family, seconds and memory included; stages 1 are float32.

All color at 64x64. With `--side 128` those stand in the table that color there: networks for which any side will do,
and in place of the packaged stage 1 all of the packaged cascade.

`parameters` are those of use: of a gan its generator's. `pictures_seen` are those of the training that the weights
tell of; the packaged ones, which have had several, have none.
`seconds` and `memory` are of processes of their own that color eight pictures one by one, after another, before
anything is scored: three for each system, in rounds over all of them. `seconds` is the fewest for one picture,
`memory` the highest peak of a process in GB, `memory_before` what it took before there was a network. `load` is what
else the machine did before the first: a figure near 0 is of an idle machine.

`--free FILE` also writes a sheet: two squares of each of six freely licensed photographs by every system, one draw.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from pipeline import ColorPipeline
from pipeline.demo import free_photos
from pipeline.folder import DEFAULT_WEIGHTS
from stages.checkpoint import read_description
from stages.color.spaces import chroma_from_rgb, merge
from stages.evaluation.coarse import central, forms, streams, view_of
from stages.evaluation.command import DTYPES, add_best_of, add_dtype, add_steps, arguments, batches, run
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

SIDE, LARGE, BATCH, TIMED, ROUNDS = 64, 128, 16, 8, 3
SAMPLER = "dpmpp_2m"
DEFAULT = "default output"


@dataclass(frozen=True)
class System:
    """draw: photographs, which of them, their noise, K -> uint8 (B, K, 3, S, S); single: it has one answer

    folders: of its weights, by stage; sampling: the steps and the sampler that are used, and the pool that one is
    chosen of; None: it is not sampled in steps
    """

    name: str
    draw: Callable[[Photos, range, Sequence[NoiseSource], int], Tensor]
    parameters: int
    folders: dict[str, Path]
    sampling: dict[str, Any] | None
    single: bool = False


def parser() -> argparse.ArgumentParser:
    options = arguments("systems", "One table of all that colors.", "photos128", "scored at --side")
    options.add_argument("--side", type=int, choices=(SIDE, LARGE), default=SIDE, help="default: %(default)s")
    options.add_argument("--weights", type=Path, nargs="+", default=[], metavar="FOLDER",
                         help="saved stages of the families coarse and image_to_image")  # fmt: skip
    add_steps(options, "every network that is sampled in steps, the packaged one excepted")
    add_dtype(options, "the image-to-image networks")
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

    return System(name, draw, parameters(stage), {"stage1": folder}, sampled(stage, steps))


def of_network(
    name: str, folder: Path, network: ImageToImage, steps: int | None, side: int, dtype: torch.dtype
) -> System:
    if "colorize" not in network.tasks or not (network.any_side or network.side == side):
        raise EvaluationError(
            f"{folder}: networks that color at {side}x{side} are compared; this one has side {network.side}"
            f"{', and no other' * (not network.any_side)}, and the tasks {', '.join(network.tasks)}"
        )
    options = TranslateOptions(steps, SAMPLER) if network.sampling else TranslateOptions()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster, on CPUs most of all

    def draw(photos: Photos, part: range, noise: Sequence[NoiseSource], count: int) -> Tensor:
        some = photos.part(part.start, part.stop).reduced(side)
        condition = Setting().condition("colorize", some.rgb(), noise)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            rgb = network.sample(condition, "colorize", count, options, streams(noise, count, "image_to_image"))
        return picture_from_rgb(merge(condition.source[:, None, :1], chroma_from_rgb(rgb.float())))

    sampling = sampled(network, steps)
    sampling = sampling and sampling | {"sampler": SAMPLER}
    return System(name, draw, parameters(network), {"network": folder}, sampling, not network.varied)


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

    name, folders = PREVIEW if preview else DEFAULT, {"stage1": folder}
    return System(name, draw, parameters(stage), folders, None if preview else pooled(stage), single=preview)


def cascade(preview: bool) -> System:
    """All of the packaged pipeline, at the size of the photograph."""
    pipe = ColorPipeline.from_pretrained()
    folders = {name: DEFAULT_WEIGHTS / name for name in pipe.stages}

    def draw(photos: Photos, part: range, noise: Sequence[NoiseSource], count: int) -> Tensor:
        gray = [one[0].numpy() for one in photos.part(part.start, part.stop).gray()]
        output = pipe(gray, count, generator=noise[0].seed, preview=preview, pool=None if count == 1 else 1,
                      output_type="np")  # fmt: skip
        pictures = torch.from_numpy(np.stack([np.asarray(image) for image in output.images]))
        return pictures.permute(0, 3, 1, 2).unflatten(0, (len(part), count))

    total, name = sum(parameters(stage) for stage in pipe.stages.values()), PREVIEW if preview else DEFAULT
    return System(name, draw, total, folders, None if preview else pooled(pipe.coarse), single=preview)


def sampled(stage: Stage, steps: int | None) -> dict[str, Any] | None:
    return stage.sampling and {"sampler": stage.sampling["sampler"], "steps": steps or stage.sampling["steps"]}


def pooled(stage: CoarseColorizer[Any]) -> dict[str, Any]:
    return (sampled(stage, None) or {}) | {"pool": stage.pool}


def parameters(stage: Stage) -> int:
    """Those that color: of a kind with players those of the last one, the generator, alone."""
    part: torch.nn.Module = getattr(stage, stage.players[-1]) if stage.players else stage
    return sum(one.numel() for one in part.parameters())


def packaged_at(side: int, preview: bool) -> System:
    return packaged(preview) if side == SIDE else cascade(preview)


def named(folder: Path, steps: int | None, side: int, dtype: torch.dtype) -> System:
    """By the family of the saved stage, and by the config it was trained with."""
    family = read_description(folder)["family"]
    stage = load_stage(stage_weights(folder, family))
    name = str((stage.trained or {}).get("config", folder))
    steps = steps if stage.sampling else None
    if isinstance(stage, ImageToImage):
        return of_network(name, folder, stage, steps, side, dtype)
    if isinstance(stage, CoarseColorizer):
        if side != SIDE:
            raise EvaluationError(f"{folder}: a stage 1 colors at {SIDE}x{SIDE}; leave it out, or --side")
        return of_stage1(name, folder, stage, steps)
    raise EvaluationError(f"{folder} holds weights of the family {family}; expected coarse or image_to_image")


# Scores --------------------------------------------------------------------------------------------


@torch.inference_mode()
def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    if args.time:
        print(json.dumps(timed(args)))
        return {}
    if SETS[args.set].side < args.side:
        raise EvaluationError(f"--side {args.side} is more than the {SETS[args.set].side} of {args.set}")
    systems = [packaged_at(args.side, True), packaged_at(args.side, False),
               *(named(folder, args.steps, args.side, DTYPES[args.dtype]) for folder in args.weights)]  # fmt: skip
    if len({system.name for system in systems}) < len(systems):
        raise EvaluationError(f"two of the --weights have one name: {[system.name for system in systems]}")
    photos = load_photos(data_folder(args.data), args.set, args.split, args.photos)
    report = Report(args, photos.reduced(args.side))
    if args.free:
        if not free_photos():
            raise EvaluationError("--free: there are no free photographs here; pip install 'trichrome[demo]'")
        args.free.parent.mkdir(parents=True, exist_ok=True)
    report.record |= {"dtype": args.dtype, "load": os.getloadavg()[0], "pool": {}}
    costs = costs_of(systems, args)
    noise, best_photos = photos.noise(args.seed), min(args.best_photos, len(photos))
    for system in systems:
        weights = {stage: weights_of(folder) for stage, folder in system.folders.items()}
        report.record["weights"][system.name] = weights
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
        seen = {} if system.name in (PREVIEW, DEFAULT) else {"pictures_seen": seen_by(weights)}
        report.rows[-1] |= {"parameters": system.parameters, **seen, **costs[system.name]}
        if best:
            report.add_candidates(f"{system.name}, best of {args.candidates}", torch.cat(best), sheet=False)
    results = report.finish()
    if args.free:
        save_sheet(args.free, sheet_of(systems, args.seed, args.side))
    return results


def seen_by(weights: dict[str, dict[str, Any]]) -> int | None:
    """Pictures of the training of one network."""
    (one,) = weights.values()
    return (one["trained"] or {}).get("pictures")


# Costs ---------------------------------------------------------------------------------------------


def costs_of(systems: Sequence[System], args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """`seconds`, `memory` and `memory_before` of each system, see above."""
    rounds = [{system.name: in_its_own_process(system, args) for system in systems}
              for _ in tqdm(range(ROUNDS), desc="seconds and memory", unit="round")]  # fmt: skip
    best = {"seconds": min, "memory": max, "memory_before": max}
    return {system.name: {key: choose(one[system.name][key] for one in rounds) for key, choose in best.items()}
            for system in systems}  # fmt: skip


def in_its_own_process(system: System, args: argparse.Namespace) -> dict[str, float]:
    """What `--time` says in a process that does nothing else."""
    command = [sys.executable, "-m", "train_scripts.evaluate_systems", "--time", system.name, "--side", str(args.side)]
    command += ["--dtype", args.dtype]
    if system.name not in (PREVIEW, DEFAULT):
        (folder,) = system.folders.values()
        command += ["--weights", str(folder.resolve()), *(["--steps", str(args.steps)] if args.steps else [])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise EvaluationError(f"{system.name} could not be timed in a process of its own: {done.stderr[-300:]}")
    return json.loads(done.stdout.splitlines()[-1])


def timed(args: argparse.Namespace) -> dict[str, float]:
    before, name = peak_memory(), args.time
    if name in (PREVIEW, DEFAULT):
        system = packaged_at(args.side, name == PREVIEW)
    else:
        system = named(args.weights[0], args.steps, args.side, DTYPES[args.dtype])
    pictures = torch.randint(256, (TIMED + 1, 3, LARGE, LARGE), generator=torch.Generator().manual_seed(0))
    photos = Photos(name, pictures.byte(), [])
    noise = photos.noise(0)
    for place in range(TIMED + 1):
        if place == 1:  # the first call of all is not counted
            start = time.perf_counter()
        system.draw(photos, range(place, place + 1), noise[place : place + 1], 1)
    seconds = (time.perf_counter() - start) / TIMED
    return {"seconds": seconds, "memory": peak_memory(), "memory_before": before}


def peak_memory() -> float:
    """The largest resident memory of this process so far, in GB. getrusage would begin with the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


def sheet_of(systems: Sequence[System], seed: int, side: int) -> list[tuple[str, PictureList]]:
    """Columns of a sheet: of each of six free photographs two squares that share no pixel, in opposite corners."""
    squares = []
    for path in free_photos():
        with Image.open(path) as photo:
            width, height = photo.size
            edge = min(width, height, max(width, height) // 2)
            for box in ((0, 0, edge, edge), (width - edge, height - edge, width, height)):
                square = photo.convert("RGB").crop(box).resize((LARGE, LARGE), Image.Resampling.LANCZOS)
                squares.append(torch.from_numpy(np.array(square)).permute(2, 0, 1))
    photos = Photos("free photographs", torch.stack(squares), [])
    noise, every = photos.noise(seed), range(len(squares))
    small = photos.reduced(side)
    columns: list[tuple[str, PictureList]] = [("original", small.pictures), ("gray", small.plain_gray())]
    return columns + [(system.name, system.draw(photos, every, noise, 1)[:, 0]) for system in systems]


def main(argv: list[str] | None = None) -> int:
    return run(evaluate, parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
