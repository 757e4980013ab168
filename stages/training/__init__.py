"""Training: one loop for every stage and kind."""
