"""Scenes in color, by small stages: colors hold still, one draw makes a scene, corrections reach its ends."""

from __future__ import annotations

from itertools import pairwise

import clips
import pytest
import torch
from PIL import Image
from standins import Featured, StandIn2, StandIn3, standin_pipeline

from pipeline.color_pipeline import ColorPipeline
from pipeline.request import Request
from pipeline.sources import noise_sources
from pipeline.video.coloring import KeyColoring, color_scene
from pipeline.video.corrections import Keys, color_keys, guide_of
from pipeline.video.flow import Flow
from stages.color.spaces import chroma_from_rgb, gray_from_rgb
from stages.hints.hints import Hints, Point
from stages.options import SampleOptions

SIZE = (48, 64)


@pytest.fixture(scope="module")
def flow():
    return Flow()


def coloring_of(pipe, **request):
    return KeyColoring(pipe, Request(**request), seed=3)


def test_what_stands_still_keeps_its_color(flow):
    grays = [clips.texture(*SIZE)] * 27
    colored = list(color_scene(clips.frames(grays), coloring_of(standin_pipeline()), flow))
    assert [one.frame.number for one in colored] == list(range(27))
    assert [one.frame.number for one in colored if one.start is not None] == [0, 12, 24, 26]
    for one in colored:
        assert (one.chroma - colored[0].chroma).abs().mean() < 2e-3
        assert torch.allclose(gray_from_rgb(one.rgb256), one.frame.gray256, atol=1e-5)


