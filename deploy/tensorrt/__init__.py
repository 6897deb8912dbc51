"""The real TensorRT for development, without NVIDIA's package index."""
