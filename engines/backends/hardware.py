"""Processors, NVIDIA GPUs and driver of this machine, read without the libraries of the backends."""

from __future__ import annotations

import ctypes
import functools
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.site.pipeline import Precision

INSTRUCTIONS: Mapping[Precision, tuple[str, ...]] = {
    "fp32": (),
    "bf16": ("amx_bf16", "avx512_bf16"),
    "fp16": ("amx_fp16", "avx512_fp16"),
    "int8": ("amx_int8", "avx512_vnni", "avx_vnni"),
}
"""Instructions that compute each precision faster than fp32, as flags of ``/proc/cpuinfo``; the fastest first."""

_CPUINFO = Path("/proc/cpuinfo")
_DRIVER = Path("/proc/driver/nvidia/version")
_NAME_BYTES = 256
_COMPUTE_CAPABILITY = (75, 76)
"""Major and minor compute capability, as ``CUdevice_attribute`` numbers of ``cuda.h``."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """An NVIDIA GPU."""

    name: str
    compute_capability: str
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Cuda:
    """Driver of the NVIDIA GPUs, and the GPUs. ``unavailable_reason`` is empty if CUDA can be used."""

    unavailable_reason: str
    driver: str = ""
    cuda: str = ""
    """Highest CUDA version that the driver supports."""
    gpus: tuple[Gpu, ...] = ()


def cpu_flags(cpuinfo: Path = _CPUINFO) -> frozenset[str]:
    """Return the instruction flags of the first processor; empty if the system does not list them."""
    return frozenset(_cpuinfo_field("flags", cpuinfo).split())


def cpu_name(cpuinfo: Path = _CPUINFO) -> str:
    """Return the name of the first processor."""
    return _cpuinfo_field("model name", cpuinfo) or "unknown"


def cpu_count() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def cuda() -> Cuda:
    """Return the state of CUDA. It is probed once in a process, because a failed ``cuInit`` is not tried again."""
    return probe_cuda()


def probe_cuda(load: Callable[[str], Any] = ctypes.CDLL) -> Cuda:
    """Ask the driver for its GPUs.

    ``load`` loads a shared library. Only the driver's own is loaded, because objects of TensorRT crash the process
    without a driver.
    """
    try:
        lib = load("libcuda.so.1")
    except OSError:
        return Cuda("no NVIDIA driver: libcuda.so.1 is not installed")
    if code := lib.cuInit(0):
        return Cuda(f"the NVIDIA driver finds no usable GPU: cuInit returned {code}", _driver_version())
    number = ctypes.c_int()
    lib.cuDriverGetVersion(ctypes.byref(number))
    cuda_version = f"{number.value // 1000}.{number.value % 1000 // 10}"
    lib.cuDeviceGetCount(ctypes.byref(number))
    gpus = tuple(_gpu(lib, index) for index in range(number.value))
    return Cuda("" if gpus else "the NVIDIA driver has no GPU", _driver_version(), cuda_version, gpus)


def _gpu(lib: Any, index: int) -> Gpu:
    device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES), ctypes.c_size_t()
    lib.cuDeviceGet(ctypes.byref(device), index)
    lib.cuDeviceGetName(name, _NAME_BYTES, device)
    lib.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    capability = []
    for attribute in _COMPUTE_CAPABILITY:
        number = ctypes.c_int()
        lib.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
        capability.append(str(number.value))
    return Gpu(name.value.decode(errors="replace"), ".".join(capability), memory.value)


def _driver_version(file: Path = _DRIVER) -> str:
    try:
        found = re.search(r"(\d+\.\d+(?:\.\d+)?)", file.read_text())
    except OSError:  # WSL and containers without the file
        return ""
    return found.group(1) if found else ""


def _cpuinfo_field(name: str, cpuinfo: Path) -> str:
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), "")
