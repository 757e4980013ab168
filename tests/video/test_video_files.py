"""Videos and folders of frames, from file to file: what is kept, what is refused, and going on after a stop."""

from __future__ import annotations

import importlib.util
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import clips
import numpy as np
import pytest
from PIL import Image
from standins import standin_pipeline

from pipeline import cli
from pipeline.color_pipeline import ColorPipeline
from pipeline.images import ImageError
from pipeline.provenance.record import RecordError, checked
from pipeline.request import Request
from pipeline.video import run
from pipeline.video.encoding import codec_of
from pipeline.video.errors import VideoError
from pipeline.video.film import Film
from pipeline.video.frames import FrameFolder
from pipeline.video.record import read_record
from pipeline.video.run import color_video
from pipeline.video.settings import Summary, Telling, VideoSettings
from pipeline.video.work import work_folder
from stages.hints.hints import Hints, Point
from stages.options import SampleOptions

SIZE = (48, 64)
av = clips.av


@pytest.fixture
def pipe():
    return standin_pipeline()


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
    monkeypatch.setattr(run, "SEGMENT", 3)
    monkeypatch.setattr("pipeline.video.intervals.LONGEST", 3)


def settings(**choices: Any) -> VideoSettings:
    return VideoSettings(Request(options=SampleOptions(pool=1)), **choices)


def two_scenes(count: int = 5) -> list[np.ndarray]:
    return [*clips.pan(count, SIZE, 1, seed=1), *clips.pan(count, SIZE, 1, seed=2)]


