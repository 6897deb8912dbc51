"""The event loop of a process, and the signals that stop it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a new uvloop event loop.

    Event loops that libraries create later in other threads are also uvloops, such as the one of Faust's fetcher.
    Every service moves large records through sockets: with uvloop, a busy engine node or stream processor has about 5
    % more processor time for its work (``benchmarks/results``).
    """
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    return asyncio.run(work)


def stop_event() -> asyncio.Event:
    """Return an event of the running loop that SIGTERM, SIGINT and SIGHUP set. Call this function in the main thread.

    A terminal that closes sends SIGHUP, which would kill the process in the middle of its work. A SIGHUP that is
    ignored, as under nohup(1), stays ignored.
    """
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
            continue
        loop.add_signal_handler(number, event.set)
    return event
