"""Test of the limit of the C library's memory pools."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

COUNT_ARENAS = """
import ctypes, sys, threading
from ingest.runtime.arenas import limit_arenas
if sys.argv[1] == "limited":
    assert limit_arenas()
threads = 6
together = threading.Barrier(threads)
def work():
    block = bytearray(100_000)
    together.wait()
    del block
workers = [threading.Thread(target=work) for _ in range(threads)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
stdout = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, stdout)
libc.fflush(stdout)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_the_threads_of_a_process_share_two_malloc_arenas() -> None:
    arenas = {
        mode: subprocess.run(
            [sys.executable, "-c", COUNT_ARENAS, mode], capture_output=True, check=True
        ).stdout.count(b"<heap nr=")
        for mode in ("limited", "default")
    }
    assert arenas["limited"] <= 2 < arenas["default"]
