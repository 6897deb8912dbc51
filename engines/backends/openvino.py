"""The OpenVINO backend, which computes on the CPU in bf16, fp16 or int8 if the CPU has fast instructions.

This backend needs the optional dependency ``sightline[openvino]``. In fp32, OpenVINO is no faster than ONNX Runtime.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from engines.backends.hardware import cpu_slots, processor
from engines.backends.openvinograph import rewrite
from engines.engine import CHANNELS, Engine, Images, Outputs, Slot
from engines.exceptions import InferenceFailed, ModelLoadFailed
from engines.repository.manifest import Model
from ingest.site.pipeline import Precision

if TYPE_CHECKING:
    import openvino

_CAPABILITIES: Mapping[Precision, str] = {"bf16": "BF16", "fp16": "FP16"}
"""Map from a precision to its name in OpenVINO's device property ``OPTIMIZATION_CAPABILITIES``."""
_HINTS: Mapping[Precision, str] = {"bf16": "bf16", "fp16": "f16"}
"""Map from a precision to the value of OpenVINO's ``INFERENCE_PRECISION_HINT``, which is f32 for all other
precisions."""
_FIXED_SIZES = (1, 4)
"""Sizes of the batches that have a compiled model of their own. Each size costs up to 1.2 s of processor time at the
load, and 10 to 40 MB of memory. Batches of 4 are about as fast per image as larger ones."""


def unavailable_reason() -> str:
    """Return why this backend cannot be used on this machine, or an empty text if the backend can be used."""
    return "" if find_spec("openvino") else "OpenVINO is not installed: pip install 'sightline[openvino]'"


class _Compiled(NamedTuple):
    """A model that is compiled several times: for batches of any size, and for batches of each of ``_FIXED_SIZES``.

    For batches of any size, OpenVINO infers the shapes inside of the model at each call, which takes longer.
    """

    any_size: openvino.CompiledModel
    """Computes batches of any size."""
    fixed: Mapping[int, openvino.CompiledModel]
    """Compute batches of one size each, by the size."""


class OpenVinoSlot(Slot):
    """Slot with OpenVINO inference requests of its own, one for each compiled model.

    The requests read the slot's pixels without a copy.
    """

    def __init__(self, pixels: Images, compiled: _Compiled) -> None:
        super().__init__(pixels)
        self._any_size = compiled.any_size.create_infer_request()
        self._fixed = {size: each.create_infer_request() for size, each in compiled.fixed.items()}
        self.error = ""
        """Error message of the slot's batch if OpenVINO could not start the batch, else an empty text."""

    @property
    def request(self) -> openvino.InferRequest:
        """The request that computes the submitted batch."""
        return self._fixed.get(self.rows, self._any_size)


