"""A clean stop: the first SIGTERM, SIGINT or SIGHUP asks for it."""

from __future__ import annotations

import asyncio
import signal


def stop_event() -> asyncio.Event:
    """Return an event of the running loop that SIGTERM, SIGINT and SIGHUP set. Call it in the main thread.

    A terminal that is closed sends SIGHUP, which would end the process in the middle of what it does. Where it is
    ignored, as under nohup(1), it goes on being ignored.
    """
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
            continue
        loop.add_signal_handler(number, event.set)
    return event
