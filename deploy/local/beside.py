"""Work beside a block of code, whose failure ends the block at once instead of going unseen."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any


@contextlib.asynccontextmanager
async def beside(work: Coroutine[Any, Any, None], *, to_its_end: bool = False) -> AsyncIterator[None]:
    """Run work while the block runs, and cancel it when the block ends; with ``to_its_end``, wait for it.

    When the work fails, the block is cancelled and the work's own error raised. When the block raises, the work is
    cancelled and the block's own error raised.
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
    if failures:  # out of the handler: the group holds nothing that the error itself does not say
        raise failures[0]
