"""onnxruntime-web, which runs graphs in a browser: the version that the page of docs/use/browser names."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from npm import fetch as fetch_package

PAGE = Path(__file__).parents[2] / "docs" / "use" / "browser"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
FILES = ("dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm")


def fetch() -> Path:
    """The folder of the two files, fetched where they are not there yet."""
    version = json.loads((PAGE / "package.json").read_text())["dependencies"]["onnxruntime-web"]
    return fetch_package("onnxruntime-web", version, INTEGRITY, FILES)


if __name__ == "__main__":
    print(fetch(), file=sys.stderr)