def test_one_draw_of_one_noise_makes_a_scene(flow):
    pipe = standin_pipeline()
    grays = clips.pan(20, SIZE, 1)
    coloring = coloring_of(pipe, options=SampleOptions(pool=8))
    colored = list(color_scene(clips.frames(grays), coloring, flow))
    first = clips.frames(grays)[0].photo()
    (noise,) = noise_sources([first], [3], [None])
    streams = [noise.generator(k).initial_seed() for k in range(8)]
    start = colored[0].start
    assert start is not None and start.draw.noise_key == noise.key
    group = 4 * (start.draw.candidate // 4)
    keys = sum(one.start is not None for one in colored)
    assert keys == 3 and pipe.coarse.seeds == streams + (keys - 1) * streams[group : group + 4]  # type: ignore[attr-defined]
    alone = pipe(grays[0].astype("float32"), generator=3, pool=8, noise_key=noise.key, output_type="pt")
    assert alone.info[0].candidate == start.draw.candidate


def test_colors_move_with_what_they_are_of(flow):
    step, count = 1, 16
    grays = clips.pan(count, SIZE, step)
    pipe = standin_pipeline()
    moved = [one.rgb256 for one in color_scene(clips.frames(grays), coloring_of(pipe), flow)]
    photos = [frame.photo() for frame in clips.frames(grays)]
    small = pipe.small_photos(photos, noise_sources(photos, [3] * count, [None] * count), Request())
    alone = [one.pictures[0].rgb for one in small]
    columns = 256 * step // SIZE[1]

    def unrest(pictures):
        return sum(float((chroma_from_rgb(b)[..., :-columns] - chroma_from_rgb(a)[..., columns:]).abs().mean())
                   for a, b in pairwise(pictures))  # fmt: skip

    assert unrest(moved) < unrest(alone) / 4


def test_a_scene_goes_on_from_any_key_frame_to_the_same_bits(flow):
    frames = clips.frames(clips.pan(20, SIZE, 1))
    coloring = coloring_of(standin_pipeline())
    whole = list(color_scene(frames, coloring, flow))
    start = whole[12].start
    assert start is not None
    rest = list(color_scene(frames[12:], coloring, flow, start))
    assert len(rest) == 8
    assert all(torch.equal(a.chroma, b.chroma) for a, b in zip(whole[12:], rest, strict=True))


def test_one_frame_is_a_scene_and_equals_the_photograph(flow):
    pipe = standin_pipeline()
    (one,) = color_scene(clips.frames([clips.texture(*SIZE)]), coloring_of(pipe), flow)
    photo = one.frame.photo()
    small = pipe.small_photos([photo], noise_sources([photo], [3], [None]), Request())[0].pictures[0]
    assert torch.allclose(one.chroma, chroma_from_rgb(small.rgb))


# ------------------------------------------------------------------------------------------- corrections


def hinted(tmp_path, name, *points):
    Hints((SIZE[1], SIZE[0]), [Point(*point) for point in points]).save(tmp_path / name)
    return tmp_path / name


def colored_with(tmp_path, frames, coloring, flow, hints):
    keys = Keys(tmp_path / f"keys{len(hints)}")
    passed = [frame.number for frame in color_keys(frames, coloring, flow, hints, keys)]
    assert passed == [frame.number for frame in frames] and keys.complete
    again = Keys(keys.folder)
    assert again.complete and list(again) == list(keys) and again.draw == keys.draw
    return list(color_scene(frames, coloring, flow, keys=again, wanted=hints))


def test_a_correction_reaches_both_ends_of_its_scene(flow, tmp_path):
    pipe = ColorPipeline(Featured(), StandIn2(), StandIn3())
    coloring = coloring_of(pipe)
    frames = clips.frames([clips.texture(*SIZE)] * 16)
    plain = list(color_scene(frames, coloring, flow))
    hints = {7: hinted(tmp_path, "a.json", (20, 24, (190, 90, 90), 6))}
    colored = colored_with(tmp_path, frames, coloring, flow, hints)
    guide = guide_of(hints[7], frames[7])
    wanted = chroma_from_rgb(pipe.put_right(frames[7].photo(), plain[7].rgb256, guide))
    assert (wanted - plain[7].chroma).abs().max() > 0.05
    for number in (0, 3, 7, 11, 15):
        assert (colored[number].chroma - wanted).abs().mean() < 0.1 * (wanted - plain[7].chroma).abs().mean()
    # A second one adds to the first, and both are where they are.
    both = hints | {4: hinted(tmp_path, "b.json", (50, 10, (90, 90, 190), 4))}
    more = colored_with(tmp_path, frames, coloring, flow, both)
    assert (more[4].chroma[:, 100:160, 60:100] - wanted[:, 100:160, 60:100]).abs().mean() < 0.03
    blue = more[15].chroma[:, 45:60, 195:205].mean((1, 2))
    assert blue[0] > colored[15].chroma[:, 45:60, 195:205].mean((1, 2))[0] + 0.03


def test_a_correction_moves_with_its_thing(flow, tmp_path):
    frames = clips.frames(clips.pan(16, SIZE, 1))
    coloring = coloring_of(ColorPipeline(Featured(), StandIn2(), StandIn3()))
    plain = list(color_scene(frames, coloring, flow))
    colored = colored_with(tmp_path, frames, coloring, flow, {0: hinted(tmp_path, "a.json", (40, 24, "red", 5))})
    change = colored[15].chroma[1] - plain[15].chroma[1]  # Cr: toward red
    there, before = (change[118:138, 4 * x - 10 : 4 * x + 10].mean() for x in (25, 40))
    assert there > 0.1 and there > before + 0.02, "what is like it follows, but less"


def test_hints_of_another_size_are_refused(tmp_path):
    Hints((9, 9), [Point(1, 1, "red")]).save(tmp_path / "a.json")
    frame = clips.frames([clips.texture(*SIZE)])[0]
    with pytest.raises(ValueError, match="9x9"):
        guide_of(tmp_path / "a.json", frame)
    Image.new("RGBA", (64, 48)).save(tmp_path / "a.png")
    guide_of(tmp_path / "a.png", frame)


def test_a_palette_is_honored_in_every_key_frame(flow):
    frames = clips.frames([clips.texture(*SIZE)] * 3)
    pipe = standin_pipeline()
    plain = color_scene(frames, coloring_of(pipe), flow)
    red = color_scene(frames, coloring_of(pipe, palette=torch.tensor([[-0.1, 0.3]])), flow)
    blue = color_scene(frames, coloring_of(pipe, palette=torch.tensor([[0.3, -0.1]])), flow)
    for one, other, none in zip(red, blue, plain, strict=True):
        assert (one.chroma - none.chroma).abs().mean() > 0.005
        assert (one.chroma - other.chroma).abs().mean() > 0.005
