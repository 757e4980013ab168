"""Files of a package from npm, one version, its bytes checked; kept in .venv."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

KEPT = Path(__file__).parents[2] / ".venv" / "npm"


def fetch(package: str, version: str, integrity: str, files: Sequence[str]) -> Path:
    """The folder of the files, fetched where they are not there yet. integrity: as `npm view` has it, "sha512-…".

    Raises RuntimeError for a package with other bytes.
    """
    folder = KEPT / f"{package}-{version}"
    if all((folder / Path(name).name).is_file() for name in files):
        return folder
    with tempfile.TemporaryDirectory() as temporary:
        command = ["npm", "pack", "--silent", f"{package}@{version}"]
        subprocess.run(command, cwd=temporary, check=True, stdout=subprocess.DEVNULL)
        packed = Path(temporary) / f"{package}-{version}.tgz"
        digest = "sha512-" + base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode()
        if digest != integrity:
            raise RuntimeError(f"{package} {version} from npm is {digest}, expected {integrity}")
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(packed) as archive:
            for name in files:
                content = archive.extractfile(f"package/{name}")
                assert content is not None
                (folder / Path(name).name).write_bytes(content.read())
    return folder
