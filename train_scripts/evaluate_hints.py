"""How well are known colors obeyed and spread? Against the classic that has learned nothing.

    python train_scripts/evaluate_hints.py
    python train_scripts/evaluate_hints.py --system default
    python train_scripts/evaluate_hints.py --regions
    python train_scripts/evaluate_hints.py --places suggested random uncertain --photos 100

The protocol of Zhang et al. 2017 (`siggraph17`) and iColoriT: at 256x256, N random cells of 8x8 pixels are given their
true mean color, N = 0, 1, 2, 5, 10, 20, 50, 100; the cells of a smaller N are among those of a larger one. The pipeline
is given them as strokes, in 8 bits, and is scored by what it gives: its preview, and with `--system default` also its
default output. Rows for 64x64 (larger pictures are reduced) and for 256x256 (smaller ones are enlarged):

- CIEDE2000 and PSNR against the original;
- CIEDE2000 as a share of the classic's, with its 95 % interval (paired bootstrap over photographs); and less that of
  the same system with the next fewer hints (`minus_fewer`);
- obedience, the mean CIEDE2000 between a cell's mean output and its hint.

`--enlarge 1024` also asks for the default output of the photographs at 1024x1024, bicubic, with strokes as much larger,
for N = 1, 10, 100; what comes is reduced to 256x256 and scored as the others are.

`--against FOLDER` asks other weights too; rows then have the error minus theirs.

The classic is Levin, Lischinski and Weiss 2004, solved exactly at 64x64 and enlarged along the luma; `--classic-256`
also solves it at 256x256, which takes a second and more for each photograph and N.

`--regions` asks another question of 20 photographs on which two things are outlined by hand (regions.json): one hint of
another hue at the heart of the first thing should move its mean chroma by at least half of the hint's difference, and
that of the second thing by at most a tenth.

`--places` asks where hints are worth most (hint_places.py): is the error smaller with the true colors of the places
that the call suggests than with those of others? Scored at 64x64: the preview, or with `--system default` the default.

The classic, the first two questions and their figures are in one file: nothing else needs any of them.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt
from scipy.sparse import csr_matrix, diags
from scipy.sparse.linalg import spsolve
from torch import Tensor
from tqdm import tqdm

from pipeline import ColorPipeline
from stages.color import difference
from stages.color.guided_filter import enlarge_chroma
from stages.color.resample import resize
from stages.color.spaces import chroma_from_rgb, gray_from_rgb, lab_from_rgb, merge
from stages.evaluation.command import add_steps, arguments, batches, run
from stages.evaluation.photos import EvaluationError, Photos, load_photos
from stages.evaluation.pixel import ciede2000, picture_from_rgb, psnr
from stages.evaluation.report import Account
from stages.evaluation.statistics import paired_difference, paired_ratio
from stages.faces import CoarseColorizer, GrayView
from stages.hints.hints import Hints, Point
from stages.hints.spread import luma_weights, spread
from stages.photographs import data_folder
from train_scripts.hint_places import PLACES, evaluate_places, places_table
from train_scripts.weights import loaded_pipeline

COUNTS = (0, 1, 2, 5, 10, 20, 50, 100)
ENLARGED_COUNTS = (1, 10, 100)
SIDE, HINTS_SIDE, CELLS = 256, 64, 32  # of the photographs, of the tensor `hints`, of the grid of cells
LEVIN_CONTRAST = 0.3  # of the authors' code: exp(-difference^2 / 0.6 variance)
REGIONS = Path(__file__).with_name("regions.json")
TURNS = (90, 180, 270)  # degrees from a region's hue to that of its hint
HINT_CHROMA = 0.12  # strength of that hint
MOVED, UNMOVED = 0.5, 0.1  # what a hint should do to its own thing at least, to another one at most
BATCH = 8
OF_OTHERS = " of the others"  # behind the name of a system with the weights of `--against`

# What is evaluated: gray (B, 1, 256, 256) of 8 bits and hints, one for each -> rgb (B, 3, 64, 64) or (B, 3, 256, 256).
System = Callable[[Tensor, Sequence[Hints]], Tensor]


def parser() -> argparse.ArgumentParser:
    options = arguments(
        "hints", "Known colors: obeyed and spread, beside the classic without learning.", "photos256",
        "scored at 64x64 and 256x256", ("photos256",),
    )  # fmt: skip
    add_steps(options, "stage 1")
    options.add_argument("--weights", type=Path, metavar="FOLDER", help="pipeline folder (default: the packaged one)")
    options.add_argument(
        "--system", choices=("preview", "default"), default="preview",
        help="what the pipeline is asked for: its preview, or also its default output (default: %(default)s)",
    )  # fmt: skip
    options.add_argument(
        "--enlarge", type=int, metavar="SIDE", help=f"also photographs enlarged to this side, a multiple of {SIDE}"
    )
    options.add_argument("--against", type=Path, metavar="FOLDER", help="other weights too, a pipeline folder")
    options.add_argument("--classic-256", action="store_true", help="also solve the classic at 256x256")
    options.add_argument("--without-features", action="store_true", help="also spread without the encoder's features")
    options.add_argument("--regions", action="store_true", help="two things outlined on each of 20 photographs instead")
    options.add_argument(
        "--places", nargs="+", choices=PLACES, metavar="KIND",
        help=f"true colors at 1, 3 and 5 places of each kind instead: {', '.join(PLACES)}",
    )  # fmt: skip
    return options


# Systems -------------------------------------------------------------------------------------------


def colored_by(pipe: ColorPipeline, seed: int, *, preview: bool = False, steps: int | None = None) -> System:
    """The pipeline as it is used, at the size of the photographs."""

    def colored(gray: Tensor, hints: Sequence[Hints]) -> Tensor:
        levels = [picture_from_rgb(one[0]).numpy() for one in gray]
        output = pipe(levels, 1, steps, seed, preview=preview, hints=list(hints), output_type="pt")
        return torch.stack(output.images)

    return colored


def of_enlarged(system: System, side: int) -> System:
    """The system on photographs and strokes of side x side in place of 256x256, its pictures reduced to 256x256."""

    def colored(gray: Tensor, hints: Sequence[Hints]) -> Tensor:
        large = picture_from_rgb(resize(gray, (side, side))).float() / 255
        strokes = [
            Hints((side, side), strokes=one.strokes and one.strokes.resize((side, side), Image.Resampling.NEAREST))
            for one in hints
        ]
        return resize(system(large, strokes), (SIDE, SIDE))

    return colored


def spread_without_features(coarse: CoarseColorizer[Any]) -> System:
    """The preview at 64x64, its error at the hints spread, as the pipeline does it, but for the encoder's features."""

    def colored(gray: Tensor, hints: Sequence[Hints]) -> Tensor:
        encoding = coarse.encode(GrayView.of(gray))
        chroma = chroma_from_rgb(coarse.preview(encoding))
        return merge(encoding.gray64, spread(encoding.gray64, rasterized(gray, hints, HINTS_SIDE), chroma))

    return colored


