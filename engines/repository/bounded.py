"""Run a task on a foreign file in a child process with bounds on memory and processor time.

A file of unknown origin may be crafted to take all memory or to compute for ever. If the child exceeds a limit, only
the child ends, and the caller gets AdoptFailed. This module imports no parser, because the child bounds itself before
it imports one.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from engines.exceptions import AdoptFailed

_WALL_PER_CPU = 10
"""A child process is killed when its elapsed time reaches this multiple of its limit of processor time. A busy
machine may give a child only a tenth of a core."""

Answer = TypeVar("Answer", bound=BaseModel)


class ChildTask(NamedTuple):
    """A task of a child process: the file, the task's name in errors, and the bounds."""

    file: Path
    noun: str
    expected: str
    cpu_s: int
    memory_bytes: int


def ask_child(
    module: str,
    request: BaseModel,
    answer: type[Answer],
    task: ChildTask,
    temporary: str,
    on_end: Callable[[int], None] = lambda pid: None,
) -> Answer:
    """Run a module as a child process, whose temporary files go to ``temporary``, and return its answer.

    ``request`` has the fields ``cpu_s`` and ``memory_bytes``. ``on_end`` is called with the child's process id after
    its end. Raise AdoptFailed for a child that exceeds its bounds or gives no answer.
    """
    command = [sys.executable, "-P", "-m", module]
    wall_s = task.cpu_s * _WALL_PER_CPU
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
            raise AdoptFailed(_beyond(task, f"{wall_s} s")) from None
        finally:
            child.kill()  # does nothing if the child has ended
            child.wait()
            on_end(child.pid)
    if child.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise AdoptFailed(_beyond(task, f"{task.cpu_s} s of processor time"))
    try:
        return answer.model_validate_json(stdout)
    except ValidationError:
        last = stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit status {child.returncode}"]
        raise AdoptFailed(
            f"model file {task.file}: its {task.noun} ended with {last[0]!r} within {task.memory_bytes // 2**20} MiB "
            f"of memory: expected {task.expected}"
        ) from None


def answer_parent(answer: Callable[[bytes], str]) -> None:
    """Answer the request on standard input by a line of JSON on standard output. A child process calls this.

    The bounds of the request hold from here on.
    """
    raw = sys.stdin.buffer.read()
    given = json.loads(raw)
    _bound(resource.RLIMIT_CPU, given["cpu_s"])
    _bound(resource.RLIMIT_AS, given["memory_bytes"])
    _bound(resource.RLIMIT_CORE, 0)
    answers = os.dup(1)
    os.dup2(2, 1)  # libraries may print
    os.write(answers, answer(raw).encode())


def _bound(kind: int, limit: int) -> None:
    hard = resource.getrlimit(kind)[1]
    allowed = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(kind, (allowed, hard))  # at the soft limit, SIGXCPU ends the process


def _beyond(task: ChildTask, limit: str) -> str:
    return (
        f"model file {task.file}: {task.noun} takes more than {limit}: expected less. Pass --max-seconds "
        "for a large file"
    )
