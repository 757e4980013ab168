"""Coloring past one machine: folders, Parquet files and WebDataset shards, by actors of a Ray cluster."""