def decoded(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def planes(frame: Any) -> list[np.ndarray]:
    dtype = np.uint16 if frame.format.name.endswith("10le") else np.uint8
    return [np.frombuffer(plane, dtype).reshape(plane.height, -1)[:, : plane.width] for plane in frame.planes]


def sounds(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


# ------------------------------------------------------------------------------------------- what is kept


@pytest.mark.parametrize("pixels, depth, written", [("yuv420p", 8, "yuv420p"), ("yuv422p10le", 10, "yuv422p10le"),
                                                    ("gray", 8, "yuv420p")])  # fmt: skip
def test_every_level_of_luma_and_all_else_is_kept(pipe, tmp_path, pixels, depth, written):
    lumas = clips.levels(two_scenes(3), depth)
    lumas[1][5, 5] = 3  # below black
    times = [0, 40, 90, 120, 161, 200]
    tags = (1, 1, 1, 1)
    film = clips.write_film(tmp_path / "in.mkv", lumas, pixels, sound=True, tags=tags, times=times,
                            rotation=90, metadata={"title": "Arrival", "comment": "reel 2"})  # fmt: skip
    summary = color_video(pipe, film, tmp_path / "out.mkv", settings(codec="ffv1"))
    assert (summary.frames, summary.scenes, summary.colored, summary.finished) == (6, 2, 6, True)
    frames = decoded(tmp_path / "out.mkv")
    assert [frame.pts for frame in frames] == times
    for frame, luma in zip(frames, lumas, strict=True):
        assert frame.format.name == written and frame.rotation == 90
        assert (frame.color_range, frame.color_primaries, frame.color_trc, frame.colorspace) == tags
        assert np.array_equal(planes(frame)[0], luma)
    assert np.ptp(planes(frames[0])[1]) > 2, "it is in color"
    assert sounds(tmp_path / "out.mkv") == sounds(film) != []
    with av.open(str(tmp_path / "out.mkv")) as container:
        said = {name.lower(): value for name, value in container.metadata.items()}
    assert said["title"] == "Arrival" and said["comment"].splitlines()[0] == "reel 2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "out.mkv"]


def test_what_is_turned_is_seen_upright_and_colored_where_it_is(pipe, tmp_path):
    """The same picture, upright or lying with a tag, gets the same colors."""
    gray = clips.texture(64, 64)
    upright = clips.write_film(tmp_path / "a.mkv", clips.levels([gray]))
    lying = clips.write_film(tmp_path / "b.mkv", clips.levels([np.rot90(gray, -1)]), rotation=90)
    for name in "ab":
        color_video(pipe, tmp_path / f"{name}.mkv", tmp_path / f"{name}2.mkv", settings(codec="ffv1"))
    assert upright != lying
    one, other = (planes(decoded(tmp_path / f"{name}2.mkv")[0]) for name in "ab")
    for straight, turned in zip(one, other, strict=True):
        assert np.array_equal(straight, np.rot90(turned, 1))


@pytest.mark.parametrize("depth, codec, tag", [(8, "h264", "avc1"), (10, "hevc", "hvc1")])
def test_mp4_has_the_codec_of_its_depth(pipe, tmp_path, depth, codec, tag):
    lumas = clips.levels(two_scenes(4), depth)
    pixels = "yuv420p" if depth == 8 else "yuv420p10le"
    film = clips.write_film(tmp_path / "in.mkv", lumas, pixels, codec="libx264", sound=True)
    assert codec_of(Film.opened(film), tmp_path / "out.mp4", None) == codec
    color_video(pipe, film, tmp_path / "out.mp4", settings(crf=4))
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.codec_tag) == (codec, tag)
        assert stream.average_rate == stream.codec_context.framerate == 25
        assert stream.codec_context.pix_fmt == pixels and stream.sample_aspect_ratio == Fraction(4, 3)
        frames = list(container.decode(stream))
        assert [round(1000 * frame.time) for frame in frames] == [40 * k for k in range(8)]
    unit = 2 ** (depth - 8)
    for frame, source in zip(frames, decoded(film), strict=True):
        assert np.abs(planes(frame)[0].astype(float) - planes(source)[0]).mean() < 1.5 * unit
    assert len(sounds(tmp_path / "out.mp4")) == len(sounds(film))


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("source", [".mp4", ".mkv"])
def test_the_frame_rate_is_kept(pipe, tmp_path, source, suffix):
    """Of 24000/1001 frames a second, in a Matroska file of milliseconds too."""
    rate, unit = Fraction(24000, 1001), Fraction(1, 24000)
    film, out = tmp_path / f"in{source}", tmp_path / f"out{suffix}"
    with clips.av.open(str(film), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.max_b_frames = 64, 48, "yuv420p", 0
        stream.time_base = stream.codec_context.time_base = unit
        for number, luma in enumerate(clips.levels([clips.texture(*SIZE)] * 12)):
            frame = clips.av.VideoFrame.from_ndarray(luma, "gray").reformat(format="yuv420p")
            frame.pts, frame.time_base = 1001 * number, unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    color_video(pipe, film, out, settings())
    with clips.av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.framerate == rate
        assert abs(stream.average_rate / rate - 1) < 1e-3, "a few frames in milliseconds tell it no better"
        times = [frame.time for frame in container.decode(stream)]
    assert np.abs(np.array(times) - np.arange(12) / float(rate)).max() < 6e-4


def test_a_player_without_a_tag_is_told_the_matrix(tmp_path):
    film = Film.opened(clips.write_film(tmp_path / "a.mkv", clips.levels([clips.texture(*SIZE)]), tags=(0, 2, 2, 2)))
    assert film.coding.matrix == "bt601" and film.tags == (1, 2, 2, 6)
    large = clips.write_film(tmp_path / "b.mkv", clips.levels([clips.texture(720, 96)]), tags=(0, 2, 2, 2))
    assert Film.opened(large).coding.matrix == "bt709"
    full = clips.write_film(tmp_path / "c.mkv", clips.levels([clips.texture(*SIZE)]), tags=(2, 1, 1, 1))
    assert Film.opened(full).coding.full


def test_odd_sides_share_no_chroma(pipe, tmp_path):
    film = clips.write_film(tmp_path / "in.mkv", clips.levels([clips.texture(47, 63)] * 2))
    color_video(pipe, film, tmp_path / "out.mp4", settings())
    (first, _) = decoded(tmp_path / "out.mp4")
    assert (first.width, first.height, first.format.name) == (63, 47, "yuv444p")


# ------------------------------------------------------------------------------------------- folders of frames


def written_frames(folder: Path, grays: list[np.ndarray], names: str = "shot{}.png") -> Path:
    folder.mkdir()
    for number, gray in enumerate(grays):
        Image.fromarray(np.rint(255 * gray).astype(np.uint8)).save(folder / names.format(number))
    return folder


def test_frames_become_frames_of_the_same_luma(pipe, tmp_path):
    grays = two_scenes(6)
    source = written_frames(tmp_path / "in", grays)
    assert [path.name for path in FrameFolder.opened(source).files][8:] == ["shot8.png", "shot9.png", "shot10.png",
                                                                           "shot11.png"]  # fmt: skip
    summary = color_video(pipe, source, tmp_path / "out", settings())
    assert (summary.frames, summary.scenes) == (12, 2)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"shot{k}.png" for k in range(12)} | {".trichrome-video"}
    for number, gray in enumerate(grays):
        rgb = np.asarray(Image.open(tmp_path / f"out/shot{number}.png")).astype(float)
        assert np.abs(rgb @ [0.299, 0.587, 0.114] - np.rint(255 * gray)).max() <= 0.5
        assert np.ptp(rgb, axis=2).max() > 5
    from pipeline.provenance.record import read_record

    record = read_record(tmp_path / "out/shot7.png")
    checked(record, tmp_path / "out/shot7.png")
    first = read_record(tmp_path / "out/shot6.png")
    assert record["file"]["shows"] == "frame" and record["noise_key"] == first["noise_key"]
    assert record["noise_key"] != read_record(tmp_path / "out/shot5.png")["noise_key"], "another scene"


def test_hints_beside_a_frame_are_taken_and_are_no_frame(pipe, tmp_path):
    source = written_frames(tmp_path / "in", two_scenes(4))
    color_video(pipe, source, tmp_path / "plain", settings())
    strokes = Image.new("RGBA", (64, 48))
    strokes.paste((200, 80, 80, 255), (10, 10, 30, 30))
    Hints((64, 48), strokes=strokes).save(source / "shot5.png.hints.json")
    assert len(list(source.iterdir())) == 10
    assert color_video(pipe, source, tmp_path / "out", settings()).frames == 8

    def shown(folder, number):
        return np.asarray(Image.open(tmp_path / folder / f"shot{number}.png")).astype(int)

    assert np.array_equal(shown("out", 0), shown("plain", 0)), "another scene"
    for number in (4, 5, 7):
        change = np.abs(shown("out", number) - shown("plain", number)).max(2)
        assert change[15:25, 15:25].mean() > 5


@pytest.mark.parametrize("change, said", [
    (lambda folder: Image.new("L", (9, 9)).save(folder / "shot3.png"), "another size"),
    (lambda folder: (folder / "shot2.tif").write_bytes((folder / "shot2.png").read_bytes()[:99]), "shot2.tif"),
    (lambda folder: [path.unlink() for path in folder.iterdir()], "holds no frames"),
])  # fmt: skip
def test_frames_that_can_not_be_colored(pipe, tmp_path, change, said):
    source = written_frames(tmp_path / "in", two_scenes(2))
    change(source)
    with pytest.raises((VideoError, ImageError), match=said):
        color_video(pipe, source, tmp_path / "out", settings())


# ------------------------------------------------------------------------------------------- going on


def stopping(after: int) -> Telling:
    """Stops at a frame that is being colored."""
    seen: list[int] = []

    def progress(what: str, done: int, total: int | None) -> None:
        seen.extend([done] if what == "colored" else [])

    return Telling(progress=progress, stop=lambda: len(seen) >= after)


def test_a_stopped_run_goes_on_to_the_same_bytes(pipe, tmp_path):
    film = clips.write_film(tmp_path / "in.mkv", clips.levels(two_scenes(8)), sound=True)
    hints = {10: tmp_path / "a.json"}
    Hints((64, 48), [Point(20, 24, "red", 5)]).save(hints[10])
    color_video(pipe, film, tmp_path / "whole.mp4", settings(hints=hints))
    out = tmp_path / "out.mp4"
    colored = []
    for after in (5, 4, 9):
        summary = color_video(pipe, film, out, settings(hints=hints), stopping(after))
        assert not summary.finished and not out.exists()
        colored.append(summary.colored)
    lines: list[str] = []
    last = color_video(pipe, film, out, settings(hints=hints), Telling(say=lines.append))
    assert last.finished and 0 < last.colored < 16
    assert lines == [f"{out}: goes on with frame {16 - last.colored} of 16"]
    assert out.read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert not work_folder(out).exists()


def test_frames_of_a_stopped_run_are_no_files_in_the_way(pipe, tmp_path):
    source = written_frames(tmp_path / "in", two_scenes(5))
    color_video(pipe, source, tmp_path / "whole", settings())
    color_video(pipe, source, tmp_path / "out", settings(), stopping(2))
    assert (tmp_path / "out/shot0.png").exists()
    (tmp_path / "out/.shot1.png.0123abcd.part").write_bytes(b"of a killed run")
    color_video(pipe, source, tmp_path / "out", settings(), stopping(6))
    color_video(pipe, source, tmp_path / "out", settings())
    whole, out = ({path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
                  for folder in (tmp_path / "whole", tmp_path / "out"))  # fmt: skip
    assert len(out) == 10 and out == whole


def test_finished_frames_are_left_alone(pipe, tmp_path):
    source, out = written_frames(tmp_path / "in", two_scenes(2)), tmp_path / "out"
    color_video(pipe, source, out, settings(provenance=False))
    assert color_video(pipe, source, out, settings(provenance=False)) == Summary(0, 0, 0, 0.0)
    (out / "shot1.png").unlink()
    for again in (settings(provenance=False), settings(seed=1)):
        with pytest.raises(VideoError, match="is there already"):
            color_video(pipe, source, out, again)
    assert color_video(pipe, source, out, settings(seed=1, overwrite=True)).colored == 4
    assert [path.name for path in (out / ".trichrome-video").iterdir()] == ["finished.json"]


def test_other_settings_begin_anew(pipe, tmp_path):
    film = clips.write_film(tmp_path / "in.mkv", clips.levels(two_scenes(5)))
    color_video(pipe, film, tmp_path / "out.mp4", settings(), stopping(7))
    lines: list[str] = []
    summary = color_video(pipe, film, tmp_path / "out.mp4", settings(seed=1), Telling(say=lines.append))
    assert summary.colored == 10 and "begins anew" in lines[0]


def test_what_is_finished_is_left_alone(pipe, tmp_path):
    film = clips.write_film(tmp_path / "in.mkv", clips.levels([clips.texture(*SIZE)] * 2))
    out = tmp_path / "out.mp4"
    color_video(pipe, film, out, settings())
    before = out.stat().st_mtime_ns
    assert color_video(pipe, film, out, settings()) == Summary(0, 0, 0, 0.0)
    assert out.stat().st_mtime_ns == before
    with pytest.raises(VideoError, match="is there already"):
        color_video(pipe, film, out, settings(seed=1))
    color_video(pipe, film, out, settings(seed=1, overwrite=True))
    assert out.stat().st_mtime_ns != before


# ------------------------------------------------------------------------------------------- what a video says


def test_a_video_says_how_it_was_colored(pipe, tmp_path, capsys):
    film = clips.write_film(tmp_path / "in.mkv", clips.levels([clips.texture(*SIZE)] * 2))
    for suffix in ("mp4", "mov", "mkv"):
        out = tmp_path / f"out.{suffix}"
        color_video(pipe, film, out, settings(seed=5))
        record = read_record(out)
        checked(record, out)
        assert record["seed"] == 5 and record["file"] == {"shows": "video", "format": "h264", "crf": 16}
        assert cli.main(["info", str(out)]) == 0
        assert json.loads(capsys.readouterr().out) == record
    color_video(pipe, film, tmp_path / "plain.mp4", settings(provenance=False))
    with pytest.raises(RecordError, match="no record"):
        read_record(tmp_path / "plain.mp4")
    assert cli.main(["info", str(tmp_path / "plain.mp4")]) == 1


# ------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("tags, pixels, said", [
    ((1, 9, 16, 9), "yuv420p10le", "HDR"), ((1, 9, 14, 9), "yuv420p10le", "matrix 9"), ((1, 1, 1, 1), "bgr0", "bgr0"),
    ((1, 1, 1, 1), "yuv420p12le", "8 or 10 bits"),
])  # fmt: skip
def test_films_of_other_colors_are_refused_by_name(tmp_path, tags, pixels, said):
    path = tmp_path / "in.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=25)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = 64, 48, pixels
        if pixels != "bgr0":
            context.color_range, context.color_primaries, context.color_trc, context.colorspace = tags
        picture = av.VideoFrame(64, 48, pixels)
        picture.pts = 0
        for plane in picture.planes:
            np.frombuffer(plane, np.uint8)[:] = 0
        container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError, match=said):
        Film.opened(path)


