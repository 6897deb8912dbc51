"""The one place where a process gets its event loop.

uvloop, because every service moves large records through sockets: with it a core of a busy engine node or stream
processor has about 5 % more left for its work (`benchmarks/results`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in an event loop of its own.

    Loops that are made later, in threads of libraries, are of the same kind: Faust fetches in one of its own.
    """
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    with asyncio.Runner() as runner:
        return runner.run(work)
