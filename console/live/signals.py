"""Wakes the tasks that wait for changed data, in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator


class Signal:
    """Wakes all subscribers. Several notifications before a subscriber looks wake the subscriber only once."""

    def __init__(self) -> None:
        self._subscribers: set[asyncio.Event] = set()

    def notify(self) -> None:
        """Wake all subscribers."""
        for event in self._subscribers:
            event.set()

    @contextlib.contextmanager
    def subscribed(self, event: asyncio.Event | None = None) -> Iterator[asyncio.Event]:
        """Yield an event that ``notify`` sets; the subscriber clears it."""
        event = event or asyncio.Event()
        self._subscribers.add(event)
        try:
            yield event
        finally:
            self._subscribers.discard(event)
