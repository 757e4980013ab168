"""`trichrome batch` without Ray: what is read, written, remembered and told."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pytest
import torch
from batches import SETTINGS, Batch, members, photo, write_parquet, write_tar
from command import tree, write
from elsewhere import register
from pyarrow import parquet
from standins import standin_pipeline

from pipeline import cli
from pipeline.batch import command, run
from pipeline.batch.journal import JOURNAL, Journal
from pipeline.batch.places import Place
from pipeline.batch.planning import Shape
from pipeline.batch.scratch import scratch, sweep
from pipeline.batch.units import Entry, Form, Unit
from pipeline.color_pipeline import ColorPipeline
from pipeline.files.broken import OutputLost
from pipeline.files.records import Job
from pipeline.files.team import WorkerError


@pytest.fixture
def batch() -> Batch:
    register()
    return Batch()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photos, two of which differ in their suffix alone, and a file that is none."""
    source = tmp_path / "in"
    for seed, name in enumerate(("a.png", "a.jpg", "deep/c.x.png")):
        write(source / name, seed)
    (source / "bad.png").write_bytes(b"x")
    return source


def pictures(out: Path) -> dict[str, bytes]:
    """Without the journal."""
    return {name: content for name, content in tree(out).items() if not name.startswith(JOURNAL)}


@pytest.fixture
def expected(trichrome, photos, tmp_path) -> dict[str, bytes]:
    """What `trichrome colorize` makes of the photos."""
    assert trichrome(photos, "-o", tmp_path / "expected")[0] == 1
    files = tree(tmp_path / "expected")
    assert sorted(files) == ["a.jpg", "a.png", "deep/c.x.png"]
    return files


# ------------------------------------------------------------------------------------------- folders


def test_a_folder_gives_what_colorize_gives_and_each_goes_on(batch, trichrome, photos, expected, tmp_path):
    report = batch(photos, out=tmp_path / "out")
    assert (report.colored, len(report.failed)) == (3, 1) and tree(tmp_path / "out") == expected
    assert "bad.png: not an image" in " ".join(batch.said)
    _, summary, _ = trichrome(photos, "-o", tmp_path / "out")
    assert summary.startswith("0 colored, 3 skipped")
    report = batch(photos, out=tmp_path / "expected")
    assert (report.colored, report.skipped) == (0, 3) and tree(tmp_path / "expected") == expected


def test_folders_elsewhere_have_the_same_bytes_and_their_journal(batch, photos, expected, tmp_path):
    source, out = f"elsewhere://{photos}", f"elsewhere://{tmp_path}/out"
    assert Place(source).local is None
    report = batch(source, out=out)
    assert (report.colored, len(report.failed)) == (3, 1)
    assert pictures(tmp_path / "out") == expected
    report = batch(source, out=out)
    assert (report.colored, report.skipped, len(report.failed)) == (0, 3, 1)
    assert [job.source.name for unit in batch.pool.given for job in unit.jobs] == ["bad.png"], "it is tried again"
    write(photos / "bad.png", 7)
    write(photos / "b.png", 8)
    report = batch(source, out=out)
    assert (report.colored, report.skipped, report.failed) == (2, 3, [])
    (tmp_path / "out/a.png").unlink()
    assert batch(source, out=out).colored == 1
    assert pictures(tmp_path / "out").keys() == {"a.png", "a.jpg", "b.png", "bad.png", "deep/c.x.png"}


def test_what_others_wrote_is_not_replaced(batch, photos, expected, tmp_path):
    out = tmp_path / "out"
    write(out / "a.png", 9)
    before = (out / "a.png").read_bytes()
    report = batch(photos, out=f"elsewhere://{out}")
    assert report.colored == 2 and "--overwrite replaces it" in dict(report.failed)[photos / "a.png"]
    assert (out / "a.png").read_bytes() == before
    batch(photos, out=f"elsewhere://{out}", overwrite=True)
    assert pictures(out) == expected


# -------------------------------------------------------------------------------------------- shards


