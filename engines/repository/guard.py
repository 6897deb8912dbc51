"""Inspect and adopt foreign models in a child process with limited memory and processor time."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from engines.repository.bounded import BoundedRequest, ChildTask, ask_child
from engines.repository.inspection import MAX_BYTES, require_model_file
from engines.repository.report import ConvertedFrom, ModelReport, Overrides
from engines.repository.store import Repository

_GIB = 2**30
_COPIES = 12
"""Memory limit of a child process as a multiple of the model's size. The child's memory holds the graph, its copies
with preprocessing added, and the protobuf message and the ONNX Runtime session of each."""


class ChildLimits(NamedTuple):
    """Limits of a child process: processor time in s, and address space in bytes in addition to the copies of the
    model."""

    cpu_s: int = 120
    base_bytes: int = 4 * _GIB


class ChildRequest(BoundedRequest):
    """Task of the child process. Without a ``repository``, the child only inspects the file."""

    name: str
    repository: Path | None
    overrides: Overrides
    converted: ConvertedFrom | None


def examine(
    file: Path,
    name: str = "model",
    overrides: Overrides | None = None,
    repository: Path | None = None,
    limits: ChildLimits | None = None,
    converted: ConvertedFrom | None = None,
) -> ModelReport:
    """Inspect a model file, and adopt the model if ``repository`` is given.

    ``converted`` describes the file from which ``file`` was converted. A child that is killed leaves no files: this
    process deletes the child's temporary folder and incomplete version. Raise AdoptFailed for a file that is refused,
    or that exceeds the limits.
    """
    require_model_file(file)
    limits = limits or ChildLimits()
    request = ChildRequest(
        file=file,
        name=name,
        repository=repository,
        overrides=overrides or Overrides(),
        converted=converted,
        cpu_s=limits.cpu_s,
        memory_bytes=limits.base_bytes + _COPIES * min(_total_bytes(file), MAX_BYTES),
    )
    task = ChildTask("engines.repository.child", "inspection", "a sound ONNX model")

    def clean_up(pid: int) -> None:
        if repository:
            for part in Repository(repository).parts(name, pid):
                shutil.rmtree(part, ignore_errors=True)

    return ask_child(task, request, ModelReport, clean_up)


def _total_bytes(file: Path) -> int:
    """Return the total size in bytes of a model file and of the weight files beside the model file."""
    beside = [p for p in file.absolute().parent.glob(f"{file.name}*") if p.is_file()]
    return sum(p.stat().st_size for p in {file.absolute(), *beside})