def rasterized(gray: Tensor, hints: Sequence[Hints], side: int) -> Tensor:
    """Of photographs (B, 1, H, W): (B, 3, side, side)."""
    return torch.stack([one.rasterized(photo, side) for photo, one in zip(gray, hints, strict=True)])


def classic(side: int) -> System:
    """Levin, Lischinski and Weiss 2004 at side x side: every unknown pixel is the weighted mean of its neighbors."""

    def colored(gray: Tensor, hints: Sequence[Hints]) -> Tensor:
        small, known = resize(gray, (side, side)).double(), rasterized(gray, hints, side).double()
        chroma = [levin(*one) for one in zip(small, known, strict=True)]
        return merge(small, torch.stack(chroma)).float()

    return colored


def levin(gray: Tensor, hints: Tensor) -> Tensor:
    """gray (1, S, S), hints (3, S, S) with weights 0 and 1 -> chroma (2, S, S); without hints gray."""
    side, known = gray.shape[-1], hints[0].flatten().numpy() > 0
    if not known.any():
        return torch.zeros(2, side, side, dtype=gray.dtype)
    weights = luma_weights(gray[None], LEVIN_CONTRAST)[0]
    place = np.arange(side * side).reshape(side, side)
    padded = np.pad(place, 1)  # the weights outside are 0, so it does not matter which pixel stands there
    steps = [(dy, dx) for dy in range(3) for dx in range(3) if (dy, dx) != (1, 1)]
    columns = np.stack([padded[dy : dy + side, dx : dx + side] for dy, dx in steps])
    means = csr_matrix((weights.numpy().ravel(), (np.tile(place.ravel(), 8), columns.ravel())))
    matrix = diags(np.ones(side * side)) - diags((~known).astype(float)) @ means
    return torch.from_numpy(spsolve(matrix.tocsc(), hints[1:].flatten(1).numpy().T).T.reshape(2, side, side).copy())


