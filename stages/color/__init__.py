"""Color of pixels: spaces and their conversions, differences, and changes of size."""
