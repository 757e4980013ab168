"""Is the photograph's luma kept in the files that users get? For every file of a folder and every photograph of a set.

    python train_scripts/evaluate_luma.py --samples data/samples

Gray 8-bit pictures of the validation photographs (`--set`) and 16-bit versions of some are written as PNG, colored by
the command line as PNG and as TIFF, and read again. The luma of each output is compared with that of its input, in
levels of the output's depth; the exit status is 1 where an error exceeds half a level, or its mean over one picture
0.3.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.cli import main as trichrome
from pipeline.files.names import find_inputs, plan
from pipeline.files.records import Report, Settings
from pipeline.folder import DEFAULT_WEIGHTS
from pipeline.images.photo import ImageError
from pipeline.images.read import load_photo
from stages.checkpoint import sha256_of
from stages.evaluation.command import positive
from stages.evaluation.photos import PHOTOGRAPHS, EvaluationError, Photos, load_photos
from stages.photographs import DataError, data_folder
from stages.provenance import commit

WORST, MEAN = 0.5, 0.3  # levels
ROUNDING = 1e-3  # of the float32 luma itself, in levels
SIXTEEN_BITS = 50  # photographs of each set that are also written with 16 bits


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description="Compare the luma of colored files with that of their inputs.")
    options.add_argument("--data", type=Path, metavar="FOLDER", help="default: $TRICHROME_DATA, else data/")
    options.add_argument(
        "--set", nargs="+", choices=PHOTOGRAPHS, default=["photos64", "photos256"],
        help="photographs in --data, at their size (default: photos64 photos256)",
    )  # fmt: skip
    options.add_argument("--photos", type=positive, metavar="N", help="only the first N of each set")
    options.add_argument("--samples", type=Path, metavar="FOLDER", help="also the files of this folder")
    options.add_argument("--json", type=Path, metavar="FILE", help="also write the table there")
    options.add_argument("options", nargs="*", help="of trichrome colorize, after --, for example --preview")
    return options


def write_inputs(folder: Path, name: str, photos: Photos) -> None:
    """Each photograph's luma as an 8-bit PNG; of the first ones also with 16 bits, the low byte mirrored."""
    for index, gray in enumerate(photos.gray()):
        levels = gray[0].numpy()
        Image.fromarray(levels).save(folder / f"{name}-{index:04d}.png")
        if index < SIXTEEN_BITS:
            fine = levels.astype(np.uint16) * 256 + levels[:, ::-1]
            Image.fromarray(fine).save(folder / f"{name}-{index:04d}-16.png")


def compared(inputs: Path, out: Path, kind: str) -> list[dict[str, Any]]:
    """For each depth among the files of `inputs`: worst error of a pixel, worst mean of a picture, in levels."""
    report = Report()
    jobs = plan(find_inputs([inputs], out, report), out, Settings(format=kind), report)
    errors_by_depth: dict[int, list[np.ndarray]] = {}
    for job in jobs:
        before, after = load_photo(job.source), load_photo(out / job.outputs[0])
        if (before.gray.shape, before.depth) != (after.gray.shape, after.depth):
            raise EvaluationError(f"{job.source}: another size or depth came out")
        error = np.abs(after.gray.astype(np.float64) - before.gray) * (2**before.depth - 1)
        errors_by_depth.setdefault(before.depth, []).append(np.array([error.max(), error.mean()]))
    return [
        {"bits": depth, "files": len(errors), "worst": round(float(np.max(errors, 0)[0]), 4),
         "worst_mean": round(float(np.max(errors, 0)[1]), 4)}
        for depth, errors in sorted(errors_by_depth.items())
    ]  # fmt: skip


def weights_in(options: list[str]) -> dict[str, Any] | None:
    """Index of the pipeline that the command line used; None where it is not a folder of this machine."""
    folder = Path(options[options.index("--weights") + 1]) if "--weights" in options else DEFAULT_WEIGHTS
    index = folder / "model_index.json"
    return json.loads(index.read_text()) if index.is_file() else None


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    rows, hashes = [], {}
    try:
        if args.json:
            args.json.parent.mkdir(parents=True, exist_ok=True)  # before the work, not after it
        data = data_folder(args.data)
        with tempfile.TemporaryDirectory() as temporary:
            folders = {}
            for name in args.set:
                folders[name] = Path(temporary) / name
                folders[name].mkdir()
                photos = load_photos(data, name, "validation", args.photos)
                hashes[name] = photos.sha256
                write_inputs(folders[name], name, photos)
            if args.samples:
                folders["samples"] = args.samples
                files = sorted(path for path in args.samples.rglob("*") if path.is_file())
                hashes["samples"] = hashlib.sha256(b"".join(bytes.fromhex(sha256_of(f)) for f in files)).hexdigest()
            for name, folder in folders.items():
                for kind in ("png", "tiff"):
                    out = Path(temporary) / f"{name}-out-{kind}"
                    if trichrome(["colorize", str(folder), "-o", str(out), "--format", kind, *args.options]):
                        raise EvaluationError(f"not every file of {name} was colored: see above")
                    rows += [{"set": name, "format": kind, **row} for row in compared(folder, out, kind)]
                    print(*rows[-2:], sep="\n", flush=True)
    except (EvaluationError, DataError, ImageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.json:
        record = {"command": shlex.join(["python", *sys.argv]), "commit": commit(), "options": args.options,
                  "photos_sha256": hashes, "weights": weights_in(args.options), "rows": rows}  # fmt: skip
        args.json.write_text(json.dumps(record, indent=1) + "\n")
    good = all(row["worst"] <= WORST + ROUNDING and row["worst_mean"] <= MEAN for row in rows)
    print("the luma is kept" if good else "THE LUMA IS NOT KEPT")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
