"""The stage ``prepare``: frames in, batches out; decoding, denoising, regions, batching and shedding."""
