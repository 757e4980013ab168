"""The pictures of these docs, made by the weights in the package from photographs in scikit-image and scikit-learn.

    python docs/pictures.py

The first picture of each row is the gray input. Seed 0; nothing is picked by its looks. The one hint of hint.jpg is the
photograph's own color at the first place that the call suggests.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from pipeline import ColorPipeline
from pipeline.demo import free_photos
from pipeline.output import Suggestion

DOCS = Path(__file__).parent
HEIGHT = 150


def main() -> None:
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
