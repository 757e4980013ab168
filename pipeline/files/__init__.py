"""Coloring files and folders: names, manifest, the run itself."""
