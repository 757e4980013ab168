"""What lies between the graphs: enough to do without the library what its pipeline does with them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.color_pipeline import ColorPipeline
from pipeline.full_resolution import SOFT_SIDE
from pipeline.images.xmp import with_properties
from pipeline.provenance.record import NAMESPACE, RECIPE, SOURCE_TYPE
from stages.checkpoint import sha256_of
from stages.color.guided_filter import GUIDE_EPSILON, GUIDE_RADIUS
from stages.color.spaces import CB_SCALE, COARSE_LEVELS, CR_SCALE, LUMA_BLUE, LUMA_GREEN, LUMA_RED
from stages.graphs import Graph

__all__ = ["FORMAT", "description"]

FORMAT = 2


def description(pipe: ColorPipeline, graphs: Sequence[Graph], folder: Path) -> dict[str, Any]:
    """The content of `trichrome.json`, of graphs that are files in `folder` already."""
    return {
        "format": FORMAT,
        "software": f"trichrome {version('trichrome')}",
        "recipe": RECIPE,
        "weights": pipe.fingerprint(),
        # For every picture that is made: its colors are synthesized.
        "xmp": with_properties(None, [SOURCE_TYPE], own=NAMESPACE).decode(),
        "graphs": {graph.name: _graph(graph, folder / f"{graph.name}.onnx") for graph in graphs},
        "color": {
            "gray": "red * luma[0] + green * luma[1] + blue * luma[2], of gamma-encoded sRGB in [0, 1]",
            "luma": [LUMA_RED, LUMA_GREEN, LUMA_BLUE],
            "chroma": "Cb = (blue - gray) / scales[0], Cr = (red - gray) / scales[1]",
            "scales": [CB_SCALE, CR_SCALE],
            "merge": "rgb = gray + share * offset; offset: red = scales[1] * Cr, blue = scales[0] * Cb, green such "
                     "that its luma is 0; share: one per pixel, the largest in [0, 1] with rgb in [0, 1]",
        },
        "resize": {
            "smaller": "mean over the area of each part; a pixel on a border counts by its share",
            "larger": "bicubic, a = -0.75, pixel centers at (i + 1/2) / n, borders repeated, then held between the "
                      "least and the largest value before it",
            "axes": "rows and columns each by themselves, whatever the aspect; smaller comes before larger",
        },
        "inputs": {
            "gray64": "gray, resized to 64x64",
            "gray256": "gray, resized to 256x256",
            "gray128": "gray, resized to 128x128; where a side has fewer than 128 pixels gray64 is doubled, rows, "
                       "then columns: pixel i becomes x[i] - s and x[i] + s, s = (x[i + 1] - x[i - 1]) / 8, borders "
                       "repeated, in the end held within [0, 1]",
        },
        "noise": {
            "shape": [2, 32, 32],
            "distribution": "standard normal",
            "of the library": "MT19937, seeded with the last 32 bits of s: 2048 numbers u = (32 bits mod 2^24) / 2^24; "
                              "of each 16 the first 8, as 1 - u, are u1, the others u2, and the normal numbers are "
                              "sqrt(-2 ln u1) * cos(2 pi u2), 8 of them, then the same with sin",
            "s": "the first 8 bytes of SHA-256 of \"(SEED, 'KEY', CANDIDATE, 'stage1')\", big-endian, halved",
            "key": "SHA-256, hexadecimal, of \"HEIGHT WIDTH 8\\n\" and a byte round(255 gray) per pixel, in rows",
        },
        "coarse": {
            "levels": COARSE_LEVELS,
            "rule": "level = floor(levels * value) in 0..7 of each channel; coarse = 64 red + 8 green + blue",
        },
        "order": ["stage1_encode", "stage1_draw", "stage2", "stage3", "sharpen", "full size"],
        "sharpen": {
            "sharpness": pipe.sharpness,
            "window": SOFT_SIDE,
            "rule": "chroma + sharpness * (chroma - mean of chroma over the window), at the border over the part "
                    "inside; merged with gray256",
        },
        "full size": {
            "radius": GUIDE_RADIUS,
            "epsilon": GUIDE_EPSILON,
            "rule": "gray and chroma of rgb256, resized along axes where the photo is smaller; over windows of "
                    "2 radius + 1, at the border over the part inside: slope = covariance(gray, chroma) / "
                    "(variance(gray) + epsilon), offset = chroma - slope * gray; both enlarged linearly, pixel centers "
                    "at (i + 1/2) / n, borders repeated; chroma = slope * gray + offset with the photo's gray, merged. "
                    "A photo that is not larger along any axis takes the chroma itself",
            "rounding": "to whole levels; where that shifts the luma by more than 0.48 levels, and the pixel is not "
                        "neutral, green moves one level the other way",
        },
    }  # fmt: skip


def _graph(graph: Graph, path: Path) -> dict[str, Any]:
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": sha256_of(path),
        "inputs": {name: _tensor(graph, name, example) for name, example in graph.inputs.items()},
        "outputs": list(graph.outputs),
    }


def _tensor(graph: Graph, name: str, example: Tensor) -> dict[str, Any]:
    default = {"default": graph.defaults[name]} if name in graph.defaults else {}
    return {"shape": list(example.shape), "dtype": str(example.dtype).removeprefix("torch.")} | default
