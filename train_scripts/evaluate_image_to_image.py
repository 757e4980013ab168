"""Score networks of the family image_to_image by Palette's protocol, side by side.

    python train_scripts/evaluate_image_to_image.py --weights runs/palette/final runs/palette_regression/final

One task of one or several weights, on the same photographs, with the same corruptions and the same noise. Rows: the
originals; the source, what the networks are shown; one draw of each network, of colorization once more with the luma
put back as the pipeline does it; best of K and diversity over the first photographs. A regression has one draw.
Fréchet distances are to other photographs of the split, those after the ones that are scored.

For the task variation (ILVR, kind `unconditional`) the originals are the references, and there is a row for each of
`--factors`: how near to its reference a variation is as N falls.

Each figure names its network: SqueezeNet 1.1 is always there, Inception-v3 and a classifier where a file is given.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from stages.color.spaces import chroma_from_rgb, gray_from_rgb, merge
from stages.corruptions.line_art import METHODS
from stages.corruptions.masks import SIDES
from stages.diffusion.process import SAMPLER_NAMES
from stages.evaluation.coarse import streams
from stages.evaluation.command import DTYPES, add_best_of, add_dtype, add_steps, arguments, batches, positive, run
from stages.evaluation.conditions import HOLES, Setting, shown
from stages.evaluation.judges import classifier_judge, imagenet_classes, inception_judge
from stages.evaluation.photos import SETS, EvaluationError, Photos, load_photos
from stages.evaluation.pixel import picture_from_rgb
from stages.evaluation.translations import TranslationReport
from stages.image_to_image.face import TASKS, Corrector, ImageToImage, Refinement, Task, TranslateOptions
from stages.photographs import data_folder
from train_scripts.weights import image_to_image, stage_weights

BATCH = 16
PURPOSE = "image_to_image"  # of the noise, as in the pipeline
Networks = dict[str, ImageToImage]


def parser() -> argparse.ArgumentParser:
    options = arguments(
        "image_to_image", "Score image-to-image networks by Palette's protocol.", "photos64",
        "scored at the networks' side", sets=SETS,
    )  # fmt: skip
    add = options.add_argument
    add("--weights", type=Path, nargs="+", required=True, metavar="FOLDER", help="networks, side by side")
    add("--task", choices=TASKS, help="default: the only one that all of them have learned")
    add("--real", type=positive, metavar="N",
        help="photographs for Fréchet distances, those after the scored ones (default: as many; of a whole split half)")
    add_steps(options, "the networks")
    add_dtype(options, "the networks")
    add("--sampler", choices=SAMPLER_NAMES, help="default: what the weights ask for")
    add("--hole", choices=HOLES, help="of inpaint: shares of the area in percent (default: center)")
    add("--side", choices=SIDES, help="of uncrop (default: right)")
    add("--quality", type=positive, metavar="Q", help="of jpeg (default: 5)")
    add("--lines", choices=METHODS, help="of line_art: how drawings are made (default: xdog)")
    add("--corrector-steps", type=int, metavar="M", help="of line_art: Langevin steps, 0 for none")
    add("--corrector-snr", type=float, metavar="R", help="of line_art: their size (default: 0.16)")
    add("--factors", type=positive, nargs="+", metavar="N", help="of variation: a row for each (default: 8)")
    add("--low-pass", choices=("bicubic", "box"), help="of variation (default: bicubic)")
    add("--inception", type=Path, metavar="FILE", help="Inception-v3: fid, its distance and score, see the docs")
    add("--classifier", type=Path, metavar="FILE", help="ResNet-50 or EfficientNet-Lite0: score, and accuracy")
    add("--classes", type=Path, metavar="FILE", help="WordNet ids of the classifier's classes, for its accuracy")
    add_best_of(options, photos=100)
    return options


@torch.inference_mode()
def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    networks, folders = loaded(args.weights)
    task = task_of(networks, args.task)
    setting = setting_of(task, args)
    plans = [(row, network, options) for name, network in networks.items()
             for row, options in ways(name, network, task, args)]  # fmt: skip
    if (args.steps or args.sampler) and not any(network.sampling for network in networks.values()):
        raise EvaluationError("--steps and --sampler are of networks that are sampled in steps; none of these is")
    photos, real = photographs(args, networks)
    judges = [inception_judge(args.inception)] if args.inception else []
    judges += [classifier_judge(args.classifier)] if args.classifier else []
    classes = classes_of(args, photos)
    report = TranslationReport(args, photos, real, judges, classes)
    condition_of_task = {name: getattr(setting, name) for name, belongs in Setting.BELONGS.items() if belongs == task}
    report.record |= {"task": task, "dtype": args.dtype, "condition": condition_of_task}
    for name, network in networks.items():
        steps = args.steps if network.sampling else None
        report.use_weights(name, folders[name], network, steps)
        if network.sampling and args.sampler:
            report.record["sampler"][name] = args.sampler
    for row, network, options in plans:
        if corrector := options.corrector or getattr(network.config, "corrector", None):
            report.record.setdefault("corrector", {})[row] = dataclasses.asdict(corrector)
    if args.classifier and classes is None:
        report.note("no accuracy: give --classes, and a --set whose photographs have labels")

    sources, noise = [], photos.noise(args.seed)
    for part in batches(len(photos), BATCH):
        condition = setting.condition(task, photos.rgb(part), noise[part.start : part.stop])
        sources.append(picture_from_rgb(shown(condition)))
    report.add("source", torch.cat(sources), sheet="source")
    for row, network, options in plans:
        score(report, row, network, task, setting, options, args)
    if task == "variation":
        note_nearness(report)
    return report.finish()


def score(
    report: TranslationReport, name: str, network: ImageToImage, task: Task, setting: Setting,
    options: TranslateOptions, args: argparse.Namespace,
) -> None:  # fmt: skip
    """The rows of one network and its options."""
    photos = report.photos
    noise, best_photos = photos.noise(args.seed), min(args.best_photos, len(photos))
    first: list[Tensor] = []
    at_luma: list[Tensor] = []
    best: list[Tensor] = []
    faults: dict[str, list[Tensor]] = {}
    seconds, drawn = 0.0, 0
    for part in tqdm(batches(len(photos), BATCH), desc=name, unit="batch"):
        rgb, some = photos.rgb(part), noise[part.start : part.stop]
        condition = setting.condition(task, rgb, some)
        count = args.candidates if part.start < best_photos and network.varied else 1
        start = time.perf_counter()
        with torch.autocast("cpu", DTYPES[args.dtype], enabled=args.dtype != "float32"):
            draws = network.sample(condition, task, count, options, streams(some, count, PURPOSE)).float()
        seconds, drawn = seconds + time.perf_counter() - start, drawn + count * len(part)
        pictures = picture_from_rgb(draws)
        first.append(pictures[:, 0].clone())
        if part.start < best_photos:  # of a network with one answer: the same, K times
            best.append(pictures[: best_photos - part.start].expand(-1, args.candidates, -1, -1, -1))
        for key, values in setting.faults(task, condition, draws[:, 0]).items():
            faults.setdefault(key, []).append(values)
        if task == "colorize":
            gray = gray_from_rgb(rgb)
            at_luma.append(picture_from_rgb(merge(gray, chroma_from_rgb(draws[:, 0]))))
    means = {key: float(torch.cat(values).mean()) for key, values in faults.items()}
    report.add(name, torch.cat(first), sheet=name, seconds_per_draw=seconds / drawn, **means)
    if at_luma:
        report.add(f"{name}, luma kept", torch.cat(at_luma))
    report.add_draws(f"{name}, best of {args.candidates}", torch.cat(best))


def ways(
    name: str, network: ImageToImage, task: Task, args: argparse.Namespace
) -> Iterator[tuple[str, TranslateOptions]]:
    """Names of rows, and what is asked of the network for each."""
    if network.sampling is None:  # a regression, or a gan: nothing is sampled in steps
        yield name, TranslateOptions()
        return
    asked = {"steps": args.corrector_steps, "snr": args.corrector_snr}
    given = {name: value for name, value in asked.items() if value is not None}
    corrector = Corrector(**given) if given else None
    options = TranslateOptions(args.steps, args.sampler, corrector)
    if task != "variation":
        yield name, options
        return
    for factor in sorted(set(args.factors or [Refinement().factor]), reverse=True):
        if network.side % factor:
            raise EvaluationError(f"--factors must divide the network's side, {network.side}; got {factor}")
        refinement = Refinement(factor, args.low_pass or Refinement().low_pass)
        yield f"{name}, N = {factor}", TranslateOptions(args.steps, args.sampler, corrector, refinement=refinement)


def note_nearness(report: TranslationReport) -> None:
    """Whether the distance to the references falls as N falls, said as it is found."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in report.rows:
        name, of_factor, _ = row["name"].partition(", N = ")
        if of_factor and "candidates" not in row:
            rows.setdefault(name, []).append(row)
    for name, of_network in rows.items():
        for key in ("squeezenet_distance", "ciede2000") if len(of_network) > 1 else ():
            values = [row[key] for row in of_network]
            falls = all(later < earlier for earlier, later in zip(values, values[1:], strict=False))
            report.note(f"{name}: {key} to the reference as N falls: {', '.join(f'{one:.2f}' for one in values)}; "
                        f"{'it falls' if falls else 'it does not fall'} at each step")  # fmt: skip


