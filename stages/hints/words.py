"""Colors as people write them."""

from __future__ import annotations

from PIL import ImageColor

__all__ = ["rgb_of"]


def rgb_of(color: object) -> tuple[int, int, int]:
    """RGB of 0..255 of a color as people write it. Raises ValueError, with what was expected."""
    expected = (
        "color must be a name or code such as 'navy', '#1a2b3c' or 'hsl(20, 60%, 40%)', or [R, G, B] of 0..255; got "
        f"{color!r}"
    )
    if isinstance(color, str):
        try:
            levels: tuple[object, ...] = ImageColor.getrgb(color)
        except ValueError as error:
            raise ValueError(expected) from error
    elif isinstance(color, list | tuple):
        levels = tuple(color)
    else:
        raise ValueError(expected)
    match levels:
        case (int(red), int(green), int(blue)) if all(type(v) is int and 0 <= v <= 255 for v in levels):
            return red, green, blue
    raise ValueError(expected)
