"""The backend that computes on a GPU with ONNX Runtime's CUDA provider, without TensorRT.

This backend needs the package ``onnxruntime-gpu``.
"""

from __future__ import annotations

import re

import onnxruntime as ort

from engines.backends.onnxruntime import OnnxRuntimeEngine
from engines.backends.tensorrt.probe import driver_reason
from engines.engine import Images, Outputs
from engines.exceptions import DeviceLost, InferenceFailed, ModelLoadFailed
from engines.repository.manifest import Model

_PROVIDER = "CUDAExecutionProvider"
_FATAL = frozenset({214, 220, 700, 702, 709, 710, *range(714, 720), 721, 999})
"""Values of ``cudaError_t`` after which every CUDA call of the process fails, according to NVIDIA's
``driver_types.h``."""


def unavailable_reason() -> str:
    """Return why this backend cannot be used on this machine, or an empty text if the backend can be used."""
    if _PROVIDER not in ort.get_available_providers():
        return (
            f"onnxruntime {ort.__version__} has no CUDA provider: "
            "replace the package onnxruntime by onnxruntime-gpu of the same version"
        )
    return driver_reason()


def device_error(text: str) -> DeviceLost | InferenceFailed:
    """Return DeviceLost if ``text`` names a fatal CUDA error, else InferenceFailed.

    ONNX Runtime writes a CUDA error as ``CUDA failure NUMBER`` into its error text.
    """
    codes = map(int, re.findall(r"CUDA failure (\d+)", text))
    return DeviceLost(text) if _FATAL.intersection(codes) else InferenceFailed(text)


class OnnxRuntimeCudaEngine(OnnxRuntimeEngine):
    """Engine that computes on the first GPU. Layers without a CUDA kernel run on the CPU.

    ONNX Runtime copies each batch from the slot to the GPU. If the engine has several workers, one batch is copied
    while another batch is computed.
    """

    PROVIDERS = (_PROVIDER, "CPUExecutionProvider")
    WARMS_UP_BESIDE_WORK = False  # a GPU warms up quickly, and is slow in batches of one image

    def __init__(self, workers: int = 1) -> None:
        super().__init__(workers, workers + 1)  # one more is filled while the GPU, and no core, computes the others

    def _load_impl(self, model: Model) -> None:
        super()._load_impl(model)
        assert self._session is not None  # noqa: S101  (narrows the type: load has set it)
        if _PROVIDER not in (found := self._session.get_providers()):
            raise ModelLoadFailed(
                f"model {model.manifest.id}: ONNX Runtime computes with {found}: expected {_PROVIDER}. "
                "The log of ONNX Runtime names the missing CUDA or cuDNN library"
            )

    def _infer_impl(self, images: Images) -> Outputs:
        try:
            return super()._infer_impl(images)
        except InferenceFailed as error:
            raise device_error(str(error)) from None

    def _trim_impl(self) -> None:
        """Do nothing, because the option that frees memory after a run applies only to the CPU's memory arena."""
