"""Tests of the detection of this machine's hardware."""

from __future__ import annotations

import os

import pytest

from engines.backends import make
from engines.backends.hardware import cpu_slots
from ingest.runtime.cpus import cpu_count


@pytest.mark.parametrize(("workers", "cores", "slots"), [(1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 3, 3), (4, 2, 4)])
def test_one_batch_more_is_in_progress_only_if_a_core_is_left(workers: int, cores: int, slots: int) -> None:
    assert cpu_slots(workers, cores) == slots


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "fake"])
def test_an_engine_with_a_worker_per_core_has_no_further_slot(backend: str) -> None:
    cores = cpu_count()
    assert make(backend, cores).slot_count == cores
    assert make(backend, cores + 1).slot_count == cores + 1


def test_a_core_that_the_process_may_not_use_is_not_left_for_one_batch_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert (cpu_slots(1), cpu_slots(2)) == (2, 2)


def test_an_engine_on_a_gpu_has_a_further_slot_whatever_the_number_of_cores() -> None:
    cores = cpu_count()
    assert make("onnxruntime-cuda", cores).slot_count == cores + 1
