"""Detection of the CPU, NVIDIA GPUs and NVIDIA driver of this machine, without the backends' libraries."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.backends.tensorrt.probe import driver_reason, load_driver
from ingest.runtime.cpus import cpu_count
from ingest.site.pipeline import Precision

_AMD = "AuthenticAMD"
INSTRUCTIONS: Mapping[Precision, tuple[tuple[str, str], ...]] = {
    "fp32": (),
    "bf16": (("amx_bf16", ""), ("avx512_bf16", _AMD)),
    "fp16": (("amx_fp16", ""),),
    "int8": (("amx_int8", ""), ("avx512_vnni", ""), ("avx_vnni", "")),
}
"""Map from a precision to the CPU instructions that compute this precision faster than fp32, fastest first.

Each instruction is a pair: a flag in ``/proc/cpuinfo``, and the vendor of the CPUs on which the instruction is fast.
An empty vendor stands for all vendors. On Intel's Sapphire Rapids without AMX, ResNet-18 takes 1.7 times as long in
bf16 or fp16 as in fp32 (decision 11)."""
_CPUINFO = Path("/proc/cpuinfo")
_DRIVER = Path("/proc/driver/nvidia/version")
_NAME_BYTES = 256
_COMPUTE_CAPABILITY = (75, 76)
"""Numbers of the ``CUdevice_attribute`` values for the major and the minor compute capability, from ``cuda.h``."""


def cpu_slots(workers: int, cores: int | None = None) -> int:
    """Return how many batches to have in progress in an engine that computes ``workers`` batches at once on the CPU.

    If a core is left, one more batch is filled or decoded while the others are computed. Without a free core, this
    batch would only take processor time from the others, and evict their data from the caches (decision 6). By
    default, ``cores`` is the number of cores that this process may use.
    """
    return workers + 1 if (cores or cpu_count()) > workers else workers


@dataclass(frozen=True, slots=True)
class Gpu:
    """An NVIDIA GPU."""

    name: str
    compute_capability: str
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Cuda:
    """The NVIDIA driver and the GPUs of this machine. ``unavailable_reason`` is empty if CUDA can be used."""

    unavailable_reason: str
    driver: str = ""
    cuda: str = ""
    """Highest CUDA version that the driver supports."""
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True, slots=True)
class Cpu:
    """Processor of this machine. ``flags`` are the flags in ``/proc/cpuinfo``, or empty if the system lists none."""

    name: str
    vendor: str
    flags: frozenset[str]

    def instruction(self, precision: Precision) -> str:
        """Return the CPU's instruction that computes ``precision`` faster than fp32, or an empty text."""
        for flag, vendor in INSTRUCTIONS[precision]:
            if flag in self.flags and vendor in ("", self.vendor):
                return flag
        return ""


def processor(cpuinfo: Path = _CPUINFO) -> Cpu:
    """Return the name, vendor and flags of the first processor in ``/proc/cpuinfo``."""
    try:
        lines = [line.partition(":") for line in cpuinfo.read_text().splitlines()]
    except OSError:
        lines = []
    fields = {key.strip(): value.strip() for key, _, value in reversed(lines)}
    flags = frozenset(fields.get("flags", "").split())
    return Cpu(fields.get("model name", "unknown"), fields.get("vendor_id", ""), flags)


def cuda(load: Callable[[], Any] = load_driver) -> Cuda:
    """Return the NVIDIA driver and the GPUs of this machine. ``load`` returns the CUDA driver's library."""
    if reason := driver_reason():
        return Cuda(reason, _driver_version())
    lib, number = load(), ctypes.c_int()
    lib.cuDriverGetVersion(ctypes.byref(number))
    cuda_version = f"{number.value // 1000}.{number.value % 1000 // 10}"
    lib.cuDeviceGetCount(ctypes.byref(number))
    gpus = tuple(_gpu(lib, index) for index in range(number.value))
    return Cuda("", _driver_version(), cuda_version, gpus)


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
    except OSError:  # WSL and some containers do not have the file
        return ""
    return found.group(1) if found else ""
