"""Frames in, batches out: decode, denoise, regions, batching, shedding."""
