"""Stage 2, kind `coltran`: its distribution, its shared weights, and the published network's size and layers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny_stages import lively, network_of, picture, small
from torch import Tensor, nn

from stages.color.spaces import chroma_from_rgb, coarse_from_rgb, gray_from_rgb
from stages.nn.coltran.encoder import AxialEncoder
from stages.stage2_color.coltran import ColTranColorUpsampler


def test_stage2_uniform_answer_costs_8_bits():
    stage = small("color", "coltran")
    nn.init.zeros_(stage.write.weight), nn.init.zeros_(stage.write.bias)
    assert stage(picture(64)).item() == pytest.approx(8, abs=1e-5)


def test_stage2_loss_is_of_the_channel_shown():
    # An answer that is sure of value 255: right (0 bits) for the channel that is full, wrong for the empty ones.
    stage = small("color", "coltran")
    nn.init.zeros_(stage.write.weight), nn.init.zeros_(stage.write.bias)
    with torch.no_grad():
        stage.write.bias[255] = 20.0
    seen: list[Tensor] = []
    logits = stage.logits

    def noted(gray: Tensor, levels: Tensor, channel: Tensor) -> Tensor:
        seen.append(channel)
        return logits(gray, levels, channel)

    stage.logits = noted
    rgb = torch.zeros(8, 3, 64, 64)
    rgb[:, 1] = 1
    right, wrong = (math.log(math.exp(20) + 255) - height for height in (20, 0))
    torch.manual_seed(0)
    with torch.no_grad():
        loss = stage(rgb).item()
    hits = (seen[0] == 1).float().mean().item()
    assert seen[0].unique().tolist() == [0, 1, 2]
    assert loss == pytest.approx((hits * right + (1 - hits) * wrong) / math.log(2), rel=1e-4)


def test_stage2_shares_weights_over_channels():
    stage, rgb = lively("color", "coltran"), picture(64)
    gray, levels = gray_from_rgb(rgb), torch.randint(8, (2, 64, 64))
    answers = [stage.logits(gray, levels, torch.full((2,), channel)) for channel in range(3)]
    assert (answers[0] - answers[1]).abs().max() > 1e-3 and (answers[1] - answers[2]).abs().max() > 1e-3
    with torch.no_grad():  # the eight rows of a channel are all that tells channels apart
        stage.level.weight[8:16] = stage.level.weight[:8]
        stage.level.weight[16:] = stage.level.weight[:8]
    same = [stage.logits(gray, levels, torch.full((2,), channel)) for channel in range(3)]
    assert torch.equal(same[0], same[1]) and torch.equal(same[0], same[2])
    torch.testing.assert_close(same[0], answers[0])
    mixed = lively("color", "coltran").logits(gray, levels, torch.tensor([2, 0]))  # one channel for each picture
    torch.testing.assert_close(mixed, torch.stack([answers[2][0], answers[0][1]]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("decode", ["mean", "argmax"])
def test_stage2_decodes_its_distribution(decode):
    stage = small("color", "coltran", decode=decode)
    # Three quarters at the low value and one quarter higher, not equally for all channels, or the color would not tell.
    low, step = torch.tensor([100, 140, 60]), torch.tensor([40, 20, 80])

    def logits(gray: Tensor, levels: Tensor, channel: Tensor) -> Tensor:
        answer = torch.full((len(gray), 64, 64, 256), -1e4)
        answer[..., low[channel[0]]] = math.log(3)
        answer[..., (low + step)[channel[0]]] = 0.0
        return answer

    stage.logits = logits
    value = low + (step // 4 if decode == "mean" else 0)
    rgb = (value / 255)[None, :, None, None].expand(1, 3, 64, 64)
    out = stage.upsample(gray_from_rgb(rgb), coarse_from_rgb(rgb))
    torch.testing.assert_close(out, rgb, rtol=0, atol=1e-5)
    dark = stage.upsample(gray_from_rgb(rgb) / 2, coarse_from_rgb(rgb))  # luma of the picture, chroma of the answer
    torch.testing.assert_close(chroma_from_rgb(dark), chroma_from_rgb(rgb), rtol=0, atol=1e-5)


def test_published_color_upsampler_has_13_5_million_parameters():
    # ColTran's color upsampler as released (configs/color_upsampler.py, models/layers.py): D = ff = 512.
    d, feed_forward, heads, layers, side = 512, 512, 4, 4, 64
    norm = 2 * d
    attention = 4 * d * d + heads * 2 * side  # q, k, v and output without bias; relative bias of each distance
    pointwise = (d * feed_forward + feed_forward) + (feed_forward * d + d)
    layer = 2 * (attention + norm + pointwise + norm)  # rows and columns
    expected = (
        24 * d + 256 * d  # embeddings of 3 x 8 levels and 256 gray values
        + (2 * d * d + d)  # their join
        + 2 * side * d  # positions of rows and columns
        + layers * layer
        + (d * 256 + 256)  # logits
    )  # fmt: skip
    with torch.device("meta"):
        stage = ColTranColorUpsampler(network_of("stage2_published.toml"))
    assert sum(p.numel() for p in stage.parameters()) == expected == 13_476_608


def test_axial_encoder_is_post_norm():
    torch.manual_seed(0)
    channels, feed_forward, heads, layers, side = 8, 12, 2, 2, 5
    encoder = AxialEncoder(channels, feed_forward, heads, layers, (side, side)).double()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.normal_(0, 0.5)
    x = torch.randn(2, side, side, channels, dtype=torch.float64)

    def norm(y: Tensor, layer: nn.LayerNorm) -> Tensor:
        y = y - y.mean(-1, keepdim=True)
        return y / (y.square().mean(-1, keepdim=True) + 1e-3).sqrt() * layer.weight + layer.bias

    def attend(line: Tensor, layer: Any) -> Tensor:
        """One row or column (side, channels), head by head and query by query."""
        q, k, v = (line @ weight.T for weight in layer.qkv.weight.chunk(3))
        out, dim = torch.zeros_like(line), channels // heads
        for head in range(heads):
            part = slice(head * dim, (head + 1) * dim)
            for query in range(side):
                logits = torch.stack([
                    (q[query, part] * k[key, part]).sum() * dim**-0.5 + layer.relative[head, side - 1 + key - query]
                    for key in range(side)
                ])  # fmt: skip
                out[query, part] = logits.softmax(0) @ v[:, part]
        return out @ layer.out.weight.T

    expected = x.clone()
    for row in range(side):
        for column in range(side):
            expected[:, row, column] += encoder.rows[row, 0] + encoder.columns[column]
    assert len(encoder.layers) == 4 * layers
    block: Any
    for index, block in enumerate(encoder.layers):
        if index % 4 == 0:  # rows
            y = torch.stack([torch.stack([attend(row, block.layer) for row in image]) for image in expected])
        elif index % 4 == 2:  # columns
            y = torch.stack([
                torch.stack([attend(image[:, j], block.layer) for j in range(side)], dim=1) for image in expected
            ])  # fmt: skip
        else:
            first, _, second = block.layer
            y = (expected @ first.weight.T + first.bias).clamp_min(0) @ second.weight.T + second.bias
        expected = norm(expected + y, block.norm)
    torch.testing.assert_close(encoder(x), expected)
