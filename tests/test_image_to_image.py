"""Image to image in use: pictures of any size for each task, the command, the configs."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pipeline import ImageToImagePipeline, cli
from pipeline import translate as command
from pipeline.images import load_photo, save_photo
from pipeline.translations import Canvas, extended, filled, restored, small_canvas, surrounded
from stages.checkpoint import CheckpointError, sha256_of
from stages.color.spaces import gray_from_rgb
from stages.corruptions.line_art import line_art
from stages.corruptions.masks import SIDES
from stages.diffusion import ProcessConfig
from stages.image_to_image.face import TASKS, Condition, TranslateOptions
from stages.image_to_image.gpic import GPIC, GPICConfig
from stages.image_to_image.palette import PALETTE_TASKS, Palette, PaletteConfig
from stages.image_to_image.unconditional import Unconditional, UnconditionalConfig
from stages.nn.unet import UNetConfig
from stages.registry import kind_of
from stages.stage3_superres.sr3 import SR3SuperResolver, SR3SuperResolverConfig
from stages.training.config import Config

ROOT = Path(__file__).resolve().parent.parent
UNET = UNetConfig(32, (1, 1), 1, (), 32)
SIDE = 16


def palette(tasks: tuple[str, ...] = PALETTE_TASKS) -> ImageToImagePipeline:
    torch.manual_seed(0)
    stage = Palette(PaletteConfig(SIDE, tasks, UNET, ProcessConfig(steps=2)))
    torch.nn.init.normal_(stage.network.write.weight, std=0.05)
    return ImageToImagePipeline(stage)


def picture(height: int, width: int, dtype: type[np.uint8] | type[np.uint16] = np.uint8) -> np.ndarray:
    coarse = np.random.default_rng(height).random((4, 6, 3))
    smooth = F.interpolate(torch.from_numpy(coarse).permute(2, 0, 1)[None], (height, width), mode="bilinear")
    return np.rint(smooth[0].permute(1, 2, 0).numpy() * np.iinfo(dtype).max).astype(dtype)


def planes(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float32) / np.iinfo(array.dtype).max).permute(2, 0, 1)[None]


# ---------------------------------------------------------------------- sizes


@pytest.mark.parametrize("size", [(16, 16), (37, 50), (9, 40), (5, 3)])
def test_holes_at_the_networks_side(size):
    """A small pixel is known where all that it shows is known, and only then."""
    rgb, hole = torch.rand(1, 3, *size), torch.zeros(1, 1, *size, dtype=torch.bool)
    hole[..., 2:4, 1:3] = True
    small = small_canvas(Canvas(rgb, hole), SIDE)
    other = small_canvas(Canvas(rgb.masked_fill(hole, 9.0), hole), SIDE)
    known = ~small.hole.expand(-1, 3, -1, -1)
    assert small.hole.any() and torch.equal(small.rgb[known], other.rgb[known])
    if min(size) >= SIDE:
        share = F.adaptive_avg_pool2d(hole.float(), SIDE)
        assert torch.equal(small.hole, share > 0)


@pytest.mark.parametrize("size", [(16, 16), (37, 50), (10, 41)])
def test_a_surrounded_picture_is_half_of_the_canvas(size):
    rgb = torch.rand(1, 3, *size)
    canvas = surrounded(rgb)
    assert float(canvas.hole.float().mean()) == pytest.approx(0.5, abs=0.03)
    assert torch.equal(canvas.rgb[~canvas.hole.expand(-1, 3, -1, -1)], rgb.flatten())
    assert canvas.hole[..., 0, :].all() and canvas.hole[..., -1].all()


@pytest.mark.parametrize("side, size, grown", [
    ("right", (30, 50), (30, 65)), ("left", (30, 50), (30, 65)), ("top", (50, 30), (65, 30)),
    ("bottom", (50, 30), (65, 30)), ("right", (40, 7), (40, 14)), ("bottom", (3, 40), (6, 40)),
])  # fmt: skip
def test_a_picture_grows_at_one_side(side, size, grown):
    seen: list[Condition] = []

    def draw(condition: Condition, part: str) -> Tensor:
        assert condition.hole is not None
        seen.append(condition)
        return torch.where(condition.hole, 0.25, condition.source).expand(2, -1, -1, -1)

    rgb = torch.rand(1, 3, *size)
    out = extended(rgb, side, SIDE, draw)
    assert out.shape == (2, 3, *grown)
    more = grown[0] - size[0] or grown[1] - size[1]
    old = {
        "right": out[..., :-more], "left": out[..., more:], "top": out[..., more:, :], "bottom": out[..., :-more, :]
    }[side]  # fmt: skip
    assert torch.equal(old, rgb.expand(2, -1, -1, -1))
    assert int(((out - 0.25).abs() < 1e-6).all(1).sum()) == 2 * (grown[0] * grown[1] - size[0] * size[1])
    (hole,) = (one.hole for one in seen)
    assert hole is not None
    half = {"right": hole[..., 8:], "left": hole[..., :8], "top": hole[..., :8, :], "bottom": hole[..., 8:, :]}[side]
    assert half.all() and int(hole.sum()) == SIDE**2 // 2


@pytest.mark.parametrize("size", [(16, 16), (40, 61), (7, 100), (17, 9)])
def test_tiles_cover_a_picture_on_jpegs_grid(size):
    rgb, parts = torch.rand(1, 3, *size), []

    def draw(condition: Condition, part: str) -> Tensor:
        assert condition.source.shape == (1, 3, SIDE, SIDE)
        parts.append(tuple(map(int, part.split()[1:])))
        return condition.source.repeat(2, 1, 1, 1)

    out = restored(rgb, SIDE, draw)
    torch.testing.assert_close(out, rgb.expand(2, -1, -1, -1))
    assert len(set(parts)) == len(parts) and all(top % 8 == left % 8 == 0 for top, left in parts)


def test_filled_keeps_what_is_known():
    canvas = Canvas(torch.rand(1, 3, 20, 30), torch.rand(1, 1, 20, 30) < 0.5)
    out = filled(canvas, torch.rand(2, 3, 8, 8))
    known = (~canvas.hole).expand_as(out)
    assert torch.equal(out[known], canvas.rgb.expand_as(out)[known])


# ---------------------------------------------------------------------- the pipeline


@pytest.mark.parametrize("size, dtype", [((37, 50), np.uint8), ((20, 33), np.uint16), ((5, 9), np.uint8)])
def test_colorized_pictures_keep_their_luma(size, dtype):
    gray = picture(size[0], size[1], dtype)[..., 0]
    out = palette()(gray, "colorize", num_samples=2, generator=0, output_type="np")
    assert [one.shape for one in out.images] == [(*size, 3)] * 2 and out.images[0].dtype == dtype
    for one in out.images:
        assert np.abs(one @ np.array([0.299, 0.587, 0.114]) - gray).max() <= 0.503
        assert np.ptp(one.astype(float), axis=2).max() > 5
    free = palette()(gray, "colorize", generator=0, keep_luma=False, output_type="pt").images[0]
    assert (gray_from_rgb(free)[0] - torch.from_numpy(gray / np.iinfo(dtype).max)).abs().max() > 0.02


@pytest.mark.parametrize("size, dtype", [((37, 50), np.uint8), ((20, 33), np.uint16)])
def test_pixels_outside_of_the_mask_stay_to_the_bit(size, dtype):
    rgb, mask = picture(size[0], size[1], dtype), np.zeros(size, np.uint8)
    mask[5:15, 8:20] = 255
    out = palette()(rgb, "inpaint", mask=mask, num_samples=2, generator=0, output_type="np")
    for one in out.images:
        assert np.array_equal(one[mask == 0], rgb[mask == 0]) and not np.array_equal(one[mask > 0], rgb[mask > 0])
    assert not np.array_equal(*out.images)


@pytest.mark.parametrize("side, size", [("right", (20, 40)), ("top", (45, 30)), ("all", (42, 42))])
def test_pictures_are_continued(side, size):
    rgb = picture(30, 30)
    (out,) = palette()(rgb, "uncrop", side=side, generator=0, output_type="np").images
    expected = {"right": (30, 45), "top": (45, 30), "all": (42, 42)}[side]
    assert out.shape == (*expected, 3)
    old = {"right": out[:, :30], "top": out[15:], "all": out[6:36, 6:36]}[side]
    assert np.array_equal(old, rgb)


def test_jpeg_restoration_keeps_the_size():
    (out,) = palette()(Image.fromarray(picture(21, 30)), "jpeg", generator=0).images
    assert out.size == (30, 21) and out.mode == "RGB"


def test_seeds():
    pipe, gray = palette(), picture(20, 30)[..., 0]
    call = lambda **more: pipe(gray, "colorize", output_type="np", **more)  # noqa: E731
    first = call(generator=5)
    assert np.array_equal(first.images[0], call(generator=5).images[0])
    assert not np.array_equal(first.images[0], call(generator=6).images[0])
    fresh = call()
    assert np.array_equal(fresh.images[0], call(generator=fresh.info[0].seed).images[0])
    assert [one.candidate for one in call(generator=1, num_samples=3).info] == [0, 1, 2]


def test_line_art_is_made_of_a_picture_only_when_asked(monkeypatch):
    torch.manual_seed(0)
    pipe, seen = ImageToImagePipeline(GPIC(GPICConfig(SIDE, UNET, 1))), list[Condition]()
    sample = pipe.stage.sample

    def look(condition: Condition, *rest: Any) -> Tensor:
        seen.append(condition)
        return sample(condition, *rest)

    monkeypatch.setattr(pipe.stage, "sample", look)
    rgb, options = picture(SIDE, SIDE), TranslateOptions(steps=2)
    with pytest.warns(RuntimeWarning, match="draw makes line art of it first"):
        pipe(rgb, options=options, generator=0)
    torch.testing.assert_close(seen[-1].source, gray_from_rgb(planes(rgb)).expand(-1, 3, -1, -1), atol=1e-5, rtol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe(rgb, draw=True, options=options, generator=0)
        torch.testing.assert_close(seen[-1].source[:, :1], line_art(planes(rgb)))
        pipe(rgb[..., 0], options=options, generator=0)  # a gray one is a drawing
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[:8] = 255
        (out,) = pipe(rgb, draw=True, mask=mask, options=options, generator=0, output_type="np").images
    assert np.array_equal(out[8:], rgb[8:]) and not np.array_equal(out[:8], rgb[:8])
    with_colors = pipe(rgb[..., 0], colors=picture(9, 9), options=options, generator=0)
    colors = seen[-1].colors
    assert colors is not None and colors.shape == (1, 3, SIDE, SIDE) and len(with_colors.images) == 1


def test_variations_of_a_reference():
    torch.manual_seed(0)
    pipe = ImageToImagePipeline(Unconditional(UnconditionalConfig(SIDE, UNET, ProcessConfig(steps=3))))
    rgb = picture(24, 32)
    first = pipe(rgb, "variation", generator=0, num_samples=2)
    assert [one.size for one in first.images] == [(32, 24)] * 2
    gray = np.asarray(pipe(rgb[..., 0], "colorize", generator=0).images[0]) @ np.array([0.299, 0.587, 0.114])
    assert np.abs(gray - rgb[..., 0]).max() <= 0.503


@pytest.mark.parametrize("arguments, message", [
    ({"task": "deblur"}, "task must be one of those .* colorize, inpaint, uncrop, jpeg; got 'deblur'"),
    ({}, "task must be one of"),
    ({"task": "inpaint"}, "inpaint needs a mask of the size of the picture: white is filled"),
    ({"task": "inpaint", "mask": np.zeros((20, 30), np.uint8)}, "the mask is black everywhere"),
    ({"task": "inpaint", "mask": np.full((30, 20), 255, np.uint8)},
     "the mask must have the size of the picture, 30x20; got 20x30"),
    ({"task": "jpeg", "mask": np.full((20, 30), 255, np.uint8)}, "a mask belongs to inpaint"),
    ({"task": "uncrop"}, "side, one of left, right, top, bottom, all, belongs to uncrop; got None"),
    ({"task": "uncrop", "side": "up"}, "got 'up' for uncrop"),
    ({"task": "jpeg", "side": "left"}, "belongs to uncrop; got 'left' for jpeg"),
    ({"task": "colorize", "draw": True}, "draw belongs to line_art; the task is colorize"),
    ({"task": "jpeg", "keep_luma": False}, "keep_luma=False, .* --free-luma, belongs to colorize; the task is jpeg"),
    ({"task": "colorize", "num_samples": 0}, "num_samples must be a whole number from 1; got 0"),
    ({"task": "colorize", "colors": np.zeros((4, 4, 3), np.uint8)}, "colors to lean to mean nothing"),
    ({"task": "colorize", "options": TranslateOptions(sampler="posterior", steps=1001)}, "1 to 1000 can be taken"),
    ({"task": "colorize", "output_type": "gif"}, 'output_type must be "pil"'),
])  # fmt: skip
def test_what_does_not_fit_together(arguments, message):
    arguments = dict(arguments)
    with pytest.raises(ValueError, match=message):
        palette()(picture(20, 30), arguments.pop("task", None), generator=0, **arguments)


def test_weights_of_another_family(tmp_path):
    SR3SuperResolver(SR3SuperResolverConfig(UNET)).save_pretrained(tmp_path / "sr3")
    with pytest.raises(CheckpointError, match="kind 'sr3' of the family superres; expected the family image_to_image"):
        ImageToImagePipeline.from_pretrained(tmp_path / "sr3")
    with pytest.raises(CheckpointError, match="no folder"):
        ImageToImagePipeline.from_pretrained(tmp_path / "nothing")
    palette().stage.save_pretrained(tmp_path / "palette")
    assert ImageToImagePipeline.from_pretrained(tmp_path / "palette").stage.tasks == PALETTE_TASKS
    with pytest.raises(ValueError, match="float16 is for GPUs"):
        palette().to("cpu", torch.float16)


def test_colors_are_kept_on_reading_where_asked(tmp_path):
    rgb = picture(7, 5)
    image = Image.fromarray(rgb)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    photo = load_photo(tmp_path / "a.png", keep_rgb=True)
    assert photo.rgb is not None and np.array_equal(np.rint(photo.rgb * 255), np.rot90(rgb, -1))
    np.testing.assert_allclose(photo.rgb @ np.array([0.299, 0.587, 0.114]), photo.gray, atol=1e-6)
    assert load_photo(tmp_path / "a.png").rgb is None
    gray = load_photo(rgb[..., 0], keep_rgb=True)
    assert gray.rgb is not None and np.array_equal(gray.rgb[..., 1], gray.gray)


# ---------------------------------------------------------------------- the command


@pytest.fixture
def weights(tmp_path) -> Path:
    palette().stage.save_pretrained(tmp_path / "weights")
    return tmp_path / "weights"


@pytest.fixture
def deep(tmp_path) -> Path:
    """A picture of 16 bits with a resolution and transparency."""
    rgb = picture(20, 30, np.uint16)
    alpha = np.full((20, 30), 65535, np.uint16)
    alpha[:5] = 1000
    save_photo(tmp_path / "deep.png", rgb, replace(load_photo(rgb), alpha=alpha, dpi=(200.0, 200.0)))
    return tmp_path / "deep.png"


def run(*arguments: object) -> int:
    return cli.main(["translate", *map(str, arguments), "--device", "cpu"])


@pytest.mark.parametrize("output_type", ["pil", "np", "pt"])
@pytest.mark.parametrize("task, side", [("jpeg", None), ("uncrop", "left")])
def test_pictures_are_saved_as_the_command_would(task, side, output_type, weights, deep, tmp_path):
    more: list[object] = [] if side is None else ["--side", side]
    more += ["--samples", 2, "--seed", 3]
    assert run(deep, "-o", tmp_path / "out", "--weights", weights, "--task", task, *more) == 0
    pipe = ImageToImagePipeline.from_pretrained(weights)
    output = pipe(deep, task, side=side, num_samples=2, generator=3, output_type=output_type)
    if output_type == "pt":
        output.images[1].zero_()  # the caller's own
    output.save(tmp_path / "saved.png", picture=1)
    assert (tmp_path / "saved.png").read_bytes() == (tmp_path / "out" / "deep-2.png").read_bytes()
    saved = load_photo(tmp_path / "saved.png")
    assert saved.depth == 16 and saved.dpi == pytest.approx((200, 200), abs=0.1)
    assert (saved.alpha is None) == (task == "uncrop")
    with pytest.warns(UserWarning) as notes:
        output.save(tmp_path / "saved.webp")
    assert str(notes[0].message).startswith("16 bits became 8")


def test_the_command_writes_what_the_pipeline_makes(weights, tmp_path, capsys):
    rgb, out = picture(20, 30), tmp_path / "out"
    Image.fromarray(rgb).save(tmp_path / "a.png")
    Image.fromarray(np.full((20, 30), 255, np.uint8)).save(tmp_path / "mask.png")
    path, common = tmp_path / "a.png", ("-o", out, "--weights", weights, "--seed", 3)
    assert run(path, *common, "--task", "uncrop", "--side", "left", "--samples", 2) == 0
    assert capsys.readouterr().out == "1 translated, 0 failed\n"
    pipe = ImageToImagePipeline.from_pretrained(weights)
    expected = pipe(path, "uncrop", side="left", num_samples=2, generator=3, output_type="np").images
    for name, one in zip(("a-1.png", "a-2.png"), expected, strict=True):
        assert np.array_equal(np.asarray(Image.open(out / name)), one)
    assert run(path, *common, "--task", "inpaint", "--mask", tmp_path / "mask.png", "--steps", 3) == 0
    assert Image.open(out / "a.png").size == (30, 20)
    assert run(path, *common, "--task", "jpeg") == 2
    assert "is there already; --overwrite replaces it" in capsys.readouterr().err
    assert run(path, *common, "--task", "jpeg", "--overwrite", "--sampler", "ddim") == 0


@pytest.mark.parametrize("arguments, message", [
    (["a.png", "-o", "out"], "no weights ship for it. Train some, from a clone of the repository: accelerate "),
    (["a.png", "-o", "out", "--weights", "nowhere"], "no folder 'nowhere'"),
    (["a.png", "-o", "out", "--weights", "weights", "--task", "line_art"], "task must be one of"),
    (["a.png", "-o", "out", "--weights", "weights", "--task", "inpaint", "--mask", "small.png"], "must have the size"),
    (["a.png", "-o", ".", "--weights", "weights", "--task", "jpeg", "--overwrite"], "is one of the inputs"),
    (["a.png", "in/a.png", "-o", "out", "--weights", "weights", "--task", "jpeg"], "two of the pictures"),
    (["a.png", "in/a.png", "-o", "out", "--weights", "weights", "--mask", "small.png"], "a mask is of one picture"),
    (["a.png", "-o", "small.png", "--weights", "weights"], "is a file; -o names a folder"),
    (["a.png", "-o", "out", "--weights", "weights", "--task", "jpeg", "--sampler", "euler"], "sampler must be one of"),
    (["a.png", "-o", "out", "--weights", "weights", "--task", "jpeg", "--samples", "0"], "--samples: expected a whole"),
    (["a.png", "-o", "out", "--weights", "weights", "--task", "jpeg", "--factor", "4"], "can not be honored"),
    (["a.png", "-o", "out", "--weights", "weights", "--task", "jpeg", "--factor", "0"], "a refinement needs factor"),
    (["a.png", "-o", "out", "--weights", "weights", "--task", "jpeg", "--free-luma"], "--free-luma, belongs to"),
    (["a.png", "-o", "out", "--weights", "weights", "--page", "0"], "--page: expected a whole number from 1, got '0'"),
    (["a.png", "-o", "out", "--weights", "weights", "--max-megapixels", "0"], "--max-megapixels: expected a whole"),
])  # fmt: skip
def test_wrong_usage_is_said_in_the_last_line(arguments, message, weights, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for name in ("a.png", "in/a.png"):
        Image.fromarray(picture(20, 30)).save(name)
    Image.fromarray(np.full((5, 5), 255, np.uint8)).save("small.png")
    before = sha256_of("a.png")
    assert run(*arguments) == 2
    said = capsys.readouterr().err.splitlines()
    assert message in said[-1] and said[-1].startswith("trichrome translate: error: ")
    assert len(said) == 1 or said[0].startswith("usage: ") and "error: argument --" in said[-1]
    assert sha256_of("a.png") == before


def test_pictures_that_can_not_be_read_are_lines(weights, tmp_path, capsys):
    (tmp_path / "bad.png").write_bytes(b"nothing")
    Image.fromarray(picture(20, 30)).save(tmp_path / "good.png")
    paths, out = (tmp_path / "bad.png", tmp_path / "good.png"), tmp_path / "out"
    code = run(*paths, "-o", out, "--weights", weights, "--task", "jpeg")
    said = capsys.readouterr()
    assert code == 1 and said.out == "1 translated, 1 failed\n"
    assert said.err == f"{paths[0]}: not an image; JPEG, PNG, TIFF, WebP, AVIF and HEIC files are read\n"


def test_colors_that_are_not_finite_are_lines(tmp_path, capsys):
    stage = palette().stage
    torch.nn.init.constant_(stage.get_parameter("network.write.weight"), torch.nan)
    stage.save_pretrained(tmp_path / "weights")
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        Image.fromarray(picture(20, 30)).save(path)
    assert run(*paths, "-o", tmp_path / "out", "--weights", tmp_path / "weights", "--task", "jpeg") == 1
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert said.out == "0 translated, 2 failed\n" and len(lines) == 2
    for path, line in zip(paths, lines, strict=True):
        assert line.startswith(f"{path}: RuntimeError: ") and "are not finite" in line


@pytest.mark.parametrize("folder, reason", [("a.png/out", "Not a directory"), ("o" * 300, "File name too long")])
def test_an_output_folder_that_can_not_be_made_is_a_line(folder, reason, weights, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(picture(20, 30)).save("a.png")
    assert run("a.png", "-o", folder, "--weights", weights, "--task", "jpeg") == 1
    assert capsys.readouterr().err == f"the output folder {folder} can not be made: {reason}\n"


def test_names_can_not_write_to_the_terminal(tmp_path, capsys):
    """Failures, notes and wrong usage with a name that holds a newline and an escape sequence."""
    GPIC(GPICConfig(SIDE, UNET, 1)).save_pretrained(tmp_path / "gpic")
    bad, good = tmp_path / "bad\n\x1b[31m.png", tmp_path / "good\n\x1b[31m.png"
    bad.write_bytes(b"nothing")
    Image.fromarray(picture(20, 30)).save(good)
    common = (bad, good, "-o", tmp_path / "out", "--weights", tmp_path / "gpic", "--steps", 2)
    assert (run(*common), run(*common)) == (1, 2)
    failure, note, usage = capsys.readouterr().err.splitlines()
    assert failure.startswith(f"{tmp_path}/bad\\n\\x1b[31m.png: not an image")
    assert note.startswith(f"{tmp_path}/good\\n\\x1b[31m.png: note: a picture in color")
    assert f"{tmp_path}/out/good\\n\\x1b[31m.png is there already" in usage


def test_one_of_several_pages(weights, tmp_path, capsys):
    pages = [picture(20, 30), picture(24, 26)]
    first, second = map(Image.fromarray, pages)
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second])
    common = (tmp_path / "a.tif", "-o", tmp_path / "out", "--weights", weights, "--task", "jpeg", "--seed", 3)
    assert run(*common) == 1 and "others by --page N, or by colorize with --page all" in capsys.readouterr().err
    assert run(*common, "--page", 2) == 0
    (expected,) = ImageToImagePipeline.from_pretrained(weights)(pages[1], "jpeg", generator=3, output_type="np").images
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "a.tif")), expected)
    mask = ("--page", 1, "--overwrite", "--task", "inpaint", "--mask", tmp_path / "a.tif")
    assert run(*common[:5], *mask) == 2
    assert "a mask, or colors, must be a file of one" in capsys.readouterr().err


def test_large_pictures_are_read_where_asked(weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("pipeline.images.luma.MAX_PIXELS", 500)
    Image.fromarray(picture(20, 30)).save(tmp_path / "a.png")
    Image.fromarray(np.full((20, 30), 255, np.uint8)).save(tmp_path / "mask.png")
    common = (tmp_path / "a.png", "-o", tmp_path / "out", "--weights", weights, "--task", "inpaint", "--mask",
              tmp_path / "mask.png")  # fmt: skip
    assert run(*common) == 1 and "raise the limit: --max-megapixels" in capsys.readouterr().err
    assert run(*common, "--max-megapixels", 1) == 0


def test_what_the_format_can_not_hold_is_a_note(weights, deep, tmp_path, capsys):
    """Once for each picture, however many are made of it, and for the next picture too."""
    twin = tmp_path / "twin.png"
    twin.write_bytes(deep.read_bytes())
    common = ("-o", tmp_path / "out", "--weights", weights, "--task", "jpeg", "--samples", 2, "--format", "webp")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whatever Python itself shows
        assert run(deep, twin, *common) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(";")[0] for line in lines] == [
        f"{path}: note: {note}" for path in (deep, twin) for note in (
            "16 bits became 8, all that JPEG and WebP hold",
            "WebP with transparency is written without loss, to keep the luma",
        )
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "deep-1.webp", "deep-2.webp", "twin-1.webp", "twin-2.webp"
    ]  # fmt: skip


def test_what_goes_another_way_is_a_note(tmp_path, capsys):
    GPIC(GPICConfig(SIDE, UNET, 1)).save_pretrained(tmp_path / "gpic")
    Image.fromarray(picture(20, 30)).save(tmp_path / "a.png")
    path = tmp_path / "a.png"
    assert run(path, "-o", tmp_path / "out", "--weights", tmp_path / "gpic", "--steps", 2) == 0
    assert capsys.readouterr().err == (
        f"{path}: note: a picture in color is taken for a drawing by its luma; draw makes line art of it first\n"
    )


def test_the_command_knows_the_tasks_and_sides():
    assert (command.TASKS, command.SIDES) == (TASKS, SIDES)


# ---------------------------------------------------------------------- configs


CONFIGS = [path for path in ROOT.glob("configs/**/*.toml") if 'family = "image_to_image"' in path.read_text()]


@pytest.mark.parametrize("path", sorted(CONFIGS), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_configs_that_ship_can_be_read(path):
    config = Config.read(path)
    with torch.device("meta"):
        stage = kind_of(config.family, config.kind)[1](config.network)
    assert stage.training_side == config.data.side
    assert config.training.batch_size % config.training.accumulation == 0
    first = path.read_text().splitlines()[0]
    assert first.startswith("# accelerate launch train_scripts/image_to_image.py")
    assert path.stem == "palette" or f"configs/{path.relative_to(ROOT / 'configs')}" in first
