"""A fake ``tensorrt`` module on a FakeDevice.

The module has the names that the backend uses, and computes by ONNX Runtime.

A plan is a header and the ONNX file. As with the real module, errors are logged, and calls return False or None.
"""

from __future__ import annotations

import enum
import json
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from tests.engines.backends.tensorrt.fakedevice import ALIGNMENT, FakeDevice, FakeWork

SCRATCH_BYTES = 4096
BUILD_STEPS = 3

DataType = enum.Enum("DataType", ["FLOAT", "HALF", "UINT8", "INT64", "BF16"])
TensorIOMode = enum.Enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", ["STRONGLY_TYPED"])
BuilderFlag = enum.Enum("BuilderFlag", ["TF32"])
MemoryPoolType = enum.Enum("MemoryPoolType", ["WORKSPACE"])
ProfilingVerbosity = enum.Enum("ProfilingVerbosity", ["DETAILED"])
ExecutionContextAllocationStrategy = enum.Enum("ExecutionContextAllocationStrategy", ["STATIC", "USER_MANAGED"])
_NUMPY = {DataType.FLOAT: np.float32, DataType.HALF: np.float16, DataType.UINT8: np.uint8, DataType.INT64: np.int64}
_ONNX = {"tensor(float)": DataType.FLOAT, "tensor(float16)": DataType.HALF, "tensor(uint8)": DataType.UINT8}


class FakeILogger:
    INTERNAL_ERROR, ERROR, WARNING = range(3)

    def log(self, severity: int, msg: str) -> None:
        raise RuntimeError('Tried to call pure virtual function "ILogger::log"')  # as the real binding does


class FakeMonitorBase:
    pass


class FakeContext:
    def __init__(self, engine: FakeCudaEngine) -> None:
        self._engine, self._gpu = engine, engine.gpu
        self._addresses: dict[str, int] = {}
        self._rows = 0
        self._scratch = 0
        self._last: FakeWork | None = None
        engine.module.alive.add(self)

    def set_device_memory(self, memory: int, size: int) -> None:
        self._scratch = memory if size >= SCRATCH_BYTES else 0

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self._engine.tensors or memory % ALIGNMENT:
            return self._engine.refuse(f"setTensorAddress: {name} at {memory:#x}")
        self._addresses[name] = memory
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        smallest, largest = self._engine.header["min"], self._engine.header["max"]
        if shape[1:] != tuple(smallest[1:]) or not smallest[0] <= shape[0] <= largest[0]:
            return self._engine.refuse(f"setInputShape: {shape} is outside of the profile")
        self._rows = shape[0]
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        with self._gpu.calling():
            if self._engine.module.refuse_next:
                self._engine.module.refuse_next -= 1
                return self._engine.refuse("enqueueV3: a layer failed")
            if self._addresses.keys() != self._engine.tensors.keys() or not self._scratch or not self._rows:
                return self._engine.refuse("enqueueV3: an address, the scratch memory or the input shape is not set")
            if self._last is not None and not self._last.done:
                return self._engine.refuse("enqueueV3: the context is in use")
            stream, rows, addresses = self._gpu.streams[stream_handle], self._rows, dict(self._addresses)
            engine = self._engine
            work = FakeWork(lambda: engine.compute(rows, addresses))
            self._gpu.enqueue(stream, work)
            if stream.captured is None:
                self._last = work
            return True


class FakeCudaEngine:
    def __init__(self, module: FakeTensorRt, logger: FakeILogger, header: dict[str, Any], model: bytes) -> None:
        self.module, self.gpu, self.header = module, module.gpu, header
        self._logger = logger
        self._session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        self._inputs = {i.name: i for i in self._session.get_inputs()}
        self.tensors = {**self._inputs, **{o.name: o for o in self._session.get_outputs()}}
        module.alive.add(self)

    device_memory_size_v2 = SCRATCH_BYTES

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(size if isinstance(size, int) else -1 for size in self.tensors[name].shape)

    def get_tensor_dtype(self, name: str) -> DataType:
        return _ONNX.get(self.tensors[name].type, DataType.BF16)

    def create_execution_context(self, strategy: ExecutionContextAllocationStrategy) -> FakeContext | None:
        with self.gpu.calling():
            if strategy != ExecutionContextAllocationStrategy.USER_MANAGED or not self.module.contexts_left:
                self.refuse("createExecutionContext: out of memory")
                return None
            self.module.contexts_left -= 1
            return FakeContext(self)

    def refuse(self, text: str) -> bool:
        self._logger.log(FakeILogger.ERROR, text)
        return False

    def compute(self, rows: int, addresses: dict[str, int]) -> None:
        (name, given), *_ = self._inputs.items()
        shape = (rows, *given.shape[1:])
        pixels = self.gpu.bytes_at(addresses[name], int(np.prod(shape))).reshape(shape)
        outputs = [output for output in self.tensors if output not in self._inputs]
        for output, array in zip(outputs, self._session.run(outputs, {name: pixels}), strict=True):
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            self.gpu.bytes_at(addresses[output], data.nbytes)[:] = data