def test_photos_become_parquet(batch, photos, expected, tmp_path):
    report = batch(photos, out=tmp_path / "out", shape=Shape(write="parquet", per_shard=3))
    assert (report.colored, len(report.failed)) == (3, 1)
    assert sorted(pictures(tmp_path / "out")) == ["part-000000.parquet", "part-000001.parquet"]
    rows = [row for name in ("part-000000.parquet", "part-000001.parquet")
            for row in parquet.read_table(tmp_path / "out" / name).to_pylist()]  # fmt: skip
    assert [row["image"] and row["image"]["path"] for row in rows] == ["a.jpg", "a.png", None, "c.x.png"]
    assert [row["image"]["bytes"] for row in rows if row["image"]] == [
        expected["a.jpg"], expected["a.png"], expected["deep/c.x.png"]]  # fmt: skip
    assert [row["error"] for row in rows] == [
        None, None, "not an image; JPEG, PNG, TIFF, WebP, AVIF and HEIC files are read", None]
    assert len({row["key"] for row in rows}) == 4 and rows[3]["key"] == "deep/c.x"


def test_photos_become_webdataset_and_again_photos(batch, photos, expected, tmp_path):
    batch(photos, out=tmp_path / "out", shape=Shape(write="webdataset"))
    files = members(tmp_path / "out/part-000000.tar")
    assert list(files) == [
        "a-000000.jpg", "a-000000.trichrome.json", "a-000001.png", "a-000001.trichrome.json", "bad.trichrome.json",
        "deep/c_x.png", "deep/c_x.trichrome.json"]  # fmt: skip
    assert files["deep/c_x.png"] == expected["deep/c.x.png"] and files["a-000000.jpg"] == expected["a.jpg"]
    assert json.loads(files["bad.trichrome.json"])["error"].startswith("not an image")
    again = batch(tmp_path / "out", out=tmp_path / "again", shape=Shape(write="folder"))
    assert (again.colored, len(again.failed)) == (3, 1), "the bad one has no picture there"
    assert sorted(pictures(tmp_path / "again")) == [
        f"part-000000/{name}" for name in ("a-000000.jpg", "a-000001.png", "deep/c_x.png")]


def test_parquet_keeps_its_columns_and_bad_rows_have_an_error(batch, trichrome, tmp_path):
    write(tmp_path / "photos/x.png", 1)
    trichrome(tmp_path / "photos", "-o", tmp_path / "expected")
    images = [{"bytes": photo(1), "path": "old/x.png"}, {"bytes": b"GIF89a", "path": None}, None,
              {"bytes": photo(4, kind="jpeg"), "path": None}]  # fmt: skip
    columns = {"label": pa.array([3, 1, None, 2], pa.int16()), "image": images, "error": ["of before"] * 4}
    write_parquet(tmp_path / "in/train.parquet", columns, rows_per_group=3)
    report = batch(tmp_path / "in", out=tmp_path / "out")
    assert (report.colored, len(report.failed)) == (2, 2)
    first, second = (parquet.read_table(tmp_path / f"out/train-0000{k}.parquet") for k in (0, 1))
    assert first.schema.field("label").type == pa.int16() and first["label"].to_pylist() == [3, 1, None]
    row = first.to_pylist()[0]
    assert row["image"] == {"bytes": (tmp_path / "expected/x.png").read_bytes(), "path": "x.png"}
    assert row["error"] is None and row["notes"] == [] and row["key"] == "000000-x"
    assert row["error_before"] == "of before"
    assert first["image"].to_pylist()[1:] == [None, None]
    assert first["error"].to_pylist()[1:] == [
        "a GIF file; JPEG, PNG, TIFF, WebP, AVIF and HEIC files are read", "the row holds no bytes"]
    assert second["key"].to_pylist() == ["000003"] and second.to_pylist()[0]["image"]["bytes"][:3] == b"\xff\xd8\xff"
    assert [path.name for path, _ in report.failed] == ["000001", "000002"]
    before = tree(tmp_path / "out")
    report = batch(tmp_path / "in", out=tmp_path / "out")
    assert (report.colored, report.skipped, len(report.failed)) == (0, 2, 2), "bad rows are told again"
    assert batch.pool.given == [] and tree(tmp_path / "out") == before


def test_parquet_without_rows_is_said(batch, tmp_path):
    write_parquet(tmp_path / "in/a.parquet", {"image": [{"bytes": photo(1), "path": None}]}, rows_per_group=3)
    schema = parquet.read_schema(tmp_path / "in/a.parquet")
    parquet.ParquetWriter(tmp_path / "in/none.parquet", schema).close()
    report = batch(tmp_path / "in", out=tmp_path / "out")
    assert report.colored == 1 and report.ignored == [(tmp_path / "in/none.parquet", "without rows")]


