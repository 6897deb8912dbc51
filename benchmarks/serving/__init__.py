"""Benchmarks of the engine node alone: its throughput, its latency under open load, and its recovery from kills."""
