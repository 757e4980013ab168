"""The command: a whole run, its options, its lines, and what goes wrong."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from command import tree, write
from PIL import Image
from standins import Poisoned, StandIn1, StandIn2, StandIn3, known_standins
from tiny_stages import small

from pipeline import cli
from pipeline.color_pipeline import ColorPipeline
from pipeline.files import coloring
from pipeline.files.names import find_inputs, plan
from pipeline.files.records import Report, Settings
from pipeline.images.read import load_photo
from stages.faces import Scores


def test_files_and_folders(trichrome, tmp_path):
    write(tmp_path / "in/a.png", 0)
    write(tmp_path / "in/deep/er/b.jpg", 1)
    write(tmp_path / "in/c.tif", 2)
    write(tmp_path / "in/.hidden/d.png", 3)
    write(tmp_path / "in/.e.png", 3)
    (tmp_path / "in/notes.txt").write_text("not a photo, not looked for")
    out = tmp_path / "out"
    code, summary, said = trichrome(tmp_path / "in", "-o", out)
    assert code == 0 and said == []
    assert summary.startswith("3 colored, 0 skipped (finished before), 0 failed, ")
    assert sorted(tree(out)) == ["a.png", "c.tif", "deep/er/b.jpg"]
    gray = np.asarray(Image.open(tmp_path / "in/a.png")).astype(float)
    rgb = np.asarray(Image.open(out / "a.png"))
    assert np.abs(rgb @ [0.299, 0.587, 0.114] - gray).max() <= 0.5 and np.ptp(rgb, 2).max() > 5


def test_several_samples_differ(trichrome, tmp_path):
    photo = write(tmp_path / "a.png")
    code, _, _ = trichrome(photo, "-o", tmp_path / "out", "--samples", 3)
    files = tree(tmp_path / "out")
    assert code == 0 and sorted(files) == ["a-1.png", "a-2.png", "a-3.png"]
    assert len(set(files.values())) == 3


def test_uncertainty_maps(trichrome, tmp_path, capsys):
    photo, out = write(tmp_path / "a.jpg"), tmp_path / "out"
    assert trichrome(photo, "-o", out)[0] == 0
    code, summary, _ = trichrome(photo, "-o", out, "--samples", 2, "--uncertainty")
    assert code == 0 and summary.startswith("1 colored")
    assert sorted(tree(out)) == ["a-1.jpg", "a-2.jpg", "a-uncertainty.png", "a.jpg"]
    with Image.open(out / "a-uncertainty.png") as image:
        assert image.mode == "L" and image.size == (30, 20) and "icc_profile" not in image.info
        (expected,) = trichrome.pipe(str(photo), 2, generator=0, pool=1, uncertainty=True).uncertainty
        assert np.array_equal(np.asarray(image), np.asarray(expected))
    assert "1 skipped" in trichrome(photo, "-o", out, "--samples", 2, "--uncertainty")[1]
    (out / "a-uncertainty.png").write_bytes(b"another's")
    assert "is not, or no longer" in trichrome(photo, "-o", out, "--samples", 2, "--uncertainty")[2][0]
    (out / "a-uncertainty.png").unlink()
    assert trichrome(photo, "-o", out, "--samples", 2, "--uncertainty")[1].startswith("1 colored")

    pair = tmp_path / "pair"
    write(pair / "a.jpg", 1), write(pair / "a.tif", 2), write(pair / "b.tif", 3)
    assert trichrome(pair, "-o", tmp_path / "maps", "--uncertainty")[0] == 0
    maps = {"a.jpg-uncertainty.png", "a.tif-uncertainty.png", "b-uncertainty.png"}
    assert set(tree(tmp_path / "maps")) == maps | {"a.jpg", "a.tif", "b.tif"}

    both = tmp_path / "in"
    write(both / "a.png", 1), write(both / "a-uncertainty.png", 2)
    code, summary, said = trichrome(both, "-o", tmp_path / "second", "--uncertainty")
    assert code == 1 and len(said) == 2 and all("another input would be written to" in line for line in said)
    pair = (both / "a.png", both / "a-uncertainty.png")
    code, _, said = trichrome(*pair, "-o", both, "--uncertainty", "--format", "jpeg")
    assert code == 1 and any("one of the inputs" in line for line in said)


def test_sixteen_bits_stay_where_the_format_holds_them(trichrome, tmp_path):
    import pyvips

    write(tmp_path / "in/a.png", dtype=np.uint16)
    assert trichrome(tmp_path / "in", "-o", tmp_path / "kept")[0] == 0
    kept = pyvips.Image.new_from_file(str(tmp_path / "kept/a.png")).numpy()
    gray = np.asarray(Image.open(tmp_path / "in/a.png")).astype(float)
    assert kept.dtype == np.uint16
    assert np.abs(kept[..., :3] @ np.array([0.299, 0.587, 0.114]) - gray).max() <= 0.503
    code, _, said = trichrome(tmp_path / "in", "-o", tmp_path / "jpeg", "--format", "jpeg")
    assert code == 0 and len(said) == 1 and "note: 16 bits became 8" in said[0]
    assert Image.open(tmp_path / "jpeg/a.jpg").mode == "RGB"


def test_every_sample_photo_keeps_its_luma(trichrome, tmp_path, data_folder):
    samples = data_folder / "samples"
    count = sum(path.is_file() for path in samples.iterdir())
    code, summary, _ = trichrome(samples, "-o", tmp_path, "--format", "png")
    assert code == 0 and summary.startswith(f"{count} colored")
    for job in plan(find_inputs([samples], tmp_path, Report()), tmp_path, Settings(format="png"), Report()):
        before, after = load_photo(job.source), load_photo(tmp_path / job.outputs[0])
        peak = 65535 if before.depth == 16 else 255
        assert after.depth == before.depth and after.gray.shape == before.gray.shape
        assert np.abs(after.gray - before.gray).max() * peak <= 0.503


def test_notes_are_lines_of_their_photo(trichrome, tmp_path, monkeypatch):
    photo = write(tmp_path / "a.png")
    real = coloring.load_photo

    def load_photo(path, **options):
        read = real(path, **options)
        read.notes = ("its profile is broken: ignored",)
        return read

    monkeypatch.setattr(coloring, "load_photo", load_photo)
    code, _, said = trichrome(photo, "-o", tmp_path / "out")
    assert code == 0 and said == [f"{photo}: note: its profile is broken: ignored"]


def test_bad_files_have_their_line_and_the_rest_goes_on(trichrome, tmp_path):
    source = tmp_path / "in"
    write(source / "good.png")
    (source / "empty.jpg").write_bytes(b"")
    (source / "text.png").write_text("hello")
    whole = write(source / "cut.png", 1, (200, 200)).read_bytes()
    (source / "cut.png").write_bytes(whole[: len(whole) // 2])
    code, summary, said = trichrome(source, tmp_path / "missing.png", "-o", tmp_path / "out")
    assert code == 1
    assert summary.startswith("1 colored, 0 skipped (finished before), 4 failed")
    assert sorted(tree(tmp_path / "out")) == ["good.png"]
    reasons = dict(line.split(": ", 1) for line in said)
    assert set(reasons) == {str(source / name) for name in ("empty.jpg", "text.png", "cut.png")} | {
        str(tmp_path / "missing.png")}
    assert reasons[str(source / "empty.jpg")] == "the file is empty"
    assert reasons[str(tmp_path / "missing.png")] == "no such file or folder"


ERRORS = [RuntimeError("a bug\nin two lines"), MemoryError(), OSError(28, "No space left")]


@pytest.mark.parametrize("error", ERRORS)
def test_any_error_of_one_photo_is_one_line(trichrome, tmp_path, monkeypatch, error):
    write(tmp_path / "in/a.png", 0)
    write(tmp_path / "in/b.png", 1, (33, 33))
    real = trichrome.pipe.full_size

    def sometimes(photo, *rest):
        if photo.gray.shape == (33, 33):
            raise error
        return real(photo, *rest)

    monkeypatch.setattr(trichrome.pipe, "full_size", sometimes)
    code, summary, said = trichrome(tmp_path / "in", "-o", tmp_path / "out")
    assert code == 1 and len(said) == 1 and said[0].startswith(str(tmp_path / "in/b.png"))
    assert summary.startswith("1 colored, 0 skipped (finished before), 1 failed")
    monkeypatch.undo()


@pytest.mark.parametrize("more", [[], ["--preview"], ["--uncertainty"]], ids=str)
def test_a_photo_whose_colors_are_not_finite_fails_alone(trichrome, tmp_path, monkeypatch, more):
    """Also where the networks see it in a group of several: these are colored one by one then."""
    for seed in range(5):
        write(tmp_path / f"in/{seed}.png", seed)
    assert trichrome(tmp_path / "in", "-o", tmp_path / "without", *more)[0] == 0
    Image.fromarray(np.full((20, 30), 255, np.uint8)).save(tmp_path / "in/2a.png")
    poisoned = ColorPipeline(Poisoned(), StandIn2(), StandIn3())
    monkeypatch.setattr(ColorPipeline, "from_pretrained", lambda source=None, **_: poisoned)
    monkeypatch.setattr(ColorPipeline, "to", lambda self, *_: self)
    poisoned.batch_size = 8
    code, summary, said = trichrome(tmp_path / "in", "-o", tmp_path / "with", *more)
    assert code == 1 and summary.startswith("5 colored, 0 skipped (finished before), 1 failed")
    (line,) = said
    assert line.startswith(f"{tmp_path / 'in/2a.png'}: RuntimeError: the colors of stage1 are not finite")
    assert tree(tmp_path / "with") == tree(tmp_path / "without")


def test_wrong_usage_exits_with_2(trichrome, tmp_path, capsys):
    photo = write(tmp_path / "a.png")
    for arguments in (["--samples", "0"], ["--samples", "x"], ["--quality", "101"], ["--device", "tpu"],
                      ["--temperature", "-1"], ["--temperature", "nan"],
                      ["--preview", "--samples", "2"], ["--dtype", "float16"]):
        code, _, said = trichrome(photo, "-o", tmp_path / "out", *arguments)
        assert code == 2 and said, arguments
    assert trichrome(photo, "-o", photo)[0] == 2
    assert cli.main(["colorize", str(photo)]) == 2
    assert cli.main([]) == 2
    assert not (tmp_path / "out").exists()


def test_missing_weights_exit_with_2(tmp_path, capsys):
    photo = write(tmp_path / "a.png")
    paths = map(str, (photo, "-o", tmp_path / "out", "--weights", tmp_path / "none"))
    code = cli.main(["colorize", *paths])
    assert code == 2 and "there is no folder" in capsys.readouterr().err


PREVIEW = "a preview is one pass that draws nothing: it can not honor"


@pytest.mark.parametrize("arguments, sentence", [
    (["--preview", "--pool", "2"], f"{PREVIEW} pool"),
    (["--preview", "--temperature", "0.5"], f"{PREVIEW} temperature"),
    (["--preview", "--steps", "3"], f"{PREVIEW} steps"),
    (["--preview", "--chroma-gain", "1.2"], f"{PREVIEW} chroma_gain"),
    (["--preview", "--sharpness", "0.5"], f"{PREVIEW} sharpness"),
    (["--preview", "--superres-steps", "2"], f"{PREVIEW} superres_steps"),
    (["--preview", "--uncertainty", "--temperature", "0.5"], f"{PREVIEW} temperature"),
    (["--sharpness", "2.5"], "sharpness must be a number from 0 to 2; got 2.5"),
    (["--doubt"], "--doubt is called --uncertainty now"),
    (["--vividness", "1.2"], "--vividness is called --chroma-gain now"),
    (["--vividness=1.2"], "--vividness is called --chroma-gain now"),
])  # fmt: skip
def test_options_that_can_not_be_honored_exit_with_2(trichrome, tmp_path, arguments, sentence):
    write(tmp_path / "a.png")
    code, out, said = trichrome(tmp_path, "-o", tmp_path / "out", *arguments, pool=None)
    assert code == 2 and out == "" and sentence in said[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage1, stage3, option", [
    (kind, "diffusion", option) for kind in ("coltran", "pic") for option in ("--steps", "--chroma-gain")
] + [("diffusion", "coltran", "--superres-steps")])  # fmt: skip
def test_options_that_a_kind_can_not_honor_exit_with_2(trichrome, tmp_path, monkeypatch, stage1, stage3, option):
    pipe = ColorPipeline(small("coarse", stage1), StandIn2(), small("superres", stage3))
    monkeypatch.setattr(ColorPipeline, "from_pretrained", lambda source=None, **_: pipe)
    code, _, said = trichrome(write(tmp_path / "a.png"), "-o", tmp_path / "out", option, 2, pool=None)
    named = {"--superres-steps": "superres_steps", "--steps": "steps", "--chroma-gain": "chroma_gain"}[option]
    family = "superres" if option == "--superres-steps" else "coarse"
    assert code == 2 and f"{named} can not be honored by kind" in said[-1] and f"family {family}" in said[-1]


def test_an_order_is_a_setting_of_its_own(trichrome, tmp_path, monkeypatch):
    known_standins(monkeypatch)
    judge, photo = tmp_path / "judge", write(tmp_path / "a.png")
    StandIn1().save_pretrained(judge)
    plain = (photo, "-o", tmp_path / "out", "--samples", "3")
    ranked = (*plain, "--rank-with", judge)
    code, _, said = trichrome(*ranked)
    assert code == 2 and "a stage must be able to score them" in said[-1]

    class Judge(StandIn1, Scores):
        def score(self, gray64, coarse64):
            return coarse64.float().mean((1, 2))

    monkeypatch.setattr("stages.registry.load_stage", lambda _: Judge().eval())
    for arguments, expected in ((ranked, "1 colored"), (ranked, "0 colored"), (plain, "1 colored")):
        code, out, said = trichrome(*arguments)
        assert code == 0 and out.startswith(expected), said
    code, _, said = trichrome(photo, "-o", tmp_path / "one", "--rank-with", judge)
    assert code == 2 and "rank_with has nothing to rank: one candidate is drawn" in said[-1]


def test_a_preview_has_nothing_to_rank(trichrome, tmp_path):
    photo = write(tmp_path / "a.png")
    code, _, said = trichrome(photo, "-o", tmp_path / "out", "--preview", "--rank-with", tmp_path)
    assert code == 2 and "leave one of them out" in said[-1] and not (tmp_path / "out").exists()


def test_stages_that_draw_row_by_row_show_their_steps(trichrome, tmp_path, monkeypatch):
    photo = write(tmp_path / "a.png")
    assert not any("stage1" in line for line in trichrome(photo, "-o", tmp_path / "a", "--progress")[2])
    monkeypatch.setattr(StandIn1, "autoregressive", True)
    monkeypatch.setattr(StandIn1, "num_steps", lambda self, options: 2)
    assert any("stage1" in line and "/2 [" in line for line in trichrome(photo, "-o", tmp_path / "b", "--progress")[2])
    assert not any("stage1" in line for line in trichrome(photo, "-o", tmp_path / "c")[2])


def test_progress_only_on_demand(trichrome, tmp_path):
    photo = write(tmp_path / "a.png")
    _, _, said = trichrome(photo, "-o", tmp_path / "one")
    assert said == []
    _, _, said = trichrome(photo, "-o", tmp_path / "two", "--progress")
    assert any("1/1" in line for line in said)


def test_help_and_version_do_not_wait_for_torch():
    code = ("import sys; from pipeline.cli import main; codes = [main(['--version']), "
            "main(['colorize', '--help'])]; print(codes, 'torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("trichrome 0.") and done.stdout.rstrip().endswith("[0, 0] False")


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_signal_after_the_work_is_done_changes_no_exit_code(number):
    code = (
        "import atexit, os, signal; from pipeline import cli; cli.main = lambda: 3; "
        f"atexit.register(os.kill, os.getpid(), signal.{number}); cli.command()"
    )
    assert subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE).returncode == 3