def test_samples_keep_their_files(batch, tmp_path):
    source = write_tar(tmp_path / "in/s.tar", [
        ("__notes__", b"x"), ("a/1.png", photo(1)), ("a/1.json", b"{}"), ("2.jpg", photo(2)), ("2.png", photo(2)),
        ("../3.png", photo(3)), ("4.png", photo(4)), ("5.cls", b"7"), ("4.png", photo(4)),
    ])  # fmt: skip
    report = batch(source, out=tmp_path / "out", settings=replace(SETTINGS, samples=2, uncertainty=True))
    assert (report.colored, len(report.failed)) == (2, 4)
    files = members(tmp_path / "out/s.tar")
    assert [name for name in files if not name.endswith("trichrome.json")] == [
        "a/1.1.png", "a/1.2.png", "a/1.json", "a/1.uncertainty.png", "4.1.png", "4.2.png", "4.uncertainty.png", "5.cls"]
    errors = {name: json.loads(content)["error"] for name, content in files.items() if "trichrome" in name}
    assert "holds 2 pictures (jpg, png); --column" in errors["2.trichrome.json"]
    assert "leads out of the folder" in errors["row-000002.trichrome.json"]
    assert "comes twice" in errors["row-000005.trichrome.json"] and "0 pictures" in errors["5.trichrome.json"]
    before = (tmp_path / "out/s.tar").read_bytes()
    batch(source, out=tmp_path / "out", settings=replace(SETTINGS, samples=2, uncertainty=True), overwrite=True)
    assert (tmp_path / "out/s.tar").read_bytes() == before, "without a time in it"


def test_a_file_of_a_sample_is_not_replaced_by_its_picture(batch, tmp_path):
    source = write_tar(tmp_path / "in/s.tar", [("1.jpg", b"mine"), ("1.png", photo(1))])
    jpeg = replace(SETTINGS, format="jpeg")
    report = batch(source, out=tmp_path / "out", settings=jpeg, shape=Shape(column="png"))
    assert "its file jpg has the name that its colored picture would have" in report.failed[0][1]
    assert members(tmp_path / "out/s.tar")["1.jpg"] == b"mine"
    report = batch(source, out=tmp_path / "rows", settings=jpeg, shape=Shape(column="png", write="parquet"))
    (row,) = parquet.read_table(tmp_path / "rows/s.parquet").to_pylist()
    assert row["jpg"] == b"mine" and row["png"]["path"] == "1.jpg" and row["key"] == "1" and report.failed == []


def test_a_damaged_shard_fails_by_itself(batch, tmp_path):
    whole = write_tar(tmp_path / "in/a.tar", [("1.png", photo(1)), ("2.png", photo(2))])
    write_tar(tmp_path / "in/b.tar", [("1.png", photo(1))])
    whole.write_bytes(whole.read_bytes()[:2000])
    report = batch(tmp_path / "in", out=tmp_path / "out")
    assert report.colored == 1 and [path.name for path, _ in report.failed] == ["a.tar"]
    assert sorted(pictures(tmp_path / "out")) == ["b.tar"]
    (tmp_path / "in/b.tar").rename(tmp_path / "in/b.parquet")
    report = batch(tmp_path / "in", out=tmp_path / "out2", shape=Shape(read="parquet"))
    assert [path.name for path, _ in report.failed] == ["b.parquet"]


# ------------------------------------------------------------------------------------ what is finished


def test_shards_are_made_again_where_something_differs(batch, tmp_path):
    source = write_parquet(tmp_path / "in/a.parquet", {"image": [photo(1), photo(2)]})
    out = tmp_path / "out"
    assert batch(source, out=out).colored == 2
    assert batch(source, out=out).skipped == 2
    assert batch(source, out=out, settings=replace(SETTINGS, seed=1)).colored == 2
    assert batch(source, out=out, settings=replace(SETTINGS, seed=1)).skipped == 2
    write_parquet(source, {"image": [photo(1), photo(2), photo(3)]})
    assert batch(source, out=out, settings=replace(SETTINGS, seed=1)).colored == 3
    (out / "a.parquet").write_bytes(b"another's")
    report = batch(source, out=out, settings=replace(SETTINGS, seed=1))
    assert report.colored == 3, "a file of this program's, broken"
    for line in out.glob(f"{JOURNAL}/*"):
        line.write_text("{}\n")
    report = batch(source, out=out)
    assert report.colored == 0 and "is not what this program wrote" in report.failed[0][1]
    assert any("1 unreadable lines" in line for line in batch.said)


