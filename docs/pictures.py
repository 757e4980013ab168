"""The pictures of these docs, made by the weights in the package from photographs in scikit-image and scikit-learn.

    python docs/pictures.py

The first picture of each row is the gray input. Seed 0; nothing is picked by its looks.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from pipeline import ColorPipeline
from pipeline.demo import free_photos

DOCS = Path(__file__).parent
HEIGHT = 150


def main() -> None:
    pipe = ColorPipeline.from_pretrained()
    photos = {path.stem: Image.open(path).convert("RGB") for path in free_photos()}
    demo, candidates, uncertainty = [], [], []
    for name, photo in photos.items():
        gray = photo.convert("L")
        preview = pipe(photo, preview=True).images
        output = pipe(photo, num_samples=4, generator=0, uncertainty=True)
        demo.append([gray, *preview, output.images[0], photo])
        if name in ("coffee", "china"):
            candidates.append([gray, *output.images])
        if name in ("coffee", "flower"):
            uncertainty.append([gray, output.images[0], *(output.uncertainty or []), photo])
    save(demo, DOCS / "demo.jpg")
    save(candidates, DOCS / "use" / "candidates.jpg")
    save(uncertainty, DOCS / "use" / "uncertainty.jpg")


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