def enlarged(rgb: Tensor, gray: Tensor) -> Tensor:
    """Colors of 64x64 at the photograph's size, along its luma: (B, 3, 64, 64), (B, 1, H, W) -> (B, 3, H, W)."""
    return merge(gray, enlarge_chroma(chroma_from_rgb(rgb), gray_from_rgb(rgb), gray))


def asked_of(pipe: ColorPipeline, args: argparse.Namespace) -> dict[str, System]:
    """The preview, and with --system default the default output."""
    systems = {"preview": colored_by(pipe, args.seed, preview=True)}
    if args.system == "default":
        systems["default output"] = colored_by(pipe, args.seed, steps=args.steps)
    return systems


# Random cells --------------------------------------------------------------------------------------


def random_cells(count: int, seed: int) -> Tensor:
    """`count` cells of the grid, the first of an order drawn by the seed: (32, 32), true where known."""
    order = torch.randperm(CELLS * CELLS, generator=torch.Generator().manual_seed(seed))
    known = torch.zeros(CELLS * CELLS, dtype=torch.bool)
    known[order[:count]] = True
    return known.view(CELLS, CELLS)


def strokes_over(known: Tensor, colors: Tensor) -> Hints:
    """Known cells as opaque strokes on a photograph of 256x256, their colors in 8 bits.

    known: (32, 32) bool; colors: rgb (3, 32, 32)
    """
    layer = torch.cat([picture_from_rgb(colors), 255 * known[None].byte()]).permute(1, 2, 0).numpy()
    return Hints((SIDE, SIDE), strokes=Image.fromarray(layer).resize((SIDE, SIDE), Image.Resampling.NEAREST))


def obedience(rgb: Tensor, gray: Tensor, cells: Tensor) -> Tensor:
    """Mean CIEDE2000 between the mean output of each known cell and its hint: -> (B,), NaN without hints.

    cells: hints (B, 3, 32, 32)
    """
    hint = merge(resize(gray, (CELLS, CELLS)), cells[:, 1:])
    deviation = difference.ciede2000(lab_from_rgb(resize(rgb, (CELLS, CELLS))), lab_from_rgb(hint))
    return (deviation * cells[:, 0]).sum((1, 2)) / cells[:, 0].sum((1, 2))


