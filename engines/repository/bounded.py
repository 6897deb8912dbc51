"""Run a task on a foreign file in a child process with limited memory and processor time.

A file of unknown origin may be crafted to take all memory or to compute for ever. If the child exceeds a limit, only
the child ends, and the caller gets AdoptFailed. This module imports no parser, because the child limits its own
memory and time before it imports a parser.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from engines.exceptions import AdoptFailed, EngineError

_WALL_PER_CPU = 10
"""A child process is killed when its elapsed time reaches this multiple of its limit of processor time. A busy
machine may give a child only a tenth of a core."""

Answer = TypeVar("Answer", bound=BaseModel)


class BoundedRequest(BaseModel):
    """Task of a child process on a foreign file, and the bounds of the child."""

    model_config = ConfigDict(frozen=True)

    file: Path
    cpu_s: int
    memory_bytes: int


class ChildFailure(BaseModel):
    """Answer of a child process that failed: the message of the error."""

    error: str


class ChildTask(NamedTuple):
    """A module to run as a child process, and two texts for error messages: the name of the task, and the expected
    file."""

    module: str
    noun: str
    expected: str


def ask_child(
    task: ChildTask,
    request: BoundedRequest,
    answer: type[Answer],
    on_end: Callable[[int], None] = lambda pid: None,
) -> Answer:
    """Run a child process, and return its answer.

    After the child ends, its temporary files are deleted, and ``on_end`` is called with its process id. Raise
    AdoptFailed for a child that fails, exceeds its bounds or gives no answer.
    """
    command = [sys.executable, "-P", "-m", task.module]
    wall_s = request.cpu_s * _WALL_PER_CPU
    with (
        tempfile.TemporaryDirectory() as temporary,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "TMPDIR": temporary},
        ) as child,
    ):
        try:
            stdout, stderr = child.communicate(request.model_dump_json().encode(), wall_s)
        except subprocess.TimeoutExpired:
            raise AdoptFailed(_beyond(task, request, f"{wall_s} s")) from None
        finally:
            child.kill()  # does nothing if the child has ended
            child.wait()
            on_end(child.pid)
    if child.returncode == -signal.SIGXCPU:
        raise AdoptFailed(_beyond(task, request, f"{request.cpu_s} s of processor time"))
    if child.returncode == -signal.SIGKILL:
        raise AdoptFailed(
            f"model file {request.file}: its {task.noun} was killed, because it took more memory than is free, or "
            f"more than {request.cpu_s} s of processor time. Free memory, or pass --max-seconds for a large file"
        )
    either: Any = answer | ChildFailure
    try:
        found: Answer | ChildFailure = TypeAdapter(either).validate_json(stdout)
    except ValidationError:
        last = stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit status {child.returncode}"]
        raise AdoptFailed(
            f"model file {request.file}: its {task.noun} failed with {last[0]!r} within "
            f"{request.memory_bytes // 2**20} MiB of memory: expected {task.expected}"
        ) from None
    if isinstance(found, ChildFailure):
        raise AdoptFailed(found.error)
    return found


def answer_parent(work: Callable[[bytes], BaseModel]) -> None:
    """Do the task of the request on standard input, and write the answer to standard output as JSON.

    A child process calls this function. The function limits the memory and the processor time of this process to the
    bounds in the request. An EngineError or a lack of memory is answered by a ChildFailure.
    """
    raw = sys.stdin.buffer.read()
    given = json.loads(raw)
    _bound(resource.RLIMIT_CPU, given["cpu_s"])
    _bound(resource.RLIMIT_AS, given["memory_bytes"])
    _bound(resource.RLIMIT_CORE, 0)
    answers = os.dup(1)
    os.dup2(2, 1)  # libraries may print
    try:
        answer = work(raw).model_dump_json()
    except EngineError as error:
        answer = ChildFailure(error=str(error)).model_dump_json()
    except MemoryError:
        bound = f"more than {given['memory_bytes'] // 2**20} MiB of memory needed: expected a smaller model"
        answer = ChildFailure(error=f"model file {given['file']}: {bound}").model_dump_json()
    os.write(answers, answer.encode())


def _bound(kind: int, limit: int) -> None:
    hard = resource.getrlimit(kind)[1]
    allowed = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(kind, (allowed, hard))  # at the soft limit, SIGXCPU ends the process


def _beyond(task: ChildTask, request: BoundedRequest, limit: str) -> str:
    return (
        f"model file {request.file}: {task.noun} takes more than {limit}: expected less. Pass --max-seconds "
        "for a large file"
    )
