"""Data sets from stored frames and results: choice of examples, near-duplicates, splits, files and datasheet."""
