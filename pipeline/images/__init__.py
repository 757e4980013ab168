"""Photographs in and out of files: everything between pixels on disk and the float gray the stages see.

A picture becomes a `Photo`: its upright gray (Rec. 601 luma, exact) with what must survive to the output (bit
depth, alpha, EXIF, resolution). The stages color the gray, `quantize` rounds the result, `save_photo` writes
it back with the same accompaniment and an sRGB profile. Pixels of files go through libvips, which Pillow
cannot replace: it has no 16-bit RGB. docs/use/files.md says what is read, kept and refused.
"""

from pipeline.images.icc import srgb_profile
from pipeline.images.photo import FORMATS, MAX_PIXELS, ImageError, Photo
from pipeline.images.read import load_photo
from pipeline.images.write import quantize, save_map, save_photo

__all__ = [
    "FORMATS", "MAX_PIXELS", "ImageError", "Photo", "load_photo", "quantize", "save_map", "save_photo", "srgb_profile",
]  # fmt: skip
