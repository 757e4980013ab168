"""The default weights give the pictures they gave before, bit for bit, on a machine of a kind that is on record.

    python tests/test_pictures.py --renew

adds this kind of machine to tests/pictures.json, or replaces what it says of it. A change of these pictures that is
meant goes with other weights, or with a higher `RECIPE` in pipeline/provenance/record.py.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
RECORD = HERE / "pictures.json"
THREADS, CANDIDATES = 2, 8
# What decides which kernels run, and so the last digits.
DECISIVE_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "fma")


def machine() -> str:
    """The kind of machine that this process runs on, as far as it decides the bytes of a picture."""
    import torch

    from stages.precision import _cpu_flags

    flags = " ".join(flag for flag in DECISIVE_FLAGS if flag in _cpu_flags()) or "no flags known"
    torch_version = torch.__version__.split("+")[0]
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()}, {flags}, kernels {capability}, torch {torch_version}, {THREADS} threads"


def pictures() -> dict[str, dict[str, str]]:
    """SHA-256 of decoded pixels by photograph: its candidates with seed 0, and its preview."""
    import numpy as np
    import torch

    from pipeline import ColorPipeline
    from pipeline.demo import free_photos

    torch.set_num_threads(THREADS)
    pipe = ColorPipeline.from_pretrained()

    def digest(picture: np.ndarray) -> str:
        return hashlib.sha256(f"{picture.shape} {picture.dtype}\n".encode() + picture.tobytes()).hexdigest()

    found = {}
    for path in free_photos():
        drawn = pipe(path, CANDIDATES, generator=0, pool=1, output_type="np")
        assert [info.candidate for info in drawn.info] == list(range(CANDIDATES))
        found[path.name] = {f"candidate {k}": digest(image) for k, image in enumerate(drawn.images)}
        found[path.name]["preview"] = digest(pipe(path, preview=True, output_type="np").images[0])
    return found


def in_a_process_of_its_own(what: str) -> dict:
    """The number of threads is the process's: pytest's own stays as it is."""
    command = [sys.executable, __file__, what]
    return json.loads(subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=True).stdout)


def test_pictures_are_what_they_were():
    for package in ("skimage", "sklearn"):
        pytest.importorskip(package, reason=f"the photographs of {package} are looked at")
    kind = in_a_process_of_its_own("--machine")["machine"]
    record = json.loads(RECORD.read_text())
    if kind not in record:
        known = "; ".join(record)
        pytest.skip(f"no pictures on record for {kind!r} (there are {known}): python tests/test_pictures.py --renew")
    found = in_a_process_of_its_own("--print")
    assert len(found) == 6
    changed = {
        name: [which for which in expected if found[name][which] != expected[which]]
        for name, expected in record[kind].items()
    }
    changed = {name: which for name, which in changed.items() if which}
    assert not changed, f"these pictures changed: {changed}. If that is meant: python tests/test_pictures.py --renew"
    assert found == record[kind]


def test_what_is_on_record_differs():
    """No two pictures of a kind of machine are the same: neither candidates nor photographs."""
    for kind, photographs in json.loads(RECORD.read_text()).items():
        digests = [digest for one in photographs.values() for digest in one.values()]
        assert len(digests) == 6 * (CANDIDATES + 1) and len(set(digests)) == len(digests), kind


def main(what: str) -> None:
    if what == "--machine":
        print(json.dumps({"machine": machine()}))
    elif what == "--print":
        print(json.dumps(pictures()))
    elif what == "--renew":
        record = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
        record[machine()] = pictures()
        RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    main(sys.argv[1] if len(sys.argv) == 2 else "")