def test_broken_films_are_refused(pipe, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video" * 99)
    with pytest.raises(VideoError, match="can not be read"):
        Film.opened(tmp_path / "a.mp4")
    film = clips.write_film(tmp_path / "in.mkv", clips.levels(two_scenes(5)))
    with pytest.raises(VideoError, match="must name a file that ends in .mp4"):
        color_video(pipe, film, tmp_path / "out.webm", settings())
    with pytest.raises(VideoError, match="the video itself"):
        color_video(pipe, film, film, settings(overwrite=True))
    with pytest.raises(VideoError, match="name the output out.mkv"):
        color_video(pipe, film, tmp_path / "out.mp4", settings(codec="ffv1"))
    with pytest.raises(VideoError, match="a folder of frames"):
        color_video(pipe, written_frames(tmp_path / "in", two_scenes(1)), tmp_path / "out.mp4", settings())
    Hints((64, 48), [Point(1, 1, "red")]).save(tmp_path / "h.json")
    with pytest.raises(VideoError, match="frames 0 to 9"):
        color_video(pipe, film, tmp_path / "out.mp4", settings(hints={10: tmp_path / "h.json"}))
    Hints((9, 9), [Point(1, 1, "red")]).save(tmp_path / "h.json")
    with pytest.raises(ValueError, match="9x9"):
        color_video(pipe, film, tmp_path / "out.mp4", settings(hints={1: tmp_path / "h.json"}))
    assert not (tmp_path / "out.mp4").exists()


def test_a_container_that_can_not_hold_the_sound_is_refused_at_once(pipe, tmp_path):
    path = tmp_path / "in.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        tone: Any = container.add_stream("wavpack", rate=44100)
        tone.layout = "mono"
        for packet in stream.encode(av.VideoFrame(64, 48, "yuv420p")):
            container.mux(packet)
        heard = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.float32), format="fltp", layout="mono")
        heard.sample_rate, heard.pts = 44100, 0
        container.mux(tone.encode(heard))
        container.mux(stream.encode(None))
        container.mux(tone.encode(None))
    with pytest.raises(VideoError, match="which is wavpack; name an output .mkv"):
        color_video(pipe, path, tmp_path / "out.mp4", settings())


