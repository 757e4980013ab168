"""The networks of PIC (arXiv 1705.04258), after PixelCNN++."""