def evaluate_cells(
    systems: dict[str, System], photos: Photos, account: Account, seed: int, enlarged_too: dict[str, System]
) -> None:
    """Rows for every N and system; the first system is the one the others are compared with, at their own size.
    `enlarged_too` are slow and have rows for ENLARGED_COUNTS alone.
    """
    gray = torch.stack(photos.gray()).float() / 255
    colors = torch.cat([resize(photos.rgb(slice(i, i + 1)), (CELLS, CELLS)) for i in range(len(photos))])
    originals = {side: photos.reduced(side).pictures for side in (HINTS_SIDE, SIDE)}
    plain = {side: ciede2000([picture_from_rgb(resize(g[None], (side, side))[0]).expand(3, -1, -1) for g in gray],
                             originals[side]) for side in originals}  # fmt: skip
    fewer: dict[tuple[str, int], Tensor] = {}
    for count in COUNTS:
        hints = [strokes_over(random_cells(count, seed + i), one) for i, one in enumerate(colors)]
        cells = rasterized(gray, hints, CELLS)
        baseline: dict[int, Tensor] = {}
        scored: dict[tuple[str, int], Tensor] = {}
        asked = {**systems, **enlarged_too} if count in ENLARGED_COUNTS else systems
        for name, system in asked.items():
            outputs: dict[int, list[Tensor]] = {HINTS_SIDE: [], SIDE: []}
            for part in tqdm(batches(len(gray), BATCH), desc=f"{name}, {count} hints"):
                batch = slice(part.start, part.stop)
                rgb = system(gray[batch], hints[batch])
                small, large = (rgb, enlarged(rgb, gray[batch])) if rgb.shape[-1] < SIDE else (
                    resize(rgb, (HINTS_SIDE, HINTS_SIDE)), rgb)  # fmt: skip
                outputs[HINTS_SIDE].append(picture_from_rgb(small))
                outputs[SIDE].append(picture_from_rgb(large))
            for side, parts in outputs.items():
                pictures = torch.cat(parts)
                differences = ciede2000(pictures, originals[side])
                row: dict[str, Any] = {
                    "side": side, "hints": count, "name": name,
                    "ciede2000": float(differences.mean()),
                    "psnr": float(psnr(pictures, originals[side]).mean()),
                    "share_of_first": paired_ratio(differences, baseline.setdefault(side, differences)),
                    "share_of_gray": paired_ratio(differences, plain[side]),
                }  # fmt: skip
                if (name, side) in fewer:
                    row["minus_fewer"] = paired_difference(differences, fewer[name, side])
                if (name + OF_OTHERS, side) in scored:
                    row["minus_the_others"] = paired_difference(differences, scored[name + OF_OTHERS, side])
                scored[name, side] = differences
                if count:
                    row["obedience"] = float(obedience(pictures.float() / 255, gray, cells).mean())
                fewer[name, side] = differences
                account.rows.append(row)


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| side | hints | system | CIEDE2000 | of gray's | of the classic's [95 %] | PSNR | obedience "
             "| minus the others' [95 %] |", "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for row in sorted(rows, key=lambda row: row["side"]):
        low, high = row["share_of_first"]["interval_95"]
        less = "-"
        if more := row.get("minus_the_others"):
            less = "{:+.2f} [{:+.2f}, {:+.2f}]".format(more["value"], *more["interval_95"])
        lines.append(
            f"| {row['side']} | {row['hints']} | {row['name']} | {row['ciede2000']:.2f} "
            f"| {row['share_of_gray']['value']:.3f} | {row['share_of_first']['value']:.3f} [{low:.3f}, {high:.3f}] "
            f"| {row['psnr']:.2f} | {format(row['obedience'], '.2f') if 'obedience' in row else '-'} | {less} |"
        )
    return "\n".join(lines)


# Outlined regions ----------------------------------------------------------------------------------


def evaluate_regions(systems: dict[str, System], photos: Photos, account: Account) -> None:
    """A row for each system: how far a hint in the first region moves it, and the second one, as shares of the hint's
    own difference.
    """
    outlined = json.loads(REGIONS.read_text())["photos"]
    for photo in outlined:
        if photo["row"] >= len(photos) or photos.digests[photo["row"]].hex() != photo["sha256"]:
            raise EvaluationError(
                f"photograph {photo['row']} of {photos.name} is not the one outlined in {REGIONS.name}: --regions "
                "needs photos256/validation, all of it"
            )
    for name, system in systems.items():
        shares = {}
        for photo in tqdm(outlined, desc=name):
            names = " / ".join(region["name"] for region in photo["regions"])
            gray = photos.gray()[photo["row"]][None].float() / 255
            masks = [outline(region["polygon"]) for region in photo["regions"]]
            shares[f"{photo['row']}: {names}"] = [moved(system, gray, masks, turn) for turn in TURNS]
        first, second = torch.tensor(list(shares.values())).unbind(2)  # (photographs, turns)
        account.rows.append({
            "name": name, "first": float(first.mean()), "second": float(second.mean()),
            "first_moved": float((first >= MOVED).float().mean()),
            "second_unmoved": float((second <= UNMOVED).float().mean()),
            "both": float(((first >= MOVED) & (second <= UNMOVED)).float().mean()), "shares": shares,
        })  # fmt: skip
        print("{name}: first moved by {first:.2f} (at least half in {first_moved:.0%}), second by {second:.2f} "
              "(at most a tenth in {second_unmoved:.0%}), both in {both:.0%}".format(**account.rows[-1]))  # fmt: skip