def loaded(folders: list[Path]) -> tuple[Networks, dict[str, Path]]:
    """The networks and their folders by the names of their rows: of their configs, where these tell them apart."""
    networks = [(folder, image_to_image(stage_weights(folder, "image_to_image"))) for folder in folders]
    for _, network in networks:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster, on CPUs most of all
    names = [str((network.trained or {}).get("config", folder)) for folder, network in networks]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    if len(set(names)) < len(names):
        raise EvaluationError("--weights names a folder twice")
    pairs = list(zip(names, networks, strict=True))
    return {name: network for name, (_, network) in pairs}, {name: folder for name, (folder, _) in pairs}


def task_of(networks: Networks, asked: Task | None) -> Task:
    """The task, learned by all; raises EvaluationError."""
    common = [task for task in TASKS if all(task in network.tasks for network in networks.values())]
    if asked is None and len(common) == 1:
        return common[0]
    if asked not in common:
        raise EvaluationError(f"--task must be one that all of the weights have learned: "
                              f"{', '.join(common) or 'there is none'}; got {asked}")  # fmt: skip
    return asked


def setting_of(task: Task, args: argparse.Namespace) -> Setting:
    """What is shown; raises EvaluationError for an option of another task."""
    belongs = Setting.BELONGS | dict.fromkeys(("corrector_steps", "corrector_snr"), "line_art")
    belongs |= dict.fromkeys(("factors", "low_pass"), "variation")
    for name, owner in belongs.items():
        if getattr(args, name) is not None and owner != task:
            raise EvaluationError(f"--{name.replace('_', '-')} belongs to the task {owner}; the task is {task}")
    return Setting(**{name: getattr(args, name) for name in Setting.BELONGS if getattr(args, name) is not None})


