"""How still the colors of a video hold, and how long they take: clips over real photographs, whose motion is known.

    python benchmarks/video.py [--clips pan,zoom,both] [--frames 101] [--independent 13] [--threads 2] [--json FILE]

A clip is a window of 640x480 that moves over a free photograph of scikit-image or scikit-learn, so every pixel is known
again in the next frame.

flicker: mean CIEDE2000 between a frame and the next one, brought over it by the known motion, before any codec; of the
    video, of the photograph's own colors, and of frames colored one by one, which is not done for all of them
drift: mean CIEDE2000 between the chroma of the first frame and of the last one, at the luma of the first, where both
    show the same place
colorfulness: of the last frame, and of the same frame colored by itself with the noise of the first one: whether what
    has come into view is in color (Hasler and Suesstrunk 2003, on a scale where 0 is gray and 45 averagely colorful)
speed: frames a second of `color_video` from file to file, H.264 both ways, with its start and its two passes

Differences are taken at 320x240, from averages of four pixels.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import av  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from PIL import Image  # noqa: E402
from torch import Tensor  # noqa: E402

from benchmarks.cpu import parsed, processor  # noqa: E402
from pipeline import ColorPipeline  # noqa: E402
from pipeline.demo import free_photos  # noqa: E402
from pipeline.full_resolution import full_size_rgb  # noqa: E402
from pipeline.request import Request  # noqa: E402
from pipeline.sources import noise_sources  # noqa: E402
from pipeline.video.coloring import KeyColoring, color_scene  # noqa: E402
from pipeline.video.flow import Flow, one_thread  # noqa: E402
from pipeline.video.intervals import Frame  # noqa: E402
from pipeline.video.run import color_video  # noqa: E402
from pipeline.video.settings import VideoSettings  # noqa: E402
from stages.color.difference import ciede2000, colorfulness  # noqa: E402
from stages.color.resample import crop_resize  # noqa: E402
from stages.color.spaces import chroma_from_rgb, gray_from_rgb, lab_from_rgb, merge  # noqa: E402
from stages.provenance import commit  # noqa: E402

WIDTH, HEIGHT = 640, 480
Box = tuple[float, float, float, float]
"""top, left, height, width, in shares of the photograph"""
# name: photograph, the first window and the last one
CLIPS: dict[str, tuple[str, Box, Box]] = {
    "pan": ("china", (0.2, 0.0, 0.7, 0.62), (0.2, 0.38, 0.7, 0.62)),
    "zoom": ("coffee", (0.0, 0.1, 1.0, 0.89), (0.3, 0.4, 0.45, 0.4)),
    "both": ("rocket", (0.5, 0.3, 0.5, 0.45), (0.0, 0.0, 0.9, 0.8)),
}
INDEPENDENT_SHARE, ORIGINAL_TIMES, LEAST_FLICKER, MOST_DRIFT, LEAST_SPEED = 1 / 3, 1.5, 1.0, 3.0, 4.0  # the bounds


class Window(Frame):
    """A frame of a clip; box: in pixels of the photograph; rgb: its own colors, (3, 480, 640), of 8 bits."""

    def __init__(self, number: int, photo: Tensor, box: Box) -> None:
        self.number, self.box = number, box
        self.rgb = (crop_resize(photo, box, (HEIGHT, WIDTH)).clamp(0, 1) * 255).round() / 255
        self._gray = (gray_from_rgb(self.rgb) * 255).round()[0].numpy() / np.float32(255)

    def gray(self) -> np.ndarray:
        return self._gray


def clip(name: str, count: int) -> list[Window]:
    stem, first, last = CLIPS[name]
    path = next(path for path in free_photos() if path.stem == stem)
    photo = torch.from_numpy(np.asarray(Image.open(path).convert("RGB")) / np.float32(255)).permute(2, 0, 1)
    sides = (*photo.shape[1:], *photo.shape[1:])
    frames = []
    for number in range(count):
        share = number / (count - 1)
        mixed = [side * ((1 - share) * a + share * b) for side, a, b in zip(sides, first, last, strict=True)]
        frames.append(Window(number, photo, (mixed[0], mixed[1], mixed[2], mixed[3])))
    return frames


def brought(rgb: Tensor, box: Box, over: Box) -> tuple[Tensor, Tensor]:
    """A picture (3, h, w) of one window as another window shows it, and where it shows anything of it, (h, w)."""
    height, width = rgb.shape[1:]
    y = (over[0] + (torch.arange(height) + 0.5) * over[2] / height - box[0]) / box[2] * 2 - 1
    x = (over[1] + (torch.arange(width) + 0.5) * over[3] / width - box[1]) / box[3] * 2 - 1
    grid = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], -1)
    inside = (grid.abs() <= 1 - 2 / width).all(-1)
    return F.grid_sample(rgb[None], grid[None], "bilinear", align_corners=False)[0], inside


def flicker(pictures: Sequence[Tensor], boxes: Sequence[Box]) -> float:
    """Mean over all neighbors of the mean CIEDE2000."""
    sums = []
    for number in range(len(pictures) - 1):
        moved, inside = brought(pictures[number + 1], boxes[number + 1], boxes[number])
        sums.append(float(ciede2000(lab_from_rgb(pictures[number]), lab_from_rgb(moved))[inside].mean()))
    return float(np.mean(sums))


def drift(pictures: Sequence[Tensor], boxes: Sequence[Box]) -> tuple[float, float]:
    """(mean CIEDE2000, share of the picture that it is of)"""
    moved, inside = brought(pictures[-1], boxes[-1], boxes[0])
    gray = gray_from_rgb(pictures[0])
    one, other = (lab_from_rgb(merge(gray, chroma_from_rgb(rgb))) for rgb in (pictures[0], moved))
    return float(ciede2000(one, other)[inside].mean()), float(inside.float().mean())


def half(rgb: Tensor) -> Tensor:
    return F.avg_pool2d(rgb[None], 2)[0]


def stillness(pipe: ColorPipeline, name: str, count: int, independent: int) -> dict[str, Any]:
    frames = clip(name, count)
    boxes = [frame.box for frame in frames]
    with one_thread():
        colored = [half(full_size_rgb(one.frame.gray(), one.rgb256, None).rgb)
                   for one in color_scene(frames, KeyColoring(pipe, Request(), seed=0), Flow())]  # fmt: skip
    alone = []
    for frame in frames[:independent]:
        photo = frame.photo()
        small = pipe.small_photos([photo], noise_sources([photo], [0], [None]), Request())[0]
        alone.append(half(full_size_rgb(photo.gray, small.pictures[0].rgb, None).rgb))
    photos = [frames[0].photo(), frames[-1].photo()]
    (noise,) = noise_sources(photos[:1], [0], [None])
    last = pipe.small_photos(photos[1:], [noise], Request())[0].pictures[0].rgb
    by_itself = half(full_size_rgb(photos[1].gray, last, None).rgb)
    originals = flicker([half(frame.rgb) for frame in frames], boxes)
    ours, theirs = flicker(colored, boxes), flicker(alone, boxes)
    drifted, share = drift(colored, boxes)
    bound = min(INDEPENDENT_SHARE * theirs, max(LEAST_FLICKER, ORIGINAL_TIMES * originals))
    return {
        "clip": name, "photo": CLIPS[name][0], "frames": count, "flicker": ours, "flicker_of_originals": originals,
        "flicker_of_independent_frames": theirs, "independent_frames": independent, "flicker_bound": bound,
        "colorfulness": float(colorfulness(colored[-1])), "colorfulness_by_itself": float(colorfulness(by_itself)),
        "colorfulness_of_original": float(colorfulness(frames[-1].rgb)),
        "drift": drifted, "drift_share": share, "drift_bound": MOST_DRIFT,
        "met": ours <= bound and drifted <= MOST_DRIFT,
    }  # fmt: skip


def speed(pipe: ColorPipeline, count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        film = Path(place) / "in.mp4"
        with av.open(str(film), "w") as container:
            stream: Any = container.add_stream("libx264", rate=Fraction(24))
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            for frame in clip("pan", count):
                levels = np.rint(255 * frame.gray()).astype(np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(levels, format="gray")))
            container.mux(stream.encode(None))
        start = time.perf_counter()
        color_video(pipe, film, Path(place) / "out.mp4", VideoSettings())
        seconds = time.perf_counter() - start
    rate = count / seconds
    return {"frames": count, "size": f"{WIDTH}x{HEIGHT}", "seconds": seconds, "frames_per_second": rate,
            "bound": LEAST_SPEED, "met": rate >= LEAST_SPEED}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", default=",".join(CLIPS), help="some of them, between commas")
    parser.add_argument("--frames", type=int, default=101, help="of each clip")
    parser.add_argument("--independent", type=int, default=13, help="frames that are colored one by one, too")
    parser.add_argument("--no-speed", action="store_true", help="leave the speed out")
    options = parsed(parser)
    torch.set_num_threads(options.threads)
    pipe = ColorPipeline.from_pretrained()
    rows = []
    for name in filter(None, options.clips.split(",")):
        rows.append(stillness(pipe, name, options.frames, options.independent))
        print(json.dumps(rows[-1]), flush=True)
    timed = None if options.no_speed else speed(pipe, options.frames)
    print(json.dumps(timed))
    result = {
        "clips": rows, "speed": timed, "threads": options.threads, "seed": 0, "processor": processor(),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "av", "opencv-python-headless")},
        "weights": pipe.fingerprint(), "commit": commit(), "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python", "benchmarks/video.py", *sys.argv[1:]]),
    }  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if all(row["met"] for row in [*rows, *([timed] if timed else [])]) else 1


if __name__ == "__main__":
    sys.exit(main())
