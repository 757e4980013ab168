"""axe-core, which looks for what keeps people from using a page: from npm, one version, its bytes checked."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "4.14.1"
INTEGRITY = "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
SCRIPT = Path(__file__).parents[2] / ".venv" / f"axe-core-{VERSION}.min.js"


def fetch() -> Path:
    """The script, fetched where it is not there yet. Raises RuntimeError for a package with other bytes."""
    if SCRIPT.is_file():
        return SCRIPT
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", f"axe-core@{VERSION}"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        package = Path(folder) / f"axe-core-{VERSION}.tgz"
        digest = "sha512-" + base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
        if digest != INTEGRITY:
            raise RuntimeError(f"axe-core {VERSION} from npm is {digest}, expected {INTEGRITY}")
        with tarfile.open(package) as files:
            script = files.extractfile("package/axe.min.js")
            assert script is not None
            SCRIPT.parent.mkdir(exist_ok=True)
            SCRIPT.write_bytes(script.read())
    return SCRIPT


if __name__ == "__main__":
    print(fetch(), file=sys.stderr)
