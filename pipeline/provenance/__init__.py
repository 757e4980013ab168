"""What an output says of itself: that its colors are synthesized, by what, and how to make the same file again."""