def test_what_was_begun_and_not_finished_is_done_again_and_is_no_other_s(batch, monkeypatch, tmp_path):
    source = write_parquet(tmp_path / "in/a.parquet", {"image": [photo(1)]})
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "done", staticmethod(lambda *_: (_ for _ in ()).throw(OutputLost("power"))))
        with pytest.raises(OutputLost):
            batch(source, out=tmp_path / "out")
    assert (tmp_path / "out/a.parquet").is_file()
    part = tmp_path / "out/.a.parquet.0123abcd.part"
    part.write_bytes(b"")
    assert batch(source, out=tmp_path / "out").colored == 1 and not part.exists()
    assert any("removed 1 unfinished files" in line for line in batch.said)


def test_a_folder_that_is_gone_is_not_made_again(tmp_path):
    place = Place(str(tmp_path / "out"))
    place.prepare()
    (tmp_path / "a").write_bytes(b"abc")
    assert place.put(tmp_path / "a", "deep/a.png") == 3 and place.read(str(tmp_path / "out/deep/a.png")) == b"abc"
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    with pytest.raises(OutputLost, match="not there any more"):
        place.put(tmp_path / "a", "a.png")
    assert not (tmp_path / "out").exists()


def test_the_latest_line_counts(tmp_path):
    entry, place = Entry("a.tar", {"size": 1}, ("a.tar",)), Place(str(tmp_path / "out"))
    place.prepare()
    (tmp_path / "a").write_bytes(b"abc")
    place.put(tmp_path / "a", "a.tar")
    result = {"outputs": [{"path": "a.tar", "size": 3}], "colored": 1, "failed": []}
    Journal.done(place, [entry], {"seed": 0}, [result], tmp_path)
    assert Journal(place, place.found()).finished(entry, {"seed": 0}) is not None
    Journal.done(place, [Entry("b.tar", {}, ()), entry], {"seed": 1}, [None, result], tmp_path)
    journal = Journal(place, place.found())
    assert journal.finished(entry, {"seed": 0}) is None and journal.finished(entry, {"seed": 1}) is not None
    assert journal.finished(replace(entry, stamp={"size": 2}), {"seed": 1}) is None
    place.put(tmp_path / "a", "c/d.png")
    assert Journal(place, place.found()).in_the_way(Entry("c/", {}, ("c/",))) == "c/d.png"


# ----------------------------------------------------------------------------------- actors that end


def test_a_photo_that_takes_its_actor_with_it_does_not_take_others(batch, photos, tmp_path):
    batch.pool.dies = lambda unit: any(job.source.name == "a.jpg" for job in unit.jobs)
    report = batch(photos, out=tmp_path / "out")
    assert report.colored == 2 and "its actor ended 3 times" in dict(report.failed)[photos / "a.jpg"]
    assert sum(any(job.source.name == "a.jpg" for job in unit.jobs) for unit in batch.pool.given) == 3
    assert sorted(pictures(tmp_path / "out")) == ["a.png", "deep/c.x.png"]


def test_actors_that_are_others_are_refused(batch, photos, tmp_path, monkeypatch):
    def other() -> tuple[ColorPipeline, None]:
        pipe = standin_pipeline()
        with torch.no_grad():
            next(pipe.coarse.parameters()).add_(1)
        return pipe, None

    with pytest.raises(WorkerError, match="other weights"):
        batch(photos, out=tmp_path / "out", opened=other)
    monkeypatch.setattr(run, "software", lambda: "trichrome 9")
    with pytest.raises(WorkerError, match="install one on all machines"):
        batch(photos, out=tmp_path / "out")


def test_scratch_folders_of_the_dead_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "trichrome-batch-dead/in").mkdir(parents=True)
    with scratch() as folder:
        assert sweep() == 1 and list(tmp_path.iterdir()) == [folder]
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------ planning


def test_units_survive_the_way_to_an_actor():
    job = Job(Path("é\udcff.tif"), (Path("a-1.tif"), Path("a-2.tif")), Path("a-uncertainty.png"), None, 3)
    unit = Unit("part", "folder", "s3://x/", jobs=(job,), stamps=({"size": 1},))
    assert Unit.of(unit.line()) == unit and unit.line().isascii()
    assert [one.jobs for one in unit.alone()] == [(job,)]


