"""Installation of TensorRT on a development machine, without NVIDIA's package index."""
