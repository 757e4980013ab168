"""Folders: reading ahead and writing behind, workers, globs, dry runs, the sheet."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from command import tree, write

from pipeline.files.broken import OutputLost
from pipeline.files.names import Chosen
from pipeline.files.overlap import Ahead, Behind, Budget, Chain
from pipeline.files.report import Outcome
from pipeline.files.sheet import Sheet
from pipeline.files.team import team_for
from pipeline.files.worker import job_from, line_of

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
PLAIN = [sys.executable, str(Path(__file__).parent / "fuzz/plain.py")]


# ------------------------------------------------------------------------------------------- overlap


def test_reading_ahead_keeps_the_order_and_its_bounds():
    budget, read = Budget(photos=100, pixels=10), []

    def reading(item: int) -> int:
        read.append(item)
        if item == 3:
            raise ValueError("3")
        return item

    with Ahead(range(8), reading, budget, size=lambda result: 4) as ahead:
        taken: list[tuple[int, str]] = []
        for item, result in ahead:
            assert len(read) - len(taken) <= 4, "12 pixels are over the limit of 10; what failed takes none"
            taken.append((item, str(result)))
            budget.give(0 if isinstance(result, Exception) else 4)
    assert taken == [(item, str(item)) for item in range(8)]
    endless = Ahead(iter(int, 1), lambda item: item, Budget(2, 100), size=lambda result: 1)
    with endless:
        next(iter(endless))  # and leaving stops the thread, which waits for room

    def one() -> Iterator[int]:
        yield 1
        threading.Event().wait()

    with Ahead(one(), lambda item: item, Budget(9, 100), size=lambda result: 1) as ahead:
        next(iter(ahead))  # and leaving does not wait for an item that never comes


def test_steps_of_a_photo_stay_in_order_and_a_failure_ends_only_its_own():
    done: list[tuple[str, int]] = []
    freed: list[str] = []
    behind: Behind[str] = Behind(3)

    def step(name: str, number: int) -> None:
        if (name, number) == ("b", 1):
            raise ValueError("b")
        done.append((name, number))

    with behind:
        for name in "abc":
            chain = Chain(behind, name, partial(freed.append, name))
            for number in range(4):
                chain.add(partial(step, name, number))
            chain.end(KeyError("c") if name == "c" else None)
    ended = {name: repr(error) for name, error in behind.ended()}
    assert ended == {"a": "None", "b": "ValueError('b')", "c": "KeyError('c')"} and sorted(freed) == ["a", "b", "c"]
    for name, numbers in (("a", [0, 1, 2, 3]), ("b", [0]), ("c", [0, 1, 2, 3])):
        assert [number for one, number in done if one == name] == numbers


@pytest.mark.parametrize("lost", [OutputLost("gone"), KeyboardInterrupt()])
def test_a_lost_folder_ends_everything(lost):
    behind: Behind[str] = Behind(1)
    ran = []

    def fails() -> None:
        raise lost

    with behind:
        for name, steps in (("a", [fails, lambda: ran.append("a")]), ("b", [lambda: ran.append("b")])):
            chain = Chain(behind, name, lambda: None)
            for step in steps:
                chain.add(step)
            chain.end()
    with pytest.raises(type(lost)):
        told = []
        for name, _ in behind.ended():
            told.append(name)
            assert isinstance(lost, OutputLost)
    assert ran == [] and told == (["a"] if isinstance(lost, OutputLost) else [])


def test_pictures_that_wait_for_the_disk_are_few():
    behind: Behind[str] = Behind(1)
    gate, added = threading.Event(), []

    def add_all() -> None:
        chain = Chain(behind, "a", lambda: None)
        for number in range(6):
            chain.add(gate.wait)  # type: ignore[arg-type]
            added.append(number)
        chain.end()

    with behind:
        thread = threading.Thread(target=add_all)
        thread.start()
        thread.join(0.2)
        assert len(added) == 2, "one is written, one waits"
        gate.set()
        thread.join()
    assert len(added) == 6


# ------------------------------------------------------------------------------------------- workers


@pytest.mark.skipif(CORES < 2, reason="two workers need two cores")
def test_workers_give_the_same_bytes(tmp_path):
    source = tmp_path / "in"
    for seed in range(5):
        write(source / f"deep/{seed}.png", seed)
    write(source / "n\udcffame.png", 7)  # a name that is no Unicode
    (source / "bad.png").write_bytes(b"x")
    alone, team = (
        subprocess.run(
            [*PLAIN, str(source), "-o", str(tmp_path / name), "--samples", "2", "--threads", "1", "--workers", count],
            capture_output=True, text=True, errors="surrogateescape", timeout=100,
        )
        for name, count in (("alone", "1"), ("team", "2"))
    )  # fmt: skip
    assert alone.returncode == team.returncode == 1, team.stderr
    assert team.stdout.startswith("6 colored, 0 skipped (finished before), 1 failed")
    lines = alone.stderr.replace(f"{tmp_path}/alone", f"{tmp_path}/team").splitlines()
    assert sorted(team.stderr.splitlines()) == sorted(lines)
    assert tree(tmp_path / "team") == tree(tmp_path / "alone") and len(tree(tmp_path / "team")) == 12
    again = subprocess.run([*PLAIN, str(source), "-o", str(tmp_path / "team"), "--samples", "2", "--threads", "1"],
                           capture_output=True, text=True, errors="surrogateescape", timeout=100)  # fmt: skip
    assert again.stdout.startswith("0 colored, 6 skipped"), again.stderr


@pytest.mark.skipif(CORES < 2, reason="two workers need two cores")
def test_the_networks_too_give_the_same_bytes_in_workers_and_once_more(tmp_path):
    """With the weights in the package: alone, by two workers, and by the record of each."""
    for seed in range(3):
        write(tmp_path / f"in/{seed}.png", seed, (70, 90))
    command = [sys.executable, "-m", "pipeline.cli", "colorize"]

    def run(*arguments: object) -> None:
        done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr

    for name, count in (("alone", 1), ("team", 2)):
        run(tmp_path / "in", "-o", tmp_path / name, "--pool", 3, "--threads", 1, "--workers", count)
    expected = tree(tmp_path / "alone")
    assert len(expected) == 3 and tree(tmp_path / "team") == expected
    run(tmp_path / "in/1.png", "--like", tmp_path / "team/1.png", "-o", tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == expected["1.png"]


def test_each_card_has_a_worker(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    asked = Namespace(workers=None, threads=None, arguments=["colorize"])
    team = team_for(asked, "cuda")
    assert team is not None and team.count == 3 and team_for(asked, "mps") is None


def test_more_threads_than_cores_are_refused(trichrome, tmp_path):
    code, _, said = trichrome(write(tmp_path / "a.png"), "-o", tmp_path / "out", "--workers", 1000)
    assert code == 2 and f"several times slower; give at most --workers {CORES}" in said[0]


def test_jobs_survive_the_way_to_a_worker(trichrome, tmp_path):
    import json

    from pipeline.files.names import plan
    from pipeline.files.records import Report, Settings

    settings = Settings(samples=2, uncertainty=True, overlay=True, page=3)
    (job,) = plan([(tmp_path / "é\udcff.tif", Path("é\udcff.tif"))], tmp_path / "out", settings, Report())
    assert job_from(json.loads(line_of(job))["job"]) == job and line_of(job).isascii()


# --------------------------------------------------------------------------------- globs and dry runs


@pytest.mark.parametrize("place, include, exclude, taken", [
    ("1920/a.jpg", (), (), True), ("1920/a.jpg", ("*.jpg",), (), True), ("1920/a.png", ("*.jpg",), (), False),
    ("1920/a.jpg", ("1920/*",), (), True), ("1920/a.jpg", ("192*",), (), False), ("a.jpg", ("*.jpg",), ("a*",), False),
    ("x/deep/a.jpg", ("x/*",), (), True), ("a.JPG", ("*.jpg",), (), False), ("a.jpg", ("*.png", "a.*"), (), True),
])  # fmt: skip
def test_globs(place, include, exclude, taken):
    assert Chosen(include, exclude).takes(Path(place)) == taken


def test_what_globs_leave_out_is_said(trichrome, tmp_path):
    for seed, name in enumerate(("a.png", "b.jpg", "old/c.png")):
        write(tmp_path / "in" / name, seed)
    code, out, _ = trichrome(tmp_path / "in", "-o", tmp_path / "out", "--include", "*.png", "--exclude", "old/*")
    assert code == 0 and sorted(tree(tmp_path / "out")) == ["a.png"]
    assert "2 left out by --include and --exclude" in out
    code, _, _ = trichrome(tmp_path / "in/b.jpg", "-o", tmp_path / "out", "--include", "*.png")
    assert (tmp_path / "out/b.jpg").is_file(), "named directly"


def test_a_dry_run_writes_nothing_and_says_all(trichrome, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    for seed, name in enumerate("abc"):
        write(source / f"{name}.png", seed)
    code, summary, _ = trichrome(source, "-o", out, "--dry-run")
    assert code == 0 and summary.startswith("3 would be colored, 0 skipped") and not out.exists()
    assert trichrome(source / "a.png", "-o", out)[0] == 0
    write(out / "b.png", 9)
    before = tree(out)
    code, summary, said = trichrome(source, "-o", out, "--dry-run")
    assert code == 1 and summary.startswith("1 would be colored, 1 skipped (finished before), 1 failed")
    assert f"{source / 'c.png'}: would be colored: {out / 'c.png'}" in said + trichrome.told
    assert tree(out) == before
    code, summary, _ = trichrome(source / "a.png", "-o", tmp_path / "x.png", "--dry-run")
    assert code == 0 and summary.startswith("1 would be colored") and not (tmp_path / "x.png").exists()


# --------------------------------------------------------------------------------------------- sheet


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        assert tag != "script"
        self.sources += [value for name, value in attrs if name == "src"]
        self.links += [value for name, value in attrs if name == "href"]

    def handle_data(self, data):
        self.text += data


def test_the_sheet_shows_before_and_after_and_needs_nothing_beside_it(trichrome, tmp_path):
    write(tmp_path / "in/a<b>.png", 0, (50, 80))
    write(tmp_path / "in/deep/c d.jpg", 1, (800, 500))
    (tmp_path / "in/bad.png").write_bytes(b"x")
    sheet = tmp_path / "page/sheet.html"
    assert trichrome(tmp_path / "in", "-o", tmp_path / "out", "--sheet", sheet)[0] == 1
    text = sheet.read_text()
    page = Page(text)
    assert len(page.sources) == 4 and all(one.startswith("data:image/jpeg;base64,") for one in page.sources)
    assert "http" not in text and "url(" not in text and "@import" not in text
    assert page.links == ["../out/a%3Cb%3E.png", "../out/deep/c%20d.jpg"]
    assert "a<b>.png" in page.text and "not an image" in page.text and "no record of what was there" in page.text
    assert "prefers-color-scheme: dark" in text and list(sheet.parent.iterdir()) == [sheet]
    assert trichrome(tmp_path / "in", "-o", tmp_path / "out", "--sheet", sheet)[0] == 1, "a sheet is replaced"
    assert len(Page(sheet.read_text()).sources) == 4, "what is finished is shown too"


def test_a_sheet_takes_the_place_of_a_sheet_alone(trichrome, tmp_path):
    photo = write(tmp_path / "a.png")
    (tmp_path / "mine.html").write_text("<p>mine")
    for name, words in (("mine.html", "is no sheet"), ("a.png", "ends in .html")):
        before = (tmp_path / name).read_bytes()
        code, _, said = trichrome(photo, "-o", tmp_path / "out", "--sheet", tmp_path / name)
        assert code == 2 and words in said[-1] and (tmp_path / name).read_bytes() == before
    sheet = Sheet(tmp_path / "empty.html")
    sheet.each(Outcome(photo, "ignored", reason="no"))
    sheet.close()
    assert not (tmp_path / "empty.html").exists() and not [path for path in tmp_path.iterdir() if "part" in path.name]


def test_a_dry_run_writes_no_sheet(trichrome, tmp_path):
    photo, sheet = write(tmp_path / "a.png"), tmp_path / "sheet.html"
    assert trichrome(photo, "-o", tmp_path / "out")[0] == 0
    assert trichrome(photo, "-o", tmp_path / "out", "--sheet", sheet, "--dry-run")[0] == 0
    assert not sheet.exists()


class Full:
    """A file on a disk that is full."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def write(self, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        self.file.close()
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_sheet_or_report_that_fails_costs_no_photo(trichrome, tmp_path, monkeypatch):
    photos = [write(tmp_path / f"in/{number}.png", number) for number in range(3)]
    sheet, report, killed = tmp_path / "sheet.html", tmp_path / "report.jsonl", tmp_path / ".sheet.html.0123abcd.part"
    killed.write_text("of a killed run")

    class FullSheet(Sheet):
        def each(self, outcome: Outcome) -> None:
            self._file = Full(self._file)  # type: ignore[assignment]
            super().each(outcome)

    monkeypatch.setattr("pipeline.files.sheet.Sheet", FullSheet)
    monkeypatch.setattr("pipeline.files.terminal.ReportFile.each", Full.write)
    code, summary, said = trichrome(tmp_path / "in", "-o", tmp_path / "out", "--sheet", sheet, "--report", report)
    assert code == 1 and summary.startswith("3 colored") and len(tree(tmp_path / "out")) == len(photos)
    for path in (sheet, report):
        assert f"{path} could not be written: No space left on device; photos are colored without it" in said
    assert not sheet.exists() and not killed.exists() and not list(tmp_path.glob(".*"))


def test_one_file_is_colored_by_the_command_itself(trichrome, tmp_path, monkeypatch):
    photo = write(tmp_path / "a.png")
    monkeypatch.setattr("pipeline.files.team.team_for", lambda *_: pytest.fail("workers for one file"))
    assert trichrome(photo, "-o", tmp_path / "b.png", "--threads", 1)[0] == 0
    code, _, said = trichrome(photo, "-o", tmp_path / "c.png", "--threads", 1, "--workers", 2)
    assert code == 2 and "colors itself; leave out --workers" in said[0]
    code, _, said = trichrome(photo, "-o", tmp_path / "c.heic")
    assert code == 2 and ".heic is read and not written; name c.png" in said[0] and not (tmp_path / "c.heic").exists()
