"""Tests that large blocks are reused within the process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

MEASURE = """
import resource, sys
from stream.runner.loop import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work():
    blocks = [b"x" * 4_000_000 for _ in range(8)]
    del blocks
work()
before = faults()
for _ in range(10):
    work()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_keeping_freed_memory_causes_at_most_a_tenth_of_the_page_faults_of_the_default_allocator() -> None:
    faults = {
        mode: int(subprocess.run([sys.executable, "-c", MEASURE, mode], capture_output=True, check=True).stdout)
        for mode in ("keep", "default")
    }
    assert faults["keep"] * 10 < faults["default"]
