"""Inference: the engine seam, its backends, decoders, the model repository and the engine node."""