def photographs(args: argparse.Namespace, networks: Networks) -> tuple[Photos, Photos]:
    """Those that are scored and, after them in the split, those of Fréchet distances; at the networks' side."""
    sides = {network.side for network in networks.values()}
    side, own = min(sides), SETS[args.set].side
    if len(sides) > 1 or side > own:
        raise EvaluationError(f"the networks must have one side, at most the {own} of {args.set}; got {sorted(sides)}")
    count = None if args.photos is None else args.photos + (args.real or args.photos)
    try:
        photos = load_photos(data_folder(args.data), args.set, args.split, count)
    except EvaluationError as error:
        raise EvaluationError(f"{error} (--photos to be scored, and as many, or --real, after them)") from error
    first = args.photos or (len(photos) - args.real if args.real else len(photos) // 2)
    if first < 1:
        raise EvaluationError(f"{photos.name} has {len(photos)} photographs; --real must leave some to be scored")
    photos = photos.reduced(side)
    return photos.part(0, first), photos.part(first, first + (args.real or first))


def classes_of(args: argparse.Namespace, photos: Photos) -> Tensor | None:
    """Numbers of the photographs' classes, where they can be told."""
    if args.classes is None:
        return None
    if not args.classifier or not any(photos.labels):
        raise EvaluationError(f"--classes needs --classifier, and a set with labels; {photos.name} has "
                              f"{'labels' if any(photos.labels) else 'none'}")  # fmt: skip
    return imagenet_classes(args.classes, photos.labels)


def main(argv: list[str] | None = None) -> int:
    return run(evaluate, parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
