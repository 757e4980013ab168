"""axe-core, which looks for what keeps people from using a page."""

from __future__ import annotations

import sys
from pathlib import Path

from npm import fetch as fetch_package

VERSION = "4.14.1"
INTEGRITY = "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="


def fetch() -> Path:
    """The script, fetched where it is not there yet. Raises RuntimeError for a package with other bytes."""
    return fetch_package("axe-core", VERSION, INTEGRITY, ["axe.min.js"]) / "axe.min.js"


if __name__ == "__main__":
    print(fetch(), file=sys.stderr)
