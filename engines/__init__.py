"""Inference: the Engine interface, its backends, decoders, the model repository and the engine node."""
