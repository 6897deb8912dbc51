"""Tests of the fake CUDA device: misuse fails as on a real device."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from engines.exceptions import GpuError
from tests.engines.backends.tensorrt.fakedevice import GARBAGE, FakeDevice


@pytest.fixture
def gpu() -> Iterator[FakeDevice]:
    gpu = FakeDevice(total_bytes=1 << 16)
    with gpu.current():
        yield gpu


def test_a_copy_on_the_fake_gpu_is_valid_only_after_its_cuda_event(gpu: FakeDevice) -> None:
    source, target = gpu.pin((4,), np.uint8), gpu.pin((4,), np.uint8)
    buffer, stream, event = gpu.allocate(4), gpu.stream(), gpu.event()
    source[:] = 7
    gpu.copy_in(buffer, source, stream)
    gpu.copy_out(target, buffer, stream)
    gpu.record(event, stream)
    assert (target == GARBAGE).all()
    gpu.wait(event)
    assert (target == 7).all()


def test_writing_to_the_source_of_a_gpu_copy_before_its_event_spoils_the_copy(gpu: FakeDevice) -> None:
    source, buffer, stream = gpu.pin((4,), np.uint8), gpu.allocate(4), gpu.stream()
    source[:] = 7
    gpu.copy_in(buffer, source, stream)
    source[:] = 9
    gpu.check()
    assert (gpu.heap[buffer.address] == 9).all()


def test_a_thread_without_the_cuda_context_cannot_use_the_fake_gpu(gpu: FakeDevice) -> None:
    errors: list[str] = []

    def use() -> None:
        try:
            gpu.allocate(1)
        except GpuError as error:
            errors.append(str(error))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert errors == ["invalid device context"]


def test_using_a_freed_gpu_address_breaks_the_cuda_context_permanently(gpu: FakeDevice) -> None:
    source, buffer, stream = gpu.pin((4,), np.uint8), gpu.allocate(4), gpu.stream()
    buffer.free()
    gpu.copy_in(buffer, source, stream)
    for call in (gpu.check, gpu.memory, gpu.stream):
        with pytest.raises(GpuError, match="illegal memory access"):
            call()


def test_fake_gpu_memory_is_limited_and_can_be_freed_only_once(gpu: FakeDevice) -> None:
    with pytest.raises(GpuError, match="out of memory"):
        gpu.allocate(gpu.total_bytes + 1)
    buffer = gpu.allocate(gpu.total_bytes)
    buffer.free()
    with pytest.raises(GpuError, match="invalid argument"):
        buffer.free()


def test_a_closed_fake_gpu_cannot_be_used(gpu: FakeDevice) -> None:
    gpu.close()
    with pytest.raises(GpuError, match="invalid device context"):
        gpu.memory()


def test_an_allocation_during_a_cuda_graph_capture_spoils_the_capture(gpu: FakeDevice) -> None:
    stream = gpu.stream()
    assert gpu.capture(stream, lambda: bool(gpu.allocate(1))) is None
    assert gpu.capture(stream, lambda: True) is not None


def test_a_destroyed_cuda_graph_cannot_be_launched(gpu: FakeDevice) -> None:
    stream = gpu.stream()
    graph = gpu.capture(stream, lambda: True)
    assert graph is not None
    graph.close()
    with pytest.raises(GpuError, match="invalid resource handle"):
        graph.launch(stream)
