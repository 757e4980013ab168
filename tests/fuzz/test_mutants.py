"""Damaged files: 300 of them in every run of the tests, 10 000 by `make fuzz`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fuzz import fuzz
from mutants import CORPUS, mutant

from pipeline.images.read import load_photo


def test_mutants_are_read_or_refused():
    summary = fuzz(seed=0, count=300)
    assert summary.findings == []
    assert sum(summary.outcomes.values()) == 300
    for kind in ("jpeg", "png", "tiff", "webp"):
        assert summary.outcomes[f"{kind} refused"] > 5, "the mutants must hurt"
    assert summary.outcomes["jpeg read"] > 5, "and not all of them too much"


def test_a_child_that_dies_is_a_finding(monkeypatch, tmp_path):
    reader = tmp_path / "reader.py"
    reader.write_text(
        "import json, os, sys\n"
        "first, last = int(sys.argv[2]), int(sys.argv[3])\n"
        "for number in range(first, last):\n"
        "    print(json.dumps({'number': number}), flush=True)\n"
        "    if number == 3: os.abort()\n"
        "    record = {'number': number, 'name': 'png', 'outcome': 'read', 'notes': [], 'seconds': 0}\n"
        "    print(json.dumps(record), flush=True)\n"
    )
    monkeypatch.setattr("fuzz.HERE", tmp_path)
    summary = fuzz(seed=0, count=6)
    assert len(summary.findings) == 1 and "mutant 3 of seed 0: exit -6" in summary.findings[0]
    assert summary.outcomes["png read"] == 5


def test_mutants_come_from_their_numbers():
    assert mutant(1, 2) == mutant(1, 2) != mutant(1, 2 + len(CORPUS))
    changed = [mutant(0, number)[1] != CORPUS[mutant(0, number)[0]][1] for number in range(100)]
    assert np.mean(changed) > 0.9


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CORPUS)
def test_the_corpus_is_good(tmp_path: Path, name):
    (tmp_path / "good").write_bytes(CORPUS[name][1])
    assert min(load_photo(tmp_path / "good", page=1).gray.shape) == 90
