"""Data sets from stored frames and results: choice, near-duplicates, split, files and datasheet."""
