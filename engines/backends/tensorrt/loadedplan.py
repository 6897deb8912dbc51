"""A TensorRT plan loaded into memory: its inputs, its outputs and its execution contexts.

Use the objects of this module only in the GPU thread.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from engines.backends.tensorrt.device import row_bytes
from engines.exceptions import GpuError, ModelLoadFailed
from engines.repository.manifest import Model


class TensorSpec(NamedTuple):
    """Name, shape and type of an input or output of a plan. The first axis of the shape is the batch."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        """Size of the data of one batch item, in bytes."""
        return row_bytes(self.shape, self.dtype)


class LoadedPlan:
    """A TensorRT engine and the TensorRT runtime that the engine needs.

    The constructor raises ModelLoadFailed if the inputs or outputs of the engine do not suit the model.
    """

    def __init__(self, trt: Any, logger: Any, runtime: Any, engine: Any, model: Model) -> None:
        self._trt, self._logger, self._runtime, self._engine = trt, logger, runtime, engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        if inputs != [model.manifest.input.name]:
            raise ModelLoadFailed(
                f"model {model.manifest.id}: the inputs of the TensorRT plan are {inputs}: expected "
                f"{model.manifest.input.name}"
            )
        self.input = self._spec(inputs[0], model)
        self.outputs = [self._spec(name, model) for name in names if name not in inputs]

    @property
    def scratch_bytes(self) -> int:
        """GPU memory that an execution context needs during a computation, in bytes."""
        return int(self._engine.device_memory_size_v2)

    def context(self) -> Any | None:
        """Return a new execution context without scratch memory, which the caller must provide.

        Return None if TensorRT cannot create the context.
        """
        return self._engine.create_execution_context(self._trt.ExecutionContextAllocationStrategy.USER_MANAGED)

    def recent_errors(self) -> str:
        """Return the last error messages that TensorRT has logged, as one text."""
        return str(self._logger.recent())

    def close(self) -> None:
        """Destroy the TensorRT engine, then its runtime.

        The caller must have destroyed all execution contexts before this call.
        """
        self._engine = None
        self._runtime = None

    def _spec(self, name: str, model: Model) -> TensorSpec:
        shape = tuple(int(size) for size in self._engine.get_tensor_shape(name))
        try:
            dtype = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))
        except TypeError:  # bfloat16 and 8-bit floats
            raise ModelLoadFailed(
                f"model {model.manifest.id}: tensor {name} has a type that NumPy lacks: expected a float32 output"
            ) from None
        if not shape or shape[0] not in (-1, 1) or min(shape[1:], default=1) < 1:
            raise ModelLoadFailed(
                f"model {model.manifest.id}: tensor {name} has the shape {shape}: expected a batch axis and fixed "
                "sizes. Export the model without non-maximum suppression, or serve it with onnxruntime"
            )
        return TensorSpec(name, shape, dtype)


def deserialise(trt: Any, logger: Any, plan: bytes, model: Model) -> LoadedPlan | None:
    """Load a plan.

    Return None if TensorRT refuses the plan, for example because another TensorRT version or GPU built the plan.
    """
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    return None if engine is None else LoadedPlan(trt, logger, runtime, engine, model)


class BoundContext:
    """A TensorRT execution context with fixed buffer addresses.

    The input shape is set only when the batch size changes.

    The constructor raises GpuError if TensorRT cannot create the execution context.
    """

    def __init__(self, plan: LoadedPlan, addresses: dict[str, int], scratch: int) -> None:
        self._plan, self._rows = plan, 0
        context: Any = plan.context()
        if context is None:
            raise GpuError(f"TensorRT cannot create an execution context: {plan.recent_errors()}")
        self._context = context
        if plan.scratch_bytes:
            context.set_device_memory(scratch, plan.scratch_bytes)
        for name, address in addresses.items():
            if not self._context.set_tensor_address(name, address):
                raise GpuError(f"TensorRT refuses the memory address of tensor {name}: {plan.recent_errors()}")

    def execute(self, rows: int, stream: int) -> bool:
        """Start the computation of the first ``rows`` batch items on a CUDA stream.

        Return False if TensorRT refuses the call.
        """
        if rows != self._rows:
            self._rows = 0
            if not self._context.set_input_shape(self._plan.input.name, (rows, *self._plan.input.shape[1:])):
                return False
            self._rows = rows
        return bool(self._context.execute_async_v3(stream))
