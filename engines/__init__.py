"""Inference: the Engine interface and its backends, the output decoders, the model repository and the engine node."""