# ------------------------------------------------------------------------------------------- the command


@pytest.fixture
def video(monkeypatch, pipe, capsys):
    monkeypatch.setattr(ColorPipeline, "from_pretrained", lambda source=None, **_: pipe)

    def call(*arguments: object) -> tuple[int, str, str]:
        code = cli.main(["video", *map(str, arguments), "--device", "cpu", "--pool", "1"])
        said = capsys.readouterr()
        return code, said.out.strip(), said.err.strip()

    return call


def test_the_command(video, tmp_path):
    film = clips.write_film(tmp_path / "in.mkv", clips.levels(two_scenes(3)))
    Hints((64, 48), [Point(20, 24, "red", 5)]).save(tmp_path / "a.json")
    code, out, err = video(film, "-o", tmp_path / "out.mp4", "--hints", f"2={tmp_path / 'a.json'}", "--strength", "0.5",
                           "--palette", "red,blue", "--progress")  # fmt: skip
    assert code == 0 and out.startswith("6 frames colored in 2 scenes, ") and "colored: 100%" in err
    assert read_record(tmp_path / "out.mp4")["settings"]["strength"] == 0.5
    code, out, err = video(film, "-o", tmp_path / "out.mp4")
    assert (code, out) == (1, "") and err.endswith("is there already; --overwrite replaces it")
    assert video(tmp_path / "no.mp4", "-o", tmp_path / "x.mp4")[0] == 2
    assert video(film, "-o", tmp_path / "x.mp4", "--strength", "3")[0] == 2
    assert video(film, "-o", tmp_path / "x.mp4", "--hints", "a=b")[0] == 2
    twice = ["--hints", f"2={tmp_path / 'a.json'}"] * 2
    assert "twice" in video(film, "-o", tmp_path / "x.mp4", *twice)[2]


@pytest.mark.parametrize("module, name", [("av", "PyAV"), ("cv2", "OpenCV")])
def test_without_the_extra_a_sentence_says_what_to_install(video, tmp_path, monkeypatch, module, name):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda one, *more: None if one == module else find(one, *more))
    code, _, err = video(tmp_path, "-o", tmp_path / "x.mp4")
    assert code == 2 and err == f"trichrome video: error: it needs {name}: pip install 'trichrome[video]'"
