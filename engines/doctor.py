"""Report about the devices, libraries and backends of an engine node, and the speed of its models."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, get_args

from engines import backends
from engines.backends.hardware import INSTRUCTIONS, cuda, processor
from engines.backends.tensorrt.plans import default_folder
from engines.exceptions import EngineError
from engines.gpuuse import GpuMonitor
from engines.repository.manifest import Model
from engines.repository.store import Repository
from engines.speed import batch_speed
from ingest.runtime.cpus import cpu_count
from ingest.site.pipeline import Precision

PACKAGES = ("onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "pycuda", "nvidia-ml-py", "numpy")
"""Python packages whose versions the report lists, because a backend depends on them."""
TIMED_S = 0.5
"""Minimum time for which a model is run to measure its speed, in seconds."""


@dataclass(frozen=True, slots=True)
class ModelTiming:
    """Speed of a model on a backend that runs one batch at a time, or the reason why the model cannot run."""

    model: str
    precision: str
    backend: str
    auto: bool
    """Whether the backend setting ``auto`` chooses this backend for the model."""
    batch: int = 0
    """Batch size that warm-up found to be the fastest."""
    ms_per_batch: float = 0.0
    images_per_s: float = 0.0
    error: str = ""


def describe_machine(monitor: GpuMonitor | None = None) -> dict[str, Any]:
    """Return facts about this machine's processor, GPUs, package versions, cached TensorRT plans and backends.

    The result can be serialised as JSON. ``backends`` maps a backend's name to the reason why the backend cannot be
    used, or to "" if it can. ``auto`` maps each precision to the backend that the setting ``auto`` chooses.
    """
    with contextlib.closing(monitor or GpuMonitor()) as monitor:
        use = {"unavailable_reason": monitor.unavailable_reason, "gpus": list(map(asdict, monitor.read()))}
    cpu = processor()
    known = {flag for wanted in INSTRUCTIONS.values() for flag, _ in wanted}
    return {
        "processor": {
            "name": cpu.name,
            "cores": cpu_count(),
            "instructions": sorted(cpu.flags & known),
        },
        "nvidia": asdict(cuda()),
        "gpu_use": use,
        "versions": _versions(),
        "backends": {name: backends.unavailable_reason(name) for name in backends.BACKENDS},
        "plans": _plans(default_folder()),
        "auto": {precision: asdict(backends.choose_here(precision)) for precision in get_args(Precision)},
    }


def time_models(repository: Repository, timed_s: float = TIMED_S) -> Iterator[ModelTiming]:
    """Measure the served version of each model that engine nodes can load, on each usable backend except ``fake``."""
    names = backends.usable()
    for model in map(repository.open, repository.names()):
        if model.manifest.for_engines:
            yield from (time_model(model, name, timed_s) for name in names)


def time_model(model: Model, backend: str, timed_s: float = TIMED_S) -> ModelTiming:
    """Load and warm up a model, run batches for ``timed_s`` seconds, and return the median time of a batch."""
    manifest = model.manifest
    auto = backends.choose_here(manifest.precision).backend == backend
    timing = ModelTiming(manifest.id, manifest.precision, backend, auto)
    engine = backends.make(backend)
    try:
        engine.load(model)
        engine.warm_up()
        speed = batch_speed(engine, engine.batch_size, timed_s)
    except EngineError as error:
        return replace(timing, error=str(error))
    finally:
        engine.close()
    images_per_s = round(speed.batch * 1000 / speed.p50_ms, 1)
    return replace(timing, batch=speed.batch, ms_per_batch=round(speed.p50_ms, 2), images_per_s=images_per_s)


def _plans(folder: Path) -> dict[str, Any]:
    """Return the TensorRT plan files in a cache folder, each with its size in bytes and the time of its last use."""
    files = []
    for file in sorted(folder.glob("*.plan")):
        with contextlib.suppress(OSError):  # a node may delete a plan meanwhile
            stat = file.stat()
            used = datetime.fromtimestamp(stat.st_mtime, UTC).isoformat(timespec="seconds")
            files.append({"file": file.name, "bytes": stat.st_size, "used": used})
    return {"folder": str(folder), "files": files}


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    return found
