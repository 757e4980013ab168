"""The demonstration behind `make demo`: free photographs, made gray, colored, and shown side by side."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

# Photographs with free licenses inside the wheels of scikit-image and scikit-learn; whichever are really there.
FREE_PHOTOS = {
    "skimage": ("data/astronaut.png", "data/chelsea.png", "data/coffee.png", "data/rocket.jpg"),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
}
SHEET_HEIGHT = 256


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="*", type=Path, help="your own photographs (default: free ones)")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the pictures (default: %(default)s)")
    options = parser.parse_args(arguments)
    photos = options.photos or free_photos()
    if not photos:
        print("error: no free photographs found; pip install 'trichrome[demo]', or name your own", file=sys.stderr)
        return 1

    from pipeline import ColorPipeline
    from pipeline.images.photo import ImageError
    from pipeline.images.read import load_photo
    from pipeline.images.write import save_photo

    pipe = ColorPipeline.from_pretrained()
    options.out.mkdir(parents=True, exist_ok=True)
    sheet, rows, failed = options.out / "sheet.png", [], 0
    for path in photos:
        started = time.perf_counter()
        target = options.out / f"{path.stem}.png"
        try:
            if path.resolve() in (target.resolve(), sheet.resolve()):
                raise ImageError(f"{path} would be overwritten; choose another --out")
            photo = load_photo(path)
            preview = pipe(photo, preview=True, output_type="np").images[0]
            colored = pipe(photo, generator=0, output_type="np").images[0]
            save_photo(target, colored, photo)
            row = [_gray_rgb(photo.gray), _eight_bits(preview), _eight_bits(colored)]
            if photo.is_color:  # the truth, for the eye only: the pipeline saw the gray picture
                with Image.open(path) as original:
                    row.append(np.asarray(ImageOps.exif_transpose(original).convert("RGB")))
        except (ImageError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
            continue
        print(f"{target}  ({time.perf_counter() - started:.1f} s)")
        rows.append(row)
    if rows:
        _sheet(rows).save(sheet)
        print(f"side by side (gray, one-pass preview, colored, original where there is one): {sheet.resolve()}")
    return 1 if failed else 0


def free_photos() -> list[Path]:
    paths: list[Path] = []
    for package, names in FREE_PHOTOS.items():
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            paths += [path for name in names if (path := Path(spec.origin).parent / name).is_file()]
    return paths


def _gray_rgb(gray: np.ndarray) -> np.ndarray:
    return np.repeat((gray * 255).round().astype(np.uint8)[:, :, None], 3, axis=2)


def _eight_bits(rgb: np.ndarray) -> np.ndarray:
    return rgb if rgb.dtype == np.uint8 else ((rgb.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _sheet(rows: list[list[np.ndarray]]) -> Image.Image:
    strips = []
    for row in rows:
        height, width = row[0].shape[:2]
        size = (max(1, round(width * SHEET_HEIGHT / height)), SHEET_HEIGHT)
        strip = Image.new("RGB", (len(row) * size[0], SHEET_HEIGHT), "white")
        for column, picture in enumerate(row):
            strip.paste(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS), (column * size[0], 0))
        strips.append(strip)
    sheet = Image.new("RGB", (max(s.width for s in strips), SHEET_HEIGHT * len(strips)), "white")
    for index, strip in enumerate(strips):
        sheet.paste(strip, (0, index * SHEET_HEIGHT))
    return sheet


if __name__ == "__main__":
    sys.exit(main())
