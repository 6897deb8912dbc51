"""The event loop of a process, the signals that stop the process, and coroutines that run beside its work."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a new uvloop event loop.

    Event loops that libraries create later in other threads, such as Faust's fetcher thread, are also uvloops. All
    services send and receive large records through sockets. With uvloop instead of asyncio's own loop, a busy engine
    node or stream processor has about 5 % more processor time for its other work (``benchmarks/results``).
    """
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    return asyncio.run(work)


def stop_event() -> asyncio.Event:
    """Return an asyncio event that is set when the process receives SIGTERM, SIGINT or SIGHUP.

    Call this function in the main thread. SIGHUP is handled because a terminal sends SIGHUP when the terminal is
    closed, and an unhandled SIGHUP would kill the process in the middle of its work. If the process was started with
    SIGHUP ignored, as nohup(1) does, SIGHUP stays ignored.
    """
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
            continue
        loop.add_signal_handler(number, event.set)
    return event


@contextlib.asynccontextmanager
async def running_beside(stop: asyncio.Event, *work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run coroutines until the block ends.

    If a coroutine ends before the block, set ``stop``. If it failed, raise its error at the end of the block, even if
    the block fails too, because the failure of the block may be a consequence.
    """
    tasks = [asyncio.create_task(each) for each in work]
    for task in tasks:
        task.add_done_callback(lambda done: None if done.cancelled() else stop.set())
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()