class FakeRuntime:
    def __init__(self, module: FakeTensorRt, logger: FakeILogger) -> None:
        self._module, self._logger = module, logger
        module.alive.add(self)

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> FakeCudaEngine | None:
        with self._module.gpu.calling():
            head, _, model = serialized_engine.partition(b"\n")
            try:
                header = json.loads(head)
            except ValueError:
                header = {}
            if header.get("built_for") != self._module.built_for:
                self._logger.log(FakeILogger.ERROR, "deserializeCudaEngine: the plan is of another version or device")
                return None
            return FakeCudaEngine(self._module, self._logger, header, model)


class FakeNetwork:
    def __init__(self) -> None:
        self.model = b""
        self._inputs: list[SimpleNamespace] = []

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    def get_input(self, index: int) -> SimpleNamespace:
        return self._inputs[index]

    def read(self, path: Path) -> None:
        self.model = path.read_bytes()
        for given in ort.InferenceSession(self.model, providers=["CPUExecutionProvider"]).get_inputs():
            shape = tuple(size if isinstance(size, int) else -1 for size in given.shape)
            self._inputs.append(SimpleNamespace(name=given.name, dtype=_ONNX[given.type], shape=shape))


class FakeParser:
    def __init__(self, network: FakeNetwork, logger: FakeILogger) -> None:
        self._network = network
        self._errors: list[str] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        text = self._errors[index]
        return SimpleNamespace(node_operator=lambda: "", node_name=lambda: "", desc=lambda: text)

    def parse_from_file(self, model: str) -> bool:
        try:
            onnx.load(model)
            self._network.read(Path(model))
        except Exception as error:
            self._errors.append(str(error))
        return not self._errors


class FakeProfile:
    _shapes: tuple[tuple[int, ...], ...] = ()

    def set_shape(
        self,
        input: str,  # noqa: A002
        min: tuple[int, ...],  # noqa: A002
        opt: tuple[int, ...],
        max: tuple[int, ...],  # noqa: A002
    ) -> None:
        self._shapes = (min, opt, max)


class FakeConfig:
    def __init__(self, module: FakeTensorRt) -> None:
        self._module = module
        self.progress_monitor: Any = None
        self.profile: FakeProfile | None = None
        self._timings = b""

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self.workspace = pool_size

    def clear_flag(self, flag: BuilderFlag) -> None:
        self._module.cleared.append(flag.name)

    def add_optimization_profile(self, profile: FakeProfile) -> int:
        smallest, best, largest = profile._shapes
        self.profile = profile if smallest <= best <= largest else None
        return 0 if self.profile else -1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> bytes:
        return serialized_timing_cache

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        self._timings = cache
        return cache in (b"", self._module.built_for.encode())

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: self._module.built_for.encode())


class FakeBuilder:
    def __init__(self, module: FakeTensorRt, logger: FakeILogger) -> None:
        self._module, self._logger = module, logger

    def create_network(self, flags: int) -> FakeNetwork:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return FakeNetwork()

    def create_builder_config(self) -> FakeConfig:
        return FakeConfig(self._module)

    def create_optimization_profile(self) -> FakeProfile:
        return FakeProfile()

    def build_serialized_network(self, network: FakeNetwork, config: FakeConfig) -> bytes | None:
        with self._module.gpu.calling():
            self._module.builds += 1
            monitor = config.progress_monitor
            monitor.phase_start("Building", "", BUILD_STEPS)
            going_on = all(monitor.step_complete("Building", step) for step in range(BUILD_STEPS))
            monitor.phase_finish("Building")
            if not going_on or self._module.fail_build or config.profile is None:
                self._logger.log(FakeILogger.ERROR, "buildSerializedNetwork: no implementation for a node")
                return None
            smallest, _, largest = config.profile._shapes
            header = {"built_for": self._module.built_for, "min": smallest, "max": largest}
            return json.dumps(header).encode() + b"\n" + network.model


class FakeTensorRt:
    """The module.

    ``refuse_next`` is the number of executions to refuse. ``alive`` counts engines, contexts and runtimes.
    """

    ILogger, IProgressMonitor = FakeILogger, FakeMonitorBase
    DataType, TensorIOMode, MemoryPoolType = DataType, TensorIOMode, MemoryPoolType
    BuilderFlag = BuilderFlag
    NetworkDefinitionCreationFlag, ProfilingVerbosity = NetworkDefinitionCreationFlag, ProfilingVerbosity
    ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy
    OnnxParser = FakeParser

    def __init__(self, gpu: FakeDevice, version: str = "10.15.1.29") -> None:
        self.gpu, self.__version__ = gpu, version
        self.builds = self.refuse_next = 0
        self.contexts_left = 1000
        self.cleared: list[str] = []
        self.fail_build = False
        self.alive: weakref.WeakSet[Any] = weakref.WeakSet()

    @property
    def built_for(self) -> str:
        return f"{self.__version__} {self.gpu.compute_capability}"

    def Builder(self, logger: FakeILogger) -> FakeBuilder:
        with self.gpu.calling():
            return FakeBuilder(self, logger)

    def Runtime(self, logger: FakeILogger) -> FakeRuntime:
        with self.gpu.calling():
            return FakeRuntime(self, logger)

    def nptype(self, dtype: DataType) -> Any:
        if dtype not in _NUMPY:
            raise TypeError("Could not resolve TensorRT datatype to an equivalent numpy datatype.")
        return _NUMPY[dtype]
