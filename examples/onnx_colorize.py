"""Colors a photograph by exported graphs, with onnxruntime, numpy and Pillow alone: no torch, no trichrome.

    pip install onnxruntime numpy pillow
    trichrome export --format onnx -o graphs                  # once, where trichrome is installed
    python examples/onnx_colorize.py graphs photo.jpg -o photo-colored.png

What it does stands in words in graphs/trichrome.json. Photographs are read as 8 bits, embedded profiles and
transparency are left out, one draw is made: `trichrome colorize --candidate 0` gives the same picture but for last
digits. The luma of the picture is that of the photograph, to half a level.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

Array = NDArray[np.floating[Any]]  # float32
STRIP = 2**20  # pixels that are finished at a time


class Colorizer:
    """An exported folder, opened."""

    def __init__(self, folder: Path) -> None:
        self.about: dict[str, Any] = json.loads((folder / "trichrome.json").read_text(encoding="utf-8"))
        if self.about["format"] != 2:
            raise SystemExit(f"{folder / 'trichrome.json'} has format {self.about['format']}; this example reads 2")
        self.luma = np.array(self.about["color"]["luma"])
        self.scales = self.about["color"]["scales"]
        self.sessions = {
            name: onnxruntime.InferenceSession(folder / graph["file"], providers=["CPUExecutionProvider"])
            for name, graph in self.about["graphs"].items()
        }

    def __call__(self, gray: Array, noise: Array) -> NDArray[np.uint8]:
        """gray (H, W) in [0, 1]; noise (2, 32, 32), standard normal -> picture (H, W, 3)."""
        gray64, gray256 = resized(gray, (64, 64)), resized(gray, (256, 256))
        photo = {"gray64": gray64[None, None]}
        encoding = self.run("stage1_encode", photo | {"gray128": sharp(gray, gray64)[None, None]})
        coarse64 = self.run("stage1_draw", encoding | photo | {"noise": noise[None]})["coarse64"]
        rgb64 = self.run("stage2", photo | {"coarse64": coarse64})["rgb64"]
        rgb256 = self.run("stage3", {"gray256": gray256[None, None], "rgb64": rgb64})["rgb256"][0]
        return self.full_size(gray, self.sharpened(gray256, rgb256))

    def run(self, name: str, tensors: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The outputs of a graph, by name. Inputs that are not among the tensors have their defaults."""
        graph = self.about["graphs"][name]
        inputs = {
            one: tensors[one] if one in tensors else np.full(about["shape"], about["default"], about["dtype"])
            for one, about in graph["inputs"].items()
        }
        outputs = self.sessions[name].run(None, inputs)
        if not all(np.isfinite(one).all() for one in outputs):
            raise SystemExit(f"the answers of {graph['file']} are not finite")
        return dict(zip(graph["outputs"], outputs, strict=True))

    # color

    def chroma(self, rgb: Array) -> tuple[Array, Array]:
        """rgb (3, H, W) -> its luma (H, W), and Cb and Cr (2, H, W)."""
        gray = np.tensordot(self.luma.astype(np.float32), rgb, 1)
        return gray, np.stack([(rgb[2] - gray) / self.scales[0], (rgb[0] - gray) / self.scales[1]])

    def merged(self, gray: Array, chroma: Array) -> Array:
        """The colors (3, H, W) of luma gray (H, W), with as much of the chroma (2, H, W) as fits into sRGB."""
        red, blue = self.scales[1] * chroma[1], self.scales[0] * chroma[0]
        green = -(self.luma[0] * red + self.luma[2] * blue) / self.luma[1]
        offset = np.stack([red, green, blue]).astype(np.float32)
        up = (1 - gray) / np.maximum(offset.max(0), 1e-12)
        down = gray / np.maximum(-offset.min(0), 1e-12)
        return np.clip(gray + np.clip(np.minimum(up, down), 0, 1) * offset, 0, 1)

    def sharpened(self, gray: Array, rgb: Array) -> Array:
        """Steeper edges of color: gray (H, W), rgb (3, H, W) -> (3, H, W)."""
        rule = self.about["sharpen"]
        chroma = self.chroma(rgb)[1]
        soft = window_mean(chroma, rule["window"] // 2)
        return self.merged(gray, chroma + np.float32(rule["sharpness"]) * (chroma - soft))

    # full size

    def full_size(self, gray: Array, rgb: Array) -> NDArray[np.uint8]:
        """The colors of rgb (3, h, w), along the edges of the photograph gray (H, W)."""
        rule = self.about["full size"]
        size = tuple(map(min, rgb.shape[1:], gray.shape))
        low, chroma = (resized(one, size) for one in self.chroma(rgb))
        slope, offset = np.zeros_like(chroma), chroma
        if size != gray.shape:
            radius = rule["radius"]
            mean, mean_chroma = window_mean(low, radius), window_mean(chroma, radius)
            variance = np.maximum(window_mean(low * low, radius) - mean * mean, 0)
            covariance = window_mean(low * chroma, radius) - mean * mean_chroma
            slope = covariance / (variance + np.float32(rule["epsilon"]))
            offset = chroma - slope * low
        wide = enlarged(np.concatenate([slope, offset]), gray.shape[1]).swapaxes(1, 2)
        picture = np.empty((*gray.shape, 3), np.uint8)
        rows = max(1, STRIP // gray.shape[1])
        for top in range(0, len(gray), rows):
            strip = gray[top : top + rows]
            maps = enlarged(wide, len(gray), top, top + len(strip)).swapaxes(1, 2)
            colors = self.merged(strip, maps[:2] * strip + maps[2:])
            picture[top : top + rows] = self.rounded(colors.transpose(1, 2, 0))
        return picture

    def rounded(self, rgb: Array) -> NDArray[np.uint8]:
        """rgb (H, W, 3) in [0, 1] as whole levels, whose luma is that of rgb to half a level."""
        levels = np.clip(rgb * np.float32(255), 0, 255)
        whole = np.rint(levels)
        error = (levels - whole) @ self.luma.astype(np.float32)
        colored = (levels != levels[..., :1]).any(-1)
        whole[..., 1] += np.where((np.abs(error) > 0.48) & colored, np.sign(error), 0)
        return whole.astype(np.uint8)


# sizes


def resized(x: Array, size: tuple[int, ...]) -> Array:
    """x (..., H, W) at another size, each axis on its own: means over areas, or bicubic, in the range of x."""
    rows, columns = (mean_weights(n, min(n, m)) for n, m in zip(x.shape[-2:], size, strict=True))
    x = rows @ x @ columns.T
    if x.shape[-2:] != size:
        least, most = x.min((-2, -1), keepdims=True), x.max((-2, -1), keepdims=True)
        rows, columns = (cubic_weights(n, m) for n, m in zip(x.shape[-2:], size, strict=True))
        x = np.clip(rows @ x @ columns.T, least, most)
    return x.astype(np.float32)


def mean_weights(count: int, parts: int) -> Array:
    """How much of each of `count` pixels is in each of fewer equal parts: (parts, count), rows sum to 1."""
    border = np.arange(parts + 1) * count / parts
    pixel = np.arange(count)
    overlap = np.minimum(border[1:, None], pixel + 1) - np.maximum(border[:-1, None], pixel)
    return (np.maximum(overlap, 0) * parts / count).astype(np.float32)


def cubic_weights(count: int, parts: int) -> Array:
    """Bicubic interpolation from `count` pixels to more, a = -0.75: (parts, count)."""
    place = (np.arange(parts) + 0.5) * count / parts - 0.5
    weights = np.zeros((parts, count))
    for shift in range(-1, 3):
        pixel = np.floor(place) + shift
        away = np.abs(place - pixel)
        near = (1.25 * away - 2.25) * away**2 + 1
        far = ((-0.75 * away + 3.75) * away - 6) * away + 3
        np.add.at(weights, (np.arange(parts), np.clip(pixel, 0, count - 1).astype(int)), np.where(away <= 1, near, far))
    return weights.astype(np.float32) if parts != count else np.eye(count, dtype=np.float32)


def sharp(gray: Array, gray64: Array) -> Array:
    """gray128 of a photograph: doubled from 64 where it has fewer pixels, as training has seen such."""
    if min(gray.shape) >= 128:
        return resized(gray, (128, 128))
    for _ in range(2):  # rows, then columns
        padded = np.pad(gray64, ((1, 1), (0, 0)), "edge")
        slope = (padded[2:] - padded[:-2]) / 8
        gray64 = np.stack([gray64 - slope, gray64 + slope], 1).reshape(-1, gray64.shape[1]).T
    return np.clip(gray64, 0, 1)


def enlarged(x: Array, size: int, start: int = 0, stop: int | None = None) -> Array:
    """Entries start..stop of the last axis of x, enlarged linearly to `size`."""
    count = x.shape[-1]
    place = np.clip((np.arange(start, size if stop is None else stop) + 0.5) * (count / size) - 0.5, 0, count - 1)
    low = np.floor(place).astype(int)
    share = (place - low).astype(np.float32)
    first = x[..., low]
    return first + share * (x[..., np.minimum(low + 1, count - 1)] - first)


def window_mean(x: Array, radius: int) -> Array:
    """Mean over a window of 2 radius + 1 around each pixel, at the border over the part inside: (..., H, W)."""
    for axis in (-2, -1):
        count = x.shape[axis]
        first, last = np.maximum(np.arange(count) - radius, 0), np.minimum(np.arange(count) + radius + 1, count)
        inside = (np.arange(count) >= first[:, None]) & (np.arange(count) < last[:, None])
        mean = (inside / (last - first)[:, None]).astype(np.float32)
        x = mean @ x if axis == -2 else x @ mean.T
    return x


# noise


def noise_of(gray: Array, seed: int, candidate: int) -> Array:
    """The noise of a photograph's draw, as the library has it: gray (H, W) in [0, 1] -> (2, 32, 32)."""
    digest = hashlib.sha256(f"{gray.shape[0]} {gray.shape[1]} 8\n".encode())
    digest.update(np.rint(gray * np.float32(255)).astype(np.uint8).tobytes())
    words = repr((seed, digest.hexdigest(), candidate, "stage1")).encode()
    stream = int.from_bytes(hashlib.sha256(words).digest()[:8], "big") >> 1
    numbers = np.random.RandomState(stream % 2**32).randint(0, 2**32, 2048, dtype=np.uint32)
    u = (numbers % 2**24 / 2**24).astype(np.float32).reshape(-1, 2, 8)
    radius = np.sqrt(np.float32(-2) * np.log(1 - u[:, 0]))
    angle = np.float32(2 * np.pi) * u[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).reshape(2, 32, 32)


def gray_of(path: Path, luma: NDArray[np.float64]) -> Array:
    """The luma of a photograph (H, W), upright, in [0, 1]. luma: weights of red, green and blue."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith(("I", "F")):
            raise SystemExit(f"{path} has more than 8 bits, which this example does not read; trichrome colorize does")
        if upright.mode in ("1", "L", "LA"):
            return np.asarray(upright.convert("L"), np.float32) / np.float32(255)
        rgb = np.asarray(upright.convert("RGB"), np.float64)
    return (rgb @ luma / 255).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description="Color a photograph by exported graphs.")
    parser.add_argument("graphs", type=Path, help="folder of `trichrome export`")
    parser.add_argument("photo", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.png")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other colors (default 0)")
    parser.add_argument("--candidate", type=int, default=0, help="number of the draw (default 0)")
    options = parser.parse_args()
    if options.output.suffix.lower() != ".png":
        raise SystemExit(f"-o {options.output}: this example writes PNG; name a file that ends in .png")
    colorizer = Colorizer(options.graphs)
    gray = gray_of(options.photo, colorizer.luma)
    picture = colorizer(gray, noise_of(gray, options.seed, options.candidate))
    said = PngInfo()
    said.add_itxt("XML:com.adobe.xmp", colorizer.about["xmp"])  # that the colors are synthesized
    Image.fromarray(picture).save(options.output, pnginfo=said)


if __name__ == "__main__":
    main()
