"""Build of a TensorRT plan from an ONNX file. This module has not run on a GPU yet.

All names of TensorRT's Python API that this module uses exist in TensorRT 10.13 and 11.4. The module builds strongly
typed networks, in which the ONNX file alone decides the precision of each layer.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from engines.backends.tensorrt.plans import BuildOptions
from engines.engine import CHANNELS
from engines.exceptions import BuildCancelled, ModelLoadFailed
from engines.repository.manifest import Model
from ingest.runtime import logs

_log = logs.get("engines.backends.tensorrt.builder")

LOG_LINES_KEPT = 8
"""Number of TensorRT's last error lines that an error message quotes."""


class BuildProgress(NamedTuple):
    """Progress of one phase of TensorRT's builder: the name of the phase, and its finished and total steps.

    Phases can be nested and can overlap.
    """

    phase: str
    step: int
    steps: int


class BuiltPlan(NamedTuple):
    """A compiled model (plan), and the kernel timings that TensorRT measured in this build and in earlier builds."""

    plan: bytes
    timings: bytes


class BuildControl:
    """Reports the progress of a build to ``on_progress``, and lets another thread cancel the build.

    TensorRT calls ``on_progress`` from its builder threads.
    """

    def __init__(self, on_progress: Callable[[BuildProgress], None] = lambda _: None) -> None:
        self.on_progress = on_progress
        self._cancelled = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Return whether ``cancel`` has been called."""
        return self._cancelled.is_set()

    def report(self, progress: BuildProgress) -> None:
        """Call ``on_progress``.

        This method logs errors of ``on_progress`` and does not raise them, because an exception in TensorRT's thread
        would end the process.
        """
        try:
            self.on_progress(progress)
        except Exception as error:
            _log.warning("build_progress_failed", error=repr(error))

    def cancel(self) -> None:
        """Cancel the build. TensorRT ends the build after the current step."""
        self._cancelled.set()


def build(
    trt: Any, logger: Any, model: Model, options: BuildOptions, timings: bytes, control: BuildControl
) -> BuiltPlan:
    """Compile a model to a TensorRT plan. The compilation takes minutes.

    The CUDA context of the device must be current in the calling thread.

    Raise ModelLoadFailed with TensorRT's errors if the build fails, and BuildCancelled if the build was cancelled.
    """
    if control.cancelled:
        raise BuildCancelled(f"the build of {model.manifest.id} was cancelled")
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(model.path)):
        raise ModelLoadFailed(f"model file {model.path}: TensorRT cannot parse it: {_parser_errors(parser)}")
    _require_input(trt, network, model)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    config.builder_optimization_level = options.level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.progress_monitor = monitor = make_monitor(trt, control)
    _require_profile(config, _profile(builder, model, options), model)
    cache = config.create_timing_cache(timings)
    if not config.set_timing_cache(cache, False):  # the timings are of another version or device
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    plan = builder.build_serialized_network(network, config)
    del monitor
    if control.cancelled:
        raise BuildCancelled(f"the build of {model.manifest.id} was cancelled")
    if plan is None:
        raise ModelLoadFailed(f"model file {model.path}: TensorRT cannot build it: {logger.recent()}")
    return BuiltPlan(bytes(memoryview(plan)), bytes(memoryview(config.get_timing_cache().serialize())))


def make_logger(trt: Any) -> Any:
    """Return a TensorRT logger that writes to this project's log.

    The method ``recent`` of the logger returns TensorRT's last error messages as one text.

    TensorRT calls the logger from several threads.
    """
    severe = (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR)

    class TensorRtLogger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: deque[str] = deque(maxlen=LOG_LINES_KEPT)  # append is atomic

        def log(self, severity: Any, msg: str) -> None:
            if severity in severe:
                self._errors.append(msg)
                _log.error("tensorrt_error", message=msg)
            elif severity == trt.ILogger.WARNING:
                _log.warning("tensorrt_warning", message=msg)

        def recent(self) -> str:
            return "; ".join(self._errors) or "TensorRT has logged no error"

    return TensorRtLogger()


def make_monitor(trt: Any, control: BuildControl) -> Any:
    """Return a TensorRT progress monitor that reports to ``control`` and stops a cancelled build.

    TensorRT calls the monitor from its builder threads.
    """

    class ProgressMonitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            control.report(BuildProgress(phase_name, 0, num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            control.report(BuildProgress(phase_name, step + 1, self._steps.get(phase_name, step + 1)))
            return not control.cancelled

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return ProgressMonitor()


def _require_input(trt: Any, network: Any, model: Model) -> None:
    """Raise ModelLoadFailed unless the network has one uint8 input with the name and shape of the manifest."""
    spec = model.manifest.input
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    found = [(tensor.name, str(tensor.dtype), tuple(tensor.shape)) for tensor in inputs]
    wanted = (spec.height, spec.width, CHANNELS)
    right = len(inputs) == 1 and inputs[0].name == spec.name and inputs[0].dtype == trt.DataType.UINT8
    if not right or not _fits(tuple(inputs[0].shape), wanted, model.manifest.max_batch):
        raise ModelLoadFailed(
            f"model file {model.path}: inputs are {found}: expected one uint8 input {spec.name} of shape "
            f"(N, {', '.join(map(str, wanted))}) with a dynamic N, or N = {model.manifest.max_batch} = 1. "
            "Add a model with float inputs by `sightline models add`."
        )


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...], max_batch: int) -> bool:
    """Return whether an input of ``shape`` accepts images of the size ``wanted`` in batches of up to ``max_batch``.

    An axis of any size has the value -1 in ``shape``.
    """
    if len(shape) != 1 + len(wanted) or shape[0] not in (-1, 1) or (shape[0] == 1 and max_batch > 1):
        return False
    return all(size in (-1, expected) for size, expected in zip(shape[1:], wanted, strict=True))


def _profile(builder: Any, model: Model, options: BuildOptions) -> Any:
    """Return an optimisation profile for batches of 1 to ``max_batch`` images, tuned for ``opt_batch`` images."""
    spec = model.manifest.input
    rest = (spec.height, spec.width, CHANNELS)
    profile = builder.create_optimization_profile()
    profile.set_shape(spec.name, min=(1, *rest), opt=(options.opt_batch, *rest), max=(options.max_batch, *rest))
    return profile


def _require_profile(config: Any, profile: Any, model: Model) -> None:
    if config.add_optimization_profile(profile) < 0:
        raise ModelLoadFailed(
            f"model file {model.path}: TensorRT refuses batches of 1 to {model.manifest.max_batch} images. "
            "Export the model with a dynamic first axis"
        )


def _parser_errors(parser: Any) -> str:
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    texts = [f"{error.node_operator()} {error.node_name()}: {error.desc()}" for error in errors[:LOG_LINES_KEPT]]
    return "; ".join(texts) or "without a reason"
