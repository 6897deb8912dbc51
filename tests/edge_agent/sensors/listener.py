"""Sink for readings on which tests can wait, and a short constructor for sensors."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Any

from edge_agent.sensors.source import Reading, SensorSource
from ingest.site import SensorConfig


def sensor(name: str, source: str, **values: Any) -> SensorConfig:
    return SensorConfig(name=name, source=source, **{"quantity": "q", "unit": "1", "rate_hz": 200.0} | values)


class Listener:
    """Sink that records every call of a source."""

    def __init__(self) -> None:
        self.opens = 0
        self.readings: dict[str, list[Reading]] = defaultdict(list)
        self.unwanted: list[str] = []
        self.limits: list[str] = []
        self.silent: dict[str, str] = {}
        self._changed = asyncio.Event()

    def opened(self) -> None:
        self.opens += 1
        self._changed.set()

    def take(self, sensor: str, reading: Reading) -> None:
        self.readings[sensor].append(reading)
        self._changed.set()

    def lost(self, sensor: str, reason: str) -> None:
        self.silent[sensor] = reason
        self._changed.set()

    def limited(self, limit: str) -> None:
        self.limits.append(limit)
        self._changed.set()

    def unclaimed(self, name: str) -> None:
        self.unwanted.append(name)
        self._changed.set()

    def values(self, name: str) -> list[float | None]:
        return [reading.value for reading in self.readings[name]]

    async def until(self, done: Callable[[], object], seconds: float = 60.0) -> None:
        """Wait for a condition, which is checked after each call of the source."""
        async with asyncio.timeout(seconds):
            while not done():
                self._changed.clear()
                await self._changed.wait()

    async def has(self, name: str, count: int = 1) -> None:
        await self.until(lambda: len(self.readings[name]) >= count)


@contextlib.asynccontextmanager
async def running(source: SensorSource, sink: Listener) -> AsyncIterator[asyncio.Task[None]]:
    """Run a source, and cancel it at the end."""
    task = asyncio.create_task(source.run(sink))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def ended(task: asyncio.Task[None], seconds: float = 60.0) -> BaseException | None:
    """Wait for a source to end by itself, and return its error."""
    await asyncio.wait({task}, timeout=seconds)
    assert task.done()
    return task.exception()