class OpenVinoEngine(Engine):
    """Engine with one model, which is compiled for batches of any size, and again for the most frequent sizes.

    The engine computes up to ``workers`` batches at the same time, each on one core. Batches with a compiled model of
    their own may be computed beside ``workers`` other batches.

    The engine has ``cpu_slots(workers)`` slots (sets of buffers for one batch), so that the caller can fill or decode
    one batch while all workers compute, if a core is left for it. The engine computes in the precision of the model's
    manifest, or in fp32 if OpenVINO does not support that precision on this CPU.
    """

    def __init__(self, workers: int = 1) -> None:
        self._workers = workers
        super().__init__(slots=cpu_slots(workers))
        self._compiled: _Compiled | None = None
        self._names: list[str] = []

    @property
    def parallel(self) -> int:
        """Number of batches that the engine computes at the same time."""
        return self._workers

    @property
    def inference_precision(self) -> str:
        """Precision of those layers of the loaded model that are not int8, as OpenVINO's name: f32, bf16 or f16."""
        assert self._compiled is not None  # noqa: S101  (narrows the type)
        name: str = self._compiled.any_size.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        return name

    def _load_impl(self, model: Model) -> None:
        core = _core()  # before ``_read`` imports a part of OpenVINO: see ``_core``
        read = _read(model)
        any_size = self._compile(core, model, read)
        spec = model.manifest.input
        inputs = [(i.get_any_name(), i.get_element_type().get_type_name()) for i in any_size.inputs]
        if inputs != [(spec.name, "u8")]:
            raise ModelLoadFailed(
                f"model file {model.path}: inputs are {inputs}: expected one uint8 input named {spec.name}. "
                "Add a model with float inputs by `sightline models add`."
            )
        fixed = {
            size: self._compile(core, model, read, (size, spec.height, spec.width, CHANNELS))
            for size in _FIXED_SIZES
            if size <= model.manifest.max_batch
        }
        self._compiled = _Compiled(any_size, fixed)
        self._names = [output.get_any_name() for output in any_size.outputs]

    def _compile(
        self, core: openvino.Core, model: Model, read: openvino.Model, shape: Sequence[int] | None = None
    ) -> openvino.CompiledModel:
        """Compile a model, for inputs of a fixed shape if ``shape`` is given. Raise ModelLoadFailed."""
        try:
            if shape:
                read.reshape(list(shape))
            return core.compile_model(read, "CPU", self._options(model.manifest.precision))
        except Exception as error:  # OpenVINO raises RuntimeError and exceptions of its own, without a common base
            raise _load_failed(model, error) from None

    def _options(self, precision: Precision) -> dict[str, Any]:
        if precision == "int8" and processor().instruction("bf16"):
            precision = "bf16"  # of the layers that are not between quantise and dequantise nodes
        supported = _CAPABILITIES.get(precision) in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return {
            "INFERENCE_PRECISION_HINT": _HINTS[precision] if supported else "f32",
            "NUM_STREAMS": self._workers,
            "INFERENCE_NUM_THREADS": self._workers,
            # With pinning, several models of a node would share the same cores.
            "ENABLE_CPU_PINNING": False,
        }

    def _make_slot(self, shape: tuple[int, int, int, int]) -> Slot:
        assert self._compiled is not None  # noqa: S101  (narrows the type: load has set it)
        return OpenVinoSlot(np.zeros(shape, np.uint8), self._compiled)

    def _submit_impl(self, slot: Slot) -> None:
        import openvino

        assert isinstance(slot, OpenVinoSlot)  # noqa: S101  (narrows the type: see _make_slot)
        slot.error = ""
        try:
            slot.request.set_input_tensor(openvino.Tensor(slot.pixels[: slot.rows], shared_memory=True))
            slot.request.start_async()
        except RuntimeError as error:
            slot.error = _last_line(error)

    def _collect_impl(self, slot: Slot) -> Outputs:
        assert isinstance(slot, OpenVinoSlot)  # noqa: S101  (narrows the type: see _make_slot)
        if slot.error:
            raise InferenceFailed(slot.error)
        try:
            slot.request.wait()
            return {name: slot.request.get_output_tensor(i).data for i, name in enumerate(self._names)}
        except RuntimeError as error:
            raise InferenceFailed(_last_line(error)) from None

    def _trim_impl(self) -> None:
        assert self._compiled is not None  # noqa: S101  (narrows the type: the base class has checked)
        for compiled in (self._compiled.any_size, *self._compiled.fixed.values()):
            compiled.release_memory()

    def _close_impl(self) -> None:
        self._compiled = None


@functools.cache
def _core() -> openvino.Core:
    """Return the OpenVINO ``Core``, of which a process makes only one, because each ``Core`` loads all plug-ins.

    OpenVINO reports each import to Google Analytics through the package ``openvino_telemetry``. To prevent usage
    reports to Google Analytics, this function makes imports of ``openvino_telemetry`` fail, and OpenVINO then uses a
    stub.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino.Core()


def _read(model: Model) -> openvino.Model:
    """Read an ONNX model file. Raise ModelLoadFailed.

    ``Core.read_model`` is not used, because it also tries six other file formats.
    """
    from openvino.frontend import FrontEndManager

    front_end = FrontEndManager().load_by_framework("onnx")
    try:
        read = front_end.convert(front_end.load(str(model.path)))
        rewrite(read)
        return read
    except Exception as error:  # as in OpenVinoEngine._compile
        raise _load_failed(model, error) from None


def _load_failed(model: Model, error: Exception) -> ModelLoadFailed:
    return ModelLoadFailed(
        f"model file {model.path}: {_last_line(error)}: expected an ONNX model that OpenVINO can compile"
    )


def _last_line(error: Exception) -> str:
    """Return the last line of an OpenVINO error, which names the cause.

    The other lines of the error only name OpenVINO's source files.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else repr(error)
