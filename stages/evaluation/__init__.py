"""Evaluation: photographs, scores, tables."""
