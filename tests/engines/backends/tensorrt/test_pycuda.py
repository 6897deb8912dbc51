"""Tests of the device interface on the real pycuda, with a stub of the CUDA driver: names, flags, order and exit.

The stub is compiled here. Its functions succeed and do nothing, so that no test shows that CUDA accepts the calls.
Needs `make tensorrt`, a C compiler and `nm`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.paths import ROOT

pytestmark = pytest.mark.tensorrt
GRAPH_CALLS = {"cuGraphLaunch", "cuGraphExecDestroy", "cuGraphDestroy", "cuStreamBeginCapture_v2", "cuInit"}
STUB = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int cuDeviceGetCount(int *n) { *n = 1; return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return 0; }
int cuDeviceGetName(char *b, int n, int d) { strcpy(b, "stub"); return 0; }
int cuDeviceComputeCapability(int *a, int *b, int d) { *a = 9; *b = 0; return 0; }
int cuDevicePrimaryCtxRetain(void **c, int d) { *c = (void *)1; return 0; }
int cuMemGetInfo_v2(size_t *free, size_t *total) { *free = 5; *total = 9; return 0; }
int cuMemAlloc_v2(unsigned long long *p, size_t n) { *p = 0x7000; return 0; }
int cuMemHostAlloc(void **p, size_t n, unsigned f) { *p = malloc(n); return 0; }
int cuMemFreeHost(void *p) { free(p); return 0; }
int cuStreamCreate(void **s, unsigned f) { *s = (void *)(long)(0x50 + f); return 0; }
int cuEventCreate(void **e, unsigned f) { printf("event %u\n", f); *e = (void *)3; return 0; }
int cuGetErrorString(int c, const char **s) { *s = "an illegal memory access"; return 0; }
int cuStreamEndCapture(void *s, void **g) { *g = (void *)7; return 0; }
int cuGraphInstantiateWithFlags(void **e, void *g, unsigned long long f) { *e = (void *)8; return 0; }
int cuMemcpyHtoDAsync_v2(unsigned long long d, const void *h, size_t n, void *s)
{ printf("in %llx %zu %p\n", d, n, s); return 0; }
int cuMemcpyDtoHAsync_v2(void *h, unsigned long long d, size_t n, void *s)
{ printf("out %llx %zu %p\n", d, n, s); return 0; }
int cuEventSynchronize(void *e) { printf("waited\n"); return 0; }
int cuCtxSynchronize(void) { return getenv("STICKY") ? 700 : 0; }
"""
PROGRAM = """
import ctypes
import numpy as np
from engines.backends.tensorrt.gputhread import gpu_thread
from engines.exceptions import DeviceLost, GpuError, InferenceFailed

gpu = gpu_thread(0)
device = gpu.device
print(device.name, device.compute_capability, *gpu.call(device.memory), flush=True)


def use():
    buffer, pixels = device.allocate(64), device.pin((2, 4, 4, 3), np.uint8)
    stream, event = device.stream(), device.event()

    def copy():
        device.copy_in(buffer, pixels[:1], stream)
        device.copy_out(pixels[:1], buffer, stream)
        return True

    graph = device.capture(stream, copy)
    graph.launch(stream)
    device.record(event, stream)
    device.wait(event)
    graph.close()
    buffer.free()


def fail():
    raise GpuError("boom")


gpu.call(use)
for sticky in (False, True):
    if sticky:
        ctypes.CDLL(None).setenv(b"STICKY", b"1", 1)
    try:
        gpu.call(fail)
    except (DeviceLost, InferenceFailed) as error:
        print(type(error).__name__, error)
"""


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    found = find_spec("pycuda")
    if found is None or not found.submodule_search_locations or not shutil.which("nm") or not shutil.which("gcc"):
        pytest.skip("pycuda, gcc or nm is missing: run make tensorrt")
    module = next(Path(found.submodule_search_locations[0]).glob("_driver*.so"))
    listed = subprocess.run(["nm", "-D", "--undefined-only", module], capture_output=True, text=True, check=True)
    needed = {line.split()[-1] for line in listed.stdout.splitlines() if line.split()[-1].startswith("cu")}
    others = [f"int {name}() {{ return 0; }}" for name in sorted(needed | GRAPH_CALLS) if f" {name}(" not in STUB]
    (tmp_path / "stub.c").write_text(STUB + "\n".join(others))
    library = tmp_path / "libcuda.so.1"
    subprocess.run(["gcc", "-w", "-shared", "-fPIC", "-o", library, tmp_path / "stub.c"], check=True)
    return tmp_path


def test_the_pycuda_device_makes_the_expected_cuda_calls_and_its_process_ends_cleanly(driver: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        cwd=ROOT,
        env={**os.environ, "LD_LIBRARY_PATH": str(driver)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == sorted(
        [
            "stub (9, 0) 5 9",
            "event 3",  # DISABLE_TIMING and BLOCKING_SYNC
            "in 7000 48 0x51",  # one row, on a non-blocking stream
            "out 7000 48 0x51",
            "waited",
            "InferenceFailed boom",
            "DeviceLost stub: cuCtxSynchronize failed: an illegal memory access",
        ]
    )
