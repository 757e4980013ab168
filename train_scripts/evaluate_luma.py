"""Is the photograph's luma kept in the files that users get? For every file of a folder and every photograph of a set.

    python train_scripts/evaluate_luma.py --samples ../shared/data/samples

Gray 8-bit pictures of the validation photographs (photos64 and photos256) and 16-bit versions of some are written as
PNG, colored by the command line as PNG and as TIFF, and read again. The luma of each output is compared with that of
its input, in levels of the output's depth; the exit status is 1 where an error exceeds half a level or its mean 0.3.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.cli import main as trichrome
from stages.images import load_photo
from train_scripts import evaluation

WORST, MEAN = 0.5, 0.3  # levels
ROUNDING = 1e-3  # of the float32 luma itself, in levels
SIXTEEN_BITS = 50  # photographs of each set that are also written with 16 bits


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description="Compare the luma of colored files with that of their inputs.")
    options.add_argument("--data", type=Path, metavar="FOLDER", help="default: $TRICHROME_DATA, else data/")
    options.add_argument("--photos", type=int, metavar="N", help="only the first N photographs of each set")
    options.add_argument("--samples", type=Path, metavar="FOLDER", help="also the files of this folder")
    options.add_argument("--json", type=Path, metavar="FILE", help="also write the table there")
    options.add_argument("options", nargs="*", help="of trichrome colorize, after --, for example --preview")
    return options


def write_inputs(folder: Path, name: str, photos: evaluation.Photos) -> None:
    """Each photograph's luma as an 8-bit PNG; of the first ones also with 16 bits, the low byte mirrored."""
    for index, gray in enumerate(photos.gray()):
        levels = gray[0].numpy()
        Image.fromarray(levels).save(folder / f"{name}-{index:04d}.png")
        if index < SIXTEEN_BITS:
            fine = levels.astype(np.uint16) * 256 + levels[:, ::-1]
            Image.fromarray(fine).save(folder / f"{name}-{index:04d}-16.png")


def compared(inputs: Path, outputs: Path, suffix: str) -> dict[str, float | int]:
    """Worst and mean luma error over all files of `inputs`, in levels of each output's depth."""
    worst, means = 0.0, []
    for path in sorted(p for p in inputs.iterdir() if p.suffix.lower() in evaluation.PICTURE_SUFFIXES):
        before, after = load_photo(path), load_photo(outputs / f"{path.stem}{suffix}")
        if (before.gray.shape, before.depth) != (after.gray.shape, after.depth):
            raise evaluation.EvaluationError(f"{path.name}: another size or depth came out")
        error = np.abs(after.gray.astype(np.float64) - before.gray) * (2**before.depth - 1)
        worst, means = max(worst, float(error.max())), [*means, float(error.mean())]
    return {"files": len(means), "worst": round(worst, 4), "mean": round(float(np.mean(means)), 4),
            "worst_mean": round(max(means), 4)}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    rows = []
    try:
        data = evaluation.data_folder(args.data)
        with tempfile.TemporaryDirectory() as temporary:
            folders = {}
            for name in ("photos64", "photos256"):
                folders[name] = Path(temporary) / name
                folders[name].mkdir()
                write_inputs(folders[name], name, evaluation.load_photos(data, name, "validation", args.photos))
            if args.samples:
                folders["samples"] = args.samples
            for name, folder in folders.items():
                for suffix in (".png", ".tif"):
                    out = Path(temporary) / f"{name}-out{suffix}"
                    kind = {".png": "png", ".tif": "tiff"}[suffix]
                    if trichrome(["colorize", str(folder), "-o", str(out), "--format", kind, *args.options]):
                        raise evaluation.EvaluationError(f"not every file of {name} was colored: see above")
                    rows.append({"set": name, "format": kind, **compared(folder, out, suffix)})
                    print(rows[-1], flush=True)
    except evaluation.EvaluationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.json:
        args.json.write_text(json.dumps({"options": args.options, "rows": rows}, indent=1) + "\n")
    good = all(row["worst"] <= WORST + ROUNDING and row["mean"] <= MEAN for row in rows)
    print("the luma is kept" if good else "THE LUMA IS NOT KEPT")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
