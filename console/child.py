"""Child processes for long computations, so that the console answers requests meanwhile.

A child process prints one JSON object per line: ``{"progress": [READ, ALL]}``, and at last ``{"report": …}`` or
``{"problem": TEXT}``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping

from ingest.exceptions import IngestError
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Log
from ingest.kafka.settings import KafkaSettings
from ingest.runtime import eventloop, logs
from stream.exceptions import StreamError

NICENESS = 10
"""Niceness of a child process, so that services on the same machine get the processor first."""

_LINE_BYTES = 64 * 1024 * 1024
"""Maximum length of a line of a child process, in bytes. A ledger takes about 11 kB for each camera and day, in one
line."""
_log = logs.get("console.child")


async def run_child(
    module: str, request: str, env: Mapping[str, str], take: Callable[[bytes], None], longest_s: float
) -> str:
    """Run a module as a child process, and pass each line of its output to ``take``.

    The process gets ``request`` on its standard input, and ``env`` in addition to the environment of the console. The
    process is killed after ``longest_s`` seconds, and when the caller is cancelled. Return the end of a sentence,
    such as "could not be started", that tells why the process printed no report.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **env},
            limit=_LINE_BYTES,
        )
    except OSError as error:
        _log.warning("child_not_started", module=module, error=str(error))
        return f"could not be started: {error.strerror}"
    assert process.stdin is not None  # noqa: S101  (a pipe, as asked for)
    assert process.stdout is not None  # noqa: S101
    assert process.stderr is not None  # noqa: S101
    errors = asyncio.create_task(process.stderr.read())
    problem = "ended without a report"
    try:
        async with asyncio.timeout(longest_s):
            process.stdin.write(request.encode())
            process.stdin.close()
            async for line in process.stdout:
                take(line)
            await process.wait()
    except TimeoutError:
        problem = f"took more than {longest_s:.0f} s"
    except ValueError as error:
        problem = f"printed a line that cannot be read: {error}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        text = (await errors).decode(errors="replace")
        if process.returncode:
            _log.warning("child_failed", module=module, status=process.returncode, error=text[-1000:])
    return problem


def compute(client: str, work: Callable[[Log, Callable[[int, int], None]], Awaitable[object]]) -> None:
    """Compute a report from the log in this child process, and print progress and report, or the problem.

    ``work`` gets the log and a function to call with the number of records read and the number of all records.
    ``client`` is the beginning of the Kafka client id.
    """
    os.nice(NICENESS)
    logs.quiet_clients()

    async def computed() -> dict[str, object]:
        try:
            async with KafkaLog(KafkaSettings.from_env(os.environ), f"{client}-{os.getpid()}") as log:
                return {"report": await work(log, lambda read, total: _say({"progress": [read, total]}))}
        except (IngestError, StreamError) as error:
            return {"problem": str(error)}

    _say(eventloop.run(computed()))


def _say(message: object) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()
