"""Moving pictures that tests make, whose motion is known, and video files of them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

av = pytest.importorskip("av", reason="the extra video is missing: pip install 'trichrome[video]'")
pytest.importorskip("cv2", reason="the extra video is missing: pip install 'trichrome[video]'")

from pipeline.video.intervals import Frame  # noqa: E402


class Still(Frame):
    """A frame of numbers, (H, W) in [0, 1]."""

    def __init__(self, number: int, gray: NDArray[np.float32]) -> None:
        self.number, self._gray = number, gray

    def gray(self) -> NDArray[np.float32]:
        return self._gray


def texture(height: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    """Soft spots of many sizes, (H, W) in [0.1, 0.9]."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width))
    for side in (8, 16, 32, 64):
        wave = np.fft.rfft2(rng.normal(size=(height, width)))
        fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
        total += side / 16 * np.fft.irfft2(wave * np.exp(-((fy**2 + fx**2) * side**2)), (height, width))
    total -= total.min()
    return (0.1 + 0.8 * total / total.max()).astype(np.float32)


def pan(count: int, size: tuple[int, int], step: int, seed: int = 0) -> list[NDArray[np.float32]]:
    """Windows (H, W) on a texture, each `step` pixels further right."""
    height, width = size
    wide = texture(height, width + step * (count - 1), seed)
    return [wide[:, step * k : step * k + width] for k in range(count)]


def frames(grays: Sequence[NDArray[np.float32]], first: int = 0) -> list[Frame]:
    return [Still(number, gray) for number, gray in enumerate(grays, first)]


def levels(grays: Sequence[NDArray[np.float32]], depth: int = 8) -> list[NDArray[Any]]:
    """Luma of limited range."""
    unit = 2 ** (depth - 8)
    dtype = np.uint8 if depth == 8 else np.uint16
    return [np.rint(unit * (16 + 219 * gray)).astype(dtype) for gray in grays]


def write_film(
    path: Path, lumas: Sequence[NDArray[Any]], pixels: str = "yuv420p", *, codec: str = "ffv1", sound: bool = False,
    rotation: int = 0, tags: tuple[int, int, int, int] = (1, 2, 2, 6), times: Sequence[int] | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:  # fmt: skip
    """A video of gray pictures, without loss where the codec has none; times in thousandths of a second."""
    height, width = lumas[0].shape
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = width, height, pixels
        context.time_base = stream.time_base = Fraction(1, 1000)
        context.sample_aspect_ratio = Fraction(4, 3)
        context.color_range, context.color_primaries, context.color_trc, context.colorspace = tags
        if rotation:
            stream.set_display_rotation(rotation)
        tone: Any = container.add_stream("pcm_s16le", rate=8000) if sound else None
        if tone is not None:
            tone.layout = "mono"
        container.metadata.update(metadata or {})
        for number, luma in enumerate(lumas):
            picture = av.VideoFrame(width, height, pixels)
            for place, plane in enumerate(picture.planes):
                rows = np.frombuffer(plane, luma.dtype).reshape(plane.height, -1)
                neutral = 128 if luma.dtype == np.uint8 else 512
                rows[:, : plane.width] = neutral if place else luma
            picture.pts, picture.time_base = 40 * number if times is None else times[number], Fraction(1, 1000)
            container.mux(stream.encode(picture))
            if tone is not None:
                wave = (8000 * np.sin(np.arange(320) / 3 + number)).astype(np.int16)[None]
                heard = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
                heard.sample_rate, heard.pts, heard.time_base = 8000, 320 * number, Fraction(1, 8000)
                container.mux(tone.encode(heard))
        container.mux(stream.encode(None))
        if tone is not None:
            container.mux(tone.encode(None))
    return path
