"""Background work of a code block. A failure of the work ends the block at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any


@contextlib.asynccontextmanager
async def beside(work: Coroutine[Any, Any, None], *, to_its_end: bool = False) -> AsyncIterator[None]:
    """Run work while the block runs. When the block ends, cancel the work, or with ``to_its_end`` wait for it.

    If the work fails, the block is cancelled and the work's error is raised. If the block raises, the work is
    cancelled and the block's error is raised.
    """
    failures: tuple[BaseException, ...] = ()
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(work)
            yield
            if not to_its_end:
                task.cancel()
    except BaseExceptionGroup as failed:
        failures = failed.exceptions
    if failures:  # raised outside the handler, so that the traceback does not repeat the exception group
        raise failures[0]
