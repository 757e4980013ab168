"""Which code made a file or a figure."""

from __future__ import annotations

import subprocess

from stages.provenance import commit


def test_commit_and_whether_tracked_files_differ(tmp_path):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        return subprocess.run(["git", *who, *words], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    (tmp_path / "deeper").mkdir()
    assert commit(tmp_path) == "unknown"  # no repository
    git("init", "-q")
    assert commit(tmp_path) == "unknown"  # no commit yet
    (tmp_path / "file").write_text("a")
    git("add", "file")
    git("commit", "-q", "-m", "a")
    head = git("rev-parse", "HEAD").strip()
    assert len(head) == 40 and commit(tmp_path) == commit(tmp_path / "deeper") == head
    (tmp_path / "untracked").write_text("b")
    assert commit(tmp_path) == head
    (tmp_path / "file").write_text("b")
    assert commit(tmp_path) == head + "+"
    assert commit(tmp_path / "missing") == "unknown"
