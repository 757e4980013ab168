"""The planes of a video: levels of gray, and chroma that keeps the video's own luma."""

from __future__ import annotations

import clips  # noqa: F401  (skips without the extra)
import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.video.planes import WEIGHTS, Coding
from stages.color.spaces import gray_from_rgb, merge


@pytest.mark.parametrize("depth, full, black, white", [(8, False, 16, 235), (10, False, 64, 940), (8, True, 0, 255),
                                                       (10, True, 0, 1023)])  # fmt: skip
def test_black_and_white_have_the_levels_of_the_standard(depth, full, black, white):
    coding = Coding("bt709", depth, full)
    levels = np.array([[black, white, (black + white) // 2]], coding.dtype)
    assert np.allclose(coding.gray(levels), [[0, 1, 0.5]], atol=1 / 219)
    assert coding.gray(np.array([0, 2**depth - 1], coding.dtype)).tolist() == [0, 1]
    neutral = coding.chroma(torch.full((1, 2, 2), 0.5), torch.full((3, 2, 2), 0.5))
    assert (neutral == 2 ** (depth - 1)).all() and neutral.dtype == coding.dtype


def test_full_range_of_601_is_what_jpeg_has():
    rgb = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    planes = torch.from_numpy(rgb / 255).float().permute(2, 0, 1)
    ours = Coding("bt601", 8, True).chroma(gray_from_rgb(planes), planes)
    theirs = np.asarray(Image.fromarray(rgb).convert("YCbCr"))[..., 1:].transpose(2, 0, 1)
    assert np.abs(ours.astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("matrix, code", [("bt709", 1), ("bt601", 6)])
def test_a_decoder_gets_the_luma_that_was_there_and_the_same_differences_of_channels(matrix, code):
    """swscale takes the planes apart again."""
    rng = np.random.default_rng(1)
    luma = rng.integers(60, 190, (32, 32), np.uint8)
    coding = Coding(matrix, 8, False)
    gray = torch.from_numpy(coding.gray(luma))[None]
    rgb = merge(gray, torch.from_numpy(rng.uniform(-0.1, 0.1, (2, 32, 32))).float())
    frame = clips.av.VideoFrame(32, 32, "yuv444p")
    for plane, levels in zip(frame.planes, (luma, *coding.chroma(gray, rgb)), strict=True):
        np.frombuffer(plane, np.uint8).reshape(32, -1)[:, :32] = levels
    frame.color_range, frame.colorspace = 1, code
    shown = frame.reformat(format="rgb24", src_colorspace=code, src_color_range=1).to_ndarray().astype(float)
    weights = np.array(WEIGHTS[matrix])
    assert np.abs(shown @ weights - 255 * gray[0].numpy()).max() < 2
    wanted = 255 * rgb.permute(1, 2, 0).numpy()
    assert np.abs((shown[..., 0] - shown[..., 2]) - (wanted[..., 0] - wanted[..., 2])).max() < 5
    assert np.abs((shown[..., 1] - shown[..., 2]) - (wanted[..., 1] - wanted[..., 2])).max() < 5
    other = "bt601" if matrix == "bt709" else "bt709"
    assert np.abs(shown @ np.array(WEIGHTS[other]) - 255 * gray[0].numpy()).max() > 3, "the other matrix would differ"


def test_colors_that_the_cube_does_not_hold_go_toward_gray():
    gray = torch.tensor([[[0.02, 0.98, 0.5]]])
    rgb = merge(gray, torch.tensor([[[0.4] * 3], [[-0.4] * 3]]))
    coding = Coding("bt709", 10, False)
    cb, cr = torch.from_numpy((coding.chroma(gray, rgb).astype(float) - 512) / 896)
    red, green, blue = WEIGHTS["bt709"]
    r, b = gray[0] + 2 * (1 - red) * cr, gray[0] + 2 * (1 - blue) * cb
    g = (gray[0] - red * r - blue * b) / green
    assert min(x.min() for x in (r, g, b)) > -0.003 and max(x.max() for x in (r, g, b)) < 1.003
