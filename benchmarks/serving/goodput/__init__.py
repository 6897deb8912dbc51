"""Benchmark of goodput under open load: the engine node, LitServe and Ray Serve with the same model."""
