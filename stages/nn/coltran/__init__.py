"""The networks of ColTran (arXiv 2102.04432)."""
