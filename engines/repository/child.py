"""Entry point of the child process that reads foreign models.

The child limits its own memory and processor time before it imports a parser.
"""

from __future__ import annotations

import json
import os
import resource
import sys


def main() -> None:
    """Read a request from standard input, and write the answer as a line of JSON to standard output."""
    raw = sys.stdin.buffer.read()
    given = json.loads(raw)
    _bound(resource.RLIMIT_CPU, given["cpu_s"])
    _bound(resource.RLIMIT_AS, given["memory_bytes"])
    _bound(resource.RLIMIT_CORE, 0)
    answers = os.dup(1)
    os.dup2(2, 1)  # libraries may print to standard output
    os.write(answers, _answer(raw).encode())


def _bound(kind: int, limit: int) -> None:
    hard = resource.getrlimit(kind)[1]
    allowed = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(kind, (allowed, hard))  # at the soft limit, SIGXCPU ends the process


def _answer(raw: bytes) -> str:
    from engines.exceptions import EngineError
    from engines.repository.guard import ChildAnswer, ChildRequest
    from engines.repository.proposal import examined

    request = ChildRequest.model_validate_json(raw)
    try:
        report = examined(request.file, request.name, request.overrides, request.repository)
    except EngineError as error:
        return ChildAnswer(error=str(error)).model_dump_json()
    except MemoryError:
        bound = request.memory_bytes // 2**20
        return ChildAnswer(
            error=f"model file {request.file}: more than {bound} MiB of memory needed: expected a smaller model"
        ).model_dump_json()
    return ChildAnswer(report=report).model_dump_json()


if __name__ == "__main__":
    main()