@pytest.mark.parametrize("files, shape, words", [
    (("a.png", "b.tar"), Shape(), "hold photos and WebDataset shards; say by --from"),
    (("a.parquet",), Shape(), "has 2 columns of bytes, or of {bytes, path}: a, b; name that of the pictures"),
    (("a.parquet",), Shape(column="c"), "has no column 'c' of bytes"),
])  # fmt: skip
def test_inputs_that_leave_a_question(batch, tmp_path, files, shape, words):
    for name in files:
        if name.endswith("parquet"):
            write_parquet(tmp_path / "in" / name, {"a": [b"x"], "b": [b"y"], "c": [1]})
        else:
            (tmp_path / "in").mkdir(exist_ok=True)
            (tmp_path / "in" / name).write_bytes(b"x")
    try:
        report = batch(tmp_path / "in", out=tmp_path / "out", shape=shape)
    except ValueError as error:
        assert words in str(error)
    else:
        assert words in report.failed[0][1]


def test_an_input_is_never_overwritten(batch, tmp_path):
    source = write_parquet(tmp_path / "a.parquet", {"image": [photo(1)]})
    before = source.read_bytes()
    report = batch(source, out=tmp_path, overwrite=True)
    assert "is one of the inputs" in report.failed[0][1] and source.read_bytes() == before


def test_a_dry_run_writes_nothing(batch, photos, tmp_path):
    write_parquet(tmp_path / "rows/a.parquet", {"image": [photo(1), photo(2)]})
    for source, out, count in ((photos, tmp_path / "out", 4), (photos, f"elsewhere://{tmp_path}/out", 4),
                               (tmp_path / "rows", tmp_path / "out", 2)):  # fmt: skip
        report = batch(source, out=out, dry=True)
        assert report.planned == count and not (tmp_path / "out").exists() and batch.pool.given == []


# ------------------------------------------------------------------------------------------- command


def options_of(name: str) -> dict[str, object]:
    """Of a subcommand, with their defaults."""
    commands = next(action for action in cli._parser()._actions if isinstance(action, argparse._SubParsersAction))
    return {action.option_strings[-1]: action.default for action in commands.choices[name]._actions
            if action.option_strings and action.help != argparse.SUPPRESS}  # fmt: skip


def test_options_about_coloring_are_those_of_colorize():
    colorize, batch = options_of("colorize"), options_of("batch")
    only = {"--like", "--workers", "--sheet"}
    assert colorize.keys() - batch.keys() == only and command.FORMS == get_args(Form)
    assert {name for name in colorize.keys() - only if colorize[name] != batch[name]} == {"--threads"}


def test_the_reference_has_every_option():
    docs = Path(__file__).parents[2] / "docs/use"
    tables = [re.findall(r"^\| .*? \|", (docs / name).read_text(), re.MULTILINE)
              for name in ("batch.md", "command-line.md")]  # fmt: skip
    own, others = (set(re.findall(r"--[a-z][a-z-]*", "".join(table))) for table in tables)
    options = options_of("batch").keys() - {"--help"}
    assert options - options_of("colorize").keys() <= own <= options | {"--samples"} and options <= own | others


@pytest.mark.parametrize("given, words", [
    (("--hint", "1,1,red"), "--hint: of one photo"), (("--keep", "x.png"), "--keep: of one photo"),
    (("--sheet", "x.html"), "--sheet"), (("--workers", "2"), "--workers"), (("--like", "x.png"), "--like"),
    (("--page", "all", "--from", "parquet"), "--page all: of photos in folders"),
    (("--actors", "0"), "--actors must be a whole number from 1"), (("--samples", "2", "--preview"), "preview"),
    (("--gpus-per-actor", "1"), "do not go together"), (("-o", "nowhere://x"), "no file system is known"),
    (("--from", "folder", "--column", "x"), "--column is of Parquet"), (("--reference", "gone.png"), "gone.png"),
])  # fmt: skip
def test_what_can_not_be_honored_is_refused_by_name(trichrome, capsys, tmp_path, given, words):
    write(tmp_path / "in/a.png")
    plain = ["batch", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--device", "cpu", "--dry-run"]
    code = cli.main([*plain, *given])
    said = capsys.readouterr().err
    assert code == 2 and words in said and "Traceback" not in said


def test_ray_is_named_where_it_is_missing(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    assert cli.main(["batch", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "it needs Ray Data: pip install 'trichrome[ray]'" in capsys.readouterr().err


def test_the_command_says_what_would_be_done(trichrome, capsys, photos, tmp_path):
    code = cli.main(["batch", str(photos), "-o", str(tmp_path / "out"), "--device", "cpu", "--dry-run"])
    said = capsys.readouterr()
    assert code == 0 and said.out.startswith("4 would be colored, 0 skipped")
