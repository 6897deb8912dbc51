"""The GPU objects of one batch slot: its stream, its buffers, its execution contexts and its CUDA graphs.

Threads other than the GPU thread may use only ``pixels``, ``event`` and ``outputs`` of a SlotWork.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from engines.backends.tensorrt.device import DeviceBuffer, GpuDevice, Graph
from engines.backends.tensorrt.hotsizes import HotSizes
from engines.backends.tensorrt.loadedplan import BoundContext, LoadedPlan
from engines.engine import Images, Outputs
from engines.exceptions import GpuError


class SlotMemory(NamedTuple):
    """Memory that one batch slot uses, in bytes."""

    device_bytes: int
    pinned_bytes: int


@dataclass(slots=True)
class HotContext:
    """Execution context of one frequent batch size, and the CUDA graph that the second run records.

    ``refused`` is true if CUDA cannot record the run as a graph.
    """

    context: BoundContext | None
    graph: Graph | None = None
    ran: bool = False
    refused: bool = False


class SlotWork:
    """Runs the batches of one slot on its own CUDA stream.

    The buffers keep their addresses, because CUDA graphs contain the addresses.

    If the input shape of an execution context changes, graphs recorded with this context become invalid. Each
    recorded graph has its own execution context, which NVIDIA recommends (github.com/NVIDIA/TensorRT/issues/3798).
    All execution contexts of a slot share one scratch buffer, because the stream of the slot runs one batch at a
    time. Raise GpuError.
    """

    def __init__(self, device: GpuDevice, plan: LoadedPlan, hot: HotSizes, shape: tuple[int, int, int, int]) -> None:
        self._device, self._plan, self._hot_sizes = device, plan, hot
        self._hot: dict[int, HotContext] = {}
        self._buffers: list[DeviceBuffer] = []
        self._context: BoundContext | None = None
        rows = shape[0]
        self._stream = device.stream()
        self.event = device.event()
        self.pixels: Images = device.pin(shape, np.uint8)
        self.pixels[:] = 0
        self._results = {spec.name: device.pin((rows, *spec.shape[1:]), spec.dtype) for spec in plan.outputs}
        try:
            self._input = self._allocate(rows * plan.input.row_bytes)
            self._outputs = {spec.name: self._allocate(rows * spec.row_bytes) for spec in plan.outputs}
            self._scratch = self._allocate(plan.scratch_bytes)
            self._context = self._bound_context()
        except GpuError:
            self.close()
            raise

    def start(self, rows: int) -> None:
        """Start the copy of a batch to the GPU, its computation, and the copy of the outputs to the host.

        ``event`` happens when the copy of the outputs is finished.
        """
        self._hot_sizes.note(rows)
        hot = self._hot_context(rows)
        if hot is None or hot.context is None:
            self._require(self._start(self._context, rows))
        elif hot.graph is not None:
            hot.graph.launch(self._stream)
        elif not hot.ran or hot.refused:  # the first run sets the shape, which a capture must not contain
            self._require(self._start(hot.context, rows))
            hot.ran = True
        else:
            hot.graph = self._device.capture(self._stream, lambda: self._start(hot.context, rows))
            hot.refused = hot.graph is None
            if hot.graph is not None:
                hot.graph.launch(self._stream)
            else:
                self._require(self._start(hot.context, rows))
        self._device.record(self.event, self._stream)

    def outputs(self, rows: int) -> Outputs:
        """Return the outputs of a finished batch as views of pinned memory.

        Outputs of type float16 are copied to float32.
        """
        return {
            name: array[:rows].astype(np.float32 if array.dtype == np.float16 else array.dtype, copy=False)
            for name, array in self._results.items()
        }

    @property
    def memory(self) -> SlotMemory:
        """Memory that the slot uses on the GPU and in pinned host memory."""
        pinned = self.pixels.nbytes + sum(array.nbytes for array in self._results.values())
        return SlotMemory(sum(buffer.nbytes for buffer in self._buffers), pinned)

    @property
    def graphs(self) -> list[int]:
        """Batch sizes that have a CUDA graph, sorted."""
        return sorted(rows for rows, hot in self._hot.items() if hot.graph is not None)

    def close(self) -> None:
        """Destroy the graphs and execution contexts, and free the buffers.

        The caller must make sure that no batch is running.
        """
        graphs = [hot.graph for hot in self._hot.values() if hot.graph is not None]
        self._hot.clear()
        self._context = None
        buffers, self._buffers = self._buffers, []
        self._results = {}
        self.pixels = np.empty((0, *self.pixels.shape[1:]), np.uint8)
        del self._stream, self.event
        for graph in graphs:
            graph.close()
        for buffer in buffers:
            buffer.free()

    def _start(self, context: BoundContext | None, rows: int) -> bool:
        if context is None:
            return False
        self._device.copy_in(self._input, self.pixels[:rows], self._stream)
        if not context.execute(rows, self._stream.handle):
            return False
        for name, buffer in self._outputs.items():
            self._device.copy_out(self._results[name][:rows], buffer, self._stream)
        return True

    def _hot_context(self, rows: int) -> HotContext | None:
        """Return the execution context of a frequent batch size, or None for other sizes.

        Destroy the contexts and graphs of sizes that are no longer frequent.
        """
        for cold in self._hot.keys() - self._hot_sizes.sizes:
            graph = self._hot.pop(cold).graph
            if graph is not None:
                graph.close()
        if rows not in self._hot_sizes.sizes:
            return None
        if rows not in self._hot:
            try:
                self._hot[rows] = HotContext(self._bound_context())
            except GpuError:  # little memory is left: the batch size keeps the common context
                self._hot[rows] = HotContext(None)
        return self._hot[rows]

    def _bound_context(self) -> BoundContext:
        addresses = {name: buffer.address for name, buffer in self._outputs.items()}
        return BoundContext(
            self._plan, {self._plan.input.name: self._input.address, **addresses}, self._scratch.address
        )

    def _allocate(self, nbytes: int) -> DeviceBuffer:
        buffer = self._device.allocate(nbytes)
        self._buffers.append(buffer)
        return buffer

    def _require(self, started: bool) -> None:
        if not started:
            raise GpuError(f"TensorRT refuses the batch: {self._plan.recent_errors()}")
