"""benchmarks/compare.py: who is called when, what is said, and one run of the real thing; nothing is timed here."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import compare
from benchmarks.compare import CHILD, CompareError, checkout_of, compared, line, main
from benchmarks.cpu import BOUNDS
from stages.provenance import ROOT, commit


class Scripted:
    """A side whose calls take the seconds it is told."""

    def __init__(self, name, log, seconds, missing=None):
        self.name, self.log, self.left, self.missing = name, log, list(seconds), missing

    def prepare(self, row):
        self.log.append(f"prepare {self.name}")
        return self.missing

    def seconds(self, row):
        self.log.append(self.name)
        return self.left.pop(0)


def test_calls_alternate_and_the_minima_are_compared():
    log: list[str] = []
    row = compared("a row", Scripted("A", log, [2.0, 1.0, 3.0]), Scripted("B", log, [1.5, 9.0, 1.2]), 3, 1.08)
    assert log == ["prepare A", "prepare B", "A", "B", "A", "B", "A", "B"]
    assert row == {"name": "a row", "base_seconds": 1.0, "new_seconds": 1.2, "ratio": 1.2, "met": False}
    assert line(row).endswith("x 1.200  SLOWER")
    for new, met in ((1.08, True), (1.081, False), (0.5, True)):
        assert compared("a row", Scripted("A", log, [1.0]), Scripted("B", log, [new]), 1, 1.08)["met"] is met


def test_a_row_that_one_side_can_not_do_is_missing():
    log: list[str] = []
    row = compared("a row", Scripted("A", log, [], "no such argument"), Scripted("B", log, []), 3, 1.08)
    assert row == {"name": "a row", "missing": "base: no such argument"} and "base: no such argument" in line(row)
    row = compared("a row", Scripted("A", log, []), Scripted("B", log, [], "gone"), 3, 1.08)
    assert row["missing"] == "new: gone"


OLDER = """
class ColorPipeline:
    @classmethod
    def from_pretrained(cls):
        return cls()

    def __call__(self, gray, num_samples=1, generator=None, doubt=False):
        assert generator == 0 and all(one.size == (8, 6) for one in gray)
        with open("calls.txt", "a") as file:
            print(len(gray), num_samples, doubt, file=file)
        print("chatter")  # must not be taken for an answer
"""


def test_the_child_speaks_to_older_commits(tmp_path):
    """A pipeline with a map of doubt and without previews."""
    checkout, photos = tmp_path / "checkout", tmp_path / "photos"
    (checkout / "pipeline").mkdir(parents=True)
    (checkout / "pipeline" / "__init__.py").write_text(OLDER)
    (checkout / "pipeline" / "cli.py").write_text("def main(words): open('calls.txt', 'a').write(words[0] + '\\n')")
    photos.mkdir()
    Image.new("L", (8, 6)).save(photos / "1 megapixel.png")
    with compare.Process("base", checkout, photos, 1) as child:
        for row in ("PIL to PIL", "8 pictures", "uncertainty map", "8 photos", "file to file"):
            assert child.prepare(f"1 megapixel, {row}") is None
            assert child.seconds(f"1 megapixel, {row}") >= 0
        assert child.prepare("1 megapixel, preview") == "ColorPipeline takes no argument preview"
        assert child.prepare("1 megapixel, in oil") == "unknown to compare_child.py"
    assert child.process.returncode == 0
    calls = ["1 1 False", "1 8 False", "1 1 True", "8 1 False", "colorize"]
    assert (checkout / "calls.txt").read_text().splitlines() == [call for call in calls for _ in range(2)]


def test_every_row_of_the_benchmark_is_known(tmp_path):
    """By a checkout that can do everything: the present one."""
    code = (
        "import sys; from pathlib import Path; from compare_child import call_of; "
        "from PIL import Image; photos = Path(sys.argv[1]); "
        "[Image.new('L', (4, 4)).save(photos / f'{size}.png') for size in ('1 megapixel', '24 megapixels')]; "
        "[call_of(row, photos, lambda: None) for row in sys.argv[2:]]"
    )
    command = [sys.executable, "-c", f"sys_path = __import__('sys').path; sys_path.insert(0, {str(CHILD.parent)!r}); "
               + code, str(tmp_path), *BOUNDS]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True)


def test_another_checkout_than_the_one_asked_for_is_refused(tmp_path):
    done = subprocess.run([sys.executable, str(CHILD), str(tmp_path), str(tmp_path)], cwd=ROOT, capture_output=True,
                          text=True, env={"PYTHONPATH": str(ROOT), "PATH": ""}, input="")  # fmt: skip
    assert done.returncode and "which is not of" in done.stderr


@pytest.fixture
def in_a_repository():
    if commit() == "unknown":
        pytest.skip("not a git repository")


def test_the_checkout_of_a_commit_is_gone_at_the_end(in_a_repository):
    with checkout_of("HEAD") as folder:
        assert (folder / "pipeline" / "cli.py").is_file() and commit(folder) == commit().rstrip("+")
        place = Path(folder)
    assert not place.exists() and str(place) not in subprocess.run(
        ["git", "worktree", "list"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    with pytest.raises(CompareError, match="no-such-commit"), checkout_of("no-such-commit"):
        pass


def test_the_whole_of_it_in_one_row(in_a_repository, tmp_path, capsys):
    out = tmp_path / "deeper" / "compare.json"
    words = ["--base", "HEAD", "--repeats", "1", "--threads", "1", "--rows", "1 megapixel, preview", "--json", str(out)]
    assert main([*words, "--bound", "1000"]) == 0
    record = json.loads(out.read_text())
    (row,) = record["rows"]
    assert row["name"] == "1 megapixel, preview" and row["base_seconds"] > 0 and row["met"]
    assert row["ratio"] == pytest.approx(row["new_seconds"] / row["base_seconds"])
    assert (record["threads"], record["repeats"], record["bound"]) == (1, 1, 1000)
    assert record["base"] == commit().rstrip("+") and record["new"] == commit() and record["processor"]
    assert "1 megapixel, preview" in capsys.readouterr().out


def test_the_exit_status_tells(monkeypatch, tmp_path, capsys):
    def judged(row, *_):
        return {"name": row, "base_seconds": 1.0, "new_seconds": 1.5, "ratio": 1.5, "met": not row.endswith("preview")}

    monkeypatch.setattr(compare, "compared", judged)
    monkeypatch.setattr(compare, "Process", lambda *_: nullcontext())
    monkeypatch.setattr(compare, "checkout_of", lambda revision: nullcontext(tmp_path))
    assert main(["--base", "x", "--rows", "1 megapixel, 8 pictures"]) == 0
    assert main(["--base", "x", "--rows", "1 megapixel, 8 pictures", "1 megapixel, preview"]) == 1
    monkeypatch.undo()
    assert main(["--base", "no-such-commit", "--rows", "cold start of the command"]) == 2
    assert "no-such-commit" in capsys.readouterr().err
