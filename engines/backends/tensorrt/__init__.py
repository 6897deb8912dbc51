"""The TensorRT backend for NVIDIA GPUs, through pycuda.

Nothing in this package has run on a GPU yet. The tests of this package use a fake CUDA device and a fake ``tensorrt``
module.
"""

from __future__ import annotations

from engines.backends.tensorrt.engine import TensorRtEngine
from engines.backends.tensorrt.probe import unavailable_reason

__all__ = ["TensorRtEngine", "unavailable_reason"]
