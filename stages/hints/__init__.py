"""Known colors: reading them, laying them on a small plane, and spreading them over the photograph."""
