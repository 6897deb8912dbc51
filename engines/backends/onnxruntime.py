"""The ONNX Runtime backend on the CPU: the default without a GPU."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort

from engines.engine import Engine, Images, Outputs
from engines.exceptions import InferenceFailed, ModelLoadFailed
from engines.repository.manifest import Model


class OnnxRuntimeEngine(Engine):
    """Engine with one ONNX Runtime session and one thread.

    A node runs one engine per core, which is faster than one engine on all cores.
    """

    def __init__(self) -> None:
        super().__init__()
        self._session: ort.InferenceSession | None = None
        self._names: list[str] = []

    def _load_impl(self, model: Model) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only: the warnings report optimisations
        try:
            session = ort.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise ModelLoadFailed(f"model file {model.path}: {error}: expected an ONNX model") from None
        inputs = [(i.name, i.type) for i in session.get_inputs()]
        if inputs != [(model.manifest.input.name, "tensor(uint8)")]:
            raise ModelLoadFailed(
                f"model file {model.path}: inputs are {inputs}: "
                f"expected one uint8 input named {model.manifest.input.name}. "
                "Add a model with float inputs by `sightline models add`."
            )
        self._session, self._names = session, [o.name for o in session.get_outputs()]

    def _infer_impl(self, images: Images) -> Outputs:
        assert self._session is not None  # noqa: S101  (narrows the type: `infer` has checked)
        feed = {self.model.manifest.input.name: np.ascontiguousarray(images)}
        try:
            arrays = self._session.run(self._names, feed)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise InferenceFailed(str(error)) from None
        return dict(zip(self._names, arrays, strict=True))

    def _close_impl(self) -> None:
        self._session = None
