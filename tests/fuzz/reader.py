"""The child of the fuzz: reads mutants, colors what can be read, and says what came of each; `fuzz.py` watches it.

    python tests/fuzz/reader.py SEED FIRST LAST FOLDER
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from mutants import CORPUS, SUFFIX, mutant
from plain import plain_pipeline

from pipeline.images.photo import FORMATS, ImageError
from pipeline.images.read import load_photo
from pipeline.images.write import save_photo

MEMORY = 1 << 30  # bytes beyond what the picture itself needs
BYTES_PER_PIXEL = 40  # of a picture in work: decoded, gray, colored, strips
WHOLE = 8 << 30  # of addresses, in all: a child that asks for more is told that there is none


def main(seed: int, first: int, last: int, folder: Path) -> None:
    warnings.simplefilter("ignore")
    pipe = plain_pipeline()
    for _, data in CORPUS.values():  # warm up: libraries, buffers
        (folder / "good").write_bytes(data)
        load_photo(folder / "good", page=1)
    used = resource.getrusage(resource.RUSAGE_SELF)
    assert used.ru_maxrss > 0
    resource.setrlimit(resource.RLIMIT_AS, (_addresses() + WHOLE, resource.RLIM_INFINITY))
    for number in range(first, last):
        print(json.dumps({"number": number}), flush=True)  # whose it was, should this process die
        print(json.dumps(verdict(pipe, seed, number, folder)), flush=True)


def verdict(pipe, seed: int, number: int, folder: Path) -> dict[str, object]:
    name, data = mutant(seed, number)
    kind = CORPUS[name][0]
    path = folder / f"mutant{SUFFIX[kind]}"
    path.write_bytes(data)
    _forget_peak()
    before, start = _status("VmRSS"), time.monotonic()
    result: dict[str, object] = {"number": number, "name": name}
    pixels = 0
    try:
        photo = load_photo(path, page=1)
        pixels = photo.gray.size
        result |= {"outcome": "read", "notes": photo.notes, "changed": _changed(photo.gray, name)}
        if not (np.isfinite(photo.gray).all() and photo.gray.min() >= 0 and photo.gray.max() <= 1):
            result |= {"finding": "gray out of range"}
        elif number % 10 == 0:
            result |= _colored(pipe, photo, folder, number)
    except ImageError as error:
        result |= {"outcome": "refused", "reason": str(error).removeprefix(f"{path}: ")}
        if not str(error).isprintable():
            result |= {"finding": f"a reason that can not be printed: {str(error)!r}"}
    except BaseException as error:  # whatever it is, it is a finding
        result |= {"outcome": "crash", "finding": f"{type(error).__name__}: {error}"[:300]}
    growth = _status("VmHWM") - before
    if growth > MEMORY + BYTES_PER_PIXEL * pixels:
        result |= {"finding": f"{growth >> 20} MB of memory for {pixels} pixels"}
    return result | {"seconds": round(time.monotonic() - start, 3)}


def _colored(pipe, photo, folder: Path, number: int) -> dict[str, object]:
    """Colors and writes it; what is wrong with the result."""
    suffix = list(FORMATS)[number // 10 % len(FORMATS)]
    rgb = pipe(photo, preview=True, output_type="np").images[0]
    out = folder / f"out{suffix}"
    try:
        save_photo(out, rgb, photo)
    except ImageError as error:
        return {"outcome": "read, not written", "reason": str(error)}
    again = load_photo(out)
    lossless = FORMATS[suffix] in ("png", "tiff")
    off = np.abs(again.gray - photo.gray).max() * (65535 if photo.depth == 16 else 255)
    return {"finding": f"luma off by {off:.2f} levels in {suffix}"} if lossless and off > 0.51 else {}


def _changed(gray: np.ndarray, name: str) -> float:
    """The share of pixels that are not as in the good file."""
    good = GOOD.get(name)
    if good is None or gray.shape != good.shape:
        return 1.0
    return float((np.abs(gray - good) > 0.1).mean())


def _good() -> dict[str, np.ndarray]:
    import tempfile

    result = {}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, (_, data) in CORPUS.items():
            (Path(folder) / "good").write_bytes(data)
            result[name] = load_photo(Path(folder) / "good", page=1).gray
    return result


GOOD = _good()


def _status(field: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field + ":"))


def _addresses() -> int:
    return _status("VmSize")


def _forget_peak() -> None:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
