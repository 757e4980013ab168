"""Visits: nobody sees the pictures of another, and nothing of them stays."""

from __future__ import annotations

import io
from tempfile import TemporaryFile

import numpy as np
import pytest
from PIL import Image

from pipeline.app.limits import Limits
from pipeline.app.problems import Problem
from pipeline.app.visits import Visits


def picture(seed: int = 0, side: int = 32) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side), np.uint8)).save(file, "PNG")
    return file.getvalue()


def stored(content: bytes):
    file = TemporaryFile()
    file.write(content)
    return file


def test_a_picture_is_of_its_visit_alone():
    visits = Visits(Limits())
    one, other = visits.visit(visits.begin()), visits.visit(visits.begin())
    key, photo = visits.add(one, "a.png", stored(picture()))
    assert photo.gray.shape == (32, 32) and one.upload(key).name == "a.png"
    with pytest.raises(Problem, match="no such picture"):
        other.upload(key)


def test_the_end_of_a_visit_deletes_its_files_and_photos():
    visits = Visits(Limits())
    visit = visits.visit(secret := visits.begin())
    key, _ = visits.add(visit, "a.png", stored(picture()))
    upload = visit.upload(key)
    visits.end(secret)
    assert upload.file.closed and not visits._opened
    with pytest.raises(Problem, match="is over") as problem:
        visits.visit(secret)
    assert problem.value.code == "gone"
    visits.end(secret)  # once more is no error


def test_a_removed_picture_is_gone_and_the_others_stay():
    visits = Visits(Limits())
    visit = visits.visit(visits.begin())
    keys = [visits.add(visit, "a.png", stored(picture(seed)))[0] for seed in range(2)]
    file = visit.upload(keys[0]).file
    visits.remove(visit, keys[0])
    assert file.closed and list(visit.uploads) == [keys[1]] and len(visits._opened) == 1


def test_a_silent_visit_ends_and_one_that_is_heard_of_does_not():
    visits = Visits(Limits(visit_minutes=1))
    silent, heard = visits.begin(), visits.begin()
    for secret in (silent, heard):
        visits.visit(secret).seen -= 61
    visits.visit(heard)
    visits.tidy()
    visits.visit(heard)
    with pytest.raises(Problem):
        visits.visit(silent)


def test_as_many_visits_photos_and_bytes_as_the_limits_say():
    visits = Visits(Limits(visits=2, photos=2, visit_megabytes=1))
    visit = visits.visit(visits.begin())
    visits.begin()
    with pytest.raises(Problem, match="2 people"):
        visits.begin()
    file = stored(picture() + bytes(1_000_001))
    with pytest.raises(Problem, match="1 megabytes"):
        visits.add(visit, "large.png", file)
    assert file.closed
    for seed in range(2):
        visits.add(visit, "a.png", stored(picture(seed)))
    with pytest.raises(Problem, match="2 pictures"):
        visits.add(visit, "a.png", stored(picture()))


def test_what_is_no_picture_is_refused_and_not_kept():
    visits = Visits(Limits(megapixels=1))
    visit = visits.visit(visits.begin())
    for content, reason in ((b"GIF89a", "notes.txt: a GIF file"), (b"", "empty"), (picture()[:200], "damaged"),
                            (picture(side=1100), "more than the limit")):  # fmt: skip
        file = stored(content)
        with pytest.raises(Problem, match=reason) as problem:
            visits.add(visit, "notes.txt", file)
        assert problem.value.code == "bad_picture" and file.closed
    assert not visit.uploads and not visits._opened


def test_few_photos_stay_decoded_and_the_others_come_back_the_same():
    visits = Visits(Limits(open_megapixels=0))
    visit = visits.visit(visits.begin())
    keys = [visits.add(visit, "a.png", stored(picture(seed)))[0] for seed in range(3)]
    assert len(visits._opened) == 1
    again = visits.opened(visit.upload(keys[0]))
    assert np.array_equal(np.rint(again.gray * 255), np.asarray(Image.open(io.BytesIO(picture(0)))))
    assert visits.opened(visit.upload(keys[0])) is again
    assert visits.opened(visit.upload(keys[0]), keep_rgb=True).rgb is not None
