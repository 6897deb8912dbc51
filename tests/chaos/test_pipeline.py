"""Test of the peak memory that the pipeline benchmark reports."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.pipeline import peak_memory_mb

GROWS_AND_SHRINKS = """
import mmap, sys
block = mmap.mmap(-1, 100_000_000)
block.write(b"x" * len(block))
block.close()
print("done", flush=True)
sys.stdin.read()
"""


def test_the_peak_memory_of_a_process_is_known_after_its_memory_shrinks() -> None:
    argv = [sys.executable, "-S", "-c", GROWS_AND_SHRINKS]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stdin
        child.stdout.readline()
        assert 100.0 < peak_memory_mb(child.pid) < 400.0
        child.stdin.close()
        child.wait()
        assert peak_memory_mb(child.pid) == 0.0
