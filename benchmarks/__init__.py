"""Runnable comparisons. Results are dated and kept in ``benchmarks/results``."""
