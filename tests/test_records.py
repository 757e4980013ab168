"""Outputs say how they were made, and are made again from what they say."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch
from command import tree, write
from PIL import Image
from standins import standin_pipeline

from pipeline import cli
from pipeline.files.manifest import MANIFEST
from pipeline.images.containers import JPEG_XMP_ROOM
from pipeline.images.read import load_photo, xmp_of
from pipeline.images.write import save_photo
from pipeline.images.xmp import property_of
from pipeline.known_colors import Guide
from pipeline.provenance.record import NAME, NAMESPACE, SOURCE_TYPE, RecordError, read_record, sealed, with_record
from pipeline.provenance.settings import NOT_SETTINGS, request_from, settings_of
from pipeline.request import Request
from stages.hints.hints import Hints
from stages.options import SampleOptions

SUFFIXES = (".jpg", ".png", ".tif", ".webp")
XMP = b"""<x:xmpmeta xmlns:x='adobe:ns:meta/'><r:RDF xmlns:r='http://www.w3.org/1999/02/22-rdf-syntax-ns#'><r:Description
 xmlns:dc='http://purl.org/dc/elements/1.1/' dc:source='an album'/></r:RDF></x:xmpmeta>"""


def pixels(path: Path) -> np.ndarray:
    return pyvips.Image.new_from_buffer(path.read_bytes(), "").numpy()


def with_xmp(path: Path) -> Path:
    write(path)
    photo = load_photo(path)
    photo.xmp = XMP
    save_photo(path, np.repeat(np.rint(photo.gray * 255).astype(np.uint8)[..., None], 3, axis=2), photo)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_carries_the_record_and_no_pixel_changes(trichrome, tmp_path, suffix):
    photo, out = with_xmp(tmp_path / f"in{suffix}"), tmp_path / "out"
    assert trichrome(photo, "-o", out / f"with{suffix}", "--seed", 3)[0] == 0
    assert trichrome(photo, "-o", out / f"without{suffix}", "--seed", 3, "--no-provenance")[0] == 0
    assert np.array_equal(pixels(out / f"with{suffix}"), pixels(out / f"without{suffix}"))
    assert xmp_of(out / f"without{suffix}") == XMP, "byte for byte"
    packet = xmp_of(out / f"with{suffix}")
    assert packet is not None and packet.startswith(XMP[: XMP.index(b"</r:RDF")])
    assert property_of(packet, "http://purl.org/dc/elements/1.1/", "source") == "an album"
    assert property_of(packet, SOURCE_TYPE.namespace, SOURCE_TYPE.name) == SOURCE_TYPE.text

    record = read_record(out / f"with{suffix}")
    assert record["colors"] == "synthesized" and record["seed"] == 3 and record["settings"] == {"pool": 1}
    assert record["input"] == {"sha256": hashlib.sha256(photo.read_bytes()).hexdigest()}
    assert record["weights"] == trichrome.pipe.fingerprint() and len(record["noise_key"]) == 64
    assert record["run"] == {"device": "cpu", "dtype": "float32", "threads": torch.get_num_threads()}
    digest = record.pop("digest")
    plain = json.dumps(record, sort_keys=True, separators=(",", ":"))
    assert digest == hashlib.sha256(plain.encode()).hexdigest() and str(tmp_path) not in plain


def test_others_find_the_source_type(trichrome, tmp_path):
    photo = write(tmp_path / "a.jpg")
    assert trichrome(photo, "-o", tmp_path / "out")[0] == 0
    with Image.open(tmp_path / "out/a.jpg") as image:
        assert b"algorithmicallyEnhanced" in image.info["xmp"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("more", [
    [], ["--samples", 3, "--temperature", 0.5], ["--preview"], ["--uncertainty", "--uncertainty-overlay"],
    ["--quality", 60, "--sharpness", 0.3],
], ids=str)  # fmt: skip
def test_like_gives_the_same_bytes(trichrome, tmp_path, suffix, more):
    photo, out = with_xmp(tmp_path / f"in{suffix}"), tmp_path / "out"
    assert trichrome(photo, "-o", out, *more, "--seed", 5)[0] == 0
    maps = {"in-uncertainty.png", "in-overlay.png"}
    pictures = sorted(path for path in out.glob(f"*{suffix}") if path.name not in maps)
    assert len(pictures) == (3 if "--samples" in more else 1)
    for number, like in enumerate(pictures):
        again = tmp_path / f"again{number}{suffix}"
        code, summary, said = trichrome(photo, "--like", like, "-o", again, pool=None)
        assert code == 0 and said == [] and again.read_bytes() == like.read_bytes()
    if "--uncertainty" in more:
        for name in maps:
            assert read_record(out / name)["file"]["shows"] in name
            code, _, said = trichrome(photo, "--like", out / name, "-o", tmp_path / "x.png", pool=None)
            assert code == 2 and "not a picture" in said[0]


def test_what_python_saves_is_repeated_by_the_command(trichrome, tmp_path):
    photo = write(tmp_path / "a.png", size=(40, 60))
    hints = [(10, 12, "navy"), (50, 30, (200, 30, 20), 4)]
    output = trichrome.pipe(photo, 2, generator=9, noise_key="film", hints=hints, palette=["red", "gray"], pool=1)
    output.save(tmp_path / "b.jpg", picture=1, quality=70)
    output.save(tmp_path / "bare.jpg", picture=1, quality=70, provenance=False)
    assert xmp_of(tmp_path / "bare.jpg") is None
    record = read_record(tmp_path / "b.jpg")
    assert (record["noise_key"], record["picture"]) == ("film", 2)
    code, _, said = trichrome(photo, "--like", tmp_path / "b.jpg", "-o", tmp_path / "c.jpg", pool=None)
    assert code == 0 and said == [] and (tmp_path / "c.jpg").read_bytes() == (tmp_path / "b.jpg").read_bytes()
    strokes = Image.new("RGBA", (60, 40), (200, 0, 0, 90))
    trichrome.pipe(photo, generator=9, hints=strokes).save(tmp_path / "d.png")
    code, _, said = trichrome(photo, "--like", tmp_path / "d.png", "-o", tmp_path / "e.png", pool=None)
    assert code == 2 and "made with strokes" in said[0] and not (tmp_path / "e.png").exists()


@pytest.mark.parametrize("more", [
    ["--hint", "3,4,red", "--hint", "20,10,rgb(0, 90, 200),4"], ["--palette", "navy,gray"], ["--strength", 0.5],
    ["--candidate", 5],
], ids=str)  # fmt: skip
def test_what_steers_the_command_is_repeated(trichrome, tmp_path, more):
    photo = write(tmp_path / "a.png")
    assert trichrome(photo, "-o", tmp_path / "b.png", *more, pool=None)[0] == 0
    code, _, said = trichrome(photo, "--like", tmp_path / "b.png", "-o", tmp_path / "c.png", pool=None)
    assert code == 0 and said == [] and (tmp_path / "c.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_pictures_that_guide_are_named_by_their_digest(trichrome, tmp_path):
    rng = np.random.default_rng(0)
    colors = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(colors).save(tmp_path / "colors.png")
    Image.fromarray(colors[..., 0]).save(tmp_path / "mask.png")
    photo = tmp_path / "colors.png"
    assert trichrome(photo, "-o", tmp_path / "b.png", "--keep", tmp_path / "mask.png")[0] == 0
    assert len(read_record(tmp_path / "b.png")["settings"]["keep"]) == 64
    guide = Guide(reference=load_photo(photo, keep_rgb=True))
    assert settings_of(Request(), guide) == {"reference": hashlib.sha256(photo.read_bytes()).hexdigest()}
    code, _, said = trichrome(photo, "--like", tmp_path / "b.png", "-o", tmp_path / "c.png", pool=None)
    assert code == 2 and "made with keep: pictures of which" in said[0]


def with_other_record(path: Path, target: Path, seal: bool = True, **changes: object) -> Path:
    """A copy of an output whose record says something else."""
    record = {**read_record(path), **changes}
    if seal:
        record = sealed({key: value for key, value in record.items() if key != "digest"})
    save_photo(target, pixels(path), with_record(load_photo(path), record))
    return target


def test_like_refuses_with_a_sentence(trichrome, tmp_path):
    photo, other = write(tmp_path / "a.png"), write(tmp_path / "other.png", 1)
    assert trichrome(photo, "-o", tmp_path / "b.png", "--seed", 2)[0] == 0
    trichrome.pipe(np.asarray(Image.open(photo)), generator=0).save(tmp_path / "memory.png")
    good = tmp_path / "b.png"

    def other_record(name: str, **changes: object) -> Path:
        return with_other_record(good, tmp_path / f"{name}.png", **changes)  # type: ignore[arg-type]

    edited = other_record("edited", seal=False, seed=3)
    weights = other_record("weights", weights={**read_record(good)["weights"], "stage2": "0" * 64})
    younger = other_record("younger", settings={"tone": 1})
    for path, source, more, words in (
        (edited, photo, [], "was edited: its digest does not fit it"), (good, other, [], "their SHA-256 differ"),
        (weights, photo, [], "other weights: stage2 differ"), (photo, photo, [], "has no record of trichrome"),
        (younger, photo, [], "made with tone, which this version can not repeat"),
        (other_record("format", format=2), photo, [], "has format 2"),
        (other_record("recipe", recipe=1), photo, [], "colored by recipe 1; today's is 2"),
        (other_record("shape", run=[1]), photo, [], "its run is [1]"),
        (other_record("file", file={"format": "png"}), photo, [], "its file"),
        (other_record("ninth", picture=9), photo, [], "picture 9 of 1"),
        (tmp_path / "memory.png", photo, [], "made of pixels in memory"),
        (good, photo, ["--seed", 2], "leave out --seed"), (good, photo, ["--quality", 50], "leave out --quality"),
        (tmp_path / "none.png", photo, [], "No such file"),
    ):  # fmt: skip
        code, _, said = trichrome(source, "--like", path, "-o", tmp_path / "new.png", *more, pool=None)
        assert code == 2 and len(said) == 1 and words in said[0] and not (tmp_path / "new.png").exists(), words
    code, _, said = trichrome(photo, "--like", good, "-o", tmp_path / "new.jpg", pool=None)
    assert code == 2 and "was written as png" in said[0]
    for target, words in ((tmp_path / "out", "name one photo, and with -o"), (other, "is there already"),
                          (good, "the file of --like itself")):
        code, _, said = trichrome(photo, "--like", good, "-o", target, pool=None)
        assert code == 2 and words in said[0]


def test_other_bytes_are_said(trichrome, tmp_path):
    photo = write(tmp_path / "a.png")
    assert trichrome(photo, "-o", tmp_path / "b.png")[0] == 0
    older = with_other_record(tmp_path / "b.png", tmp_path / "older.png", software="trichrome 0.1.9")
    code, _, said = trichrome(photo, "--like", older, "-o", tmp_path / "c.png", pool=None)
    assert code == 1 and "its bytes are others: it was made by trichrome 0.1.9, this is trichrome " in said[0]
    assert (tmp_path / "c.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_info(trichrome, tmp_path, capsys):
    photo = write(tmp_path / "a.png")
    assert trichrome(photo, "-o", tmp_path / "b.tif", "--seed", 4)[0] == 0
    assert cli.main(["info", str(tmp_path / "b.tif")]) == 0
    assert json.loads(capsys.readouterr().out) == read_record(tmp_path / "b.tif")
    edited = with_other_record(tmp_path / "b.tif", tmp_path / "c.tif", seal=False, seed=5)
    assert cli.main(["info", str(edited)]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["seed"] == 5 and "was edited" in said.err
    for path in (photo, tmp_path / "none.png"):
        assert cli.main(["info", str(path)]) == 1 and capsys.readouterr().out == ""


def test_the_record_counts_for_what_is_finished(trichrome, tmp_path):
    photo, out = write(tmp_path / "a.png"), tmp_path / "out"
    assert trichrome(photo, "-o", out, "--no-provenance")[0] == 0
    assert "provenance" not in (out / MANIFEST).read_text(), "as manifests before there were records"
    bare = tree(out)
    assert trichrome(photo, "-o", out, "--no-provenance")[1].startswith("0 colored, 1 skipped")
    code, summary, said = trichrome(photo, "-o", out)
    assert summary.startswith("1 colored") and "was colored with provenance off (now on): colored again" in said[0]
    assert tree(out) != bare
    assert trichrome(photo, "-o", out)[1].startswith("0 colored, 1 skipped")


def test_what_leaves_no_room_is_a_note(tmp_path):
    pipe, photo = standin_pipeline(), write(tmp_path / "a.jpg")
    long = XMP.replace(b"an album", b"x" * 64_900)
    assert len(long) <= JPEG_XMP_ROOM < len(long) + 1000
    read = load_photo(photo)
    longer = XMP.replace(b"an album", b"x" * 70_000)
    for xmp, words, kept in ((long, "leaves no room in JPEG", long), (b"<a", "its XMP is broken", None),
                             (longer, "its XMP is too long for JPEG", None)):  # fmt: skip
        read.xmp = xmp
        output = pipe(read, generator=0)
        with pytest.warns(UserWarning, match=words):
            output.save(tmp_path / "b.jpg", overwrite=True)
        packet = xmp_of(tmp_path / "b.jpg")
        assert packet == kept if kept else property_of(packet or b"", NAMESPACE, NAME)


def test_every_field_of_a_request_is_recorded_or_named():
    """A new option of coloring must be in the record: add it to `settings_of` and `request_from`."""
    options = SampleOptions(*[1 for _ in dataclasses.fields(SampleOptions)])
    palette = torch.tensor([[0.1, -0.2], [1 / 3, 0.0]])
    request = Request(3, options=options, palette=palette, strength=0.5)
    hints = Hints((30, 20), [(3, 4, "red"), (5.5, 6, (1, 2, 3), 2.5)])  # type: ignore[list-item]
    again, hinted = request_from(json.loads(json.dumps(settings_of(request, Guide(hints)))), None)
    assert hinted == hints and again.palette is not None and torch.equal(again.palette, palette)
    assert dataclasses.replace(again, palette=None) == dataclasses.replace(request, palette=None)
    for one in (Request(preview=True), Request(candidate=7)):
        assert request_from(settings_of(one, Guide()), None) == (one, None)
    # alike: of frames of a video, which no record makes again
    assert {field.name for field in dataclasses.fields(Guide)} - {"alike"} == {"hints", "kept", "reference"}
    recorded = {"num_samples", "preview", "options", "palette", "strength", "candidate"}
    assert {field.name for field in dataclasses.fields(Request)} == recorded | NOT_SETTINGS
    wrong: list[dict[str, object]] = [{"samples": "x"}, {"hints": {}}, {"palette": "x"}, {"steps": 0}]
    for broken in wrong:
        with pytest.raises(RecordError, match="can not be done"):
            request_from(broken, None)
