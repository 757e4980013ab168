"""The pictures of these docs, made by the weights in the package from photographs in scikit-image and scikit-learn.

    python docs/pictures.py
    python docs/pictures.py --gpic runs/gpic/final --palette runs/palette_multitask/final

Of the first the first picture of each row is the gray input; the one hint of hint.jpg is the photograph's own color at
the first place that the call suggests. The second makes those of docs/research/image-to-image.md, by weights that do
not ship; squares of 64 pixels, enlarged. Seed 0; nothing is picked by its looks.
"""

from __future__ import annotations

import argparse
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageOps

from pipeline import ColorPipeline, ImageToImagePipeline
from pipeline.demo import free_photos
from pipeline.output import Suggestion
from pipeline.translations import drawing
from stages.image_to_image.face import TranslateOptions

DOCS = Path(__file__).parent
HEIGHT = 150


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the pictures of the docs.")
    parser.add_argument("--gpic", type=Path, metavar="FOLDER", help="weights of GPIC: make drawings.jpg")
    parser.add_argument("--palette", type=Path, metavar="FOLDER", help="weights for all tasks: make translations.jpg")
    options = parser.parse_args()
    if options.gpic:
        save(drawings(options.gpic), DOCS / "research" / "drawings.jpg")
    if options.palette:
        save(translations(options.palette), DOCS / "research" / "translations.jpg")
    if not (options.gpic or options.palette):
        pictures()


def pictures() -> None:
    pipe = ColorPipeline.from_pretrained()
    photos = {path.stem: Image.open(path).convert("RGB") for path in free_photos()}
    demo, candidates, uncertainty, hints = [], [], [], []
    for name, photo in photos.items():
        gray = photo.convert("L")
        preview = pipe(photo, preview=True).images
        output = pipe(photo, num_samples=4, generator=0, uncertainty=True)
        demo.append([gray, *preview, output.images[0], photo])
        if name in ("coffee", "china"):
            candidates.append([gray, *output.images])
        if name in ("coffee", "flower"):
            uncertainty.append([gray, output.images[0], *(output.uncertainty or []), photo])
            assert output.suggestions is not None
            place = output.suggestions[0][0]
            hint = (place.x, place.y, color_at(photo, place), place.radius)
            hints.append([ringed(gray, place), output.images[0], *pipe(photo, generator=0, hints=[hint]).images, photo])
    save(demo, DOCS / "demo.jpg")
    save(candidates, DOCS / "use" / "candidates.jpg")
    save(uncertainty, DOCS / "use" / "uncertainty.jpg")
    save(hints, DOCS / "use" / "hint.jpg")
    save(hints[-1:], DOCS / "hint.jpg")


def drawings(weights: Path) -> list[list[Image.Image]]:
    """Photograph, its line art, three draws of colors, and one that leans to orange and one to blue."""
    pipe, rows = ImageToImagePipeline.from_pretrained(weights), []
    for photo in squares():
        drawn = pipe(photo, draw=True, num_samples=3, generator=0).images
        for color in ((0.9, 0.5, 0.2), (0.2, 0.5, 0.9)):
            drawn += pipe(photo, draw=True, generator=0, options=TranslateOptions(start_color=color)).images
        rgb = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] / 255
        lines = Image.fromarray((drawing(rgb, pipe.stage.side)[0, 0] * 255).byte().numpy())
        rows.append([photo, lines, *drawn])
    return rows


def translations(weights: Path) -> list[list[Image.Image]]:
    """Photograph, colored from gray, its middle filled, a JPEG of quality 5, and that restored."""
    pipe, rows = ImageToImagePipeline.from_pretrained(weights), []
    for photo in squares():
        mask = Image.new("L", photo.size)
        mask.paste(255, (16, 16, 48, 48))
        file = BytesIO()
        photo.save(file, "JPEG", quality=5)
        poor = Image.open(file).convert("RGB")
        rows.append([
            photo, *pipe(photo.convert("L"), "colorize", generator=0).images,
            *pipe(photo, "inpaint", mask=mask, generator=0).images,
            poor, *pipe(poor, "jpeg", generator=0).images,
        ])  # fmt: skip
    return rows


def squares() -> list[Image.Image]:
    """The center square of each photograph, at 64x64."""
    photos = (Image.open(path).convert("RGB") for path in free_photos())
    return [ImageOps.fit(photo, (64, 64), Image.Resampling.LANCZOS) for photo in photos]


def color_at(photo: Image.Image, place: Suggestion) -> tuple[int, ...]:
    """The mean color of a square about a place, which is what a person would pick."""
    x, y, half = round(place.x), round(place.y), max(1, round(place.radius / 2))
    mean = photo.crop((x - half, y - half, x + half, y + half)).resize((1, 1), Image.Resampling.BOX)
    return tuple(mean.tobytes())


def ringed(gray: Image.Image, place: Suggestion) -> Image.Image:
    marked = gray.convert("RGB")
    radius = max(place.radius, gray.height / 30)
    box = (place.x - radius, place.y - radius, place.x + radius, place.y + radius)
    ImageDraw.Draw(marked).ellipse(box, outline=(255, 80, 0), width=max(2, gray.height // 75))
    return marked


def save(rows: list[list[Image.Image]], path: Path) -> None:
    """The pictures of each row side by side, all of one height."""
    strips = []
    for row in rows:
        small = [one.convert("RGB").resize((round(one.width * HEIGHT / one.height), HEIGHT)) for one in row]
        strip = Image.new("RGB", (sum(one.width for one in small), HEIGHT))
        left = 0
        for one in small:
            strip.paste(one, (left, 0))
            left += one.width
        strips.append(strip)
    sheet = Image.new("RGB", (max(strip.width for strip in strips), HEIGHT * len(strips)), "white")
    for index, strip in enumerate(strips):
        sheet.paste(strip, (0, index * HEIGHT))
    sheet.save(path, quality=85, optimize=True)


if __name__ == "__main__":
    main()
