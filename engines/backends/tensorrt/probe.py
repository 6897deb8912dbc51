"""Check that TensorRT, pycuda and a usable GPU are present, before any TensorRT object is made.

The check calls CUDA's ``cuInit`` first, because a TensorRT builder or runtime ends the whole process if the NVIDIA
driver does not work.
"""

from __future__ import annotations

import ctypes
import importlib
from importlib.util import find_spec
from typing import Any

DRIVER = "libcuda.so.1"
"""File name of the CUDA driver's library. The NVIDIA driver package installs ``libcuda.so.1``, but the CUDA toolkit
does not."""
OLDEST, NEWEST = (10, 12), (11,)
"""Oldest release and newest major version of TensorRT that this package supports."""
MODULES = ("tensorrt", "tensorrt_bindings")
"""Python modules that provide TensorRT's API, in the order of preference. The command ``make tensorrt`` installs only
``tensorrt_bindings``."""
GUIDE = "See docs/install-gpu-node.md"


def unavailable_reason() -> str:
    """Return the reason why TensorRT cannot be used on this machine, or an empty text if TensorRT can be used."""
    if not any(map(find_spec, MODULES)):
        return f"TensorRT is not installed: the module tensorrt is missing. {GUIDE}"
    if not find_spec("pycuda"):
        return f"pycuda is not installed. {GUIDE}"
    return driver_reason() or library_reason()


def driver_reason() -> str:
    """Return the reason why CUDA has no usable GPU on this machine, or an empty text if CUDA finds a GPU."""
    try:
        cuda = load_driver()
    except OSError:
        return f"no NVIDIA driver: {DRIVER} cannot be loaded. {GUIDE}"
    code = cuda.cuInit(0)
    if code:
        return f"cuInit failed with CUDA error {code} ({error_text(cuda, code)}). {GUIDE}"
    count = ctypes.c_int(0)
    code = cuda.cuDeviceGetCount(ctypes.byref(count))
    if code or not count.value:
        return f"the NVIDIA driver reports no GPU (CUDA error {code}). Check CUDA_VISIBLE_DEVICES. {GUIDE}"
    return ""


def library_reason() -> str:
    """Return the reason why TensorRT's Python module cannot be used, or an empty text if the module can be used.

    The caller must call ``driver_reason`` before this function.
    """
    try:
        trt = load_tensorrt()
    except (ImportError, OSError) as error:  # the module loads shared libraries
        return f"TensorRT cannot be imported: {error}. {GUIDE}"
    version = version_of(trt)
    if version < OLDEST or version[:1] > NEWEST:
        wanted = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.x"
        return f"TensorRT {trt.__version__} is not supported: expected {wanted}. {GUIDE}"
    return ""


def load_driver() -> Any:
    """Load the CUDA driver's library. Raise OSError if no driver is installed."""
    return ctypes.CDLL(DRIVER)


def load_tensorrt() -> Any:
    """Import TensorRT's Python module. Raise ImportError or OSError."""
    return importlib.import_module(next(filter(find_spec, MODULES), MODULES[0]))


def version_of(trt: Any) -> tuple[int, ...]:
    """Return TensorRT's version as a tuple of numbers, such as ``(10, 15, 1, 29)``."""
    return tuple(int(part) for part in trt.__version__.split(".") if part.isdigit())


def error_text(cuda: Any, code: int) -> str:
    """Return the CUDA driver's description of an error code."""
    text = ctypes.c_char_p()
    cuda.cuGetErrorString(code, ctypes.byref(text))
    return (text.value or b"unknown error").decode()
