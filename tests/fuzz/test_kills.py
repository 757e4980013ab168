"""Signals in the middle of writes: 5 rounds in every run of the tests, 100 by `make soak`."""

from __future__ import annotations

import os
import signal
import time

import pytest
from kills import COMMAND, WORKER, files_of, large_photos, rounds, start

from pipeline.files.lock import LOCK


def test_five_rounds():
    findings, hits = rounds(5)
    assert findings == []
    assert hits >= 3, "signals must come during writes"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs 2 cores")
def test_two_workers_one_of_which_is_killed():
    findings, _ = rounds(2, kinds=(WORKER, signal.SIGKILL), photos=12, workers=2)
    assert findings == []


@pytest.fixture
def running(tmp_path):
    """A command that is writing its first file: (process, source, out)."""
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    large_photos(source)
    child = start(source, out)
    while not list(out.glob(".*.part")):
        assert child.poll() is None
        time.sleep(0.002)
    yield child, source, out
    child.kill()
    child.communicate()


def test_a_second_command_is_refused_and_a_second_signal_stops_at_once(running):
    child, source, out = running
    child.send_signal(signal.SIGSTOP)  # in the middle of a write, for as long as is needed
    second = start(source, out)
    _, said = second.communicate(timeout=60)
    assert second.returncode == 2 and "is in use by another trichrome (process" in said
    assert str(child.pid) in said and said.count("\n") == 1
    child.send_signal(signal.SIGINT)
    child.send_signal(signal.SIGCONT)
    assert "once more stops at once" in child.stderr.readline()
    child.send_signal(signal.SIGINT)
    start_of_end = time.monotonic()
    assert child.wait(timeout=60) == 130
    assert time.monotonic() - start_of_end < 1
    assert (out / LOCK).exists()  # nobody holds it

    (out / ".other.png.0123abcd.part2").write_bytes(b"another's")
    (out / ".notes.txt.0123abcd.part").write_bytes(b"another's")
    (out / "0123abcd.part").write_bytes(b"another's")
    again = start(source, out)
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0 and ("removed 1 unfinished files" in said or not list(out.glob(".0.png*")))
    assert set(files_of(out)) == {
        "0.png", "1.png", ".trichrome.jsonl", ".other.png.0123abcd.part2", ".notes.txt.0123abcd.part", "0123abcd.part"}


def test_the_command_of_the_tests_is_the_command():
    assert COMMAND[-1].endswith("plain.py")
