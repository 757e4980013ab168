"""`trichrome batch` on a Ray of two actors, which are killed. Run by `make test-ray`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from batches import members, photo, write_parquet, write_tar
from command import tree, write
from elsewhere import as_installed
from pyarrow import parquet

from pipeline.files.manifest import MANIFEST

pytestmark = pytest.mark.ray
PLAIN = [sys.executable, str(Path(__file__).parents[1] / "fuzz/plain.py")]
SECONDS = 110  # for one command


def start(*arguments: object) -> subprocess.Popen[str]:
    """`trichrome batch` with two actors."""
    command = [*PLAIN, "batch", *map(str, arguments), "--threads", "1", "--actors", "2"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*arguments: object) -> tuple[int, str, str]:
    child = start(*arguments)
    out, said = child.communicate(timeout=SECONDS)
    return child.returncode, out, said


def descendants(process: int) -> Iterator[int]:
    try:
        names = Path(f"/proc/{process}/task").glob("*/children")
        children = [int(number) for name in names for number in name.read_text().split()]
    except OSError:  # it has ended
        return
    for child in children:
        yield child
        yield from descendants(child)


def actors(process: int) -> list[int]:
    """The processes of the actors that are at work."""
    def title(number: int) -> str:
        try:
            return Path(f"/proc/{number}/cmdline").read_text()
        except OSError:
            return ""

    return [number for number in descendants(process) if "MapWorker" in title(number) and "_Actor" in title(number)]


def wait_for(child: subprocess.Popen[str], ready) -> None:
    limit = time.monotonic() + SECONDS
    while not ready():
        assert child.poll() is None and time.monotonic() < limit, child.communicate()
        time.sleep(0.005)


def kill_an_actor(child: subprocess.Popen[str], out: Path, pattern: str) -> None:
    """As soon as something is written."""
    wait_for(child, lambda: any(out.rglob(pattern)))
    victims = actors(child.pid)
    assert victims, "an actor must be found"
    os.kill(victims[0], signal.SIGKILL)


def shards(folder: Path, kind: str, count: int = 5, photos: int = 8) -> Path:
    """A bad row in each."""
    for number in range(count):
        contents = [b"bad", *(photo(number * 100 + k, (300, 200)) for k in range(photos))]
        if kind == "parquet":
            write_parquet(folder / f"{number}.parquet", {"image": contents, "label": list(range(photos + 1))})
        else:
            write_tar(folder / f"{number}.tar", [(f"{k:03d}.png", content) for k, content in enumerate(contents)])
    return folder


def pictures(out: Path) -> dict[str, bytes]:
    return {name: content for name, content in tree(out).items() if not name.startswith(".trichrome/")}


def test_a_killed_actor_loses_nothing_and_doubles_nothing(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    for seed in range(60):
        write(source / f"{seed % 3}/{seed}.png", seed, (300, 300))
    (source / "bad.png").write_bytes(b"x")
    child = start(source, "-o", out)
    kill_an_actor(child, out, "*.png")
    told, said = child.communicate(timeout=SECONDS)
    assert child.returncode == 1 and told.startswith("60 colored, 0 skipped (finished before), 1 failed"), said
    assert "an actor ended and was started again" in said and "not an image" in said and "Traceback" not in said
    lines = map(json.loads, (out / MANIFEST).read_text().splitlines())
    done = Counter(output["path"] for line in lines if line["event"] == "done" for output in line["outputs"])
    assert len(done) == 60 and set(done.values()) == {1}
    subprocess.run([*PLAIN, str(source), "-o", str(tmp_path / "whole"), "--threads", "1", "--workers", "1"],
                   capture_output=True, timeout=SECONDS)  # fmt: skip
    assert tree(out) == tree(tmp_path / "whole") and len(tree(out)) == 60


@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_a_killed_actor_s_shard_is_made_again(kind, tmp_path):
    source, out = shards(tmp_path / "in", kind), tmp_path / "out"
    child = start(source, "-o", out)
    kill_an_actor(child, out, "*.parquet" if kind == "parquet" else "*.tar")
    told, said = child.communicate(timeout=SECONDS)
    assert child.returncode == 1 and told.startswith("40 colored, 0 skipped (finished before), 5 failed"), said
    assert said.count("not an image") == 5 and "Traceback" not in said
    assert sorted(path.name for path in out.iterdir()) == [".trichrome", *sorted(os.listdir(source))]
    if kind == "parquet":
        for number in range(5):
            table = parquet.read_table(out / f"{number}.parquet")
            assert table["label"].to_pylist() == list(range(9)) and table["image"].null_count == 1
            assert [error is None for error in table["error"].to_pylist()] == [False] + [True] * 8
    else:
        import webdataset

        for number in range(5):
            samples = list(webdataset.WebDataset(str(out / f"{number}.tar"), shardshuffle=False))
            assert [sample["__key__"] for sample in samples] == [f"{k:03d}" for k in range(9)]
            assert ["png" in sample for sample in samples] == [False] + [True] * 8
    before = tree(out)
    code, told, said = run(source, "-o", out)
    assert code == 1 and told.startswith("0 colored, 40 skipped (finished before), 5 failed"), said
    assert tree(out) == before


def test_a_killed_command_goes_on(tmp_path):
    source, out, whole = shards(tmp_path / "in", "webdataset"), tmp_path / "out", tmp_path / "whole"
    child = start(source, "-o", out)
    wait_for(child, lambda: any(out.rglob("*.tar")))
    child.kill()
    child.communicate(timeout=SECONDS)
    first = len(list(out.glob("*.tar")))
    code, told, said = run(source, "-o", out)
    assert code == 1 and " 5 failed" in told, said
    colored, skipped = (int(part.split()[0]) for part in told.split(", ")[:2])
    assert colored + skipped == 40 and 0 < first < 5 and skipped >= 8 * (first - 1)
    assert run(source, "-o", whole)[0] == 1 and pictures(out) == pictures(whole)
    assert not list(out.rglob("*.part"))


def test_kills_at_random_moments(tmp_path):
    """Of an actor and of the command in turn; TRICHROME_KILLS of them."""
    source, whole, rng = tmp_path / "in", tmp_path / "whole", np.random.default_rng(0)
    for seed in range(300):
        write(source / f"{seed}.png", seed, (200, 200))
    subprocess.run([*PLAIN, str(source), "-o", str(whole), "--threads", "1", "--workers", "1"],
                   capture_output=True, timeout=SECONDS)  # fmt: skip
    expected = tree(whole)
    assert len(expected) == 300
    for number in range(int(os.environ.get("TRICHROME_KILLS", 2))):
        out = tmp_path / str(number)
        child = start(source, "-o", out)
        wait_for(child, lambda out=out: any(out.rglob("*.png")))
        time.sleep(rng.uniform(0, 3))
        at_work = actors(child.pid)
        if number % 2 == 0:
            child.kill()
        elif at_work:
            os.kill(at_work[0], signal.SIGKILL)
        told, said = child.communicate(timeout=SECONDS)
        pictures = {name: content for name, content in tree(out).items() if not name.endswith(".part")}
        assert all(expected.get(name) == content for name, content in pictures.items() if name[0] != ".")
        if number % 2 == 1:
            assert child.returncode == 0 and told.startswith("300 colored") and tree(out) == expected, said
        code, told, said = run(source, "-o", out)
        assert code == 0 and " 0 failed" in told and tree(out) == expected, said


def test_photos_of_other_file_systems(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{as_installed(tmp_path)}:{os.environ.get('PYTHONPATH', '')}")
    for seed in range(6):
        write(tmp_path / f"in/{seed}.png", seed)
    code, told, said = run(f"elsewhere://{tmp_path}/in", "-o", f"elsewhere://{tmp_path}/rows", "--to", "webdataset",
                           "--per-shard", "3", "--format", "tiff")  # fmt: skip
    assert code == 0 and told.startswith("6 colored") and said.count(": colored: ") == 6, said
    names = list(members(tmp_path / "rows/part-000001.tar"))
    assert names == [f"{k}.{end}" for k in (3, 4, 5) for end in ("tif", "trichrome.json")]


def test_a_signal_stops_and_the_next_command_goes_on(tmp_path):
    source, out = shards(tmp_path / "in", "parquet"), tmp_path / "out"
    child = start(source, "-o", out)
    wait_for(child, lambda: any(out.rglob("*.parquet")))
    child.send_signal(signal.SIGTERM)
    told, said = child.communicate(timeout=SECONDS)
    assert child.returncode == 143 and "interrupted; the same command goes on" in said and "Traceback" not in said
    assert not list(out.rglob("*.part"))


def test_no_room_is_said(tmp_path):
    write(tmp_path / "in/a.png")
    child = subprocess.run([*PLAIN, "batch", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--actors", "1000"],
                           capture_output=True, text=True, timeout=SECONDS)  # fmt: skip
    assert child.returncode == 2 and "no room for 1000 actors" in child.stderr and child.stderr.count("\n") == 1


def test_the_networks_give_the_bytes_of_the_folder_run(tmp_path):
    """With the weights in the package."""
    for seed in range(4):
        write(tmp_path / f"in/{seed}.png", seed, (70, 90))
    expected = None
    for name, command in (("folder", ["colorize"]), ("batch", ["batch", "--actors", "2"])):
        called = [sys.executable, "-m", "pipeline.cli", *command, str(tmp_path / "in"), "-o", str(tmp_path / name)]
        done = subprocess.run([*called, "--device", "cpu", "--threads", "1", "--pool", "2"], capture_output=True,
                              text=True, timeout=SECONDS)  # fmt: skip
        assert done.returncode == 0, done.stderr
        expected = expected or tree(tmp_path / name)
    assert len(expected or {}) == 4 and tree(tmp_path / "batch") == expected
