"""Inspect and adopt foreign models in a child process with bounds on memory and processor time.

A file of unknown origin may be crafted to take all memory or to compute for ever. Beyond a limit, only the child
ends, and the caller gets one clear error.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from engines.exceptions import AdoptFailed
from engines.repository.inspection import MAX_BYTES, require_model_file
from engines.repository.report import ModelReport, Overrides
from engines.repository.store import Repository

_GIB = 2**30
_COPIES = 12
"""Memory of a child as a multiple of the model's size: the graph, the wrapped graphs, their messages and sessions."""
_WALL_PER_CPU = 10
"""Maximum ratio of elapsed time to processor time. A busy machine may give a child a tenth of a core."""


class ChildLimits(NamedTuple):
    """Bounds of a child process: processor time in seconds, and address space in bytes besides the model's copies."""

    cpu_s: int = 120
    base_bytes: int = 4 * _GIB


class ChildRequest(BaseModel):
    """Task of the child. With an empty ``repository``, the child only inspects the file."""

    model_config = ConfigDict(frozen=True)

    file: Path
    name: str
    repository: Path | None
    overrides: Overrides
    cpu_s: int
    memory_bytes: int


class ChildAnswer(BaseModel):
    """Answer of the child: a report, or the message of an error."""

    report: ModelReport | None = None
    error: str = ""


def examine(
    file: Path,
    name: str = "model",
    overrides: Overrides | None = None,
    repository: Path | None = None,
    limits: ChildLimits | None = None,
) -> ModelReport:
    """Inspect a model file, and adopt the model if ``repository`` is given.

    A child that is killed leaves no files: this process deletes the child's temporary folder and incomplete version.
    Raise AdoptFailed for a file that is refused, or that exceeds the limits.
    """
    require_model_file(file)
    limits = limits or ChildLimits()
    memory = limits.base_bytes + _COPIES * min(_total_bytes(file), MAX_BYTES)
    request = ChildRequest(
        file=file,
        name=name,
        repository=repository,
        overrides=overrides or Overrides(),
        cpu_s=limits.cpu_s,
        memory_bytes=memory,
    )
    with tempfile.TemporaryDirectory() as temporary:
        done = _run(request, temporary)
    return _report(file, done, limits.cpu_s, memory)


def _run(request: ChildRequest, temporary: str) -> subprocess.CompletedProcess[bytes]:
    """Run the child, whose temporary files go to ``temporary``.

    Raise AdoptFailed if the child exceeds the time limit.
    """
    command = [sys.executable, "-P", "-m", "engines.repository.child"]
    wall_s = request.cpu_s * _WALL_PER_CPU
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": temporary},
    ) as child:
        try:
            stdout, stderr = child.communicate(request.model_dump_json().encode(), wall_s)
        except subprocess.TimeoutExpired:
            raise AdoptFailed(_beyond(request.file, f"{wall_s} s")) from None
        finally:
            child.kill()  # kill does nothing if the child has ended
            child.wait()
            if request.repository:
                for part in Repository(request.repository).parts(request.name, child.pid):
                    shutil.rmtree(part, ignore_errors=True)
    return subprocess.CompletedProcess(command, child.returncode, stdout, stderr)


def _report(file: Path, done: subprocess.CompletedProcess[bytes], cpu_s: int, memory: int) -> ModelReport:
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise AdoptFailed(_beyond(file, f"{cpu_s} s of processor time"))
    try:
        answer = ChildAnswer.model_validate_json(done.stdout)
    except ValidationError:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise AdoptFailed(
            f"model file {file}: its inspection ended with {last[0]!r} within {memory // 2**20} MiB of memory: "
            "expected a sound ONNX model"
        ) from None
    if answer.report is None:
        raise AdoptFailed(answer.error)
    return answer.report


def _beyond(file: Path, limit: str) -> str:
    return (
        f"model file {file}: inspection takes more than {limit}: expected less. Pass --max-seconds for a large file"
    )


def _total_bytes(file: Path) -> int:
    """Return the size of a model file and of the weight files beside it."""
    beside = [p for p in file.absolute().parent.glob(f"{file.name}*") if p.is_file()]
    return sum(p.stat().st_size for p in {file.absolute(), *beside})
