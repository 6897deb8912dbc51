"""Child processes for long computations, so that the console answers requests meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Mapping

from ingest.runtime import logs

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