def outline(polygon: list[list[int]]) -> Tensor:
    """The inside of a polygon: (256, 256), 0 or 1."""
    picture = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(picture).polygon([(x, y) for x, y in polygon], fill=1)
    return torch.from_numpy(np.array(picture)).float()


def moved(system: System, gray: Tensor, masks: list[Tensor], turn: float) -> tuple[float, float]:
    """Change of the mean chroma of two regions by a hint at the heart of the first, its hue turned by so many degrees.

    gray: (1, 1, 256, 256); masks: two of (256, 256)
    returns: of the first, along the hint's difference from it; of the second, in any direction; both as shares of the
        length of that difference
    """
    before = mean_chroma(system(gray, [Hints((SIDE, SIDE))]), masks)
    heart = distance_transform_edt(np.pad(masks[0].numpy(), 1))[1:-1, 1:-1].argmax()
    y, x = divmod(int(heart), SIDE)
    cb, cr = (before[0] / before[0].norm() * HINT_CHROMA).tolist()
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    chroma = torch.tensor([cos * cb - sin * cr, sin * cb + cos * cr]).view(2, 1, 1)
    levels = picture_from_rgb(merge(gray[0, :, y : y + 1, x : x + 1], chroma)).flatten().tolist()
    hints = Hints((SIDE, SIDE), [Point(x + 0.5, y + 0.5, levels)])
    after = mean_chroma(system(gray, [hints]), masks)
    cells = hints.rasterized(gray[0], HINTS_SIDE)
    wanted = cells[1:].sum((1, 2)) / cells[0].sum() - before[0]
    along = (after[0] - before[0]) @ wanted / wanted.square().sum()
    return float(along), float((after[1] - before[1]).norm() / wanted.norm())


def mean_chroma(rgb: Tensor, masks: list[Tensor]) -> Tensor:
    """Of rgb (1, 3, S, S) over each mask: (masks, 2)."""
    size = (rgb.shape[-2], rgb.shape[-1])
    shares = torch.cat([resize(mask[None, None], size)[0] for mask in masks])
    return torch.einsum("chw,mhw->mc", chroma_from_rgb(rgb)[0], shares) / shares.sum((1, 2))[:, None]


# ---------------------------------------------------------------------------------------------------


@torch.inference_mode()
def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    if args.enlarge is not None and (args.regions or args.places):
        raise EvaluationError("--enlarge belongs to random cells; leave out --regions and --places")
    if args.enlarge is not None and (args.enlarge < SIDE or args.enlarge % SIDE):
        raise EvaluationError(f"--enlarge must be a multiple of {SIDE}; got {args.enlarge}")
    if args.against is not None and (args.regions or args.places):
        raise EvaluationError("--against belongs to random cells; leave out --regions and --places")
    photos = load_photos(data_folder(args.data), args.set, args.split, args.photos)
    account = Account(args, photos)
    pipe = loaded_pipeline(args, account)
    systems: dict[str, System] = {}
    if args.against:
        other = ColorPipeline.from_pretrained(args.against)
        account.record["against"] = dict(other.fingerprint())
        systems |= {name + OF_OTHERS: system for name, system in asked_of(other, args).items()}
    systems |= asked_of(pipe, args)
    if args.without_features:
        systems["preview, spread without features"] = spread_without_features(pipe.coarse)
    enlarged_too: dict[str, System] = {}
    if args.enlarge:
        large = of_enlarged(colored_by(pipe, args.seed, steps=args.steps), args.enlarge)
        enlarged_too[f"default output of {args.enlarge}x{args.enlarge}"] = large
    if args.places:
        evaluate_places(pipe, photos, account, args.seed, args.places, args.system == "preview")
        print(places_table(account.rows))
    elif args.regions:
        evaluate_regions(systems, photos, account)
    else:
        systems = {"classic": classic(HINTS_SIDE), **systems}  # without hints it is gray and has no hue to turn
        if args.classic_256:
            systems["classic at 256"] = classic(SIDE)
        evaluate_cells(systems, photos, account, args.seed, enlarged_too)
        print(table(account.rows))
    results = account.write()
    print(f"written: {args.out / 'results.json'}")
    return results


def main(argv: list[str] | None = None) -> int:
    return run(evaluate, parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
