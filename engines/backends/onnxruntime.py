"""The ONNX Runtime backend, which computes on the CPU and is the default on machines without a GPU."""

from __future__ import annotations

from typing import ClassVar

import onnxruntime as ort

from engines.backends.blocking import BlockingEngine
from engines.engine import Images, Outputs
from engines.exceptions import InferenceFailed, ModelLoadFailed
from engines.repository.manifest import Model


def unavailable_reason() -> str:
    """Return an empty text, because ONNX Runtime is always installed and runs on every machine."""
    return ""


class OnnxRuntimeEngine(BlockingEngine):
    """Engine with one ONNX Runtime session, so that all workers share the model's weights in memory.

    Each worker computes a whole batch on one core. Several batches in parallel, each on one core, reach a higher
    throughput than one batch at a time on all cores.
    """

    PROVIDERS: ClassVar[tuple[str, ...]] = ("CPUExecutionProvider",)
    """Execution providers of ONNX Runtime, in the order of preference."""
    WARMS_UP_BESIDE_WORK = True

    def __init__(self, workers: int = 1, slots: int | None = None) -> None:
        super().__init__(workers, slots)
        self._session: ort.InferenceSession | None = None
        self._input = ""
        self._names: list[str] = []

    def _load_impl(self, model: Model) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only: the warnings report optimisations
        try:
            session = ort.InferenceSession(str(model.path), options, providers=list(self.PROVIDERS))
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise ModelLoadFailed(f"model file {model.path}: {error}: expected an ONNX model") from None
        inputs = [(i.name, i.type) for i in session.get_inputs()]
        if inputs != [(model.manifest.input.name, "tensor(uint8)")]:
            raise ModelLoadFailed(
                f"model file {model.path}: inputs are {inputs}: "
                f"expected one uint8 input named {model.manifest.input.name}. "
                "Add a model with float inputs by `sightline models add`."
            )
        self._session, self._input = session, model.manifest.input.name
        self._names = [o.name for o in session.get_outputs()]

    def _infer_impl(self, images: Images) -> Outputs:
        return self._run(images, None)

    def _run(self, images: Images, options: ort.RunOptions | None) -> Outputs:
        assert self._session is not None  # noqa: S101  (narrows the type: the base class has checked)
        try:
            arrays = self._session.run(self._names, {self._input: images}, options)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise InferenceFailed(str(error)) from None
        return dict(zip(self._names, arrays, strict=True))

    def _trim_impl(self) -> None:
        options = ort.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        with self.slot() as slot:
            self._run(slot.pixels[:1], options)

    def _close_impl(self) -> None:
        self._session = None
